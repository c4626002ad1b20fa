// Which way packets to one peer go, as a pure state machine: (event, time, entropy) -> actions. Control owns one per
// peer and feeds it what the worker, the directory and HandshakeMachine report; nothing here knows a socket or a clock.
//
// Rules (docs/nat-traversal.md):
// - Before there is a session, the handshake goes every way at once, and the first that answers is the path.
// - With a session, all ways race: a round of probes (sealed pings) to each endpoint and through the relay. A way may
//   carry data when a small probe and one of data size were answered. Direct goes before the relay, then the shorter
//   round trip, by a quarter at least, and never twice in a minute.
// - While packets are sent, the path owes signs of life: 0.8 s after the first packet without one, probes; four of them
//   unanswered while another way answers, and that way is taken. When nothing answers, the session is in doubt.
// - While the path is the relay, or not the best one can be had, rounds go on as long as the peer is used: at once,
//   then at growing distances with jitter; at once again when either end's network changes.
// - A peer that asks through the relay may hear nothing of us directly: then only an answered probe is a sign of life.
// - The peer's address moves only by a probe that is answered there. A genuine PILA is a hint: it may be a recording,
//   so it counts only for an endpoint that is known anyway, or when no path is known at all.

package import Wire

package struct PathMachine: Sendable {
  package enum Event: Sendable {
    /// What the directory and the store say of the peer, best first.
    case record([Known], isRelayOnly: Bool)
    /// What the peer says of itself through the tunnel.
    case told([Endpoint])
    /// Whether a relay can be used.
    case beacon(isAvailable: Bool)
    /// Whether frames can be sealed for the peer. Probes wait for it.
    case session(isUp: Bool)
    /// This try (from 1) of a handshake was just sent; all before it are unanswered.
    case handshakeTry(Int)
    /// A genuine PILA came from there, or through the relay (nil).
    case handshakeHeard(Endpoint?)
    /// An authenticated frame with a new highest counter came directly from an endpoint that is not the path.
    case moved(Endpoint)
    /// A probe or a list of candidates came through the relay: the peer is in doubt about the direct path, or tries ways.
    case calledThroughRelay
    /// The beacon has another address: what was found of the relay holds no more, and the worker forgot the path's limit.
    case relayMoved
    /// A probe was answered, and the answer came by this way. Official daemons answer a direct probe through the relay
    /// while they think of the direct way as closed: that proves nothing of the way back.
    case probeAnswered(ProbeID, by: Path)
    /// Our kernel refused an inner frame of this size on this way; what it would have taken, if it says.
    case tooBig(Path, size: Int, limit: Int?)
    /// The beacon sees our socket at another endpoint than before: a NAT gave us another mapping.
    case mappingChanged
    /// What is known of our own network now, and whether ports may be opened in numbers.
    case ownNetwork(OwnNetwork, mayOpenPorts: Bool)
    /// How the peer says that its NAT gives out ports.
    case peerTranslation(PortTranslation)
    /// A socket of our own that was opened for the peer heard from this endpoint: frames to it leave by that socket now.
    case portOpened(Endpoint)
    /// Our own network changed: no proof holds any more.
    case networkChanged
    /// A deadline, a survey, or the first packet after a second of silence.
    case tick
  }

  /// An endpoint and where it is known from.
  package struct Known: Equatable, Sendable {
    package var endpoint: Endpoint
    package var kind: CandidateKind
    package init(_ endpoint: Endpoint, _ kind: CandidateKind) {
      self.endpoint = endpoint
      self.kind = kind
    }
  }

  package enum Action: Equatable, Sendable {
    case setPath(Path)
    /// Send a sealed ping whose inner frame has this many bytes by this way; report its answer as `probeAnswered`.
    case probe(ProbeID, Path, size: Int)
    /// Largest inner frame that the path takes; 0: as large as the interface's packets. Also so after each `setPath`.
    case setPathLimit(Int)
    /// Have the peer open its NAT for us, and try its ways to us: through the beacon, and through the tunnel.
    case callPeer
    /// Tell the beacon where we are: a NAT that forgot us gave us another endpoint, and frames through the relay end there.
    case renewRelay
    /// Our NAT maps by destination and the peer's filters by port: open many ports towards it (PortOpener).
    case openPorts(Endpoint)
    /// An attempt to leave the relay ended.
    case count(PunchOutcome)
    /// Nothing came back, not even for probes: HandshakeMachine should ask whether the session holds (`failing`).
    case suspectSession
  }

  /// A time on one path.
  package struct Stretch: Equatable, Sendable {
    package var path: Path
    package var reason: PathReason
    package var since: UInt64
  }

  /// The present stretch and the ones before it, newest last, at most 8.
  package private(set) var history: [Stretch] = []
  package var path: Path { history.last?.path ?? .none }
  package var reason: PathReason { history.last?.reason ?? .noCandidate }

  /// Endpoints, in the order in which they were learned, at most `PathLimits.candidates`; and the relay.
  package internal(set) var candidates: [Candidate] = []
  package internal(set) var relay = Candidate(path: .relay, kind: .directory)

  var isRelayOnly = false
  var hasBeacon = false
  /// The directory answered; before that a missing endpoint means nothing.
  var hasRecord = false
  var hasSession = false
  var handshakeWentDirect = false
  /// Nothing proved itself since our network changed.
  var isUnsettled = false
  var activity = PathActivity()

  // An attempt to leave the relay, and what is known of the NATs (PathMachine+Outcomes).
  var own = OwnNetwork()
  var mayOpenPorts = false
  var peerTranslation = PortTranslation.unknown
  var attempt: Attempt?
  var openings: UInt8 = 0
  var nextOpeningAt: UInt64 = 0

  // Probes under way, a round of them, a trial of the present path.
  var outstanding: [Probe] = []
  /// Those that were given up, for a while: an answer proves its way whenever it comes.
  var late: [Probe] = []
  /// What is left for endpoints that never showed life, and when it was last filled up.
  var strangerBudget = PathLimits.strangerProbes
  var strangerBudgetAt: UInt64 = 0
  var toldRoundAt: UInt64 = 0
  var calledAt: UInt64 = 0
  /// Since when trials find no life on any way, and the end of the last of them.
  var silentSince: UInt64 = 0
  var triedInVainAt: UInt64 = 0
  var nextProbe: ProbeID = 1
  var round: Round?
  var roundsInVain: UInt8 = 0
  var nextRoundAt: UInt64 = 0
  var trial: Trial?
  /// Since when the present path owes a sign of life, 0: it does not.
  var owesSince: UInt64 = 0
  var watchedAt: UInt64 = 0
  /// When a path was left of free will: not again for a minute.
  var switchedAt: UInt64 = 0
  var sessionSince: UInt64 = 0
  /// The peer speaks from elsewhere: to be confirmed by a probe there, and by none on the path.
  var move: Move?
  /// How large frames the path takes, as found and as told.
  package internal(set) var search: PathMTUSearch?
  var toldLimit = 0
  var verifiedAt: UInt64 = 0
  var sizeDoubts = 0
  /// Largest inner frame there is: the interface's MTU.
  let ceiling: Int
  private var random: UInt64

  /// `seed`: spreads the rounds of many peers.
  package init(seed: UInt64 = 0, mtu: Int = 1400) {
    random = seed | 1
    ceiling = mtu
  }

  /// Handles one event. `activity`: the worker's counters now. Actions are to be carried out in order.
  package mutating func handle(_ event: Event, activity: PathActivity = .init(), now: UInt64) -> [Action] {
    var actions: [Action] = []
    note(activity, now)
    switch event {
    case .record(let known, let isRelayOnly): learn(known, isRelayOnly, now, &actions)
    case .told(let endpoints): told(endpoints, now, &actions)
    case .beacon(let isAvailable):
      hasBeacon = isAvailable
      if !isAvailable, path == .relay { leaveRelay(now, &actions) } else { choose(now, &actions) }
    case .session(let isUp): noteSession(isUp, now, &actions)
    case .handshakeTry(let number): tried(number, now, &actions)
    case .handshakeHeard(let from): heard(from, now, &actions)
    case .moved(let from): moved(from, now, &actions)
    case .calledThroughRelay: called(now)
    case .relayMoved:
      relay.forget()
      guard path == .relay else { break }
      toldLimit = 0
      beginSearch(now, &actions)
      if isInUse(now) { beginRound(now, calls: false, &actions) }
    case .probeAnswered(let id, let way): answered(id, by: way, now, &actions)
    case .mappingChanged: forgive(now, &actions)
    case .ownNetwork(let network, let mayOpenPorts): learn(network, mayOpenPorts)
    case .peerTranslation(let translation): peerTranslation = translation
    case .portOpened(let endpoint): opened(endpoint, now, &actions)
    case .tooBig(let way, let size, let limit): refusedSize(way, size, limit, now, &actions)
    case .networkChanged: distrustEverything(now, &actions)
    case .tick: break
    }
    runTimers(now, &actions)
    return actions
  }

  // MARK: The path

  mutating func set(_ path: Path, _ reason: PathReason, _ now: UInt64, _ actions: inout [Action]) {
    guard path != self.path || history.isEmpty else { return }
    let wasRelayed = self.path == .relay
    if history.count == 8 { history.removeFirst() }
    history.append(Stretch(path: path, reason: reason, since: now))
    owesSince = 0
    trial = nil
    move = nil
    if path == .relay, nextRoundAt == 0, !isRelayOnly { nextRoundAt = now }
    if case .direct = path, wasRelayed { actions.append(.count(.succeeded)) }
    if path != .relay { attempt = nil }
    actions.append(.setPath(path))
    toldLimit = 0
    beginSearch(now, &actions)
  }

  /// The first choice, when there is no path yet or it became impossible.
  mutating func choose(_ now: UInt64, _ actions: inout [Action]) {
    if isRelayOnly {
      if path != .relay || !hasBeacon {
        set(hasBeacon ? .relay : .none, hasBeacon ? .relayOnly : .relayLost, now, &actions)
      }
      return
    }
    // With a session only probes move a path that there is.
    if hasSession, path != .none { return hurry(now) }
    let first = candidates.first
    if case .direct = path {
      // The directory knows better than an unproven guess, never than what answered.
      if let first, first.kind <= .directory, let present = self[path], present.answeredAt == 0, present.heardAt == 0,
        first.path != path
      {
        set(first.path, .directoryEndpoint, now, &actions)
      }
      return
    }
    guard path == .none || (reason == .noEndpoint && first != nil) else { return }
    if let first {
      set(first.path, first.kind == .seen ? .cameFromThere : .directoryEndpoint, now, &actions)
    } else if hasBeacon, hasRecord {
      set(.relay, .noEndpoint, now, &actions)
    }
  }

  private mutating func leaveRelay(_ now: UInt64, _ actions: inout [Action]) {
    guard !isRelayOnly, let best = candidates.min(by: { $0.misses < $1.misses }) else {
      return set(.none, .relayLost, now, &actions)
    }
    set(best.path, .relayLost, now, &actions)
  }

  // MARK: Handshakes

  private mutating func tried(_ number: Int, _ now: UInt64, _ actions: inout [Action]) {
    activity.sentAt = max(activity.sentAt, now)
    if number == 1 {
      handshakeWentDirect = false
      choose(now, &actions)
    }
    // Two without answer: there is no path whose silence could tell that the relay knows us elsewhere.
    if number > 2, hasBeacon { actions.append(.renewRelay) }
    guard number > 3, hasBeacon, case .direct = path else { return }
    let lastSign = max(self[path]?.answeredAt ?? 0, self[path]?.heardAt ?? 0, activity.onPathAt)
    if lastSign == 0 || now > lastSign + PathLimits.handshakeSilence { set(.relay, .unanswered, now, &actions) }
  }

  private mutating func heard(_ from: Endpoint?, _ now: UInt64, _ actions: inout [Action]) {
    guard let from else {
      guard hasBeacon else { return }
      if path == .none || (!handshakeWentDirect && !isDirectAlive) {
        set(.relay, isRelayOnly ? .relayOnly : .handshakeRelayed, now, &actions)
      }
      return
    }
    guard !isRelayOnly else { return }
    if let known = self[.direct(from)] {
      handshakeWentDirect = true
      // It may be a recording, or a way that is open in one direction: with a session a probe tells.
      if hasSession, path != .none {
        if path != .direct(from) { probe(.direct(from), PathLimits.smallProbe, now, &actions) }
      } else if !isDirectAlive, now >= known.penaltyUntil, path != .direct(from) {
        set(.direct(from), .handshakeAnswered, now, &actions)
      }
    } else if path == .none, add(from, .seen) {
      set(.direct(from), .handshakeAnswered, now, &actions)
    }
  }

  /// The present path is direct and has shown life.
  private var isDirectAlive: Bool {
    guard case .direct = path, let present = self[path] else { return false }
    return max(present.answeredAt, present.heardAt) != 0 && !isUnsettled
  }

  private mutating func noteSession(_ isUp: Bool, _ now: UInt64, _ actions: inout [Action]) {
    guard isUp != hasSession else { return }
    hasSession = isUp
    outstanding = []
    late = []
    round = nil
    trial = nil
    move = nil
    attempt = nil
    owesSince = 0
    silentSince = 0
    guard isUp else { return }
    if isRelayOnly { actions.append(.count(.policy)) }
    beginSearch(now, &actions)
    sessionSince = now
    roundsInVain = 0
    nextRoundAt = isRelayOnly ? 0 : now
  }

  // MARK: Entropy

  /// Up to a quarter more.
  mutating func jittered(_ time: UInt64) -> UInt64 {
    random ^= random << 13
    random ^= random >> 7
    random ^= random << 17
    return time + random % max(time / 4, 1)
  }
}

/// Times (nanoseconds), sizes and counts of the path machine.
package enum PathLimits {
  static let millisecond: UInt64 = 1_000_000
  static let second: UInt64 = 1_000_000_000
  package static let candidates = 12
  static let outstanding = 48
  static let verifyGap = 10 * second
  static let lateLasts = 5 * second
  /// So many small probes without answer say that the path itself is in doubt.
  static let unansweredInARow = 3
  /// Probes to endpoints that never showed life: a round of some and its repetitions at once, then one a second. Whoever
  /// names addresses of others has them hit by no more.
  package static let strangerProbes = 40
  static let strangerGap = second
  /// Endpoints with one address.
  static let portsOfOne = 3
  static let toldGap = 5 * second
  /// Inner bytes of a probe that only asks, and of one that stands for data: the least MTU of IPv6.
  package static let smallProbe = 50
  package static let largeProbe = 1280
  /// A peer that nothing was sent to for this long is not in use: no rounds, no probes, no wake-ups.
  package static let useLasts = 120 * second
  /// Packets were sent and no sign of life came for this long: the path is tried.
  package static let silence = 800 * millisecond
  static let trialGap = 200 * millisecond
  static let trialProbes = 9
  static let mostTrialGap = 30 * second
  /// A path that lived for this long before it died begins with the first penalty again.
  static let forgiven = 600 * second
  /// Probes of a trial without answer after which a direct path, and the relay, is dead, if another way answers. The
  /// relay is two ways long and loses twice.
  static let deadlyMisses = (direct: 4, relay: 7)
  /// While packets are sent the counters are looked at this often.
  static let watchGap = 500 * millisecond
  static let watchLasts = 5 * second
  /// When the volleys of a round leave.
  static let volleys: [UInt64] = [0, 250 * millisecond, 750 * millisecond]
  static let firstRoundGap = 5 * second
  static let mostRoundGap = 60 * second
  /// Between two times that ports are opened in numbers for the peer, twice as long each further time.
  package static let openingGap = 120 * second
  static let mostOpeningGap = 3600 * second
  /// After a way was left for silence it is not taken again for this long, twice as long each further time.
  package static let penalty = 60 * second
  static let mostPenalty = 900 * second
  /// Between two changes of free will.
  package static let calm = 60 * second
  /// How long after the begin of a session the race is open.
  static let race = 5 * second
  static let probeTimeout = second
  static let leastProbeTimeout = 200 * millisecond
  /// For the old path of a peer that speaks from elsewhere: soon enough for two more round trips.
  static let movePatience = 20 * millisecond
  static let handshakeSilence = 5 * second
  /// A path that was quiet for this long is tried with the first packet.
  static let rest = 20 * second
  /// How recent two signs of life are that make a frame from elsewhere no news.
  static let recent = 5 * second
}
