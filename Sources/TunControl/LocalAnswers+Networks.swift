// Networks, for local clients: the registry's answers, passed through (wire/ipc §7.5, §7.6).

import Directory
import JSON
import LocalSocket
import Wire

extension LocalAnswers {
  func network(_ query: NetworkQuery) async throws(LocalError) -> JSONValue {
    switch query {
    case .list:
      let reply = try await asking("network list") { () throws(DirectoryError) in try await directory.networksReply() }
      return Self.with(reply, "networks", having: ["id"])
    case .join(let network, let token):
      let address = try await asking("network join") { () throws(DirectoryError) in
        try await directory.join(NetworkMembership(id: network, token: token))
      }
      return ["type": "join_network_ok", "network_id": JSONValue(network), "address": .text(address.description)]
    case .leave(let network):
      try await asking("network leave") { () throws(DirectoryError) in try await directory.leave(network) }
      return ["type": "leave_network_ok", "network_id": JSONValue(network)]
    case .members(let network):
      let reply = try await asking("network members") { () throws(DirectoryError) in
        try await directory.networkMembers(network)
      }
      return Self.with(reply, "nodes", having: ["node_id"])
    case .invite(let network, let node):
      return try await asking("network invite") { () throws(DirectoryError) in
        try await directory.invite(node, to: network)
      }
    case .pollInvites:
      let reply = try await asking("network poll-invites") { () throws(DirectoryError) in
        try await directory.pollInvites()
      }
      return Self.with(reply, "invites", having: ["network_id", "inviter_id"])
    case .respond(let network, let accepts):
      return try await asking("network respond-invite") { () throws(DirectoryError) in
        try await directory.respondInvite(to: network, accepts: accepts)
      }
    }
  }

  func managed(_ query: ManagedQuery) async throws(LocalError) -> JSONValue {
    switch query {
    case .status, .cycle: throw LocalError("managed: no active managed networks")
    case .reconcile: throw LocalError("managed: no active policy runner for network")
    case .policy(let network):
      return ["type": "managed_policy_ok", "network_id": JSONValue(network), "engine": "none"]
    case .setPolicy: throw LocalError("managed policy: this node runs no network policies")
    case .memberTags(let network, let node):
      return try await asking("managed member-tags") { () throws(DirectoryError) in
        try await directory.memberTags(network, of: node)
      }
    case .setMemberTags: throw LocalError("managed member-tags: this node has no admin token")
    }
  }

  /// Clients end with a panic when a row lacks one of these numbers: no registry shall be able to do that to them. The
  /// list is cut where it would not fit into a frame.
  static func with(_ reply: JSONValue, _ list: String, having numbers: [String]) -> JSONValue {
    let rows = reply.items(list).filter { row in numbers.allSatisfy { row[$0]?.integer != nil } }
    return LocalForms.cut(reply, [(list, rows)])
  }
}
