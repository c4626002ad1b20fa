// register, prove_key, heartbeat, deregister, rotate_key, get_key_info (wire/registry §2.2, §2.3).

import JSON
import Telemetry
import Wire

extension RegistryService {
  private static let ownerLimit = 256
  private static let versionLimit = 64

  func register(_ request: Request) {
    let body = request.body
    let client = request.client
    let listen = body.text("listen_addr")
    let keyText = body.text("public_key")
    guard let key = Cryptography.key(base64: keyText), !key.isZero else {
      return finish(.failure(RequestError("invalid public key")), request.completion)
    }
    guard !body.text("signature").isEmpty else {
      return finish(.failure(.signatureRequired), request.completion)
    }
    guard let signature = Cryptography.signature(base64: body.text("signature")), listen.utf8.count <= 512,
      Cryptography.verify(signature, over: "register:\(listen):\(keyText)", by: key)
    else {
      counters.add(.signaturesBad)
      return finish(.failure(.badSignature), request.completion)
    }
    let claimed = ClaimedEndpoint(listen)
    var host = client.host
    if client.host.isLoopback, configuration.believesLocalClients, let address = claimed.address,
      address.isReachableUnicast
    {
      host = address
    }
    let lan = body.texts("lan_addrs").prefix(64).compactMap { Endpoint($0) }
      .filter { ($0.address.isPrivate || $0.address == host) && $0.port != 0 }.prefix(8)
    let now = now
    let registration = Registration(
      key: key, wanted: body.id("node_id"), owner: Self.clipped(body.text("owner"), Self.ownerLimit),
      version: Self.clipped(body.text("version"), Self.versionLimit), hostname: body.text("hostname"),
      host: client.host, endpoint: Endpoint(address: host, port: claimed.port), lan: Array(lan),
      isRelayOnly: body.flag("relay_only"), isFresh: client.isFresh(key))
    perform(request.completion) { state throws(RequestError) in
      let known = state.node(withKey: key)
      let isNew = known == nil
      if let known, known.provesFreshly, !client.isFresh(key) {
        self.counters.add(.signaturesStale)
        throw .proofRequired(client.nonce)
      }
      guard !self.isConnectedElsewhere(known, client) else { throw .connectedElsewhere }
      let (node, nameError) = try state.register(registration, now: now)
      counters.add(.registrations)
      if isNew { counters.add(.registrationsNew) }
      table.allowRebinding(node.id)
      client.prove(node.id, key)
      var members: [(String, JSONValue)] = [
        ("node_id", .whole(node.id)), ("network_id", .integer(0)),
        ("address", .text(PilotAddress(network: 0, node: node.id).description)), ("public_key", .text(keyText)),
        ("observed_addr", .text(node.endpoint.description)), ("protocol_version", .integer(1)),
      ]
      if !node.hostname.isEmpty { members.append(("hostname", .text(node.hostname))) }
      if let nameError { members.append(("hostname_error", .text(nameError.text))) }
      // Official clients ignore it. Ours signs it, see `proveKey`.
      members.append(("nonce", .text(client.nonce)))
      return request.ok(members)
    }
  }

  /// A key signs the nonce of its connection, and is from then on taken at nothing less: neither its registration nor
  /// anything else it ever signed is worth something on another connection. Deregistering ends that.
  func proveKey(_ request: Request) {
    let (body, client) = (request.body, request.client)
    let keyText = body.text("public_key")
    guard let key = Cryptography.key(base64: keyText), !key.isZero else {
      return finish(.failure(RequestError("invalid public key")), request.completion)
    }
    guard let signature = Cryptography.signature(base64: body.text("signature")),
      Cryptography.verify(signature, over: "prove_key:\(client.nonce):\(keyText)", by: key)
    else {
      counters.add(.signaturesBad)
      return finish(.failure(.badSignature), request.completion)
    }
    perform(request.completion) { state throws(RequestError) in
      guard client.proveFresh(key) else { throw RequestError("too many keys on one connection") }
      if var record = state.node(withKey: key), record.isRegistered {
        record.provesFreshly = true
        state.update(record)
      }
      return request.ok()
    }
  }

  /// Whether the node has a connection from where it registered, and `client` comes from elsewhere without a proof that
  /// it is no repetition of an old registration.
  private func isConnectedElsewhere(_ record: NodeRecord?, _ client: ClientSession) -> Bool {
    guard let record, record.isRegistered, configuration.bindsChangesToHost, record.host != client.host,
      !client.isFresh(record.key)
    else { return false }
    return presence.isConnected(record.id, from: record.host)
  }

  /// For how many quarters of a second the request may have to wait; 0 is not at all.
  ///
  /// Registrations wait when their source brings many new keys, but never known ones: a site that comes back after a
  /// power cut has only those (§9.6). And when the node is still connected from another host: a node that moved has
  /// left connections there whose end shows when they are probed.
  func patience(_ body: JSONValue, from client: ClientSession, hasWaited: Bool) -> Int {
    guard body.text("type") == "register", let key = Cryptography.key(base64: body.text("public_key")) else { return 0 }
    if let known = try? read({ $0.node(withKey: key) }) {
      // A node that signs nonces is told so at once and then has not to wait.
      guard !known.provesFreshly, isConnectedElsewhere(known, client) else { return 0 }
      if !hasWaited { presence.probe(known.id, at: known.host) }
      return Int(configuration.limits.displacementTime * 4)
    }
    guard !admission.isExempt(client.host), !newKeys.allows(client.host.limitKey, now: now) else { return 0 }
    counters.add(.registrationsDelayed)
    return 30
  }

  func heartbeat(_ request: Request) {
    let node = request.body.id("node_id")
    let now = now
    signed(request, by: node, "heartbeat:\(node)", .anywhere, isSoft: true) { state, record throws(RequestError) in
      // A node that moved keeps its heartbeat going and nobody would learn where it is: told that it is unknown, it
      // registers at once. Not while it is still connected from where it was, and not more often than every 30 s, for
      // hosts whose connections leave by several addresses.
      if self.configuration.bindsChangesToHost, record.host != request.client.host,
        !self.presence.isConnected(node, from: record.host), self.moves.allows(node, now: now)
      {
        throw .nodeNotFound(node)
      }
      state.touch(node, now: now)
      self.counters.add(.heartbeats)
      return request.ok([("time", .integer(now / 1000))])
    }
  }

  func deregister(_ request: Request) {
    let node = request.body.id("node_id")
    let now = now
    signed(request, by: node, "deregister:\(node)", .registeredHost) { state, record throws(RequestError) in
      try state.deregister(record, now: now)
      self.table.forget(node)
      return request.ok()
    }
  }

  func rotateKey(_ request: Request) {
    let node = request.body.id("node_id")
    let text = request.body.text("new_public_key")
    let now = now
    guard let key = Cryptography.key(base64: text), !key.isZero else {
      return finish(.failure(RequestError("invalid public key")), request.completion)
    }
    signed(request, by: node, "rotate:\(node):\(text)", .registeredHost) { state, _ throws(RequestError) in
      try state.rotate(node, to: key, now: now)
      return request.ok([
        ("node_id", .whole(node)), ("address", .text(PilotAddress(network: 0, node: node).description)),
        ("public_key", .text(text)),
      ])
    }
  }

  func keyInfo(_ request: Request) {
    let node = request.body.id("node_id")
    let now = now
    perform(request.completion) { state throws(RequestError) in
      let record = try state.live(node, now: now)
      var members: [(String, JSONValue)] = [
        ("node_id", .whole(node)), ("created_at", .text(Self.timestamp(record.createdAt))),
      ]
      if let rotated = record.rotatedAt { members.append(("rotated_at", .text(Self.timestamp(rotated)))) }
      members.append(("rotate_count", .whole(record.rotateCount)))
      members.append(("key_age_days", .integer(Self.keyAge(of: record, now: now))))
      return request.ok(members)
    }
  }

  static func keyAge(of record: NodeRecord, now: Int64) -> Int64 {
    max(0, now - (record.rotatedAt ?? record.createdAt)) / 86_400_000
  }

  /// RFC 3339 in UTC, whole seconds.
  static func timestamp(_ milliseconds: Int64) -> String {
    LogLine.timestamp(milliseconds).prefix(19) + "Z"
  }

  private static func clipped(_ text: String, _ limit: Int) -> String {
    text.utf8.count <= limit ? text : String(decoding: text.utf8.prefix(limit), as: UTF8.self)
  }
}

/// What a client says about where it listens: `host:port`, of which usually only the port is believed (§3.4).
struct ClaimedEndpoint {
  var address: IPv6Address?
  var port: UInt16

  init(_ text: String) {
    if let endpoint = Endpoint(text) {
      address = endpoint.address
      port = endpoint.port
    } else {
      address = nil
      port = text.lastIndex(of: ":").flatMap { UInt16(text[text.index(after: $0)...]) } ?? 0
    }
  }
}
