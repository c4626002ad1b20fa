// What the path machine speaks of: ways to a peer, why one is taken, where an endpoint is known from.

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
  case peerMoved = "the peer moved there, and answered a probe"
  case cameFromThere = "its frames come from there, and no other way is known"
  case probeAnswered = "probes were answered directly, small and at data size"
  case smallOnly = "probes were answered directly, but not at data size"
  case faster = "its round trip is shorter by a quarter"
  case nearer = "the peer is on the same network"
  case relayOnly = "the peer takes relayed frames only"
  case noEndpoint = "the directory knows no endpoint"
  case unanswered = "3 direct handshakes without answer"
  case silent = "the path before was silent while we sent, and left its probes unanswered"
  case relayLost = "the relay is not reachable"
  case networkChanged = "the network changed, and this way answered first"
}

/// Where an endpoint of a peer is known from, best first.
package enum CandidateKind: UInt8, Sendable, CaseIterable, Comparable {
  /// An address of the peer's own interfaces, on a network that we are on, too.
  case lan = 0
  /// What the directory says of the peer's socket.
  case directory = 1
  /// The peer itself, through the tunnel.
  case told = 2
  /// Where an authenticated frame came from.
  case seen = 3
  /// It worked in an earlier run.
  case remembered = 4

  package static func < (a: CandidateKind, b: CandidateKind) -> Bool { a.rawValue < b.rawValue }

  package var word: String {
    switch self {
    case .lan: "same network"
    case .directory: "directory"
    case .told: "told by the peer"
    case .seen: "seen"
    case .remembered: "remembered"
    }
  }
}

/// What became of trying to get from the relay to a direct path, one for each attempt. Node counts them as
/// `punch-…`; docs/nat-traversal.md has the table.
package enum PunchOutcome: String, Sendable, CaseIterable {
  case succeeded = "punch-succeeded"
  /// All ways were asked, none answered.
  case noAnswer = "punch-no-answer"
  /// One end's NAT changed its mapping meanwhile: what was tried was no longer true.
  case mappingChanged = "punch-mapping-changed"
  /// An end's NAT maps by destination (symmetric), and no way answered.
  case symmetric = "punch-symmetric"
  /// No endpoint of the peer has an address family that this machine has.
  case family = "punch-family"
  /// One end takes relayed frames only.
  case policy = "punch-policy"
  /// Endpoints that never answered had used up their probes.
  case budget = "punch-budget"
}

/// How the NAT in front of a node gives out ports (RFC 4787 §4.1), as far as it is known.
package enum PortTranslation: UInt8, Sendable {
  case unknown = 0
  /// One outer port, whoever is sent to; or no NAT.
  case independent = 1
  /// Another one for each destination: symmetric.
  case dependent = 2
}

/// What is known of this machine's own network.
package struct OwnNetwork: Equatable, Sendable {
  package var hasIPv4: Bool
  package var hasIPv6: Bool
  package var translation: PortTranslation

  package init(hasIPv4: Bool = true, hasIPv6: Bool = true, translation: PortTranslation = .unknown) {
    self.hasIPv4 = hasIPv4
    self.hasIPv6 = hasIPv6
    self.translation = translation
  }

  func has(familyOf endpoint: Endpoint) -> Bool { endpoint.isIPv4 ? hasIPv4 : hasIPv6 }
}

/// Names one probe of one machine.
package typealias ProbeID = UInt32

/// What the worker's counters say of a peer; monotonic nanoseconds, 0: never.
package struct PathActivity: Equatable, Sendable {
  /// The last packet that was sent to it: use, not probes.
  package var sentAt: UInt64
  /// The last authenticated frame, however it came.
  package var receivedAt: UInt64
  /// The last one that came by the path that we use.
  package var onPathAt: UInt64

  package init(sentAt: UInt64 = 0, receivedAt: UInt64 = 0, onPathAt: UInt64 = 0) {
    self.sentAt = sentAt
    self.receivedAt = receivedAt
    self.onPathAt = onPathAt
  }
}

/// One way to the peer, and what was tried on it.
package struct Candidate: Equatable, Sendable {
  /// Never `.none`.
  package let path: Path
  package var kind: CandidateKind
  package internal(set) var probes: UInt32 = 0
  package internal(set) var answers: UInt32 = 0
  package internal(set) var triedAt: UInt64 = 0
  package internal(set) var answeredAt: UInt64 = 0
  /// An authenticated frame came from there.
  package internal(set) var heardAt: UInt64 = 0
  /// A probe there was answered through the relay.
  package internal(set) var detouredAt: UInt64 = 0
  /// The last answer came from there.
  package internal(set) var isAnsweredFromThere = false
  /// The smoothed one of small probes, nanoseconds.
  package internal(set) var roundTrip: UInt64?
  /// Probes without answer since the last answer.
  package internal(set) var misses: UInt8 = 0
  /// When the newest of the answered probes left. An older one that is missing was lost: what waits in a queue, or for a
  /// machine that stands still, is late with all that follows it.
  package internal(set) var newestPassed: UInt64 = 0
  /// A probe of data size was answered since the way was last in doubt; how many were not, in a row.
  package internal(set) var isLargeProven = false
  package internal(set) var largeMisses: UInt8 = 0
  /// Left for silence that often; not taken again before.
  package internal(set) var failures: UInt8 = 0
  package internal(set) var penaltyUntil: UInt64 = 0

  init(path: Path, kind: CandidateKind) {
    self.path = path
    self.kind = kind
  }

  /// nil: the relay.
  var endpoint: Endpoint? {
    if case .direct(let endpoint) = path { return endpoint }
    return nil
  }

  /// Small probes pass, those of data size do not.
  package var isSmall: Bool { !isLargeProven && largeMisses >= 3 }

  /// Whether it may carry data: proven in both directions, at data size or known to be small.
  var isProven: Bool { answeredAt != 0 && misses == 0 && (isLargeProven || isSmall) }
}
