// Networks (wire/registry §2.6).

package import JSON
package import Wire

extension RegistryClient {
  package func listNetworks() async throws(DirectoryError) -> [NetworkInfo] {
    let reply = try await call("list_networks")
    return (reply["networks"]?.list ?? []).prefix(4096).compactMap { item in
      guard let id = item["id"]?.port16 else { return nil }
      return NetworkInfo(
        id: id, name: item["name"]?.text ?? "", joinRule: item["join_rule"]?.text ?? "",
        members: item["members"]?.integer.flatMap { Int(exactly: $0) })
    }
  }

  /// Returns our address in the network.
  package func joinNetwork(
    _ network: NetworkMembership, as me: RegistrySigner
  ) async throws(DirectoryError) -> PilotAddress {
    let reply = try await call(
      "join_network",
      signed(
        me, "join_network:\(me.node):\(network.id)",
        ["network_id": .whole(network.id), "token": .text(network.token), "inviter_id": .integer(0)]))
    guard reply["network_id"]?.port16 == network.id else { throw Self.malformed("join_network") }
    return PilotAddress(network: network.id, node: me.node)
  }

  package func leaveNetwork(_ network: UInt16, as me: RegistrySigner) async throws(DirectoryError) {
    _ = try await call(
      "leave_network", signed(me, "leave_network:\(me.node):\(network)", ["network_id": .whole(network)]))
  }

  // MARK: Answers that go to local clients as they are (wire/ipc §7.5)

  package func networksReply() async throws(DirectoryError) -> JSONValue { try await call("list_networks") }

  /// With an administrator's token of networks, too, that this connection is no member of.
  package func networkMembers(
    _ network: UInt16, adminToken: String? = nil
  ) async throws(DirectoryError) -> JSONValue {
    var request: [String: JSONValue] = ["network_id": .whole(network)]
    if let adminToken { request["admin_token"] = .text(adminToken) }
    return try await call("list_nodes", request)
  }

  package func setMemberTags(
    _ tags: [String], of node: UInt32, in network: UInt16, adminToken: String
  ) async throws(DirectoryError) -> JSONValue {
    try await call(
      "set_member_tags",
      [
        "network_id": .whole(network), "target_node_id": .whole(node), "tags": .list(tags.map { .text($0) }),
        "admin_token": .text(adminToken),
      ])
  }

  package func memberTags(_ network: UInt16, of node: UInt32) async throws(DirectoryError) -> JSONValue {
    try await call("get_member_tags", ["network_id": .whole(network), "target_node_id": .whole(node)])
  }

  package func invite(
    _ node: UInt32, to network: UInt16, as me: RegistrySigner
  ) async throws(DirectoryError) -> JSONValue {
    try await call(
      "invite_to_network",
      [
        "inviter_id": .whole(me.node), "network_id": .whole(network), "target_node_id": .whole(node),
        "signature": me.sign("invite:\(me.node):\(network):\(node)"),
      ])
  }

  package func pollInvites(as me: RegistrySigner) async throws(DirectoryError) -> JSONValue {
    try await call("poll_invites", signed(me, "poll_invites:\(me.node)"))
  }

  package func respondInvite(
    to network: UInt16, accepts: Bool, as me: RegistrySigner
  ) async throws(DirectoryError) -> JSONValue {
    try await call(
      "respond_invite",
      signed(me, "respond_invite:\(me.node):\(network)", ["network_id": .whole(network), "accept": .bool(accepts)]))
  }

  package func networkPolicy(_ network: UInt16) async throws(DirectoryError) -> NetworkPolicy {
    let reply = try await call("get_network_policy", ["network_id": .whole(network)])
    return NetworkPolicy(
      network: network, allowedPorts: (reply["allowed_ports"]?.list ?? []).prefix(1000).compactMap(\.port16),
      maxMembers: reply["max_members"]?.integer.flatMap { Int(exactly: $0) } ?? 0,
      text: String((reply["description"]?.text ?? "").prefix(256)))
  }
}
