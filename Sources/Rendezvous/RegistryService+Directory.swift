// lookup, resolve, resolve_hostname, hostnames, visibility, tags, punch (wire/registry §2.4, §5).

import JSON
import Wire

extension RegistryService {
  func lookup(_ request: Request) {
    let id = request.body.id("node_id")
    let client = request.client
    let now = now
    guard allowsLookup(request) else { return }
    perform(request.completion) { state throws(RequestError) in
      let viewers = self.viewers(client, state)
      let node = try state.live(id, now: now)
      let isRelated = viewers.contains { state.areRelated($0, id) }
      let showsAll = node.isPublic || isRelated
      // Its key must be shown to everyone: tunnel peers check it. So must its existence (§5.2).
      var members: [(String, JSONValue)] = [
        ("node_id", .whole(id)), ("address", .text(PilotAddress(network: 0, node: id).description)),
        ("networks", .list(visibleNetworks(of: node, to: client, viewers, state).map { .whole($0) })),
        ("public_key", .text(Cryptography.base64(node.key))), ("public", .bool(node.isPublic)),
      ]
      if showsAll {
        if !node.hostname.isEmpty { members.append(("hostname", .text(node.hostname))) }
        if !node.tags.isEmpty { members.append(("tags", .list(of: node.tags))) }
        if !node.version.isEmpty { members.append(("version", .text(node.version))) }
        members.append(("last_seen_unix", .integer(node.lastSeen / 1000)))
      }
      members.append(("key_generation", .whole(node.rotateCount)))
      if node.isPublic {
        members.append(("real_addr", .text(reach(node, for: client).address.description)))
        if node.isRelayOnly { members.append(("relay_only", .bool(true))) }
      }
      return request.ok(members)
    }
  }

  /// A daemon learns its own networks from a lookup on any of its connections, before that one has proven anything:
  /// the host that registered the node sees them (§5.3). Others see those they share.
  private func visibleNetworks(
    of node: NodeRecord, to client: ClientSession, _ viewers: [UInt32], _ state: RegistryState
  ) -> [UInt16] {
    let own = state.networksOfNode[node.id] ?? []
    if node.isPublic || client.host == node.host || viewers.contains(node.id) { return [0] + own.sorted() }
    let shared = viewers.reduce(into: Set<UInt16>()) { $0.formUnion(state.networksOfNode[$1] ?? []) }
    return [0] + own.intersection(shared).sorted()
  }

  private func allowsLookup(_ request: Request) -> Bool {
    if admission.isExempt(request.client.host) || lookups.allows(request.client.host.limitKey, now: now) {
      return true
    }
    counters.add(.requestsLimited)
    finish(.failure(.rateLimited), request.completion)
    return false
  }

  func resolve(_ request: Request) {
    let target = request.body.id("node_id")
    let requester = request.body.id("requester_id")
    let now = now
    signed(request, by: requester, "resolve:\(requester):\(target)", .anywhere) { state, own throws(RequestError) in
      let node = try state.live(target, now: now)
      guard state.mayReach(requester, node), node.isPublic || self.mayRead(own, from: request.client) else {
        throw .refused
      }
      let reach = self.reach(node, for: request.client)
      var members: [(String, JSONValue)] = [
        ("node_id", .whole(target)), ("real_addr", .text(reach.address.description)),
        ("key_age_days", .integer(Self.keyAge(of: node, now: now))),
        ("public_key", .text(Cryptography.base64(node.key))),
      ]
      if reach.isRelay {
        members.append(("relay_only", .bool(true)))
      } else {
        let others = node.lanAddresses.filter { $0 != reach.address }
        if !others.isEmpty { members.append(("lan_addrs", .list(of: others.map(\.description)))) }
      }
      return request.ok(members)
    }
  }

  /// What is private is told to the host that registered the asking node only, as the signature could be repeated.
  private func mayRead(_ own: NodeRecord, from client: ClientSession) -> Bool {
    own.host == client.host || client.isFresh(own.key) || !configuration.bindsChangesToHost
  }

  /// Where `client` finds `node`: directly, or by our beacon.
  func reach(_ node: NodeRecord, for client: ClientSession) -> (address: Endpoint, isRelay: Bool) {
    let beacon =
      configuration.advertisedBeacon ?? Endpoint(address: client.localHost, port: beaconPort)
    if node.isRelayOnly { return (beacon, true) }
    var endpoint = node.endpoint
    // An endpoint at the address that it registers from is a port that its router opened for everybody. Else, behind a
    // NAT, the port that the beacon saw is the one that others can use; the client knows its own only.
    if let open = node.lanAddresses.first(where: { $0.address == endpoint.address && !$0.address.isPrivate }) {
      endpoint.port = open.port
    } else if let seen = table.endpoint(of: node.id, now: now), seen.address == endpoint.address {
      endpoint.port = seen.port
    }
    if endpoint.port == 0 { return (beacon, true) }
    // A node that registered over loopback is on this machine, which the client has just reached.
    if endpoint.address.isLoopback, !client.host.isLoopback { endpoint.address = client.localHost }
    return (endpoint, false)
  }

  func resolveHostname(_ request: Request) {
    let name = request.body.text("hostname")
    let requester = request.body.id("requester_id")
    let now = now
    guard allowsLookup(request) else { return }
    guard requester != 0 else {
      return perform(request.completion) { state throws(RequestError) in
        try self.found(name, by: self.viewers(request.client, state), request, state, now: now)
      }
    }
    // Our own clients say who asks; official ones rely on the connection (§5.4).
    signed(request, by: requester, "resolve_hostname:\(requester):\(name)", .anywhere) {
      state, own throws(RequestError) in
      let viewers = self.mayRead(own, from: request.client) ? [requester] : []
      return try self.found(name, by: viewers, request, state, now: now)
    }
  }

  /// The same text for what is not there and what is not shown.
  private func found(
    _ name: String, by viewers: [UInt32], _ request: Request, _ state: RegistryState, now: Int64
  ) throws(RequestError) -> Reply {
    guard let node = state.node(named: name, now: now),
      node.isPublic || viewers.contains(where: { state.areRelated($0, node.id) })
    else { throw RequestError("hostname \"\(String(name.prefix(63)))\" not found") }
    return request.ok([
      ("node_id", .whole(node.id)), ("address", .text(PilotAddress(network: 0, node: node.id).description)),
      ("public", .bool(node.isPublic)), ("hostname", .text(node.hostname)),
      ("last_seen_unix", .integer(node.lastSeen / 1000)),
    ])
  }

  func setHostname(_ request: Request) {
    let node = request.body.id("node_id")
    let hostname = request.body.text("hostname")
    let now = now
    let isKnown = (try? read { $0.nodes[node]?.hostname == hostname }) == true
    // Daemons repeat their name every minute: what changes nothing needs no proof of place.
    signed(request, by: node, "set_hostname:\(node)", isKnown ? .anywhere : .registeredHost) {
      state, record throws(RequestError) in
      guard !isKnown || record.hostname == hostname else { throw .elsewhere }
      var record = record
      try state.setHostname(hostname, of: &record, now: now)
      state.update(record)
      return request.ok([("node_id", .whole(node)), ("hostname", .text(hostname))])
    }
  }

  func setVisibility(_ request: Request) {
    let node = request.body.id("node_id")
    let isPublic = request.body.flag("public")
    signed(request, by: node, "set_visibility:\(node)", .registeredHost) { state, record throws(RequestError) in
      var record = record
      record.isPublic = isPublic
      state.update(record)
      return request.ok([("node_id", .whole(node)), ("visibility", .text(isPublic ? "public" : "private"))])
    }
  }

  func setTags(_ request: Request) {
    let node = request.body.id("node_id")
    guard let tags = Names.tags(request.body.texts("tags")) else {
      return finish(.failure(RequestError("invalid tags: at most 10 of 1 to 32 characters")), request.completion)
    }
    signed(request, by: node, "set_tags:\(node)", .registeredHost) { state, record throws(RequestError) in
      var record = record
      record.tags = tags
      state.update(record)
      return request.ok([("node_id", .whole(node)), ("tags", .list(of: tags))])
    }
  }

  /// Both endpoints, under the rules of resolve (§2.4).
  func punch(_ request: Request) {
    let body = request.body
    let (requester, a, b) = (body.id("requester_id"), body.id("node_a"), body.id("node_b"))
    let now = now
    guard requester == a || requester == b else {
      return finish(.failure(RequestError("cannot punch for other nodes")), request.completion)
    }
    signed(request, by: requester, "punch:\(a):\(b)", .anywhere) { state, own throws(RequestError) in
      let first = try state.live(a, now: now)
      let second = try state.live(b, now: now)
      let other = requester == a ? second : first
      guard state.mayReach(requester, other), other.isPublic || self.mayRead(own, from: request.client) else {
        throw .refused
      }
      return request.ok([
        ("node_a", .whole(a)), ("node_a_addr", .text(self.reach(first, for: request.client).address.description)),
        ("node_b", .whole(b)), ("node_b_addr", .text(self.reach(second, for: request.client).address.description)),
      ])
    }
  }
}
