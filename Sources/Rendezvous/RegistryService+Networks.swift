// Networks: list, create, join, leave, members and policies; the list of beacons (wire/registry §2.6, §6).

import Wire

extension RegistryService {
  func listNetworks(_ request: Request) {
    let startedAt = startedAt
    perform(request.completion) { state throws(RequestError) in
      let isAdmin = (try? self.requireAdmin(request)) != nil
      func entry(_ id: UInt16, _ name: String, _ rule: String, _ created: Int64, _ members: Int) -> JSONValue {
        var fields: [JSONValue.Member] = [
          .init("id", .number(id)), .init("name", .string(name)), .init("join_rule", .string(rule)),
          .init("enterprise", .bool(false)), .init("created", .integer(created / 1000)),
        ]
        if isAdmin { fields.append(.init("members", .number(members))) }
        return .object(fields)
      }
      let backbone = entry(0, "backbone", "open", startedAt, state.nodes.count)
      let others = state.networks.values.sorted { $0.id < $1.id }.map {
        entry($0.id, $0.name, $0.rule.rawValue, $0.createdAt, state.members[$0.id]?.count ?? 0)
      }
      return request.ok([("networks", .array([backbone] + others))])
    }
  }

  func createNetwork(_ request: Request) {
    let body = request.body
    let owner = body.id("node_id")
    let token = body.text("token")
    let now = now
    perform(request.completion) { state throws(RequestError) in
      try self.requireAdmin(request)
      let ruleName = body.text("join_rule")
      guard let rule = NetworkRecord.JoinRule(rawValue: ruleName.isEmpty ? "open" : ruleName) else {
        throw RequestError("cannot create a network with join rule \"\(String(ruleName.prefix(32)))\"")
      }
      guard !body.flag("enterprise") else { throw RequestError("enterprise feature") }
      guard rule == .open || !token.isEmpty else { throw RequestError("token networks require a token") }
      guard token.utf8.count <= 256 else { throw RequestError("token too long") }
      // Without an owner the network belongs to the administrator's token.
      if owner != 0 { _ = try state.live(owner, now: now) }
      let network = try state.createNetwork(
        name: body.text("name"), rule: rule, token: rule == .token ? token : "", now: now)
      if owner != 0 { state.join(owner, network.id, as: .owner, now: now) }
      return request.ok([
        ("network_id", .number(network.id)), ("name", .string(network.name)), ("enterprise", .bool(false)),
      ])
    }
  }

  func joinNetwork(_ request: Request) {
    let node = request.body.id("node_id")
    let id = request.body.network("network_id")
    let token = request.body.text("token")
    let now = now
    signed(request, by: node, "join_network:\(node):\(id)", .registeredHost) { state, _ throws(RequestError) in
      guard id != 0 else { throw RequestError("cannot join the backbone: every node is in it") }
      let network = try state.network(id)
      guard !state.isMember(node, of: id) else { throw RequestError("already in network \(id)") }
      guard network.rule == .open || Self.isEqual(token, network.token) else {
        throw RequestError("invalid network token")
      }
      state.join(node, id, as: .member, now: now)
      return request.ok([
        ("network_id", .number(id)), ("address", .string(PilotAddress(network: id, node: node).description)),
      ])
    }
  }

  func leaveNetwork(_ request: Request) {
    let node = request.body.id("node_id")
    let id = request.body.network("network_id")
    signed(request, by: node, "leave_network:\(node):\(id)", .registeredHost) { state, _ throws(RequestError) in
      guard id != 0 else { throw RequestError("cannot leave the backbone") }
      _ = try state.network(id)
      guard state.leave(node, id) else { throw RequestError("not a member of network \(id)") }
      return request.ok([("network_id", .number(id))])
    }
  }

  /// Members of a network, for a connection that speaks for one of them or for the administrator. The backbone is for
  /// the administrator alone (§5.3).
  func listNodes(_ request: Request) {
    let id = request.body.network("network_id")
    let now = now
    let viewers = request.client.identities
    perform(request.completion) { state throws(RequestError) in
      if id != 0 { _ = try state.network(id) }
      if !viewers.contains(where: { state.isMember($0, of: id) }) { try self.requireAdmin(request) }
      let members: [(UInt32, MemberRecord.Role)] =
        id == 0
        ? state.nodes.values.filter { state.isLive($0, now: now) }.map { ($0.id, .member) }
        : (state.members[id] ?? [:]).values.map { ($0.node, $0.role) }
      let entries = members.sorted { $0.0 < $1.0 }.map { node, role in
        self.entry(of: node, role, in: id, for: request.client, state, now: now)
      }
      return request.ok([("nodes", .array(entries))])
    }
  }

  private func entry(
    of id: UInt32, _ role: MemberRecord.Role, in network: UInt16, for client: ClientSession, _ state: RegistryState,
    now: Int64
  ) -> JSONValue {
    let address = PilotAddress(network: network, node: id).description
    var fields: [JSONValue.Member] = [.init("node_id", .number(id)), .init("address", .string(address))]
    guard let node = try? state.live(id, now: now) else {
      return .object(fields + [.init("role", .string(role.rawValue)), .init("offline", .bool(true))])
    }
    fields.append(.init("public", .bool(node.isPublic)))
    if !node.hostname.isEmpty { fields.append(.init("hostname", .string(node.hostname))) }
    fields.append(.init("role", .string(role.rawValue)))
    if !node.tags.isEmpty { fields.append(.init("tags", .strings(node.tags))) }
    if !node.version.isEmpty { fields.append(.init("version", .string(node.version))) }
    fields.append(.init("last_seen", .string(Self.timestamp(node.lastSeen))))
    if node.isPublic { fields.append(.init("real_addr", .string(reach(node, for: client).address.description))) }
    return .object(fields)
  }

  func networkPolicy(_ request: Request) {
    onNetwork(request) { id in
      [
        ("network_id", .number(id)), ("max_members", .integer(0)), ("allowed_ports", .array([])),
        ("description", .string("")),
      ]
    }
  }

  func memberTags(_ request: Request) {
    let target = request.body.id("target_node_id")
    onNetwork(request) { id in
      var members: [(String, JSONValue)] = [("network_id", .number(id))]
      if target == 0 {
        members.append(("members", .object([])))
      } else {
        members.append(("target_node_id", .number(target)))
        members.append(("tags", .array([])))
      }
      return members
    }
  }

  func expressionPolicy(_ request: Request) {
    onNetwork(request) { id in [("network_id", .number(id))] }
  }

  private func onNetwork(_ request: Request, _ members: @escaping (UInt16) -> [(String, JSONValue)]) {
    let id = request.body.network("network_id")
    perform(request.completion) { state throws(RequestError) in
      if id != 0 { _ = try state.network(id) }
      return request.ok(members(id))
    }
  }

  /// An empty list means: use the beacon you have configured.
  func beaconList(_ request: Request) {
    let beacons = configuration.advertisedBeacon.map { beacon -> [JSONValue] in
      [.object([.init("id", .integer(1)), .init("addr", .string(beacon.description))])]
    }
    finish(.success(request.ok([("beacons", .array(beacons ?? []))])), request.completion)
  }
}
