// The registry's memory: who has which id, name and network, who trusts whom. RegistryService owns one behind a lock.

import Wire

/// All records with their indexes. Every change of durable state is also listed in `changes`, in order.
///
/// INVARIANT: a function that throws has changed nothing.
struct RegistryState: Sendable {
  private(set) var nodes: [UInt32: NodeRecord] = [:]
  private var idByKey: [Bytes32: UInt32] = [:]
  private var idByHostname: [String: UInt32] = [:]
  private var idsByHost: [IPv6Address: Set<UInt32>] = [:]
  /// Ids that were promised to keys other than the derivation would say, also when those have not come yet.
  private var exceptions: [Bytes32: UInt32] = [:]
  private var promised: [UInt32: Bytes32] = [:]

  // The next three belong to the extensions in RegistryState+….swift.
  var trust: [UInt32: Set<UInt32>] = [:]
  var handshakes: [UInt32: [UInt32: HandshakeRecord]] = [:]
  var responses: [UInt32: [UInt32: ResponseRecord]] = [:]
  var networks: [UInt16: NetworkRecord] = [:]
  var members: [UInt16: [UInt32: MemberRecord]] = [:]
  var networksOfNode: [UInt32: Set<UInt16>] = [:]
  /// By invited node, then network.
  var invites: [UInt32: [UInt16: InviteRecord]] = [:]
  /// The highest network id ever given.
  var lastNetwork: UInt16 = 0

  private(set) var changes: [StoreChange] = []
  /// Nodes whose `lastSeen` moved since it was last written.
  private var seen: Set<UInt32> = []

  let reapMilliseconds: Int64
  let reservationMilliseconds: Int64
  let nodeLimit: Int
  private let derivation: @Sendable (Bytes32) -> UInt32

  init(_ configuration: RendezvousConfiguration, stored: StoredState, exceptions: [Bytes32: UInt32]) {
    reapMilliseconds = Int64(configuration.reapTime) * 1000
    reservationMilliseconds = Int64(configuration.nameReservation) * 1000
    nodeLimit = configuration.limits.nodes
    derivation = configuration.derivation
    self.exceptions = exceptions
    for (key, id) in exceptions { promised[id] = key }
    for node in stored.nodes {
      nodes[node.id] = node
      idByKey[node.key] = node.id
      if node.isRegistered { idsByHost[node.host, default: []].insert(node.id) }
      if !node.hostname.isEmpty { idByHostname[node.hostname] = node.id }
    }
    for (node, peer) in stored.trust { trust[node, default: []].insert(peer) }
    for request in stored.handshakes { handshakes[request.target, default: [:]][request.sender] = request }
    for response in stored.responses { responses[response.requester, default: [:]][response.peer] = response }
    for network in stored.networks { networks[network.id] = network }
    for member in stored.members {
      members[member.network, default: [:]][member.node] = member
      networksOfNode[member.node, default: []].insert(member.network)
    }
    for invite in stored.invites { invites[invite.target, default: [:]][invite.network] = invite }
    lastNetwork = stored.lastNetwork
  }

  mutating func note(_ change: StoreChange) { changes.append(change) }

  mutating func takeChanges() -> [StoreChange] {
    defer { changes = [] }
    return changes
  }

  // MARK: Nodes

  func isLive(_ node: NodeRecord, now: Int64) -> Bool { node.isRegistered && now - node.lastSeen <= reapMilliseconds }

  /// The node, unless it never was, deregistered, or was silent too long.
  func live(_ id: UInt32, now: Int64) throws(RequestError) -> NodeRecord {
    guard let node = nodes[id], isLive(node, now: now) else { throw .nodeNotFound(id) }
    return node
  }

  func node(withKey key: Bytes32) -> NodeRecord? { idByKey[key].flatMap { nodes[$0] } }

  /// Nodes that registered from `host`, a bounded number of them.
  func nodes(at host: IPv6Address) -> some Sequence<UInt32> { (idsByHost[host] ?? []).prefix(256) }

  mutating func update(_ node: NodeRecord) {
    let old = nodes[node.id]
    guard old != node else { return }
    nodes[node.id] = node
    if let old, old.host != node.host || !node.isRegistered {
      idsByHost[old.host]?.remove(node.id)
      if idsByHost[old.host]?.isEmpty == true { idsByHost[old.host] = nil }
    }
    if node.isRegistered { idsByHost[node.host, default: []].insert(node.id) }
    note(.node(node))
  }

  /// Soft: written with others once in a while, see `takeSeen`.
  mutating func touch(_ id: UInt32, now: Int64) {
    nodes[id]?.lastSeen = now
    seen.insert(id)
  }

  /// The nodes heard of since the last call, to be written without anybody waiting.
  mutating func takeSeen() -> [StoreChange] {
    defer { seen = [] }
    return seen.compactMap { nodes[$0].map(StoreChange.node) }
  }

  func liveCount(now: Int64) -> Int { nodes.values.reduce(0) { $0 + (isLive($1, now: now) ? 1 : 0) } }

  /// The id of a key, new or known. `wanted` is the id that the client remembers, 0 for none; it counts only for an
  /// unknown key and close to the derived id, so nobody can choose an id.
  mutating func identify(_ key: Bytes32, wanted: UInt32) throws(RequestError) -> UInt32 {
    if let id = idByKey[key] { return id }
    guard nodes.count < nodeLimit else { throw RequestError("too many nodes") }
    if let id = exceptions[key], nodes[id] == nil { return id }
    let start = derivation(key)
    func isFree(_ id: UInt32) -> Bool { nodes[id] == nil && (promised[id] ?? key) == key }
    var id = start
    if wanted != 0, let distance = NodeIdentifier.distance(from: start, to: wanted),
      distance <= NodeIdentifier.reach, isFree(wanted)
    {
      id = wanted
    } else {
      while !isFree(id) { id = NodeIdentifier.following(id) }
    }
    if id != start {
      promise(id, to: key)
      // The one in the way as well: after a loss of the database it may come second.
      if let first = nodes[start] { promise(start, to: first.key) }
    }
    return id
  }

  private mutating func promise(_ id: UInt32, to key: Bytes32) {
    guard exceptions[key] != id else { return }
    if let old = exceptions[key], promised[old] == key { promised[old] = nil }
    exceptions[key] = id
    promised[id] = key
    note(.exceptionalKey(key, id: id))
  }

  /// Enters a node under its key, or brings back the one that is known.
  mutating func enter(_ node: NodeRecord) {
    idByKey[node.key] = node.id
    update(node)
  }

  /// Moves a node to a new key. The old one is worth nothing from now on.
  mutating func rotate(_ id: UInt32, to key: Bytes32, now: Int64) throws(RequestError) {
    guard var node = nodes[id] else { throw .nodeNotFound(id) }
    if let holder = idByKey[key] {
      throw RequestError(holder == id ? "key is already in use" : "key is already in use by another node")
    }
    if let other = exceptions[key], other != id { throw RequestError("key is already in use by another node") }
    idByKey[node.key] = nil
    if exceptions[node.key] == id { exceptions[node.key] = nil }
    node.key = key
    node.rotatedAt = now
    node.rotateCount += 1
    idByKey[key] = id
    promise(id, to: key)
    update(node)
  }

  // MARK: Hostnames

  func node(named hostname: String, now: Int64) -> NodeRecord? {
    guard let id = idByHostname[hostname], let node = nodes[id], isLive(node, now: now) else { return nil }
    return node
  }

  /// Names `node`, in its record as well as in the index. An empty name gives the old one up.
  mutating func setHostname(_ hostname: String, of node: inout NodeRecord, now: Int64) throws(RequestError) {
    guard node.hostname != hostname else { return }
    if !hostname.isEmpty {
      guard Names.isValidHostname(hostname) else { throw RequestError("invalid hostname") }
      if let holder = idByHostname[hostname], holder != node.id, let other = nodes[holder] {
        guard now - other.lastSeen > reservationMilliseconds else {
          // Who has it is told of public nodes only: a private one is not to be found by its name.
          let holder = other.isPublic && isLive(other, now: now) ? " by node \(holder)" : ""
          throw RequestError("hostname \"\(hostname)\" already in use\(holder)")
        }
        var loser = other
        loser.hostname = ""
        update(loser)
      }
    }
    if !node.hostname.isEmpty { idByHostname[node.hostname] = nil }
    if !hostname.isEmpty { idByHostname[hostname] = node.id }
    node.hostname = hostname
  }
}
