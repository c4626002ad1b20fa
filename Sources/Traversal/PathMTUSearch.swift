// How large a frame one path takes: packetization-layer path MTU discovery (RFC 8899 §5) as a pure state machine. The
// path choice owns one for each path, sends the probes and tells what became of them; nothing here knows a socket.
//
// Sizes are bytes of the inner frame: what stands between header and tag of a sealed frame. A packet of n bytes travels
// as an inner frame of n bytes, so `limit` is what the engine takes as it is (`EngineCommand.setPathLimit`).
//
// Rules:
// - The first probe is the ceiling itself: most paths take it, and the search is over. PathMachine takes full size for
//   granted until there is evidence (`hasEvidence`): this probe was lost twice, for one loss is no news on many a link,
//   and a Packet Too Big that was not needed makes kernels send small packets for ten minutes.
// - Then `limit` is the base, 1280, until something was answered: any path that carries IPv6 without tunnels of its own
//   takes it or nearly, and it is what the kernel may always send. The base is probed next. Once it went unanswered, too,
//   and nothing has ever passed, `limit` falls to the floor at once: two frames for one packet cost little, a black hole
//   costs everything.
// - What our own kernel says would pass (its link, or what a router told it) is taken for granted as the ceiling was: until
//   its probe was lost twice.
// - A size is too big when 3 probes of it were lost (MAX_PROBES), or when our own kernel refused it. Between the largest
//   answered and the smallest too big it is halved until 8 bytes are left.
// - A verdict by loss may be wrong (losses, an outage): the size just above `limit` is tried again after 30 s, then in
//   growing gaps up to 600 s (PMTU_RAISE_TIMER, §5.1.1). Whether one passes says it of all above: 3 probes tell.
// - An answer proves its size whenever it comes. Only an answer raises `limit`; nothing that a stranger sends does.

internal import Wire

package struct PathMTUSearch: Equatable, Sendable {
  /// Least MTU of IPv6 and BASE_PLPMTU: what the kernel may always send.
  package static let base = 1280
  /// MIN_PLPMTU: what half a packet of 1280 bytes needs.
  package static let floor = SplitFrame.smallestLimit
  /// The search ends when the answer is known to this many bytes.
  package static let resolution = 8
  package static let probesPerSize = 3
  package static let raiseInterval: UInt64 = 600_000_000_000
  package static let firstRaiseInterval: UInt64 = 30_000_000_000

  /// States of RFC 8899 §5.2.
  package enum Phase: String, Sendable {
    /// Nothing is proven yet.
    case base
    case searching
    case complete
    /// Not even the floor passes.
    case error
  }

  /// Largest inner frame to send, the interface's MTU.
  package let ceiling: Int
  /// Largest size that was answered, 0: none.
  private var proven = 0
  /// Smallest size that counts as too big.
  private var tooBig: Int
  /// What our kernel said would pass.
  private var hint: Int?
  /// What is tried after a rest.
  private var step: Int?
  /// The probe that is on its way.
  private var outstanding: Int?
  /// Probes of `lossSize` lost in a row.
  private var losses = 0
  private var lossSize = 0
  /// The ceiling was lost twice, a size was refused, or data of full size seemed to vanish.
  private var isCeilingDoubted = false
  /// A probe of the base or of less failed, or data vanished at it, and nothing of its size has passed since.
  private var isBaseDoubted = false
  /// After a complete search: when to look whether more passes.
  private var raiseAt: UInt64?
  private var raiseGap = PathMTUSearch.firstRaiseInterval

  package init(ceiling: Int) {
    self.ceiling = max(ceiling, Self.base)
    tooBig = self.ceiling + 1
  }

  /// Largest inner frame to send data in.
  package var limit: Int {
    if let hint, isOpen(hint), lossSize != hint || losses < 2 { return hint }
    if proven >= Self.base { return proven }
    return isBaseDoubted ? max(proven, Self.floor) : Self.base
  }

  package var phase: Phase {
    if target != nil { return proven == 0 ? .base : .searching }
    return proven == 0 ? .error : .complete
  }

  /// Whether the ceiling passes is known, or in doubt. An answer of less says nothing against it.
  package var hasEvidence: Bool { proven == ceiling || isCeilingDoubted }

  package var isSearching: Bool { target != nil }

  /// When `nextProbe` will have something, 0 for now; nil while a probe is on its way, and when all is known.
  package var nextDeadline: UInt64? {
    if outstanding != nil { return nil }
    return target != nil ? 0 : raiseAt
  }

  // MARK: Events

  /// The size to probe now. Until its fate is told there is no other.
  package mutating func nextProbe(_ now: UInt64) -> Int? {
    guard outstanding == nil else { return nil }
    if target == nil, let due = raiseAt, now >= due { raise() }
    guard let size = target else { return nil }
    outstanding = size
    return size
  }

  /// An authenticated answer to a probe (or anything else of the peer that proves it) of this size came, at whatever time.
  package mutating func answered(size: Int, now: UInt64) {
    if outstanding == size { outstanding = nil }
    guard size > proven, (Self.floor...ceiling).contains(size) else { return }
    proven = size
    if size >= Self.base { isBaseDoubted = false }
    if size >= tooBig { tooBig = ceiling + 1 }
    settle(now)
  }

  /// No answer to the probe, and one that left later was answered: else it is the path's loss, or its slowness.
  package mutating func lost(size: Int, now: UInt64) {
    guard outstanding == size else { return }
    outstanding = nil
    guard size > proven else { return }
    if size != lossSize { (lossSize, losses) = (size, 0) }
    losses += 1
    if size == ceiling, losses >= 2 { isCeilingDoubted = true }
    if losses >= Self.probesPerSize { tooBig = min(tooBig, size) }
    if size <= Self.base { isBaseDoubted = true }
    settle(now)
  }

  /// The fate of the probe on its way will never be known: it went where nothing comes back from.
  package mutating func abandon() { outstanding = nil }

  /// Our own kernel refuses frames of this size on the path (EMSGSIZE); `limit`: what it says would pass.
  package mutating func refused(size: Int, limit: Int?, now: UInt64) {
    if outstanding == size { outstanding = nil }
    guard size > 0, size <= ceiling else { return }
    if proven >= size { proven = 0 }
    isCeilingDoubted = true
    tooBig = max(min(tooBig, size), Self.floor)
    // A hint below what was answered contradicts the answer: it is old, or somebody made it up.
    if let limit, limit < size, limit > proven {
      tooBig = max(min(tooBig, limit + 1), Self.floor)
      hint = limit
    }
    if tooBig <= Self.base { isBaseDoubted = true }
    settle(now)
  }

  /// Data of full size seems to vanish: back to the base, or below when it was no more than that, until probes tell.
  package mutating func suspectBlackHole(now: UInt64) {
    // Probes are under way that will tell: a second suspicion says nothing new.
    if proven == 0, target != nil, isCeilingDoubted { return }
    if limit <= Self.base { isBaseDoubted = true }
    proven = 0
    tooBig = ceiling + 1
    (hint, step) = (nil, nil)
    outstanding = nil
    losses = 0
    isCeilingDoubted = true
    raiseAt = nil
    raiseGap = Self.firstRaiseInterval
  }

  // MARK: Choice

  /// Neither answered nor too big.
  private func isOpen(_ size: Int) -> Bool { size > proven && size < tooBig && size >= Self.floor }

  /// The size that would tell most; nil when all is known, or when nothing passes.
  private var target: Int? {
    if let hint, isOpen(hint) { return hint }
    if let step, isOpen(step) { return step }
    if proven == 0 {
      if !isCeilingDoubted, tooBig > ceiling { return ceiling }
      if tooBig > Self.base { return Self.base }
      return tooBig > Self.floor ? Self.floor : nil
    }
    if proven < Self.base, tooBig > Self.base { return Self.base }
    if tooBig > ceiling { return proven < ceiling ? ceiling : nil }
    let gap = tooBig - proven
    return gap > Self.resolution ? proven + gap / 2 : nil
  }

  /// After each event: whether the search is over, and when to begin again.
  private mutating func settle(_ now: UInt64) {
    // What was answered, or is too big, is never tried again under this name.
    hint = hint.flatMap { isOpen($0) ? $0 : nil }
    step = step.flatMap { isOpen($0) ? $0 : nil }
    if target != nil || proven == ceiling {
      raiseAt = nil
      if proven == ceiling { raiseGap = Self.firstRaiseInterval }
      return
    }
    guard raiseAt == nil else { return }
    raiseAt = now + raiseGap
    raiseGap = min(raiseGap * 2, Self.raiseInterval)
  }

  /// Tries the next size up again; after an error everything, from the base on.
  private mutating func raise() {
    raiseAt = nil
    losses = 0
    guard proven > 0 else {
      tooBig = ceiling + 1
      return
    }
    step = min(proven + Self.resolution, ceiling)
    tooBig = ceiling + 1
  }
}
