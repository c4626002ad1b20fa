// How the node reaches the beacon: by UDP, or by TLS on TCP 443 where UDP is blocked. A pure state machine: (event, time)
// -> actions; Node+Transport carries them out. All paths through the relay follow it; direct paths do not ask it.

/// What the setting `transport` says.
package enum TransportMode: String, CaseIterable, Sendable {
  /// UDP while the beacon answers by it, else TLS.
  case auto
  case udp
  case tls
}

package struct TransportChoice: Sendable {
  package enum Carrier: String, Sendable { case udp, tls }

  package enum Event: Equatable, Sendable {
    /// The node has an address, so that it can prove who it is.
    case registered
    /// The worker's socket asked the beacon, or would have if its address were known.
    case asked
    /// The beacon answered the worker's socket.
    case answered
    /// The beacon answered a socket that is there to try UDP.
    case probeAnswered
    /// A connection by TLS is up, and ended or never was.
    case linkUp
    case linkDown
    case networkChanged
    /// A peer that is not on our own networks is reached by UDP, directly, and was not before.
    case peerReached
    case tick
  }

  package enum Action: Equatable, Sendable {
    /// Ask the beacon again by UDP.
    case ask
    /// Make a connection by TLS, and end it.
    case dial
    case hangUp
    /// Relayed frames go this way from now on.
    case use(Carrier, reason: String)
    /// Ask the beacon by UDP, from another socket than the worker's.
    case probe
  }

  private static let second: UInt64 = 1_000_000_000
  /// Without an answer this long UDP counts as blocked; the connection by TLS is made earlier, so that it stands by then.
  struct Patience {
    var udp: UInt64
    var dial: UInt64
    var ask: UInt64
    /// Where UDP has worked: one packet in a hundred is lost on a bad day, five are not.
    static let known = Patience(udp: 5 * second, dial: 5 * second / 2, ask: second)
    /// Where it never has there is nothing to wait for but a slow first answer. Three questions go out.
    static let untried = Patience(udp: 3 * second / 2, dial: second / 2, ask: second / 2)
  }
  /// A connection by TLS shows that the network works: an answer by UDP to a question of now has this long.
  static let lastChance = 4 * second / 5
  /// While neither way works.
  private static let firstSlowAsk = 10 * second
  private static let longestSlowAsk = 60 * second
  /// UDP is tried again after this, twice as long each time.
  static let firstProbe = 5 * second
  static let longestProbe = 300 * second
  private static let firstDial = second / 2
  private static let longestDial = 60 * second
  /// Peers that are reached make a probe due this often at most.
  static let reachedGap = 30 * second
  /// A connection that stood this long was a good one; what ends sooner (another node with our key, a rendezvous that
  /// throws us out) is dialled ever more rarely.
  private static let goodLink = 30 * second
  /// What the worker's socket has for an answer once another one had it.
  static let returnPatience = 3 * second

  private static let untried = "not tried yet"

  private enum Link { case none, dialling, up }

  package let mode: TransportMode
  package private(set) var carrier: Carrier
  package private(set) var reason: String
  package private(set) var since: UInt64
  /// The worker's socket asked and had no answer since.
  private var unansweredSince: UInt64?
  /// The beacon answered by UDP since the network is what it is.
  private var isHeard = false
  private var nextAsk: UInt64 = .max
  /// When this asked last, and how long it waits with the next question once UDP counts as blocked.
  private var askedAt: UInt64 = 0
  private var slowAsk = Self.firstSlowAsk
  private var isRegistered = false
  private var link = Link.none
  private var linkUpAt: UInt64 = 0
  private var nextDial: UInt64 = .max
  private var dialWait = Self.firstDial
  private var nextProbe: UInt64 = .max
  private var probedAt: UInt64 = 0
  private var probeWait = Self.firstProbe
  /// UDP is used again, and the worker's socket has yet to hear so; until then the link stays.
  private var returnUntil: UInt64?
  private var entropy: UInt64

  /// `entropy`: any number; timers differ by it from node to node.
  package init(mode: TransportMode, now: UInt64, entropy: UInt64) {
    self.mode = mode
    self.entropy = entropy | 1
    carrier = mode == .tls ? .tls : .udp
    reason = mode == .auto ? Self.untried : "transport = \(mode.rawValue)"
    since = now
  }

  package var isLinkUp: Bool { link == .up }

  /// When `tick` is due.
  package var nextDeadline: UInt64 {
    min(nextAsk, nextDial, nextProbe, returnUntil ?? .max, leaveAt ?? .max)
  }

  private var patience: Patience { isHeard ? .known : .untried }

  /// When UDP is left for the connection that stands. The last question has its time: after hours without any network TLS
  /// may be the first that comes through by chance.
  private var leaveAt: UInt64? {
    guard let unansweredSince, carrier == .udp, link == .up, returnUntil == nil else { return nil }
    return max(unansweredSince + patience.udp, askedAt + patience.ask, isHeard ? 0 : linkUpAt + Self.lastChance)
  }

  package mutating func handle(_ event: Event, now: UInt64) -> [Action] {
    guard mode != .udp else { return [] }
    var actions: [Action] = []
    switch event {
    case .registered:
      guard !isRegistered else { break }
      isRegistered = true
      if mode == .tls { nextDial = now }
      if let unansweredSince, link == .none { nextDial = max(now, unansweredSince + patience.dial) }
    case .asked:
      guard mode == .auto, carrier == .udp, unansweredSince == nil else { break }
      unansweredSince = now
      askedAt = now
      slowAsk = Self.firstSlowAsk
      nextAsk = now + patience.ask
      nextDial = now + patience.dial
    case .answered: answered(now, &actions)
    case .probeAnswered:
      guard carrier == .tls, mode == .auto else { break }
      change(.udp, "the beacon answers by UDP again", now, &actions)
      unansweredSince = now
      askedAt = now
      nextAsk = now + patience.ask
      nextProbe = .max
      returnUntil = now + Self.returnPatience
      actions.append(.ask)
    case .linkUp:
      guard wantsLink else {
        link = .none
        actions.append(.hangUp)
        break
      }
      link = .up
      linkUpAt = now
      nextDial = .max
      if carrier == .tls {
        // The end of a link says that the network may be another one.
        actions.append(.use(.tls, reason: reason))
      } else if now >= askedAt + patience.ask {
        nextAsk = now
      }
    case .linkDown:
      if link == .up, now >= linkUpAt + Self.goodLink { dialWait = Self.firstDial }
      link = .none
      nextDial = wantsLink ? now + jittered(dialWait) : .max
      dialWait = min(dialWait * 2, Self.longestDial)
      if carrier == .tls, mode == .auto { nextProbe = min(nextProbe, now) }
    case .networkChanged:
      dialWait = Self.firstDial
      slowAsk = Self.firstSlowAsk
      // The way back to UDP counts as a change for everybody else: what is known of UDP stays known.
      if returnUntil == nil {
        isHeard = false
        probeWait = Self.firstProbe
      }
      if carrier == .tls, mode == .auto { nextProbe = now }
      if link == .none, wantsLink {
        nextDial = now
      } else if carrier == .tls, link == .up {
        // A connection of the old network does not say that it is dead: the new one takes over when it stands.
        link = .dialling
        actions.append(.dial)
      }
    case .peerReached:
      // Something lets UDP out again; that may be everything.
      guard carrier == .tls, mode == .auto else { break }
      nextProbe = min(nextProbe, max(now, probedAt + Self.reachedGap))
    case .tick: break
    }
    runTimers(now, &actions)
    return actions
  }

  private var wantsLink: Bool { carrier == .tls || unansweredSince != nil }

  private mutating func answered(_ now: UInt64, _ actions: inout [Action]) {
    guard mode == .auto, carrier == .udp else { return }
    if reason == Self.untried { reason = "the beacon answers by UDP" }
    unansweredSince = nil
    isHeard = true
    returnUntil = nil
    nextAsk = .max
    nextDial = .max
    dialWait = Self.firstDial
    probeWait = Self.firstProbe
    if link != .none {
      link = .none
      actions.append(.hangUp)
    }
  }

  private mutating func change(_ carrier: Carrier, _ reason: String, _ now: UInt64, _ actions: inout [Action]) {
    self.carrier = carrier
    self.reason = reason
    since = now
    actions.append(.use(carrier, reason: reason))
  }

  private mutating func runTimers(_ now: UInt64, _ actions: inout [Action]) {
    if now >= nextDial {
      nextDial = .max
      // Who we are is not known before the registry answered: `registered` makes it due again.
      if isRegistered, link == .none, wantsLink {
        link = .dialling
        actions.append(.dial)
      }
    }
    if let end = returnUntil, now >= end {
      returnUntil = nil
      if link == .up { leaveUDP("the beacon answers by UDP, but not to the tunnel's socket", now, &actions) }
    }
    if let leaveAt, now >= leaveAt {
      leaveUDP(
        isHeard
          ? "no answer by UDP from the beacon for \(Patience.known.udp / Self.second) s"
          : "no answer by UDP from the beacon on this network", now, &actions)
    }
    if now >= nextAsk {
      guard let unansweredSince, carrier == .udp else {
        nextAsk = .max
        return
      }
      askedAt = now
      if now < unansweredSince + Patience.known.udp {
        nextAsk = now + patience.ask
      } else {
        nextAsk = now + jittered(slowAsk)
        slowAsk = min(slowAsk * 2, Self.longestSlowAsk)
      }
      actions.append(.ask)
    }
    if now >= nextProbe {
      guard carrier == .tls, mode == .auto else {
        nextProbe = .max
        return
      }
      probedAt = now
      probeWait = min(probeWait * 2, Self.longestProbe)
      nextProbe = now + jittered(probeWait)
      actions.append(.probe)
    }
  }

  private mutating func leaveUDP(_ reason: String, _ now: UInt64, _ actions: inout [Action]) {
    unansweredSince = nil
    nextAsk = .max
    nextProbe = now + jittered(probeWait)
    change(.tls, reason, now, &actions)
  }

  /// Between 3/4 and 5/4 of it.
  private mutating func jittered(_ time: UInt64) -> UInt64 {
    entropy ^= entropy << 13
    entropy ^= entropy >> 7
    entropy ^= entropy << 17
    return time / 4 * 3 + entropy % (time / 2)
  }
}
