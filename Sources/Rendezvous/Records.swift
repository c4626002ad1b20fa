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
  /// The node proves its key with a nonce on each connection: ordinary signatures, which could be recorded ones, are
  /// not enough for it any longer.
  package var provesFreshly = false
}

package struct NetworkRecord: Equatable, Sendable {
  package enum JoinRule: String, Sendable {
    case open, token, invite
  }

  package var id: UInt16
  package var name: String
  package var rule: JoinRule
  package var token: String
  package var createdAt: Int64
  /// The network's own administrator's token; empty is none.
  package var adminToken = ""
  /// A label that clients show. Official registries allow roles and invites only with it, this one always.
  package var isEnterprise = false
  /// How the members of a managed network choose their peers, as JSON text for them; empty is not managed.
  package var rules = ""
  package var policy = NetworkPolicyRecord()
  /// What members evaluate, as JSON text; empty is none.
  package var expression = ""
}

/// What members of a network may do in it. The ports are enforced by the members, the number by the registry.
package struct NetworkPolicyRecord: Equatable, Sendable {
  /// 0 is any number.
  package var maxMembers: UInt32 = 0
  /// Empty is all.
  package var allowedPorts: [UInt16] = []
  package var text = ""
}

package struct MemberRecord: Equatable, Sendable {
  package enum Role: String, Sendable {
    case owner, admin, member
  }

  package var network: UInt16
  package var node: UInt32
  package var role: Role
  package var joinedAt: Int64
  /// What the network's administrators call this member.
  package var tags: [String] = []
}

/// A member's permission for another node to join. It waits until the node answers, or a month.
package struct InviteRecord: Equatable, Sendable {
  package var network: UInt16
  package var target: UInt32
  /// 0 is the administrator.
  package var inviter: UInt32
  package var at: Int64
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
  /// The network with its members and invites.
  case noNetwork(UInt16)
  case invite(InviteRecord)
  case noInvite(network: UInt16, target: UInt32)
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
  package var invites: [InviteRecord] = []
  /// The highest network id that was ever given, also to networks that are gone.
  package var lastNetwork: UInt16 = 0

  package static func == (a: StoredState, b: StoredState) -> Bool {
    a.nodes == b.nodes && a.trust.elementsEqual(b.trust, by: ==) && a.handshakes == b.handshakes
      && a.responses == b.responses && a.networks == b.networks && a.members == b.members
      && a.invites == b.invites && a.lastNetwork == b.lastNetwork
  }
}
