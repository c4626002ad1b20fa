// What the registry remembers. RegistryState holds these, RegistryStore reads and writes them. Times are unix
// milliseconds.

package import Wire

package struct NodeRecord: Equatable, Sendable {
  package var id: UInt32
  package var key: Bytes32
  package var createdAt: Int64
  package var rotatedAt: Int64?
  package var rotateCount = 0
  package var owner = ""
  package var version = ""
  /// Empty is none.
  package var hostname = ""
  package var isPublic = false
  package var tags: [String] = []
  /// False after deregister: only key and id are kept.
  package var isRegistered = true
  /// The source address of the registration. Changes, reads by host and the beacon's binding compare with it.
  package var host: IPv6Address
  /// Where others send to. The port is 0 when the client named none.
  package var endpoint: Endpoint
  package var lanAddresses: [Endpoint] = []
  package var isRelayOnly = false
  package var lastSeen: Int64
}

package struct NetworkRecord: Equatable, Sendable {
  package enum JoinRule: String, Sendable {
    case open, token
  }

  package var id: UInt16
  package var name: String
  package var rule: JoinRule
  package var token: String
  package var createdAt: Int64
}

package struct MemberRecord: Equatable, Sendable {
  package enum Role: String, Sendable {
    case owner, admin, member
  }

  package var network: UInt16
  package var node: UInt32
  package var role: Role
  package var joinedAt: Int64
}

/// One node's wish for the trust of another. It outlives its delivery: only a recorded wish can be accepted.
package struct HandshakeRecord: Equatable, Sendable {
  package enum State: Int, Sendable {
    case waiting = 0
    case delivered = 1
    case accepted = 2
    case rejected = 3
  }

  package var sender: UInt32
  package var target: UInt32
  package var justification: String
  package var at: Int64
  package var state: State
}

/// An answer that waits for the next poll of `requester`.
package struct ResponseRecord: Equatable, Sendable {
  package var requester: UInt32
  package var peer: UInt32
  package var isAccepted: Bool
  package var at: Int64
}

/// One change of the durable state. RegistryState lists them, RegistryStore applies them in order.
package enum StoreChange: Equatable, Sendable {
  case node(NodeRecord)
  /// A key whose id is not the one derived from it, or would not be after a loss of the database.
  case exceptionalKey(Bytes32, id: UInt32)
  case trust(UInt32, UInt32, isTrusted: Bool)
  case handshake(HandshakeRecord)
  case noHandshake(sender: UInt32, target: UInt32)
  case response(ResponseRecord)
  case noResponses(requester: UInt32)
  case network(NetworkRecord)
  case member(MemberRecord)
  case noMember(network: UInt16, node: UInt32)
}

/// Everything durable, as read at the start.
package struct StoredState: Equatable, Sendable {
  package var nodes: [NodeRecord] = []
  package var trust: [(UInt32, UInt32)] = []
  package var handshakes: [HandshakeRecord] = []
  package var responses: [ResponseRecord] = []
  package var networks: [NetworkRecord] = []
  package var members: [MemberRecord] = []

  package static func == (a: StoredState, b: StoredState) -> Bool {
    a.nodes == b.nodes && a.trust.elementsEqual(b.trust, by: ==) && a.handshakes == b.handshakes
      && a.responses == b.responses && a.networks == b.networks && a.members == b.members
  }
}
