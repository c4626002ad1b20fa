// Members of networks: who they are, their roles and tags (wire/registry §2.6).

import JSON
import Wire

extension RegistryService {
  /// Members of a network, for a connection that speaks for one of them or for the administrator. The backbone is for
  /// the administrator alone (§5.3).
  func listNodes(_ request: Request) {
    let id = request.body.network("network_id")
    let now = now
    perform(request.completion) { state throws(RequestError) in
      let viewers = self.viewers(request.client, state)
      if id != 0 { _ = try state.network(id) }
      if !viewers.contains(where: { state.isMember($0, of: id) }) {
        try self.requireAdmin(request, of: state.networks[id])
      }
      let members =
        id == 0
        ? state.nodes.values.filter { state.isLive($0, now: now) }.map {
          MemberRecord(network: 0, node: $0.id, role: .member, joinedAt: $0.createdAt)
        }
        : Array((state.members[id] ?? [:]).values)
      let entries = members.sorted { $0.node < $1.node }.map {
        self.entry(of: $0, for: request.client, state, now: now)
      }
      return request.ok([("nodes", .list(entries))])
    }
  }

  private func entry(
    of member: MemberRecord, for client: ClientSession, _ state: RegistryState, now: Int64
  ) -> JSONValue {
    let address = PilotAddress(network: member.network, node: member.node).description
    let role = member.role
    var fields: [(String, JSONValue)] = [("node_id", .whole(member.node)), ("address", .text(address))]
    guard let node = try? state.live(member.node, now: now) else {
      return .object(of: fields + [("role", .text(role.rawValue)), ("offline", .bool(true))])
    }
    fields.append(("public", .bool(node.isPublic)))
    if !node.hostname.isEmpty { fields.append(("hostname", .text(node.hostname))) }
    fields.append(("role", .text(role.rawValue)))
    if !node.tags.isEmpty { fields.append(("tags", .list(of: node.tags))) }
    if !node.version.isEmpty { fields.append(("version", .text(node.version))) }
    fields.append(("last_seen", .text(Self.timestamp(node.lastSeen))))
    if node.isPublic { fields.append(("real_addr", .text(reach(node, for: client).address.description))) }
    if !member.tags.isEmpty { fields.append(("member_tags", .list(of: member.tags))) }
    return .object(of: fields)
  }

  // MARK: Roles

  /// `promote_member` and `demote_member`: administrators of a network may invite, the owner is one of its members.
  func setRole(_ request: Request, _ role: MemberRecord.Role) {
    let id = request.body.network("network_id")
    let target = request.body.id("target_node_id")
    administer(request, id) { state, _ throws(RequestError) in
      var member = try state.member(target, of: id)
      guard member.role != .owner else { throw RequestError("cannot change the role of the owner") }
      member.role = role
      state.update(member)
      return request.ok([
        ("network_id", .whole(id)), ("target_node_id", .whole(target)), ("role", .text(role.rawValue)),
      ])
    }
  }

  func kickMember(_ request: Request) {
    let id = request.body.network("network_id")
    let target = request.body.id("target_node_id")
    administer(request, id) { state, _ throws(RequestError) in
      guard try state.member(target, of: id).role != .owner else { throw RequestError("cannot remove the owner") }
      state.leave(target, id)
      return request.ok([("network_id", .whole(id)), ("target_node_id", .whole(target))])
    }
  }

  func transferOwnership(_ request: Request) {
    let id = request.body.network("network_id")
    let target = request.body.id("target_node_id")
    administer(request, id) { state, _ throws(RequestError) in
      try state.transfer(id, to: target)
      return request.ok([("network_id", .whole(id)), ("new_owner", .whole(target))])
    }
  }

  func memberRole(_ request: Request) {
    let id = request.body.network("network_id")
    let target = request.body.id("target_node_id")
    perform(request.completion) { state throws(RequestError) in
      let network = try state.network(id)
      try self.requireSight(into: network, request, state)
      let member = try state.member(target, of: id)
      return request.ok([
        ("network_id", .whole(id)), ("target_node_id", .whole(target)), ("role", .text(member.role.rawValue)),
      ])
    }
  }

  // MARK: Tags

  func setMemberTags(_ request: Request) {
    let id = request.body.network("network_id")
    let target = request.body.id("target_node_id")
    guard let tags = Names.tags(request.body.texts("tags")) else {
      return finish(.failure(RequestError("invalid tags: at most 10 of 1 to 32 characters")), request.completion)
    }
    administer(request, id) { state, _ throws(RequestError) in
      var member = try state.member(target, of: id)
      member.tags = tags
      state.update(member)
      return request.ok([
        ("network_id", .whole(id)), ("target_node_id", .whole(target)), ("tags", .list(of: tags)),
      ])
    }
  }

  /// Of one member, or of all that have any. Who may not see the members reads that there are none: a daemon that
  /// asks on an unproven connection must not take that for an outage.
  func memberTags(_ request: Request) {
    let id = request.body.network("network_id")
    let target = request.body.id("target_node_id")
    perform(request.completion) { state throws(RequestError) in
      var reply: [(String, JSONValue)] = [("network_id", .whole(id))]
      let network: NetworkRecord? = id == 0 ? nil : try state.network(id)
      let isShown = network.map { (try? self.requireSight(into: $0, request, state)) != nil } ?? false
      let members = isShown ? state.members[id] ?? [:] : [:]
      if target == 0 {
        let tagged = members.values.filter { !$0.tags.isEmpty }.sorted { $0.node < $1.node }
        reply.append(("members", .object(of: tagged.map { (String($0.node), .list(of: $0.tags)) })))
      } else {
        reply.append(("target_node_id", .whole(target)))
        reply.append(("tags", .list(of: members[target]?.tags ?? [])))
      }
      return request.ok(reply)
    }
  }

  /// Who administers the network or is in it, or asks from the host of a member, as pilotctl does on a connection of its
  /// own; nobody else learns who is in a network (§9.4).
  private func requireSight(
    into network: NetworkRecord, _ request: Request, _ state: RegistryState
  ) throws(RequestError) {
    if viewers(request.client, state).contains(where: { state.isMember($0, of: network.id) }) { return }
    if state.nodes(at: request.client.host).contains(where: { state.isMember($0, of: network.id) }) { return }
    try requireAdmin(request, of: network)
  }
}
