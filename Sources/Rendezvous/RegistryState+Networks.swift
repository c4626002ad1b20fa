// Networks and their members. Used by the network requests and at the start for configured networks.

import Wire

extension RegistryState {
  func network(_ id: UInt16) throws(RequestError) -> NetworkRecord {
    guard let network = networks[id] else { throw RequestError("network \(id) not found") }
    return network
  }

  func isMember(_ node: UInt32, of network: UInt16) -> Bool { members[network]?[node] != nil }

  func member(_ node: UInt32, of network: UInt16) throws(RequestError) -> MemberRecord {
    guard let member = members[network]?[node] else {
      throw RequestError("node \(node) is not a member of network \(network)")
    }
    return member
  }

  // MARK: Networks

  /// Enters `network` under the next id. Ids count up from 1 and are not used twice: members of a network that is gone
  /// may still remember its number.
  mutating func createNetwork(_ network: NetworkRecord) throws(RequestError) -> NetworkRecord {
    try checkName(network.name)
    guard lastNetwork < .max else { throw RequestError("too many networks") }
    var network = network
    network.id = lastNetwork + 1
    lastNetwork = network.id
    update(network)
    return network
  }

  private func checkName(_ name: String) throws(RequestError) {
    guard Names.isValidNetworkName(name) else { throw RequestError("invalid network name") }
    guard !networks.values.contains(where: { $0.name == name }) else {
      throw RequestError("network \"\(name)\" already exists")
    }
  }

  mutating func update(_ network: NetworkRecord) {
    guard networks[network.id] != network else { return }
    networks[network.id] = network
    note(.network(network))
  }

  mutating func rename(_ id: UInt16, to name: String) throws(RequestError) {
    var network = try network(id)
    guard network.name != name else { return }
    try checkName(name)
    network.name = name
    update(network)
  }

  /// Takes its members and invites along.
  mutating func deleteNetwork(_ id: UInt16) throws(RequestError) {
    _ = try network(id)
    networks[id] = nil
    for node in (members.removeValue(forKey: id) ?? [:]).keys { networksOfNode[node]?.remove(id) }
    for target in invites.keys {
      invites[target]?[id] = nil
      if invites[target]?.isEmpty == true { invites[target] = nil }
    }
    note(.noNetwork(id))
  }

  /// Makes a configured network exist as configured; running it again changes nothing.
  mutating func ensure(_ specification: NetworkSpecification, now: Int64) throws(RequestError) {
    let rule: NetworkRecord.JoinRule = specification.token == nil ? .open : .token
    let token = specification.token ?? ""
    guard var network = networks.values.first(where: { $0.name == specification.name }) else {
      _ = try createNetwork(
        NetworkRecord(id: 0, name: specification.name, rule: rule, token: token, createdAt: now))
      return
    }
    network.rule = rule
    network.token = token
    update(network)
  }

  // MARK: Members

  /// Makes `node` a member, unless the network is full.
  mutating func join(
    _ node: UInt32, _ network: NetworkRecord, as role: MemberRecord.Role, now: Int64
  ) throws(RequestError) {
    let limit = network.policy.maxMembers
    guard limit == 0 || members[network.id, default: [:]].count < limit else {
      throw RequestError("cannot join: network \(network.id) has its \(limit) members already")
    }
    update(MemberRecord(network: network.id, node: node, role: role, joinedAt: now))
    networksOfNode[node, default: []].insert(network.id)
    dropInvite(of: node, to: network.id)
  }

  mutating func update(_ member: MemberRecord) {
    guard members[member.network]?[member.node] != member else { return }
    members[member.network, default: [:]][member.node] = member
    note(.member(member))
  }

  @discardableResult
  mutating func leave(_ node: UInt32, _ network: UInt16) -> Bool {
    guard members[network]?.removeValue(forKey: node) != nil else { return false }
    networksOfNode[node]?.remove(network)
    note(.noMember(network: network, node: node))
    return true
  }

  /// The new owner is a member; whoever owned the network stays as an administrator.
  mutating func transfer(_ network: UInt16, to node: UInt32) throws(RequestError) {
    var heir = try member(node, of: network)
    for var owner in (members[network] ?? [:]).values where owner.role == .owner && owner.node != node {
      owner.role = .admin
      update(owner)
    }
    heir.role = .owner
    update(heir)
  }

  // MARK: Invites

  /// Invites are good for 30 days (wire/registry §6.1).
  static let inviteMilliseconds: Int64 = 30 * 86_400_000

  func invite(of node: UInt32, to network: UInt16, now: Int64) -> InviteRecord? {
    guard let invite = invites[node]?[network], now - invite.at <= Self.inviteMilliseconds else { return nil }
    return invite
  }

  /// What `node` is invited to, oldest first. Drops what is over.
  mutating func invites(of node: UInt32, now: Int64) -> [InviteRecord] {
    for invite in (invites[node] ?? [:]).values where now - invite.at > Self.inviteMilliseconds {
      dropInvite(of: node, to: invite.network)
    }
    return (invites[node] ?? [:]).values.sorted { ($0.at, $0.network) < ($1.at, $1.network) }
  }

  mutating func enter(_ invite: InviteRecord) {
    invites[invite.target, default: [:]][invite.network] = invite
    note(.invite(invite))
  }

  @discardableResult
  mutating func dropInvite(of node: UInt32, to network: UInt16) -> Bool {
    guard invites[node]?.removeValue(forKey: network) != nil else { return false }
    if invites[node]?.isEmpty == true { invites[node] = nil }
    note(.noInvite(network: network, target: node))
    return true
  }
}
