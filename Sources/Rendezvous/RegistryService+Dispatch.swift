// Chooses what a request means, and checks who may make it. The operations are in the other extensions.

import JSON
import NIOCore
import Wire

/// One request with everything its operation needs to know.
struct Request: Sendable {
  var type: String
  var body: JSONValue
  var client: ClientSession
  var completion: RegistryService.Completion

  func ok(_ members: [(String, JSONValue)] = [], notify: [UInt32] = []) -> Reply {
    .ok(type, members, notify: notify)
  }
}

extension RegistryService {
  /// Answers one request. `completion` is called exactly once, on any thread.
  func answer(_ body: JSONValue, from client: ClientSession, _ completion: @escaping Completion) {
    let request = Request(type: body.text("type"), body: body, client: client, completion: completion)
    counters.add(.requests)
    guard admission.isExempt(client.host) || requests.allows(client.host.limitKey, now: now) else {
      counters.add(.requestsLimited)
      return finish(.failure(.rateLimited), completion)
    }
    switch request.type {
    case "register": register(request)
    case "prove_key": proveKey(request)
    case "heartbeat": heartbeat(request)
    case "deregister": deregister(request)
    case "rotate_key": rotateKey(request)
    case "get_key_info": keyInfo(request)
    case "lookup": lookup(request)
    case "resolve": resolve(request)
    case "resolve_hostname": resolveHostname(request)
    case "set_hostname": setHostname(request)
    case "set_visibility": setVisibility(request)
    case "set_tags": setTags(request)
    case "punch": punch(request)
    case "report_trust": reportTrust(request)
    case "revoke_trust": revokeTrust(request)
    case "check_trust": checkTrust(request)
    case "request_handshake": requestHandshake(request)
    case "poll_handshakes": pollHandshakes(request)
    case "respond_handshake": respondHandshake(request)
    case "list_networks": listNetworks(request)
    case "create_network": createNetwork(request)
    case "rename_network": renameNetwork(request)
    case "delete_network": deleteNetwork(request)
    case "set_network_enterprise": setEnterprise(request)
    case "join_network": joinNetwork(request)
    case "leave_network": leaveNetwork(request)
    case "invite_to_network": invite(request)
    case "poll_invites": pollInvites(request)
    case "respond_invite": respondInvite(request)
    case "list_nodes": listNodes(request)
    case "promote_member": setRole(request, .admin)
    case "demote_member": setRole(request, .member)
    case "kick_member": kickMember(request)
    case "transfer_ownership": transferOwnership(request)
    case "get_member_role": memberRole(request)
    case "set_member_tags": setMemberTags(request)
    case "get_member_tags": memberTags(request)
    case "get_network_policy": networkPolicy(request)
    case "set_network_policy": setNetworkPolicy(request)
    case "get_expr_policy": expressionPolicy(request)
    case "set_expr_policy": setExpressionPolicy(request)
    case "beacon_list": beaconList(request)
    default:
      counters.add(.requestsUnknown)
      finish(.failure(RequestError("unknown message type")), completion)
    }
  }

  /// What a signed operation relies on besides the signature.
  enum Binding {
    /// Reading: nothing more.
    case anywhere
    /// Changing: the request comes from the host that registered the node. The signature covers neither the value
    /// nor a time, so it could be repeated by whoever saw it (wire/registry §9.1).
    case registeredHost
  }

  /// Verifies that `node` signed `text`, outside the lock; `then` runs with the node's record, whose key is still
  /// the one that signed. A client on the node's own host speaks for the node from then on.
  func signed(
    _ request: Request, by node: UInt32, _ text: String, _ binding: Binding, isSoft: Bool = false,
    _ then: @escaping @Sendable (inout RegistryState, NodeRecord) throws(RequestError) -> Reply
  ) {
    let now = now
    let client = request.client
    let key: Bytes32
    do throws(RequestError) {
      key = try read { state throws(RequestError) in try state.live(node, now: now).key }
      let given = request.body.text("signature")
      guard !given.isEmpty else { throw RequestError.signatureRequired }
      guard let signature = Cryptography.signature(base64: given), Cryptography.verify(signature, over: text, by: key)
      else {
        counters.add(.signaturesBad)
        throw RequestError.badSignature
      }
    } catch {
      return finish(.failure(error), request.completion)
    }
    let binds = binding == .registeredHost && configuration.bindsChangesToHost
    let body = { (state: inout RegistryState) throws(RequestError) -> Reply in
      let record = try state.live(node, now: now)
      guard record.key == key else { throw .badSignature }
      let isFresh = client.isFresh(key)
      guard isFresh || !record.provesFreshly else {
        self.counters.add(.signaturesStale)
        throw .proofRequired(client.nonce)
      }
      let isHome = record.host == client.host
      guard isHome || isFresh || !binds else { throw .elsewhere }
      if isHome { client.prove(node, key) }
      return try then(&state, record)
    }
    if isSoft { performSoft(request.completion, body) } else { perform(request.completion, body) }
  }

  /// The nodes as which a connection may read: those that signed on it, with the key they still have, from the host
  /// where they still are.
  func viewers(_ client: ClientSession, _ state: RegistryState) -> [UInt32] {
    client.claims.filter { claim in
      guard let record = state.nodes[claim.node], record.key == claim.key else { return false }
      if record.provesFreshly { return client.isFresh(record.key) }
      return record.host == client.host || !configuration.bindsChangesToHost
    }.map(\.node)
  }

  /// Throws unless the request carries the administrator's token, or that of the network where there is one. A bare
  /// node id proves nothing (§9.4): roles open what their owners sign themselves, the rest needs a token.
  func requireAdmin(_ request: Request, of network: NetworkRecord? = nil) throws(RequestError) {
    let given = request.body.text("admin_token")
    // Both are compared always: the time tells neither which exists nor which came close.
    let isAdmin = Self.isEqual(given, configuration.adminToken ?? "")
    let isOfNetwork = Self.isEqual(given, network?.adminToken ?? "")
    guard !given.isEmpty, isAdmin || isOfNetwork else { throw .adminRequired }
    guard !configuration.adminNeedsTLS || request.client.isProtected || request.client.host.isLoopback else {
      throw RequestError("cannot accept the admin token on this connection: TLS is required")
    }
  }

  func isAdmin(_ request: Request, of network: NetworkRecord? = nil) -> Bool {
    do throws(RequestError) {
      try requireAdmin(request, of: network)
      return true
    } catch {
      return false
    }
  }

  /// Runs `then` for whoever carries a token for the network.
  func administer(
    _ request: Request, _ id: UInt16,
    _ then: (inout RegistryState, NetworkRecord) throws(RequestError) -> Reply
  ) {
    perform(request.completion) { state throws(RequestError) in
      let network = state.networks[id]
      try self.requireAdmin(request, of: network)
      guard id != 0 else { throw RequestError("cannot change the backbone") }
      guard let network else { throw RequestError("network \(id) not found") }
      return try then(&state, network)
    }
  }

  /// Compares in a time that depends on the length of `given` only.
  static func isEqual(_ given: String, _ expected: String) -> Bool {
    let given = Array(given.utf8)
    let expected = Array(expected.utf8)
    guard !expected.isEmpty else { return given.isEmpty }
    var difference = UInt8(given.count == expected.count ? 0 : 1)
    for (index, byte) in given.enumerated() { difference |= byte ^ expected[index % expected.count] }
    return difference == 0
  }
}
