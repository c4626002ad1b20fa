// Networks as a whole: list, create, rename, delete, join, leave; the list of beacons (wire/registry §2.6, §6).

import JSON
import Wire

extension RegistryService {
  func listNetworks(_ request: Request) {
    let startedAt = startedAt
    perform(request.completion) { state throws(RequestError) in
      let isAdmin = (try? self.requireAdmin(request)) != nil
      func entry(_ network: NetworkRecord, _ members: Int) -> JSONValue {
        var fields: [(String, JSONValue)] = [
          ("id", .whole(network.id)), ("name", .text(network.name)),
          ("join_rule", .text(network.rule.rawValue)), ("enterprise", .bool(network.isEnterprise)),
          ("created", .integer(network.createdAt / 1000)),
        ]
        if isAdmin { fields.append(("members", .whole(members))) }
        if let rules = Self.document(network.rules) {
          fields += [("managed", .bool(true)), ("rules", rules)]
        }
        // Members ask for the policy only of networks that say so (§6.4).
        if !network.expression.isEmpty { fields.append(("has_expr_policy", .bool(true))) }
        return .object(of: fields)
      }
      let backbone = NetworkRecord(id: 0, name: "backbone", rule: .open, token: "", createdAt: startedAt)
      let others = state.networks.values.sorted { $0.id < $1.id }.map { entry($0, state.members[$0.id]?.count ?? 0) }
      return request.ok([("networks", .list([entry(backbone, state.nodes.count)] + others))])
    }
  }

  func createNetwork(_ request: Request) {
    let body = request.body
    let owner = body.id("node_id")
    let (token, adminToken) = (body.text("token"), body.text("network_admin_token"))
    let now = now
    perform(request.completion) { state throws(RequestError) in
      try self.requireAdmin(request)
      let ruleName = body.text("join_rule")
      guard let rule = NetworkRecord.JoinRule(rawValue: ruleName.isEmpty ? "open" : ruleName) else {
        throw RequestError("cannot create a network with join rule \"\(String(ruleName.prefix(32)))\"")
      }
      guard rule != .token || !token.isEmpty else { throw RequestError("token networks require a token") }
      guard max(token.utf8.count, adminToken.utf8.count) <= 256 else { throw RequestError("token too long") }
      var network = NetworkRecord(
        id: 0, name: body.text("name"), rule: rule, token: rule == .token ? token : "", createdAt: now)
      network.adminToken = adminToken
      network.isEnterprise = body.flag("enterprise")
      network.rules = try Self.document(body["rules"], named: "rules")?.written ?? ""
      // Without an owner the network belongs to the administrator's token.
      if owner != 0 { _ = try state.live(owner, now: now) }
      network = try state.createNetwork(network)
      if owner != 0 { try state.join(owner, network, as: .owner, now: now) }
      var members: [(String, JSONValue)] = [
        ("network_id", .whole(network.id)), ("name", .text(network.name)),
        ("enterprise", .bool(network.isEnterprise)),
      ]
      if !network.rules.isEmpty { members.append(("managed", .bool(true))) }
      return request.ok(members)
    }
  }

  func renameNetwork(_ request: Request) {
    let id = request.body.network("network_id")
    let name = request.body.text("name")
    administer(request, id) { state, _ throws(RequestError) in
      try state.rename(id, to: name)
      return request.ok([("network_id", .whole(id)), ("name", .text(name))])
    }
  }

  func deleteNetwork(_ request: Request) {
    let id = request.body.network("network_id")
    administer(request, id) { state, _ throws(RequestError) in
      try state.deleteNetwork(id)
      return request.ok([("network_id", .whole(id))])
    }
  }

  /// For the administrator alone: a network's own token does not make it more than it is.
  func setEnterprise(_ request: Request) {
    let id = request.body.network("network_id")
    let isEnterprise = request.body.flag("enterprise")
    perform(request.completion) { state throws(RequestError) in
      try self.requireAdmin(request)
      var network = try state.network(id)
      network.isEnterprise = isEnterprise
      state.update(network)
      return request.ok([("network_id", .whole(id)), ("enterprise", .bool(isEnterprise))])
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
      switch network.rule {
      case .open: break
      case .token:
        guard Self.isEqual(token, network.token) else { throw RequestError("invalid network token") }
      case .invite:
        // The signature says who joins, the administrator's token that it may.
        guard state.invite(of: node, to: id, now: now) != nil || self.isAdmin(request, of: network) else {
          throw RequestError("cannot join: network \(id) requires an invite")
        }
      }
      try state.join(node, network, as: .member, now: now)
      return request.ok(Self.joined(node, network))
    }
  }

  /// What a new member is told.
  private static func joined(_ node: UInt32, _ network: NetworkRecord) -> [(String, JSONValue)] {
    var members: [(String, JSONValue)] = [
      ("network_id", .whole(network.id)),
      ("address", .text(PilotAddress(network: network.id, node: node).description)),
    ]
    if let rules = document(network.rules) { members.append(("rules", rules)) }
    if let expression = document(network.expression) { members.append(("expr_policy", expression)) }
    return members
  }

  func leaveNetwork(_ request: Request) {
    let node = request.body.id("node_id")
    let id = request.body.network("network_id")
    signed(request, by: node, "leave_network:\(node):\(id)", .registeredHost) { state, _ throws(RequestError) in
      guard id != 0 else { throw RequestError("cannot leave the backbone") }
      let network = try state.network(id)
      guard !network.isEnterprise || state.members[id]?[node]?.role != .owner else {
        throw RequestError("cannot leave: the owner hands the network over first")
      }
      guard state.leave(node, id) else { throw RequestError("not a member of network \(id)") }
      return request.ok([("network_id", .whole(id))])
    }
  }

  /// An empty list means: use the beacon you have configured.
  func beaconList(_ request: Request) {
    let beacons = configuration.advertisedBeacon.map { beacon -> [JSONValue] in
      [.object(of: [("id", .integer(1)), ("addr", .text(beacon.description))])]
    }
    var members: [(String, JSONValue)] = [("beacons", .list(beacons ?? []))]
    // Official daemons pick one by themselves and expect beacons to know each other's nodes: these do not.
    let more = configuration.moreBeacons
    if !more.isEmpty { members.append(("more_beacons", .list(more.map { .text($0.description) }))) }
    finish(.success(request.ok(members)), request.completion)
  }
}
