// The key exchange with one peer as a pure state machine: (event, time, entropy) -> actions. Control owns one per
// peer it has spoken with; nothing here knows a socket or a clock.
//
// Rules (wire/tunnel §3.5-§3.12, §9, §12):
// - Only a PILA signed by the pinned or registered Ed25519 key makes a session. PILK never does: it asks for our PILA.
// - A pair (own X25519 key, peer X25519 key) is installed at most once, ever: one AES key, one run of nonces. Whoever
//   lost a session makes a new own pair (the *offer*).
// - A session is first a *candidate* (receives only). It becomes *current* (seals) when it is proven:
//     - a frame opened under it, or
//     - the peer's announcement echoes our offer, and no session ever used that offer: the frame answers what we just
//       made, so it is no recording and the peer holds our key.
//   So a recorded PILA makes at most a candidate beside a healthy session, never cuts it, and a packet is never sealed
//   under a key that the peer lacks.
// - A peer that never announced itself (an official daemon) cannot prove that. Its session becomes current at once
//   when there is none, when its PILA answers ours, or when the old one stays silent for 300 ms after it.
//   A peer that announced itself before is not believed without its announcement (it can be stripped) until the
//   session was silent for 30 s.
// - The replaced session (*previous*) goes on receiving for a grace time after its successor was confirmed, and takes
//   over again when the successor never was and the peer repeats its key. Only then is the peer's old X25519 key
//   retired; the last 16 are refused.

package import Wire

/// State of one peer: 512 bytes without sessions, and a key pair of 130 bytes made with the first frame; each of at
/// most three sessions adds 136 bytes here and its context of 1 KB in locked memory.
/// A node with 100,000 idle peers makes a machine when a peer is first spoken with and drops it after the last contact.
package struct HandshakeMachine: Sendable {
  enum Role: Sendable { case candidate, current, previous }

  /// An installed session.
  struct Entry: Sendable {
    let id: SessionID
    let own: Bytes32
    let peer: Bytes32
    let installedAt: UInt64
    var role = Role.candidate
    /// A frame was opened under it.
    var isConfirmed = false
    /// The peer's announcement named our half of the pair.
    var isEchoed = false
    /// Made by a frame with an announcement.
    var isAnnounced: Bool
    /// When the peer's PILA for it was last seen, 0 for one that we installed ahead.
    var offeredAt: UInt64
    /// Candidates: when to ask the peer (again) to prove itself, 0 for never.
    var askAt: UInt64 = 0
    var asked: UInt8 = 0
    /// Official peers: when to look whether the old session stayed silent, 0 for never.
    var silenceCheckAt: UInt64 = 0
    /// Current: when to rekey. Previous: when to retire; `.max` until the successor is confirmed.
    var dueAt: UInt64 = .max
  }

  /// Tries to get an answer.
  struct Attempt: Sendable {
    /// A rekey: there is a current session meanwhile.
    var isRekey: Bool
    /// A PILA without announcement that comes now answers ours.
    var isAnswerExpected: Bool
    var tries = 0
    var startedAt: UInt64
    var nextAt: UInt64
    var hasGivenUp = false
  }

  package let identity: Identity
  /// Our node id and the peer's.
  package let node: UInt32
  package let peer: UInt32
  package let configuration: Configuration

  /// The pinned Ed25519 key; nil until the store or the directory told it.
  package internal(set) var peerKey: Bytes32?
  /// Whether the peer ever announced itself as one of us, takes raw IPv6, and joins packets that come in two frames.
  package internal(set) var isAnnouncing = false
  package internal(set) var takesRawIPv6 = false
  package internal(set) var takesSplitPackets = false

  var offer: X25519KeyPair?
  var isOfferSpent = false
  var offeredAt: UInt64 = 0
  /// Peer keys that the offer was paired with.
  var paired: [Bytes32] = []
  var sessions: [Entry] = []
  var retired: [Bytes32] = []
  var lastID: SessionID = 0
  var attempt: Attempt?
  var neededAt: UInt64 = 0
  var lastInitiativeAt: UInt64?
  var lastAnswerAt: UInt64?
  var answerShift: UInt8 = 0
  var lastComplaintAt: UInt64?
  var lastKeyQueryAt: UInt64?
  var lastRenewAt: UInt64?
  var early: [EarlyFrame] = []
  var waiting: (frame: KeyExchangeFrame, arrival: Arrival)?
  var hasFrameAlarm = false
  var registeredAlarm: Bytes32?
  /// Signature checks left for direct and relayed frames, and when they were last filled up: 10, and 10 a second.
  var budget: (direct: UInt8, relayed: UInt8) = (10, 10)
  var budgetAt: UInt64 = 0

  package init(
    identity: Identity, node: UInt32, peer: UInt32, peerKey: Bytes32? = nil, configuration: Configuration = .init()
  ) {
    self.identity = identity
    self.node = node
    self.peer = peer
    self.peerKey = peerKey
    self.configuration = configuration
  }

  /// One call of `handle`: its time, its entropy, and the actions so far.
  struct Turn<Generator: RandomNumberGenerator> {
    let now: UInt64
    let lastReceive: UInt64
    var generator: Generator
    var actions: [Action] = []

    mutating func act(_ action: Action) { actions.append(action) }
  }

  /// Handles one event. `lastReceive`: when the worker last opened a frame of this peer (0: never); it only decides
  /// how much a peer without announcement is believed. Actions are to be carried out in order.
  package mutating func handle<Generator: RandomNumberGenerator>(
    _ event: Event, now: UInt64, lastReceive: UInt64 = 0, using generator: inout Generator
  ) -> [Action] {
    var turn = Turn(now: now, lastReceive: lastReceive, generator: generator)
    switch event {
    case .needed: need(&turn)
    case .peerKey(let key): learn(key, &turn)
    case .peerKeyUnavailable:
      if waiting != nil { turn.act(.count(.keyUnavailable)) }
      waiting = nil
    case .keyExchange(let frame, let arrival): receive(frame, arrival, &turn)
    case .keyRequest(let frame, let arrival): receive(frame, arrival, &turn)
    case .undecryptable(let bytes, let arrival): keepEarly(bytes, arrival, &turn)
    case .confirmed(let id): confirm(id, &turn)
    case .failing: complain(to: .both, &turn)
    case .relayMoved: attempt?.nextAt = turn.now
    case .rekey: if current != nil { renew(isAnswerExpected: true, &turn) }
    case .acceptKey(let key): accept(key, &turn)
    case .reset: forgetSessions(&turn)
    case .tick: break
    }
    runTimers(&turn)
    generator = turn.generator
    return turn.actions
  }

  // MARK: Views

  /// Bytes that each installed session adds to a machine.
  package static let sessionSize = MemoryLayout<Entry>.stride

  var current: Entry? { sessions.first { $0.role == .current } }

  /// The session that packets are sealed under, if any.
  package var currentSession: SessionID? { current?.id }
  package var isConfirmed: Bool { current?.isConfirmed ?? false }
  /// Installed sessions, oldest first: for `status` and tests.
  package var installedSessions: [SessionID] { sessions.map(\.id) }
  package var isAttempting: Bool { attempt != nil }

  // MARK: Keys of the peer

  private mutating func learn(_ key: Bytes32, _ turn: inout Turn<some RandomNumberGenerator>) {
    if let pinned = peerKey, pinned != key {
      if registeredAlarm != key {
        registeredAlarm = key
        turn.act(.alarm(KeyAlarm(pinned: pinned, seen: key, isRegistered: true)))
      }
      waiting = nil
      return
    }
    peerKey = key
    guard let held = waiting else { return }
    waiting = nil
    receive(held.frame, held.arrival, &turn)
  }

  private mutating func accept(_ key: Bytes32, _ turn: inout Turn<some RandomNumberGenerator>) {
    hasFrameAlarm = false
    registeredAlarm = nil
    guard key != peerKey else { return }
    peerKey = key
    // Another key is another installation: it need not be one of us any more.
    isAnnouncing = false
    takesRawIPv6 = false
    takesSplitPackets = false
    forgetSessions(&turn)
  }

  /// Asks the directory at most once a second, past its cache at most every 3 s.
  mutating func queryKey(fresh: Bool, _ turn: inout Turn<some RandomNumberGenerator>) {
    let gap = fresh ? 3 * Self.second : Self.second
    guard lastKeyQueryAt.map({ turn.now >= $0 + gap }) ?? true else { return }
    lastKeyQueryAt = turn.now
    turn.act(.requestPeerKey(fresh: fresh))
  }
}
