// Chooses what a request means, and checks who may make it. The operations are in the other extensions.

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
    case "join_network": joinNetwork(request)
    case "leave_network": leaveNetwork(request)
    case "list_nodes": listNodes(request)
    case "get_network_policy": networkPolicy(request)
    case "get_member_tags": memberTags(request)
    case "get_expr_policy": expressionPolicy(request)
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
      let isHome = record.host == request.client.host
      guard isHome || !binds else { throw .elsewhere }
      if isHome { request.client.prove(node) }
      return try then(&state, record)
    }
    if isSoft { performSoft(request.completion, body) } else { perform(request.completion, body) }
  }

  /// Throws unless the request carries the administrator's token, compared in constant time.
  func requireAdmin(_ request: Request) throws(RequestError) {
    guard let expected = configuration.adminToken, !expected.isEmpty else { throw .adminRequired }
    let given = request.body.text("admin_token")
    guard Self.isEqual(given, expected) else { throw .adminRequired }
    guard !configuration.adminNeedsTLS || request.client.isProtected || request.client.host.isLoopback else {
      throw RequestError("cannot accept the admin token on this connection: TLS is required")
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
