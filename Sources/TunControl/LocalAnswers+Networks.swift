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
    case .setMemberTags(let network, let node, let json):
      guard let adminToken else { throw LocalError("managed member-tags: this node has no admin token") }
      guard let list = (try? JSONValue(parsing: json))?.list, list.allSatisfy({ $0.text != nil }) else {
        throw LocalError("managed member-tags: invalid JSON: not an array of strings")
      }
      return try await asking("managed member-tags") { () throws(DirectoryError) in
        try await directory.setMemberTags(
          list.compactMap(\.text), of: node, in: network, adminToken: adminToken.text)
      }
    }
  }

  /// Those to whom a broadcast of a local client goes: all members but this node.
  func audience(_ network: UInt16, token: [UInt8]) async throws(LocalError) -> [PilotAddress] {
    guard network != 0 else { throw LocalError("broadcast: broadcast not permitted on backbone network") }
    guard let adminToken else {
      throw LocalError("broadcast: broadcast denied: daemon has no admin token configured")
    }
    guard adminToken.matches(token) else { throw LocalError("broadcast: broadcast denied: invalid admin token") }
    let reply = try await asking("broadcast") { () throws(DirectoryError) in
      try await directory.networkMembers(network, adminToken: adminToken.text)
    }
    let members = reply.items("nodes").compactMap { $0["node_id"]?.integer.flatMap { UInt32(exactly: $0) } }
    guard let own = await directory.node, members.contains(own) else {
      throw LocalError("broadcast: this node is not a member of network \(network)")
    }
    // Others may have made it one since it registered.
    await directory.noteMembership(network)
    return members.filter { $0 != own }.map { PilotAddress(network: network, node: $0) }
  }

  /// Clients end with a panic when a row lacks one of these numbers: no registry shall be able to do that to them. The
  /// list is cut where it would not fit into a frame.
  static func with(_ reply: JSONValue, _ list: String, having numbers: [String]) -> JSONValue {
    let rows = reply.items(list).filter { row in numbers.allSatisfy { row[$0]?.integer != nil } }
    return LocalForms.cut(reply, [(list, rows)])
  }
}
