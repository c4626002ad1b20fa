// The ways to a peer: learning them, and what their probes tell.

import Wire

extension PathMachine {
  /// A probe under way.
  struct Probe: Sendable {
    var id: ProbeID
    var path: Path
    var size: Int
    var sentAt: UInt64
    var dueAt: UInt64
    var purpose: Purpose
    /// Small ones that were sent after it, when its fate was still open.
    var companions: UInt8 = 0

    enum Purpose: Sendable {
      case life
      /// A step of the search for the largest frame.
      case search
      /// The size that passed before, in doubt.
      case verify
    }

    var isLarge: Bool { size >= PathLimits.largeProbe }
  }

  struct Move: Sendable {
    var to: Path
    var at: UInt64
  }

  /// What is known of a way.
  package subscript(path: Path) -> Candidate? {
    if path == .relay { return relay }
    return candidates.first { $0.path == path }
  }

  mutating func change(_ path: Path, _ body: (inout Candidate) -> Void) {
    if path == .relay {
      body(&relay)
    } else if let index = candidates.firstIndex(where: { $0.path == path }) {
      body(&candidates[index])
    }
  }

  /// Loopback, link-local, multicast and the overlay's own addresses are no endpoints; loopback may be one when the
  /// directory, on this machine too, says so.
  private static func isUsable(_ endpoint: Endpoint, _ kind: CandidateKind) -> Bool {
    guard endpoint.port != 0 else { return false }
    let address = endpoint.address
    if let v4 = address.mappedIPv4 {
      if v4 >> 24 == 127 { return kind == .directory || kind == .remembered }
      return v4 >> 24 != 0 && v4 >> 28 < 14 && v4 >> 16 != 0xA9FE
    }
    guard !OverlayMapping.contains(address) else { return false }
    let top = UInt16(truncatingIfNeeded: address.high >> 48)
    if address.high == 0 { return address.low == 1 && (kind == .directory || kind == .remembered) }
    return top & 0xFF00 != 0xFF00 && top & 0xFFC0 != 0xFE80
  }

  @discardableResult
  mutating func add(_ endpoint: Endpoint, _ kind: CandidateKind) -> Bool {
    guard Self.isUsable(endpoint, kind) else { return false }
    if let index = candidates.firstIndex(where: { $0.path == .direct(endpoint) }) {
      if kind < candidates[index].kind { candidates[index].kind = kind }
      return false
    }
    let sameAddress = candidates.count { $0.endpoint?.address == endpoint.address }
    guard sameAddress < PathLimits.portsOfOne || kind <= .directory || kind == .seen else { return false }
    if candidates.count >= PathLimits.candidates {
      // The one that never answered and was tried in vain most gives way; what the peer only told, to where it speaks
      // from, untried, too. Never the path, never the directory's word for the peer's.
      let present = path
      let weak = candidates.indices.filter { index in
        let candidate = candidates[index]
        guard candidate.path != present, candidate.answeredAt == 0 else { return false }
        if kind == .told, candidate.kind <= .directory { return false }
        return candidate.misses > 0 || (kind == .seen && candidate.kind >= .told)
      }
      guard let worst = weak.max(by: { candidates[$0].misses < candidates[$1].misses }) else { return false }
      candidates.remove(at: worst)
    }
    candidates.append(Candidate(path: .direct(endpoint), kind: kind))
    return true
  }

  // MARK: Events

  mutating func learn(_ known: [Known], _ isRelayOnly: Bool, _ now: UInt64, _ actions: inout [Action]) {
    self.isRelayOnly = isRelayOnly
    hasRecord = true
    if isRelayOnly {
      candidates = []
      round = nil
      nextRoundAt = 0
      return choose(now, &actions)
    }
    let present = path
    // The directory's own list is the whole of what it knows; what answered stays.
    var rest = candidates
    rest.removeAll { candidate in
      candidate.path != present && candidate.answeredAt == 0 && candidate.heardAt == 0 && candidate.kind != .told
        && !known.contains { .direct($0.endpoint) == candidate.path }
    }
    candidates = rest
    var isNews = false
    for entry in known where add(entry.endpoint, entry.kind) { isNews = true }
    // Best first: `choose` takes the first.
    candidates = candidates.sorted { Self.rank($0.path, in: known) < Self.rank($1.path, in: known) }
    choose(now, &actions)
    if isNews { hurry(now) }
  }

  private static func rank(_ path: Path, in known: [Known]) -> Int {
    known.firstIndex { .direct($0.endpoint) == path } ?? known.count
  }

  mutating func told(_ endpoints: [Endpoint], _ now: UInt64, _ actions: inout [Action]) {
    guard !isRelayOnly else { return }
    let (present, list) = (path, Set(endpoints.map { Path.direct($0) }))
    // It replaces what was told before.
    candidates.removeAll {
      $0.kind == .told && $0.path != present && $0.answeredAt == 0 && $0.heardAt == 0 && !list.contains($0.path)
    }
    var news: [Path] = []
    for endpoint in endpoints.prefix(PathLimits.candidates) where add(endpoint, .told) {
      news.append(.direct(endpoint))
    }
    guard !news.isEmpty || now >= toldRoundAt + PathLimits.toldGap || toldRoundAt == 0 else { return }
    // The peer tries its ways to us now: ours open the NATs for them, and theirs for ours.
    if path == .relay || isUnsettled || !(self[path]?.isProven ?? false) {
      toldRoundAt = now
      beginRound(now, calls: false, &actions)
    } else {
      for way in news { probe(way, PathLimits.smallProbe, now, &actions) }
    }
  }

  /// A newest frame came from there. It may be that the peer moved, or that it tries its ways: the present path is asked,
  /// too, and keeps its place if it answers.
  mutating func moved(_ from: Endpoint, _ now: UInt64, _ actions: inout [Action]) {
    guard !isRelayOnly else { return }
    add(from, .seen)
    let way = Path.direct(from)
    guard let candidate = self[way] else { return }
    change(way) { $0.heardAt = now }
    if path == .none { return set(way, .cameFromThere, now, &actions) }
    guard way != path, hasSession else { return }
    if path == .relay, candidate.kind == .seen { attempt?.hasHeardElsewhere = true }
    if let move, move.to == way, now < move.at + PathLimits.second { return }
    let isKnownAlive = candidate.answeredAt != 0 && now < candidate.answeredAt + PathLimits.recent
    let isPathAlive = now < max(activity.onPathAt, self[path]?.answeredAt ?? 0) + PathLimits.recent
    guard !(isKnownAlive && isPathAlive) else { return }
    move = Move(to: way, at: now)
    probe(way, PathLimits.smallProbe, now, &actions)
    if path != .relay { probe(path, PathLimits.smallProbe, isHasty: true, now, &actions) }
  }

  /// Whether the present path showed life since then.
  func isAlive(since time: UInt64) -> Bool { max(activity.onPathAt, self[path]?.answeredAt ?? 0) >= time }

  /// The probe there was answered, or the one on the present path was not.
  mutating func settleMove(_ now: UInt64, _ actions: inout [Action]) {
    guard let move, path != .relay, let there = self[move.to] else { return }
    // Its frames come by the path as well. An answer that did not come by the path is no such sign: both places reach the
    // peer, and the one that it speaks from keeps its NAT open.
    if activity.onPathAt >= move.at {
      self.move = nil
      return
    }
    let isAsked = outstanding.contains { $0.path == path && $0.sentAt >= move.at }
    if there.answeredAt >= move.at, !isAsked {
      set(move.to, .peerMoved, now, &actions)
    } else if !isAsked, !outstanding.contains(where: { $0.path == move.to }) {
      self.move = nil
    }
  }

  /// Nothing that was proven holds: everything is asked again at once, and the first answer wins.
  mutating func distrustEverything(_ now: UInt64, _ actions: inout [Action]) {
    isUnsettled = hasSession
    move = nil
    (openings, nextOpeningAt) = (0, 0)
    for index in candidates.indices { candidates[index].forget() }
    relay.forget()
    outstanding = []
    beginSearch(now, &actions)
    trial = nil
    roundsInVain = 0
    guard hasSession, isInUse(now) || activity.receivedAt + PathLimits.useLasts > now else { return }
    beginRound(now, calls: true, &actions)
  }

  // MARK: Probes

  /// `isHasty`: another way is to be taken unless this one answers soon.
  mutating func probe(
    _ path: Path, _ size: Int, for purpose: Probe.Purpose = .life, isHasty: Bool = false, _ now: UInt64,
    _ actions: inout [Action]
  ) {
    guard hasSession, outstanding.count < PathLimits.outstanding, path != .relay || hasBeacon,
      mayBother(path, now)
    else { return }
    let timeout =
      self[path]?.roundTrip.map {
        isHasty ? max(2 * $0, PathLimits.movePatience) : max(3 * $0, PathLimits.leastProbeTimeout)
      } ?? PathLimits.probeTimeout
    outstanding.append(
      Probe(
        id: nextProbe, path: path, size: size, sentAt: now, dueAt: now + min(timeout, 2 * PathLimits.second),
        purpose: purpose))
    actions.append(.probe(nextProbe, path, size: size))
    nextProbe &+= 1
    change(path) {
      $0.probes &+= 1
      $0.triedAt = now
    }
  }

  /// A probe of a size, and a small one behind it: only a size that is missing while what left after it passed was lost for
  /// its size. Until that is known it is waited for (`expireProbes`).
  mutating func probeSize(
    _ path: Path, _ size: Int, for purpose: Probe.Purpose = .life, _ now: UInt64, _ actions: inout [Action]
  ) {
    probe(path, size, for: purpose, now, &actions)
    probe(path, PathLimits.smallProbe, now, &actions)
  }

  /// Endpoints that never showed life share a budget.
  private mutating func mayBother(_ way: Path, _ now: UInt64) -> Bool {
    guard way != .relay, way != path, let candidate = self[way], candidate.answers == 0, candidate.heardAt == 0 else {
      return true
    }
    let filled = Int(
      min((now - min(now, strangerBudgetAt)) / PathLimits.strangerGap, UInt64(PathLimits.strangerProbes)))
    if filled > 0 {
      strangerBudget = min(strangerBudget + filled, PathLimits.strangerProbes)
      strangerBudgetAt = now
    }
    guard strangerBudget > 0 else {
      attempt?.isOverBudget = true
      return false
    }
    strangerBudget -= 1
    return true
  }

  mutating func answered(_ id: ProbeID, by arrival: Path, _ now: UInt64, _ actions: inout [Action]) {
    if arrival == .relay, let way = (outstanding + late).first(where: { $0.id == id })?.path, way != .relay {
      return detoured(way, now, &actions)
    }
    let probe: Probe
    let isLate: Bool
    if let index = outstanding.firstIndex(where: { $0.id == id }) {
      (probe, isLate) = (outstanding.remove(at: index), false)
    } else if let index = late.firstIndex(where: { $0.id == id }), now < late[index].sentAt + PathLimits.lateLasts {
      (probe, isLate) = (late.remove(at: index), true)
    } else {
      return
    }
    silentSince = 0
    let isLarge = probe.isLarge
    let sample = now - min(probe.sentAt, now)
    change(probe.path) {
      $0.answers &+= 1
      $0.answeredAt = now
      $0.newestPassed = max($0.newestPassed, probe.sentAt)
      $0.misses = 0
      $0.isAnsweredFromThere = arrival == probe.path
      if isLarge {
        $0.isLargeProven = true
        $0.largeMisses = 0
      } else if let before = $0.roundTrip, !isLate {
        $0.roundTrip = sample < before ? (sample + before) / 2 : (7 * before + sample) / 8
      } else {
        // What took longer than was waited for is the way's new round trip.
        $0.roundTrip = sample
      }
    }
    if probe.path == path {
      search?.answered(size: probe.size, now: now)
      tellLimit(&actions)
      if probe.purpose == .verify { sizeDoubts = 0 }
      owesSince = 0
      trial = nil
    }
    if let candidate = self[probe.path], !candidate.isLargeProven, !candidate.isSmall,
      !outstanding.contains(where: { $0.path == probe.path && $0.size >= PathLimits.largeProbe })
    {
      probeSize(probe.path, PathLimits.largeProbe, now, &actions)
    }
    settleMove(now, &actions)
    weigh(probe.path, now, &actions)
  }

  /// The probe arrived, its answer took the relay: nothing proves the way back. An official daemon whose frames come from
  /// there tries the way now, and takes it after three frames of ours.
  private mutating func detoured(_ way: Path, _ now: UInt64, _ actions: inout [Action]) {
    guard let candidate = self[way] else { return }
    change(way) { $0.detouredAt = now }
    let isTried = candidate.heardAt != 0 && now < candidate.heardAt + 2 * PathLimits.second
    guard path == .relay, isTried, now >= candidate.detouredAt + PathLimits.second else { return }
    for _ in 0..<2 { probe(way, PathLimits.smallProbe, now, &actions) }
  }

  mutating func expireProbes(_ now: UInt64, _ actions: inout [Action]) {
    guard outstanding.contains(where: { $0.dueAt <= now }) else { return }
    var late = outstanding.filter { $0.dueAt <= now }
    outstanding.removeAll { $0.dueAt <= now }
    late.removeAll { waitOn($0, now, &actions) }
    self.late = (self.late + late).suffix(PathLimits.outstanding).filter { now < $0.sentAt + PathLimits.lateLasts }
    for probe in late where probe.purpose != .life { lostSize(probe, isTooBig: isOvertaken(probe), now, &actions) }
    for probe in late where probe.purpose == .life {
      guard probe.isLarge else {
        change(probe.path) { $0.misses = min($0.misses + 1, 250) }
        continue
      }
      guard isOvertaken(probe) else { continue }
      change(probe.path) { $0.largeMisses = min($0.largeMisses + 1, 3) }
      guard let candidate = self[probe.path], !candidate.isLargeProven, candidate.misses == 0 else { continue }
      if candidate.isSmall {
        weigh(probe.path, now, &actions)
      } else {
        probeSize(probe.path, probe.size, now, &actions)
      }
    }
    settleMove(now, &actions)
  }

  /// One that left later was answered.
  private func isOvertaken(_ probe: Probe) -> Bool { (self[probe.path]?.newestPassed ?? 0) >= probe.sentAt }

  /// The fate of a size is open while nothing that left later was answered: a further small one is sent, three at most,
  /// and then waited.
  private mutating func waitOn(_ probe: Probe, _ now: UInt64, _ actions: inout [Action]) -> Bool {
    let end = probe.sentAt + PathLimits.lateLasts
    guard probe.purpose != .life || probe.isLarge, !isOvertaken(probe), now < end else { return false }
    var waiting = probe
    waiting.dueAt = end
    if trial != nil, probe.path == path {
      // Its small ones tell as well, and are counted.
      waiting.dueAt = min(now + PathLimits.trialGap, end)
    } else if probe.companions < PathLimits.unansweredInARow {
      waiting.companions += 1
      self.probe(probe.path, PathLimits.smallProbe, now, &actions)
      if let companion = outstanding.last, companion.path == probe.path, companion.sentAt == now {
        waiting.dueAt = min(companion.dueAt, end)
      }
    }
    outstanding.append(waiting)
    return true
  }
}

extension Candidate {
  /// What was proven is not any more.
  mutating func forget() {
    misses = 0
    roundTrip = nil
    largeMisses = 0
    isLargeProven = false
    answeredAt = 0
    newestPassed = 0
    heardAt = 0
    penaltyUntil = 0
    failures = 0
  }
}
