// One connection against a scripted registry: order, errors, silence, closes, garbage.

import JSON
import NIOCore
import NIOPosix
import Session
import Synchronization
import Testing
import Wire

@testable import Directory

private func client(_ registry: ScriptedRegistry, replyTimeout: Duration = .seconds(8)) -> RegistryClient {
  var timing = DirectoryTiming()
  timing.replyTimeout = replyTimeout
  return RegistryClient(host: "127.0.0.1", port: registry.port, timing: timing)
}

@Suite("Registry client", .timeLimit(.minutes(1)))
struct RegistryClientTests {
  @Test("calls that overlap share one connection and get their own answers")
  func pipelining() async throws {
    let registry = try await ScriptedRegistry()
    let client = client(registry)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for node in UInt32(1)...100 {
        group.addTask {
          let record = try await client.lookup(node)
          #expect(record.hostname == "peer-\(node)")
        }
      }
      try await group.waitForAll()
    }
    #expect(registry.connections == 1)
    await client.shutdown()
    await registry.stop()
  }

  @Test("an error reply is thrown with its text and leaves the connection open")
  func errorReply() async throws {
    let registry = try await ScriptedRegistry()
    let client = client(registry)
    registry.follow { $0.type == "lookup" ? [.error("node 9: node not found")] : [.normal] }
    let missing = await #expect(throws: DirectoryError.self) { try await client.lookup(9) }
    #expect(missing?.reason == .notFound)
    #expect(missing?.message.contains("node 9: node not found") == true)
    registry.follow { _ in [.error("unknown message type")] }
    #expect(await #expect(throws: DirectoryError.self) { try await client.beaconList() }?.reason == .registryRefused)
    registry.follow { _ in [.error("rate limited")] }
    #expect(await #expect(throws: DirectoryError.self) { try await client.beaconList() }?.reason == .registryBusy)
    #expect(registry.connections == 1)
    await client.shutdown()
    await registry.stop()
  }

  @Test("a registry that never answers fails every waiting call in time, and the next call dials again")
  func silence() async throws {
    let registry = try await ScriptedRegistry()
    let client = client(registry, replyTimeout: .seconds(1))
    registry.follow { _ in [.silence] }
    async let first = #expect(throws: DirectoryError.self) { try await client.lookup(1) }
    async let second = #expect(throws: DirectoryError.self) { try await client.lookup(2) }
    #expect(await first?.reason == .registryUnreachable)
    #expect(await second?.reason == .registryUnreachable)
    registry.follow { _ in [.normal] }
    #expect(try await client.lookup(3).node == 3)
    #expect(registry.connections >= 2)
    await client.shutdown()
    await registry.stop()
  }

  @Test("a connection closed silently is replaced and the request repeated")
  func silentClose() async throws {
    let registry = try await ScriptedRegistry()
    let client = client(registry)
    _ = try await client.lookup(1)
    let isFirst = Mutex(true)
    registry.follow { _ in
      isFirst.withLock { isFirst in
        defer { isFirst = false }
        return isFirst
      } ? [.close] : [.normal]
    }
    #expect(try await client.lookup(2).node == 2)
    #expect(registry.connections == 2)
    await client.shutdown()
    await registry.stop()
  }

  @Test("who answers the registry's port and says nothing there is left for the detour", arguments: [true, false])
  func mute(closes: Bool) async throws {
    let (mute, registry) = (try await ScriptedRegistry(), try await ScriptedRegistry())
    mute.follow { _ in [closes ? .close : .silence] }
    var timing = DirectoryTiming()
    timing.replyTimeout = .milliseconds(200)
    let detour = RegistryDetour(isOnly: false) { [port = registry.port] eventLoop in
      try await ClientBootstrap(group: eventLoop).connect(host: "127.0.0.1", port: Int(port)).get()
    }
    let client = RegistryClient(host: "127.0.0.1", port: mute.port, timing: timing, detour: detour)
    var failures = 0
    while failures < 5 {
      do {
        #expect(try await client.lookup(3).node == 3)
        break
      } catch {
        #expect(error.reason == .registryUnreachable)
        failures += 1
      }
    }
    #expect((1...3).contains(failures) && mute.connections >= 2)
    #expect(await client.isByDetour)
    #expect(registry.connections == 1)
    await client.shutdown()
    await mute.stop()
    await registry.stop()
  }

  @Test("a registry that closes on every request fails the call instead of looping")
  func closesAlways() async throws {
    let registry = try await ScriptedRegistry()
    let client = client(registry)
    registry.follow { _ in [.close] }
    #expect(
      await #expect(throws: DirectoryError.self) { try await client.lookup(1) }?.reason == .registryUnreachable)
    #expect(registry.connections <= 2)
    await client.shutdown()
    await registry.stop()
  }

  @Test(
    "garbage, oversized frames and replies out of bounds end the connection, not the client",
    arguments: [
      Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8),
      [0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3],
      [0, 0, 0, 0],
      [0, 0, 0, 5] + Array("[1,2]".utf8),
      [0, 0, 0, 3] + Array("{\"a".utf8),
    ])
  func garbage(bytes: [UInt8]) async throws {
    let registry = try await ScriptedRegistry()
    let client = client(registry)
    registry.follow { _ in [.bytes(bytes)] }
    #expect(await #expect(throws: DirectoryError.self) { try await client.lookup(1) }?.reason == .badReply)
    registry.follow { _ in [.normal] }
    #expect(try await client.lookup(2).node == 2)
    await client.shutdown()
    await registry.stop()
  }

  @Test(
    "replies that make no sense for the request are refused",
    arguments: [
      JSONValue.object([:]), .object(["type": .text("lookup_ok")]),
      .object(["type": .text("lookup_ok"), "node_id": .integer(2)]),
      .object(["type": .text("lookup_ok"), "node_id": .text("1")]),
    ])
  func senseless(reply: JSONValue) async throws {
    let registry = try await ScriptedRegistry()
    let client = client(registry)
    registry.follow { _ in [.reply(reply)] }
    #expect(await #expect(throws: DirectoryError.self) { try await client.lookup(1) }?.reason == .badReply)
    await client.shutdown()
    await registry.stop()
  }

  @Test("a reply that nobody asked for ends the connection before it can answer the wrong question")
  func outOfTheBlue() async throws {
    let registry = try await ScriptedRegistry()
    let client = client(registry)
    _ = try await client.lookup(1)
    var closes = client.closes.makeAsyncIterator()
    await registry.blurt([0, 0, 0, 20] + Array("{\"type\":\"lookup_ok\"}".utf8))
    #expect(await closes.next()?.reason == .badReply)
    #expect(try await client.lookup(2).node == 2)
    #expect(registry.connections == 2)
    await client.shutdown()
    await registry.stop()
  }

  @Test("nobody listening is told with the address and a remedy")
  func refused() async throws {
    let registry = try await ScriptedRegistry()
    let port = registry.port
    await registry.stop()
    let client = RegistryClient(host: "127.0.0.1", port: port)
    let error = await #expect(throws: DirectoryError.self) { try await client.connect() }
    #expect(error?.code == "registry_unreachable")
    #expect(error?.message.contains("127.0.0.1 port \(port)") == true)
    #expect(error?.hint != nil)
    await client.shutdown()
  }

  @Test("host names and IPv6 addresses are dialled", arguments: [("127.0.0.1", "localhost"), ("::1", "[::1]")])
  func hosts(listen: String, host: String) async throws {
    let registry = try await ScriptedRegistry(host: listen)
    let client = RegistryClient(host: host, port: registry.port)
    #expect(try await client.lookup(5).node == 5)
    await client.shutdown()
    await registry.stop()
  }

  @Test("every signed request carries the documented text under the node's key")
  func signatures() async throws {
    let registry = try await ScriptedRegistry()
    let client = client(registry)
    let me = RegistrySigner(node: 12, identity: .generate())
    let key = Base64.encode(me.identity.publicKey.bytes)
    let record = Registration(listenAddress: "1.2.3.4:5", owner: "x", version: "v")
    _ = try await client.register(record, identity: me.identity)
    try await client.heartbeat(as: me)
    _ = try await client.resolve(34, as: me)
    _ = try await client.resolveHostname("peer-34", as: me)
    try await client.setHostname("me", as: me)
    try await client.setVisibility(isPublic: true, as: me)
    try await client.setTags(["a"], as: me)
    try await client.reportTrust(34, as: me)
    try await client.revokeTrust(34, as: me)
    try await client.requestHandshake(34, justification: "hi", as: me)
    _ = try await client.pollHandshakes(as: me)
    try await client.respondHandshake(34, isAccepted: true, as: me)
    _ = try await client.joinNetwork(NetworkMembership(id: 3, token: "t"), as: me)
    try await client.leaveNetwork(3, as: me)
    _ = try await client.invite(34, to: 3, as: me)
    _ = try await client.pollInvites(as: me)
    _ = try await client.respondInvite(to: 3, accepts: true, as: me)
    let next = Identity.generate()
    let nextKey = Base64.encode(next.publicKey.bytes)
    _ = try await client.rotateKey(to: next, as: me)
    _ = try await client.submitBadge("pilotbadge:v1:12:x", signature: "s", as: me)
    _ = try await client.enrollRecovery("pilotenroll:v1:12:x:COMMIT:1:k", signature: "s", as: me)
    let short = await #expect(throws: DirectoryError.self) {
      try await client.enrollRecovery("pilotenroll:v1:12", signature: "s", as: me)
    }
    #expect(short?.reason == .badRequest)
    try await client.deregister(as: me)
    let texts = [
      "register": "register:1.2.3.4:5:\(key)", "heartbeat": "heartbeat:12", "resolve": "resolve:12:34",
      "resolve_hostname": "resolve_hostname:12:peer-34", "set_hostname": "set_hostname:12",
      "set_visibility": "set_visibility:12", "set_tags": "set_tags:12", "report_trust": "report_trust:12:34",
      "revoke_trust": "revoke_trust:12:34", "request_handshake": "handshake:12:34",
      "poll_handshakes": "poll_handshakes:12", "respond_handshake": "respond:12:34",
      "join_network": "join_network:12:3", "leave_network": "leave_network:12:3",
      "invite_to_network": "invite:12:3:34", "poll_invites": "poll_invites:12", "respond_invite": "respond_invite:12:3",
      "rotate_key": "rotate:12:\(nextKey)", "submit_badge": "submit_badge:12:pilotbadge:v1:12:x",
      "enroll_recovery": "enroll_recovery:12:COMMIT", "deregister": "deregister:12",
    ]
    await registry.request("deregister")
    #expect(Set(registry.requests.all.map(\.type)) == Set(texts.keys))
    for request in registry.requests.all {
      let text = try #require(texts[request.type])
      let bytes = try #require(request.body["signature"]?.text.flatMap { Base64.decode($0) })
      let signature = try #require(Bytes64(bytes))
      #expect(Ed25519.verify(signature, of: Array(text.utf8), by: me.identity.publicKey), "\(request.type)")
    }
    await client.shutdown()
    await registry.stop()
  }

  @Test("a numeric host is an endpoint without a resolver; a name that does not exist is explained")
  func resolver() async throws {
    let v4 = try #require(Endpoint("192.0.2.1:9001"))
    #expect(try await HostResolver.endpoints(host: "192.0.2.1", port: 9001) == [v4])
    #expect(try await HostResolver.endpoints(host: "[::1]", port: 1).first?.description == "[::1]:1")
    #expect(!(try await HostResolver.endpoints(host: "localhost", port: 9001)).isEmpty)
    let error = await #expect(throws: DirectoryError.self) {
      try await HostResolver.endpoints(host: "no-such-host.invalid", port: 1)
    }
    #expect(error?.code == "registry_unreachable")
  }
}
