// Networks and their members. Used by the network requests and at the start for configured networks.

import Wire

extension RegistryState {
  func network(_ id: UInt16) throws(RequestError) -> NetworkRecord {
    guard let network = networks[id] else { throw RequestError("network \(id) not found") }
    return network
  }

  func isMember(_ node: UInt32, of network: UInt16) -> Bool { members[network]?[node] != nil }

  /// A new network under the next id. Ids count up from 1 and are not used twice.
  mutating func createNetwork(
    name: String, rule: NetworkRecord.JoinRule, token: String, now: Int64
  ) throws(RequestError) -> NetworkRecord {
    guard Names.isValidNetworkName(name) else { throw RequestError("invalid network name") }
    guard !networks.values.contains(where: { $0.name == name }) else {
      throw RequestError("network \"\(name)\" already exists")
    }
    let last = networks.keys.max() ?? 0
    guard last < .max else { throw RequestError("too many networks") }
    let network = NetworkRecord(id: last + 1, name: name, rule: rule, token: token, createdAt: now)
    networks[network.id] = network
    note(.network(network))
    return network
  }

  mutating func join(_ node: UInt32, _ network: UInt16, as role: MemberRecord.Role, now: Int64) {
    let member = MemberRecord(network: network, node: node, role: role, joinedAt: now)
    members[network, default: [:]][node] = member
    networksOfNode[node, default: []].insert(network)
    note(.member(member))
  }

  @discardableResult
  mutating func leave(_ node: UInt32, _ network: UInt16) -> Bool {
    guard members[network]?.removeValue(forKey: node) != nil else { return false }
    networksOfNode[node]?.remove(network)
    note(.noMember(network: network, node: node))
    return true
  }

  /// Makes a configured network exist as configured; running it again changes nothing.
  mutating func ensure(_ specification: NetworkSpecification, now: Int64) throws(RequestError) {
    let rule: NetworkRecord.JoinRule = specification.token == nil ? .open : .token
    let token = specification.token ?? ""
    guard var network = networks.values.first(where: { $0.name == specification.name }) else {
      _ = try createNetwork(name: specification.name, rule: rule, token: token, now: now)
      return
    }
    guard network.rule != rule || network.token != token else { return }
    network.rule = rule
    network.token = token
    networks[network.id] = network
    note(.network(network))
  }
}
