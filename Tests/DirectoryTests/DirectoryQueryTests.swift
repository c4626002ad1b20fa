// Questions: caches, coalescing, answers while the registry is away.

import JSON
import Synchronization
import Testing
import Wire

@testable import Directory

private let found9 = NameResult.found(
  node: 9, address: PilotAddress(network: 0, node: 9), lastSeen: 1_795_372_279, fromCache: false)

@Suite("Directory queries", .timeLimit(.minutes(1)))
struct DirectoryQueryTests {
  @Test("a record joins lookup and resolve")
  func record() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let node = try TestNode(temporary, port: registry.port)
    await node.connected()
    let record = try #require(await node.directory.record(of: 9))
    #expect(record.publicKey?.bytes == [UInt8](repeating: 9, count: 32))
    #expect(record.endpoints.map(\.description) == ["198.51.100.7:4242", "192.168.77.5:4242"])
    #expect(record.isPublic && !record.isRelayOnly && !record.isEndpointRefused && !record.isFromStore)
    #expect(await node.directory.name(of: 9) == "peer-9")
    await node.events.first { $0 == .peerRecordChanged(record) }
    await node.stop()
    await registry.stop()
  }

  @Test("identical questions at the same time are asked once")
  func coalescing() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let node = try TestNode(temporary, port: registry.port)
    await node.connected()
    // That of the registration; it is noted after it was answered.
    await registry.request("lookup")
    let before = registry.count("lookup")
    await withTaskGroup(of: Void.self) { group in
      for _ in 0..<50 {
        group.addTask { _ = await node.directory.record(of: 9, fresh: true) }
        group.addTask { _ = await node.directory.node(named: "peer-9") }
      }
    }
    #expect(registry.count("lookup") == before + 1)
    await registry.request("resolve_hostname")
    #expect(registry.count("resolve_hostname") == 1)
    await node.stop()
    await registry.stop()
  }

  @Test("an unknown node or name is remembered for a short time only")
  func negative() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let node = try TestNode(temporary, port: registry.port) { $0.timing.negativeLife = .seconds(1000) }
    await node.connected()
    let questions = ["lookup", "resolve", "resolve_hostname"]
    registry.follow { questions.contains($0.type) ? [.error("node not found")] : [.normal] }
    // That of the registration; it is noted after it was answered.
    await registry.request("lookup")
    let before = registry.count("lookup")
    for _ in 0..<5 {
      #expect(await node.directory.lookUp(9, fresh: true) == .notFound)
      #expect(await node.directory.node(named: "peer-9") == .notFound)
      await node.directory.age(by: .seconds(150))
    }
    #expect(registry.count("lookup") == before + 1)
    await registry.request("resolve_hostname")
    #expect(registry.count("resolve_hostname") == 1)
    registry.follow { _ in [.normal] }
    await node.directory.age(by: .seconds(250))
    #expect(await node.directory.node(named: "peer-9") == found9)
    #expect(await node.directory.record(of: 9) != nil)
    await node.stop()
    await registry.stop()
  }

  @Test(
    "names that no node can have are not asked for",
    arguments: [
      "", "-a", "a-", "a.b", "local host", "localhost", "a_b", String(repeating: "a", count: 64), "ä", "\u{212A}ey",
    ])
  func impossibleNames(name: String) async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let node = try TestNode(temporary, port: registry.port)
    await node.connected()
    #expect(await node.directory.node(named: name) == .notFound)
    #expect(registry.count("resolve_hostname") == 0)
    await node.stop()
    await registry.stop()
  }

  @Test("names are asked for with a signature where the registry gave a nonce, and plainly elsewhere")
  func plainNames() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let node = try TestNode(temporary, port: registry.port)
    await node.connected()
    #expect(await node.directory.node(named: "peer-9") == found9)
    let start = node.events.all.count
    registry.follow { request in
      guard request.type == "register" else { return [.normal] }
      return [
        .reply(
          .object([
            "type": .text("register_ok"), "node_id": .whole(7), "address": .text("0:0000.0000.0007"),
            "nonce": .text("n"),
          ]))
      ]
    }
    await node.directory.registerAgain()
    await node.registered(after: start)
    _ = await node.directory.node(named: "peer-10")
    await registry.request("resolve_hostname", number: 2)
    let asked = registry.requests.all.filter { $0.type == "resolve_hostname" }
    #expect(asked.map { $0.body["signature"] != nil } == [false, true])
    await node.stop()
    await registry.stop()
  }

  @Test("a private node shows its key, and that its endpoint is refused")
  func refusedEndpoint() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let node = try TestNode(temporary, port: registry.port)
    await node.connected()
    registry.follow { $0.type == "resolve" ? [.error("request failed")] : [.normal] }
    let record = try #require(await node.directory.record(of: 9))
    #expect(record.publicKey != nil)
    #expect(record.isEndpointRefused && record.endpoints.isEmpty)
    await node.stop()
    await registry.stop()
  }

  @Test("the beacon's address of a relay-only node is not taken for its endpoint")
  func relayOnly() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let node = try TestNode(temporary, port: registry.port)
    await node.connected()
    registry.follow { request in
      request.type == "resolve"
        ? [
          .reply(
            .object([
              "type": .text("resolve_ok"), "node_id": .integer(9), "real_addr": .text("192.0.2.1:9001"),
              "relay_only": .bool(true),
            ]))
        ] : [.normal]
    }
    let record = try #require(await node.directory.record(of: 9))
    #expect(record.isRelayOnly && record.endpoints.isEmpty)
    await node.stop()
    await registry.stop()
  }

  @Test("known nodes and names are answered while the registry is away, unknown ones as unavailable")
  func away() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let node = try TestNode(temporary, port: registry.port)
    await node.connected()
    #expect(await node.directory.node(named: "peer-9") == found9)
    _ = await node.directory.record(of: 9)
    await registry.stop()
    await node.unreachable()
    let record = try #require(await node.directory.record(of: 9, fresh: true))
    #expect(record.isFromStore)
    #expect(record.endpoints.count == 2)
    #expect(
      await node.directory.node(named: "peer-9")
        == .found(node: 9, address: PilotAddress(network: 0, node: 9), lastSeen: 1_795_372_279, fromCache: true))
    #expect(await node.directory.lookUp(10) == .unavailable)
    #expect(await node.directory.node(named: "peer-10") == .unavailable)
    await node.stop()
  }

  @Test("a name that its node gave up is asked for again, and the one it took back is known without the registry")
  func renamed() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let present = Mutex("alpha")
    registry.follow { request in
      guard request.type == "resolve_hostname" else { return [.normal] }
      guard request.body["hostname"]?.text == present.withLock({ $0 }) else { return [.error("hostname not found")] }
      return [.reply(.object(["type": .text("resolve_hostname_ok"), "node_id": .integer(9)]))]
    }
    let node = try TestNode(temporary, port: registry.port) { $0.timing.negativeLife = .zero }
    await node.connected()
    let found = NameResult.found(
      node: 9, address: PilotAddress(network: 0, node: 9), lastSeen: nil, fromCache: false)
    #expect(await node.directory.node(named: "alpha") == found)
    present.withLock { $0 = "gamma" }
    #expect(await node.directory.node(named: "gamma") == found)
    #expect(await node.directory.node(named: "alpha") == .notFound)
    present.withLock { $0 = "alpha" }
    #expect(await node.directory.node(named: "alpha") == found)
    present.withLock { $0 = "gamma" }
    #expect(await node.directory.node(named: "gamma") == found)
    present.withLock { $0 = "alpha" }
    // Programs ask for it before the registry goes, as before: what they were told must not be forgotten with a restart.
    #expect(await node.directory.node(named: "alpha") == found)
    await node.stop()
    await registry.stop()

    let again = try TestNode(temporary, port: registry.port)
    await again.unreachable()
    guard case .found(9, _, _, true) = await again.directory.node(named: "alpha") else {
      Issue.record("the name is not known after the restart")
      return
    }
    #expect(await again.directory.node(named: "gamma") == .unavailable)
    await again.stop()
  }

  @Test("a registry that falls silent delays the answer about a known peer by 2 seconds at most")
  func patience() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let node = try TestNode(temporary, port: registry.port) { $0.timing.positiveLife = .zero }
    await node.connected()
    #expect(await node.directory.record(of: 9) != nil)
    registry.follow { _ in [.silence] }
    let started = ContinuousClock.now
    #expect(await node.directory.record(of: 9)?.isFromStore == true)
    #expect(ContinuousClock.now - started < .seconds(4))
    await node.stop()
    await registry.stop()
  }
}
