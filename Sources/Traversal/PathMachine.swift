// Which way packets to one peer go, as a pure state machine: (event, time) -> actions. Control owns one per peer and
// feeds it what the engine, the directory and HandshakeMachine report; nothing here knows a socket or a clock.
//
// Rules (wire/tunnel §4.5, docs/design.md):
// - Direct to the directory's endpoint first. After 3 handshake tries without answer: the relay, while direct tries go
//   on. A relay-only peer, and one without any endpoint, is relayed at once.
// - While relayed and in use, every 15 s an upgrade round: a punch and 3 probes (sealed pings) to every candidate.
//   An answered probe makes the path direct. Rounds never stop as long as the peer is used.
// - A direct path that brought nothing for 15 s while we sent is probed 3 times in 3 s, then left for the relay. The
//   same when the peer starts to use the relay.
// - The peer's address moves only on an authenticated frame with a new highest counter. A genuine PILA is a hint: it
//   may be a recording, so it counts only for an endpoint that the directory knows, or when no path is known at all.

package import Wire

/// How sealed frames reach the peer.
package enum Path: Hashable, Sendable {
  case none
  case direct(Endpoint)
  case relay
}

/// Why the path is what it is; `explain` shows it.
package enum PathReason: String, Sendable, CaseIterable {
  case noCandidate = "no endpoint and no relay is known"
  case directoryEndpoint = "endpoint from the directory"
  case handshakeAnswered = "the handshake was answered from there"
  case handshakeRelayed = "the handshake was answered through the relay"
  case peerMoved = "an authenticated frame came from there"
  case probeAnswered = "a probe was answered directly"
  case relayOnly = "the peer takes relayed frames only"
  case noEndpoint = "the directory knows no endpoint"
  case unanswered = "3 direct handshakes without answer"
  case silent = "direct path silent for 15 s, 3 probes without answer"
  case peerRelays = "the peer uses the relay, 3 direct probes without answer"
  case sendErrors = "3 send errors on the direct path"
  case relayLost = "the relay is not reachable"
}

package struct PathMachine: Sendable {
  package enum Event: Sendable {
    /// What the directory says of the peer.
    case record(endpoint: Endpoint?, lan: [Endpoint], isRelayOnly: Bool)
    /// Whether a relay can be used.
    case beacon(isAvailable: Bool)
    /// This try (from 1) of a handshake was just sent; all before it are unanswered.
    case handshakeTry(Int)
    /// A genuine PILA came from there, or through the relay (nil).
    case handshakeHeard(Endpoint?)
    /// An authenticated frame with a new highest counter came directly from an endpoint that is not the path.
    case moved(Endpoint)
    /// An authenticated frame came through the relay while the path is direct.
    case relayedFrame
    /// A probe was answered, directly from there.
    case probeAnswered(Endpoint)
    /// When the peer was last sent to and last heard (monotonic, 0: never). Once in a few seconds while it is used.
    case activity(sentAt: UInt64, receivedAt: UInt64)
    /// The kernel refused a datagram to there (ICMP error, no route).
    case sendFailed(Endpoint)
    case tick
  }

  package enum Action: Equatable, Sendable {
    case setPath(Path)
    /// Send a sealed ping directly to there, whatever the path; report its answer as `probeAnswered`.
    case probe(Endpoint)
    case requestPunch
    /// Nothing came back, not even for probes: HandshakeMachine should ask whether the session holds (`failing`).
    case suspectSession
  }

  /// A time on one path.
  package struct Stretch: Equatable, Sendable {
    package var path: Path
    package var reason: PathReason
    package var since: UInt64
  }

  package static let upgradeInterval: UInt64 = 15_000_000_000
  package static let silenceLimit: UInt64 = 15_000_000_000
  package static let probeGap: UInt64 = 1_000_000_000
  package static let roundGap: UInt64 = 200_000_000
  /// A peer that nothing was sent to for this long is not in use: no rounds, no probes, no wake-ups.
  package static let useLasts: UInt64 = 120_000_000_000

  /// The present stretch and the ones before it, newest last, at most 8.
  package private(set) var history: [Stretch] = []
  package var path: Path { history.last?.path ?? .none }
  package var reason: PathReason { history.last?.reason ?? .noCandidate }

  private var endpoint: Endpoint?
  private var lan: [Endpoint] = []
  private var isRelayOnly = false
  private var hasBeacon = false
  /// The directory answered; before that a missing endpoint means nothing.
  private var hasRecord = false
  /// The last endpoint that an authenticated frame came from.
  private var learned: Endpoint?
  /// When the present direct path last proved itself, 0: not yet.
  private var provenAt: UInt64 = 0
  private var handshakeWentDirect = false
  private var sentAt: UInt64 = 0
  private var receivedAt: UInt64 = 0
  private var unansweredSince: UInt64 = 0
  private var errors: UInt8 = 0
  /// An upgrade round while relayed, or a trial of a silent direct path.
  private var probesLeft: UInt8 = 0
  private var nextProbeAt: UInt64 = 0
  private var trial: PathReason?
  private var trialEndedAt: UInt64 = 0
  private var nextRoundAt: UInt64 = 0

  package init() {}

  package mutating func handle(_ event: Event, now: UInt64) -> [Action] {
    var actions: [Action] = []
    switch event {
    case .record(let endpoint, let lan, let isRelayOnly):
      self.endpoint = endpoint
      self.lan = Array(lan.prefix(8))
      self.isRelayOnly = isRelayOnly
      hasRecord = true
      choose(now, &actions)
    case .beacon(let isAvailable):
      hasBeacon = isAvailable
      if !isAvailable, path == .relay { leaveRelay(now, &actions) } else { choose(now, &actions) }
    case .handshakeTry(let number): tried(number, now, &actions)
    case .handshakeHeard(let from): heard(from, now, &actions)
    case .moved(let from): moved(from, now, &actions)
    case .relayedFrame:
      let isFresh = provenAt != 0 && now < provenAt + 5_000_000_000
      if case .direct = path, !isFresh, hasBeacon, now >= trialEndedAt + Self.upgradeInterval || trialEndedAt == 0 {
        beginTrial(.peerRelays, now)
      }
    case .probeAnswered(let from): answered(from, now, &actions)
    case .activity(let sent, let received): noteActivity(sent, received, now)
    case .sendFailed(let to):
      guard path == .direct(to) else { break }
      errors += 1
      if errors >= 3 { leaveDirect(.sendErrors, now, &actions) }
    case .tick: break
    }
    runTimers(now, &actions)
    return actions
  }

  // MARK: Choosing

  private mutating func set(_ path: Path, _ reason: PathReason, _ now: UInt64, _ actions: inout [Action]) {
    guard path != self.path || history.isEmpty else { return }
    if history.count == 8 { history.removeFirst() }
    history.append(Stretch(path: path, reason: reason, since: now))
    probesLeft = 0
    trial = nil
    errors = 0
    provenAt = 0
    unansweredSince = 0
    nextRoundAt = path == .relay && !isRelayOnly ? now : 0
    actions.append(.setPath(path))
  }

  private var candidates: [Endpoint] {
    guard !isRelayOnly else { return [] }
    var list: [Endpoint] = []
    for candidate in [learned, endpoint] + lan where candidate != nil {
      if let candidate, !list.contains(candidate) { list.append(candidate) }
    }
    return list
  }

  /// The first choice, when there is no path yet or it became impossible.
  private mutating func choose(_ now: UInt64, _ actions: inout [Action]) {
    if isRelayOnly {
      if path != .relay { set(hasBeacon ? .relay : .none, hasBeacon ? .relayOnly : .relayLost, now, &actions) }
      return
    }
    if case .direct(let present) = path {
      // The directory knows better than an unproven guess, never than an authenticated frame.
      if provenAt == 0, learned != present, let endpoint, endpoint != present {
        set(.direct(endpoint), .directoryEndpoint, now, &actions)
      }
      return
    }
    guard path == .none || (reason == .noEndpoint && endpoint != nil) else { return }
    if let first = endpoint ?? learned {
      set(.direct(first), first == endpoint ? .directoryEndpoint : .peerMoved, now, &actions)
    } else if hasBeacon, hasRecord {
      set(.relay, .noEndpoint, now, &actions)
    }
  }

  private mutating func leaveDirect(_ reason: PathReason, _ now: UInt64, _ actions: inout [Action]) {
    guard case .direct = path, hasBeacon else { return }
    set(.relay, reason, now, &actions)
    // The direct way was just tried: the first round comes later.
    nextRoundAt = isRelayOnly ? 0 : now + Self.upgradeInterval
  }

  private mutating func leaveRelay(_ now: UInt64, _ actions: inout [Action]) {
    if let first = candidates.first {
      set(.direct(first), .relayLost, now, &actions)
    } else {
      set(.none, .relayLost, now, &actions)
    }
  }

  // MARK: Evidence

  private mutating func tried(_ number: Int, _ now: UInt64, _ actions: inout [Action]) {
    sentAt = now
    if number == 1 {
      handshakeWentDirect = false
      choose(now, &actions)
    }
    if number > 3, provenAt == 0 || now > provenAt + Self.silenceLimit { leaveDirect(.unanswered, now, &actions) }
  }

  private mutating func heard(_ from: Endpoint?, _ now: UInt64, _ actions: inout [Action]) {
    guard let from else {
      if case .direct = path, provenAt == 0, !handshakeWentDirect, hasBeacon {
        set(.relay, .handshakeRelayed, now, &actions)
      } else if path == .none, hasBeacon {
        set(.relay, .handshakeRelayed, now, &actions)
      }
      return
    }
    guard !isRelayOnly else { return }
    let known = candidates
    if known.contains(from) {
      handshakeWentDirect = true
      if case .direct(let present) = path, provenAt == 0, present != from {
        set(.direct(from), .handshakeAnswered, now, &actions)
      }
    }
    if path == .none || (path == .relay && known.contains(from)) {
      set(.direct(from), .handshakeAnswered, now, &actions)
    }
  }

  private mutating func moved(_ from: Endpoint, _ now: UInt64, _ actions: inout [Action]) {
    learned = from
    receivedAt = max(receivedAt, now)
    guard !isRelayOnly else { return }
    switch path {
    case .none, .direct:
      set(.direct(from), .peerMoved, now, &actions)
      provenAt = now
    case .relay:
      // It reaches us; whether we reach it, a probe tells. A round that just began includes this endpoint.
      if probesLeft == 0, now + Self.upgradeInterval >= nextRoundAt + 1_000_000_000 {
        beginRound(now, &actions)
      }
    }
  }

  private mutating func answered(_ from: Endpoint, _ now: UInt64, _ actions: inout [Action]) {
    learned = from
    receivedAt = max(receivedAt, now)
    unansweredSince = 0
    guard !isRelayOnly else { return }
    if path != .direct(from) { set(.direct(from), .probeAnswered, now, &actions) }
    provenAt = now
    errors = 0
    if trial != nil {
      trial = nil
      probesLeft = 0
      trialEndedAt = now
    }
  }

  private mutating func noteActivity(_ sent: UInt64, _ received: UInt64, _ now: UInt64) {
    sentAt = max(sentAt, sent)
    receivedAt = max(receivedAt, received)
    if receivedAt >= unansweredSince { unansweredSince = 0 }
    if sentAt > receivedAt, unansweredSince == 0 { unansweredSince = max(sent, 1) }
    if path == .relay, !isRelayOnly, nextRoundAt == 0, isInUse(now) { nextRoundAt = now }
  }

  private func isInUse(_ now: UInt64) -> Bool { sentAt != 0 && now <= sentAt + Self.useLasts }

  // MARK: Time

  /// When `tick` is due; nil for a peer that is not in use.
  package var nextDeadline: UInt64? {
    var deadline = UInt64.max
    if probesLeft > 0 || trial != nil { deadline = nextProbeAt }
    if path == .relay, nextRoundAt != 0, sentAt != 0 { deadline = min(deadline, nextRoundAt) }
    if trial == nil, let silence = silenceAt { deadline = min(deadline, silence) }
    return deadline == .max ? nil : deadline
  }

  /// When the present path counts as silent, if nothing comes.
  private var silenceAt: UInt64? {
    // Still being sent to: a peer that we stopped talking to owes no answer.
    guard unansweredSince != 0, path != .none, sentAt + 5_000_000_000 >= unansweredSince + Self.silenceLimit else {
      return nil
    }
    return max(unansweredSince, trialEndedAt) + Self.silenceLimit
  }

  private mutating func beginTrial(_ reason: PathReason, _ now: UInt64) {
    guard trial == nil else { return }
    trial = reason
    probesLeft = 3
    nextProbeAt = now
  }

  private mutating func beginRound(_ now: UInt64, _ actions: inout [Action]) {
    nextRoundAt = now + Self.upgradeInterval
    guard !candidates.isEmpty else { return }
    actions.append(.requestPunch)
    probesLeft = 3
    nextProbeAt = now
  }

  private mutating func runTimers(_ now: UInt64, _ actions: inout [Action]) {
    if path == .relay, nextRoundAt != 0, now >= nextRoundAt {
      if isInUse(now) { beginRound(now, &actions) } else { nextRoundAt = 0 }
    }
    if trial == nil, let silence = silenceAt, now >= silence {
      if case .direct = path {
        beginTrial(.silent, now)
      } else {
        trialEndedAt = now
        actions.append(.suspectSession)
      }
    }
    guard now >= nextProbeAt else { return }
    if probesLeft > 0 {
      probesLeft -= 1
      if trial != nil {
        if case .direct(let present) = path { actions.append(.probe(present)) }
        nextProbeAt = now + Self.probeGap
      } else {
        for candidate in candidates { actions.append(.probe(candidate)) }
        nextProbeAt = now + Self.roundGap
      }
    } else if let reason = trial {
      trial = nil
      trialEndedAt = now
      if reason == .silent { actions.append(.suspectSession) }
      leaveDirect(reason, now, &actions)
    }
  }
}
