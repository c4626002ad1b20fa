// The service against a scripted registry: registering, staying registered, coming back.

import JSON
import Session
import Testing
import Wire

@testable import Directory

@Suite("Directory service", .timeLimit(.minutes(1)))
struct DirectoryServiceTests {
  @Test("a node registers with all it is: visibility, name, tags, networks")
  func registration() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let node = try TestNode(temporary, port: registry.port) {
      $0.hostname = "agent-a"
      $0.isPublic = true
      $0.tags = ["swift"]
      $0.networks = [NetworkMembership(id: 3, token: "sekrit")]
      $0.isRelayOnly = true
    }
    let id = await node.registered()
    await node.connected()
    let register = await registry.request("register")
    let identity = node.directory.identity
    #expect(id == ScriptedRegistry.node(of: register))
    #expect(register.body["listen_addr"]?.text == "127.0.0.1:4000")
    #expect(register.body["relay_only"]?.isTrue == true)
    #expect(register.body["owner"]?.text?.hasSuffix("@nodes.pilotprotocol.network") == true)
    #expect(register.body["public_key"]?.text == Base64.encode(identity.publicKey.bytes))
    #expect(await registry.request("set_visibility").body["public"]?.isTrue == true)
    #expect(await registry.request("set_hostname").body["hostname"]?.text == "agent-a")
    #expect(await registry.request("set_tags").body["tags"] == .list(of: ["swift"]))
    #expect(await registry.request("join_network").body["token"]?.text == "sekrit")
    #expect(await node.directory.networks == [0, 3])
    #expect(await node.directory.hostname == "agent-a")
    #expect(await node.directory.observedEndpoint == Endpoint("203.0.113.9:4000"))
    await node.stop()
    await registry.stop()
  }

  @Test("the same key gets the same id after a restart of the node")
  func sameIdentity() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    var ids: Set<UInt32> = []
    for _ in 0..<2 {
      let node = try TestNode(temporary, port: registry.port)
      ids.insert(await node.registered())
      await node.stop()
    }
    #expect(ids.count == 1)
    await registry.stop()
  }

  @Test("a registry that knows nothing but register serves a running node")
  func unknownTypes() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    registry.follow { $0.type == "register" ? [.normal] : [.error("unknown message type")] }
    let node = try TestNode(temporary, port: registry.port) {
      $0.hostname = "agent-a"
      $0.tags = ["x"]
      $0.networks = [NetworkMembership(id: 3)]
      $0.timing.heartbeat = .milliseconds(20)
    }
    await node.connected()
    // Three refused heartbeats lead to a new registration, and the node stays connected.
    await registry.request("register", number: 2)
    #expect(await node.directory.state.isConnected)
    #expect(await node.directory.hostnameProblem?.reason == .registryRefused)
    #expect(await node.directory.networkProblems[3] != nil)
    #expect(await node.directory.record(of: 5) == nil)
    #expect(registry.connections == 1)
    await node.stop()
    await registry.stop()
  }

  @Test("a refused registration leaves the node running, with the reason in its state")
  func refusedRegistration() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    registry.follow { _ in [.error("registry full")] }
    let node = try TestNode(temporary, port: registry.port) { $0.timing.firstRedial = .milliseconds(10) }
    await node.unreachable()
    guard case .unreachable(_, let reason, _) = await node.directory.state else {
      Issue.record("not unreachable")
      return
    }
    #expect(reason.message.contains("registry full"))
    registry.follow { _ in [.normal] }
    await node.connected()
    await node.stop()
    await registry.stop()
  }

  @Test(
    "heartbeats that tell of a lost registration lead to a new one at once",
    arguments: [
      "node 7: node not found", "signature verification failed",
    ])
  func forgotten(text: String) async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    registry.follow { $0.type == "heartbeat" ? [.error(text)] : [.normal] }
    let node = try TestNode(temporary, port: registry.port) { $0.timing.heartbeat = .milliseconds(50) }
    await registry.request("register", number: 2)
    #expect(registry.count("heartbeat") == 1)
    await node.stop()
    await registry.stop()
  }

  @Test("other heartbeat errors are counted: the third leads to a registration")
  func thirdError() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    registry.follow { $0.type == "heartbeat" ? [.error("request failed")] : [.normal] }
    let node = try TestNode(temporary, port: registry.port) { $0.timing.heartbeat = .milliseconds(20) }
    await registry.request("register", number: 2)
    #expect(registry.count("heartbeat") == 3)
    await node.stop()
    await registry.stop()
  }

  @Test("an unanswered heartbeat drops the connection; the node registers on a new one")
  func unanswered() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    registry.follow { $0.type == "heartbeat" && $0.connection == 1 ? [.silence] : [.normal] }
    let node = try TestNode(temporary, port: registry.port) {
      $0.timing.heartbeat = .milliseconds(20)
      $0.timing.replyTimeout = .milliseconds(100)
    }
    let second = await registry.request("register", number: 2)
    #expect(second.connection == 2)
    await node.stop()
    await registry.stop()
  }

  @Test("a changed endpoint is registered, with everything else as before")
  func announcement() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let node = try TestNode(temporary, port: registry.port) {
      $0.isRelayOnly = true
      $0.hostname = "agent-a"
    }
    await node.connected()
    let lan = try #require(Endpoint("192.168.1.2:4001"))
    await node.directory.announce(Announcement(listenAddress: "198.51.100.1:4001", lanEndpoints: [lan]))
    let second = await registry.request("register", number: 2).body
    #expect(second["listen_addr"]?.text == "198.51.100.1:4001")
    #expect(second["lan_addrs"] == .list(of: ["192.168.1.2:4001"]))
    #expect(second["relay_only"]?.isTrue == true)
    await registry.request("set_hostname", number: 2)
    await node.stop()
    await registry.stop()
  }

  @Test("a connection closed silently is made again and registered")
  func silentClose() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let node = try TestNode(temporary, port: registry.port) { $0.timing.firstRedial = .milliseconds(20) }
    await node.connected()
    await registry.hangUp()
    await registry.request("register", number: 2)
    await node.stop()
    await registry.stop()
  }

  @Test("after an outage the node is back within 10 seconds of the registry's return")
  func outage() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let port = registry.port
    let node = try TestNode(temporary, port: port)
    await node.connected()
    await registry.stop()
    // Waits of 0.2, 0.4, 0.8 and 1.6 s have gone by, at least half of each: the next one is the longest there is.
    await node.unreachable(number: 5)
    let state = await node.directory.state
    guard case .unreachable(_, _, let nextTry) = state else {
      Issue.record("not unreachable: \(state)")
      return
    }
    let longest = node.directory.configuration.timing.longestRedial
    #expect(nextTry - .now > longest / 2 - .milliseconds(500) && nextTry - .now <= longest)
    let start = node.events.all.count
    let returned = ContinuousClock.now
    try await registry.start(port: port)
    await node.registered(after: start)
    #expect(ContinuousClock.now - returned < .seconds(10))
    await node.stop()
    await registry.stop()
  }

  @Test("a registry that was away for long is asked ever more rarely, and at once when the network changes")
  func networkChange() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let port = registry.port
    let node = try TestNode(temporary, port: port) {
      $0.timing.longOutage = .zero
      $0.timing.laterRedial = .seconds(400)
      $0.timing.firstRedial = .seconds(100)
    }
    await node.connected()
    await registry.stop()
    await node.unreachable(number: 2)
    guard case .unreachable(_, _, let nextTry) = await node.directory.state else {
      Issue.record("not unreachable")
      return
    }
    #expect(nextTry - .now > .seconds(10))
    let start = node.events.all.count
    try await registry.start(port: port)
    await node.directory.networkChanged()
    await node.registered(after: start)
    await node.stop()
    await registry.stop()
  }

  @Test("a node starts while its registry is away, under the address it had")
  func startWithoutRegistry() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let port = registry.port
    let before = try TestNode(temporary, port: port)
    let id = await before.registered()
    #expect(await before.directory.record(of: 9)?.hostname == "peer-9")
    await before.stop()
    await registry.stop()
    let node = try TestNode(temporary, port: port)
    #expect(await node.registered() == id)
    await node.unreachable()
    #expect(
      await node.directory.node(named: "peer-9")
        == .found(node: 9, address: PilotAddress(network: 0, node: 9), lastSeen: 1_795_372_279, fromCache: true))
    #expect(await node.directory.record(of: 9)?.isFromStore == true)
    await node.stop()
  }

  @Test("stopping does not wait for a registry that is silent")
  func promptStop() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    registry.follow { _ in [.silence] }
    let node = try TestNode(temporary, port: registry.port)
    await registry.request("register")
    let started = ContinuousClock.now
    await node.stop()
    #expect(ContinuousClock.now - started < .seconds(2))
    await registry.stop()
  }
}
