// The values that go in and out of `Directory`: records, answers, states, events. Used by TunControl and Naming's
// glue.

package import Wire

/// What the directory knows about one node: `lookup` and `resolve` in one.
package struct PeerRecord: Sendable, Equatable {
  package var node: UInt32
  /// The Ed25519 key the registry names for the node. Checked against the pin by the caller.
  package var publicKey: Bytes32?
  package var hostname: String?
  package var isPublic: Bool
  /// Networks the node is in, as far as the registry shows them; 0 is the backbone.
  package var networks: [UInt16]
  package var tags: [String]
  package var version: String?
  /// Where its tunnel socket is: the registry's endpoint first, then those on its own LAN. Empty when the registry
  /// does not tell (see `isEndpointRefused`) or when the node wants the relay only.
  package var endpoints: [Endpoint]
  /// The node is to be reached through the beacon only.
  package var isRelayOnly: Bool
  /// The registry refused the endpoint: a private node that neither trusts us nor shares a network with us.
  package var isEndpointRefused: Bool
  /// Unix seconds, as the registry says it.
  package var lastSeen: Int64?
  /// Unix seconds when this was learned.
  package var fetched: Int64
  /// Answered from the state directory because the registry is away.
  package var isFromStore: Bool

  package init(
    node: UInt32, publicKey: Bytes32? = nil, hostname: String? = nil, isPublic: Bool = false,
    networks: [UInt16] = [0], tags: [String] = [], version: String? = nil, endpoints: [Endpoint] = [],
    isRelayOnly: Bool = false, isEndpointRefused: Bool = false, lastSeen: Int64? = nil, fetched: Int64 = 0,
    isFromStore: Bool = false
  ) {
    self.node = node
    self.publicKey = publicKey
    self.hostname = hostname
    self.isPublic = isPublic
    self.networks = networks
    self.tags = tags
    self.version = version
    self.endpoints = endpoints
    self.isRelayOnly = isRelayOnly
    self.isEndpointRefused = isEndpointRefused
    self.lastSeen = lastSeen
    self.fetched = fetched
    self.isFromStore = isFromStore
  }

  /// Address on the backbone.
  package var address: PilotAddress { PilotAddress(network: 0, node: node) }

  /// Equal in everything but the times and the source of the knowledge.
  package func saysTheSame(as other: PeerRecord) -> Bool {
    var a = self
    var b = other
    (a.lastSeen, a.fetched, a.isFromStore) = (nil, 0, false)
    (b.lastSeen, b.fetched, b.isFromStore) = (nil, 0, false)
    return a == b
  }
}

/// Answer to "who is this node?".
package enum RecordResult: Sendable, Equatable {
  case found(PeerRecord)
  /// The registry knows no such node.
  case notFound
  /// The registry is away (or asks to slow down) and nothing is stored.
  case unavailable

  package var record: PeerRecord? {
    if case .found(let record) = self { record } else { nil }
  }
}

/// Answer to "which node has this name?".
package enum NameResult: Sendable, Equatable {
  /// `lastSeen` in Unix seconds; `fromCache`: the registry is away and this is what it said before.
  case found(node: UInt32, address: PilotAddress, lastSeen: Int64?, fromCache: Bool)
  case notFound
  case unavailable
}

/// How the registry is doing, seen from here.
package enum DirectoryState: Sendable, Equatable {
  /// Before the first attempt has ended.
  case connecting
  /// Registered.
  case connected(since: ContinuousClock.Instant)
  case unreachable(since: ContinuousClock.Instant, reason: DirectoryError, nextTry: ContinuousClock.Instant)

  package var isConnected: Bool {
    if case .connected = self { true } else { false }
  }
}

/// What the directory tells the node on its own account.
package enum DirectoryEvent: Sendable, Equatable {
  /// After every (re-)registration: own id, backbone address, own networks (0 included). Also once at start, with
  /// what the last run was told, when the registry cannot be reached.
  case registered(node: UInt32, address: PilotAddress, networks: [UInt16])
  case stateChanged(DirectoryState)
  /// Trust was withdrawn here: no packets of the peer from now on. Its tunnel has to stand until `trustChanged`, for
  /// it is told over it.
  case trustEnding(peer: UInt32)
  /// Ask `trust(of:)` what it is now.
  case trustChanged(peer: UInt32)
  /// To be counted.
  case trustRefused(TrustRefusal)
  case handshakeRequested(peer: UInt32, justification: String)
  case peerRecordChanged(PeerRecord)
}

/// What a peer may expect from us.
package enum TrustState: Sendable, Equatable {
  /// Both ends agreed.
  case trusted
  /// Not agreed, but both are members of this network.
  case sharedNetwork(UInt16)
  /// The peer asked, we have not answered.
  case pending
  /// We asked, the peer has not answered.
  case requested
  case none

  /// Whether the peer's packets come in.
  package var isAdmitted: Bool {
    switch self {
    case .trusted, .sharedNetwork: true
    case .pending, .requested, .none: false
    }
  }
}

/// One line of `trust list`, `trust pending`.
package struct TrustEntry: Sendable, Equatable {
  package enum Kind: String, Sendable { case trusted, pending, outgoing }
  package var node: UInt32
  package var kind: Kind
  /// Unix seconds: trusted since, asked at.
  package var since: Int64
  package var justification: String

  package init(node: UInt32, kind: Kind, since: Int64, justification: String = "") {
    self.node = node
    self.kind = kind
    self.since = since
    self.justification = justification
  }
}

/// A network as `list_networks` shows it.
package struct NetworkInfo: Sendable, Equatable {
  package var id: UInt16
  package var name: String
  package var joinRule: String
  package var members: Int?

  package init(id: UInt16, name: String, joinRule: String, members: Int? = nil) {
    self.id = id
    self.name = name
    self.joinRule = joinRule
    self.members = members
  }
}

/// Port policy of a network. Empty `allowedPorts` allows all.
package struct NetworkPolicy: Sendable, Equatable {
  package var network: UInt16
  package var allowedPorts: [UInt16]
  package var maxMembers: Int
  package var text: String
}

/// Whether a peer's key is the one it had before.
package enum PinVerdict: Sendable, Equatable {
  /// First contact: pinned now.
  case new
  case same
  /// Another key than the pinned one: refuse until the operator calls `acceptKey(node:)`.
  case changed(pinned: Bytes32)
}
