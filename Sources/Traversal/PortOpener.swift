// Opens many ports of a symmetric NAT towards one peer, so that a peer that keeps one socket hits one of them by trying
// ports (PortSpray): the birthday paradox, and prediction where the NAT allows it (docs/nat-traversal.md). Pure; Node runs
// one when PathMachine says `openPorts`.

package import Wire

/// - Sockets 0 to 3 ask the beacon where they are seen. When their ports lie close together, the NAT hands them out in
///   order, or from a block: few sockets do, and the peer is told where to look.
/// - Then each socket sends one punch to the peer: a mapping, and a permission for the peer's endpoint. What arrives
///   there is dropped by the peer's NAT.
/// - Four more sockets ask the beacon, so that the ports in between are known to lie between those seen.
/// - The peer is told, through the relay, and tries. The first datagram from its endpoint names the socket that won.
package struct PortOpener: SocketMachine {
  package enum News: Equatable, Sendable {
    /// Tell the peer which ports to try; all of them where nothing is known.
    case opened(first: UInt16, last: UInt16)
    /// The peer's datagrams come in at this socket.
    case won(Int)
    /// Nothing came.
    case failed
  }

  /// Sockets when ports can be predicted, and when they cannot. 256 against 1024 tries of 64,512 ports meet in 98 of 100.
  package static let fewSockets = 32
  package static let manySockets = 256
  /// Ports that lie this close together are handed out in order, or from a block.
  static let blockSpan = 512
  static let widestHint = 4096
  private static let millisecond: UInt64 = 1_000_000
  private static let burst = 16
  private static let burstGap = 10 * millisecond
  private static let samples = 4
  private static let sampleGap = 200 * millisecond
  private static let listens = 6000 * millisecond
  /// Ports that nobody gives out to others begin here.
  package static let firstPort: UInt16 = 1024

  private enum Phase { case before, opening, after, listening, ended }

  private let target: Endpoint
  private let beacon: Endpoint
  private let entropy: UInt64
  private var phase = Phase.before
  private var next: UInt64? = 0
  private var tries = 0
  private var count = 0
  private var opened = 0
  private var endsAt: UInt64 = 0
  private var tellings = 0
  /// Outer ports that the beacon saw, by socket.
  private var seen: [Int: UInt16] = [:]

  /// `target`: where the peer's NAT shows its socket. `entropy`: any unguessable number.
  package init(target: Endpoint, beacon: Endpoint, entropy: UInt64) {
    self.target = target
    self.beacon = beacon
    self.entropy = entropy
  }

  package var nextDeadline: UInt64? { next }

  package mutating func tick(_ now: UInt64) -> [SocketAction<News>] {
    guard let due = next, now >= due else { return [] }
    switch phase {
    case .before: return ask(0..<Self.samples, now) ?? beginOpening(now)
    case .opening: return open(now)
    case .after: return ask(askedAfter, now) ?? tell(now)
    case .listening: return tell(now)
    case .ended: return []
    }
  }

  package mutating func received(
    _ socket: Int, from: Endpoint, _ bytes: [UInt8], _ now: UInt64
  ) -> [SocketAction<News>] {
    if from == beacon {
      guard case .checkReply(let transaction, let endpoint, _, _)? = BeaconMessage(bytes),
        transaction == entropy &+ UInt64(socket)
      else { return [] }
      seen[socket] = endpoint.port
      switch phase {
      case .before where (0..<Self.samples).allSatisfy({ seen[$0] != nil }): return beginOpening(now)
      case .after where askedAfter.allSatisfy({ seen[$0] != nil }): return tell(now)
      default: return []
      }
    }
    guard from == target, phase != .ended, phase != .before, (Self.samples..<Self.samples + count).contains(socket)
    else { return [] }
    (phase, next) = (.ended, nil)
    return [.tell(.won(socket))]
  }

  /// The sockets that ask when all are open.
  private var askedAfter: Range<Int> { Self.samples + count..<2 * Self.samples + count }

  /// Asks those that have no answer; nil: they were asked often enough.
  private mutating func ask(_ sockets: Range<Int>, _ now: UInt64) -> [SocketAction<News>]? {
    guard tries < 3 else { return nil }
    tries += 1
    next = now + Self.sampleGap
    return sockets.filter { seen[$0] == nil }.map { socket in
      let message = BeaconMessage.check(
        transaction: entropy &+ UInt64(socket), answerPort: 0, size: BeaconMessage.checkSize)
      return .send(socket, message.encoded(), to: beacon)
    }
  }

  private mutating func beginOpening(_ now: UInt64) -> [SocketAction<News>] {
    let isNarrow = seen.count >= 3 && span.map { $0.last - $0.first < Self.blockSpan } ?? false
    count = isNarrow ? Self.fewSockets : Self.manySockets
    phase = .opening
    return open(now)
  }

  private mutating func open(_ now: UInt64) -> [SocketAction<News>] {
    let batch = opened..<min(opened + Self.burst, count)
    opened = batch.upperBound
    next = now + Self.burstGap
    if opened == count { (phase, tries) = (.after, 0) }
    return batch.map { .send(Self.samples + $0, PunchFrame.bytes, to: target) }
  }

  /// Twice, as the relay may lose it; then it is over when nothing came.
  private mutating func tell(_ now: UInt64) -> [SocketAction<News>] {
    if phase != .listening { (phase, endsAt) = (.listening, now + Self.listens) }
    if tellings == 2 {
      (phase, next) = (.ended, nil)
      return [.tell(.failed)]
    }
    tellings += 1
    next = tellings == 2 ? endsAt : now + 1000 * Self.millisecond
    let isSure = seen.keys.contains { $0 < Self.samples } && seen.keys.contains { $0 > Self.samples }
    // Ports below the first one to try are no hint, whatever the beacon or the NAT means by them.
    guard isSure, let span, span.first >= Int(Self.firstPort), span.last - span.first < Self.widestHint else {
      return [.tell(.opened(first: Self.firstPort, last: .max))]
    }
    // Another program's mapping may have come in between.
    let first = max(span.first - 8, Int(Self.firstPort)), last = min(span.last + 8, Int(UInt16.max))
    return [.tell(.opened(first: UInt16(first), last: UInt16(last)))]
  }

  private var span: (first: Int, last: Int)? {
    guard let first = seen.values.min(), let last = seen.values.max() else { return nil }
    return (Int(first), Int(last))
  }
}
