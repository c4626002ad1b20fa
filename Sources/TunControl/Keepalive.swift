// When a quiet path to a peer gets a frame to keep it open, as a pure function. Node asks for each peer every 5 s.

package enum Keepalive: Equatable, Sendable {
  /// Silence is right.
  case none
  /// A ping: what it brings back is measured.
  case probe
  /// An empty frame, which an official daemon does not take for use.
  case empty

  /// Without a packet of a program this long, the path is not kept open any more (wire/tunnel §3.13).
  package static let useLasts: UInt64 = 120_000_000_000
  /// Looked at every 5 s, so that something leaves at least every 25 s: what NATs that were not measured get.
  package static let interval: UInt64 = 20_000_000_000
  /// Official daemons keep a path open for two minutes after a use of their own, which a ping of ours is, too. They send
  /// something at least every 30 s meanwhile, and leave a direct path whose other end was silent for 55 s for the relay:
  /// so they get frames for as long as theirs come.
  static let echoLasts: UInt64 = 35_000_000_000

  /// `lastSend` and `lastReceive`: of any frame. `isOfficial`: the peer never said that it is one of us. `interval`: what
  /// the NAT on the way allows; official daemons expect something every 25 s.
  package static func due(
    now: UInt64, lastUse: UInt64, lastSend: UInt64, lastReceive: UInt64, isOfficial: Bool,
    interval: UInt64 = Keepalive.interval
  ) -> Keepalive {
    guard now >= lastSend + (isOfficial ? min(interval, Self.interval) : interval) else { return .none }
    if now < lastUse + useLasts { return .probe }
    return isOfficial && lastReceive != 0 && now < lastReceive + echoLasts ? .empty : .none
  }
}
