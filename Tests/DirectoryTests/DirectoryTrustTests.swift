// Trust against a scripted registry: what an honest one delivers, and what a dishonest one cannot bring about.

import JSON
import Testing

@testable import Directory

private func inbox(requests: [(UInt32, String)] = [], responses: [(UInt32, Bool)] = []) -> ScriptedRegistry.Act {
  .reply(
    .object([
      "type": .text("poll_handshakes_ok"),
      "requests": .list(requests.map { .object(["from_node_id": .whole($0.0), "justification": .text($0.1)]) }),
      "responses": .list(responses.map { .object(["from_node_id": .whole($0.0), "accept": .bool($0.1)]) }),
    ]))
}

private func deliver(_ registry: ScriptedRegistry, _ act: ScriptedRegistry.Act) {
  registry.follow { $0.type == "poll_handshakes" ? [act] : [.normal] }
}

@Suite("Directory trust", .timeLimit(.minutes(1)))
struct DirectoryTrustTests {
  @Test("a request waits for the operator, who may approve it: the registry hears the answer and the report")
  func approve() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let node = try TestNode(temporary, port: registry.port)
    await node.connected()
    deliver(registry, inbox(requests: [(9, "hello")]))
    await node.directory.pollNow()
    await node.events.first { $0 == .handshakeRequested(peer: 9, justification: "hello") }
    #expect(node.directory.pendingHandshakes().map(\.justification) == ["hello"])
    #expect(await node.directory.trust(of: 9) == .pending)
    #expect(registry.count("respond_handshake") == 0)
    deliver(registry, inbox())
    try await node.directory.approve(9)
    #expect(await node.directory.trust(of: 9) == .trusted)
    #expect(await registry.request("respond_handshake").body["accept"]?.isTrue == true)
    #expect(await registry.request("report_trust").body["peer_id"]?.node == 9)
    #expect(node.directory.pendingHandshakes().isEmpty)
    await node.stop()
    await registry.stop()
  }

  @Test("a rejected request trusts nobody and the peer is told")
  func reject() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let node = try TestNode(temporary, port: registry.port)
    await node.connected()
    deliver(registry, inbox(requests: [(9, "")]))
    await node.directory.pollNow()
    await node.events.first { $0 == .handshakeRequested(peer: 9, justification: "") }
    deliver(registry, inbox())
    try await node.directory.reject(9)
    #expect(await registry.request("respond_handshake").body["accept"] == .bool(false))
    #expect(await node.directory.trust(of: 9) == .none)
    #expect(registry.count("report_trust") == 0)
    let error = await #expect(throws: DirectoryError.self) { try await node.directory.approve(9) }
    #expect(error?.code == "no_such_request")
    await node.stop()
    await registry.stop()
  }

  @Test("answers that nobody asked for make no trust")
  func unsolicited() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let node = try TestNode(temporary, port: registry.port)
    await node.connected()
    deliver(registry, inbox(requests: [(11, "x")], responses: [(9, true), (10, true)]))
    await node.directory.pollNow()
    await node.events.first { $0 == .handshakeRequested(peer: 11, justification: "x") }
    #expect(await node.directory.trust(of: 9) == .none)
    #expect(await node.directory.trust(of: 10) == .none)
    #expect(node.directory.store.trustedNodes.isEmpty)
    await node.stop()
    await registry.stop()
  }

  @Test("a request of ours is polled for soon, and trust begins with the peer's yes")
  func requested() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let node = try TestNode(temporary, port: registry.port)
    await node.connected()
    try await node.directory.requestTrust(9, justification: "want trust")
    #expect(await registry.request("request_handshake").body["justification"]?.text == "want trust")
    #expect(await node.directory.trust(of: 9) == .requested)
    let polls = registry.count("poll_handshakes")
    await registry.request("poll_handshakes", number: polls + 3)
    #expect(await node.directory.trust(of: 9) == .requested)
    deliver(registry, inbox(responses: [(9, true)]))
    await registry.request("report_trust")
    #expect(await node.directory.trust(of: 9) == .trusted)
    await node.stop()
    await registry.stop()
  }

  @Test("two requests that cross are agreement")
  func crossing() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let node = try TestNode(temporary, port: registry.port)
    await node.connected()
    try await node.directory.requestTrust(9)
    deliver(registry, inbox(requests: [(9, "me too")]))
    await registry.request("report_trust")
    #expect(await node.directory.trust(of: 9) == .trusted)
    await node.stop()
    await registry.stop()
  }

  @Test("with automatic approval every request is accepted")
  func automatic() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    deliver(registry, inbox(requests: [(9, ""), (10, "")]))
    let node = try TestNode(temporary, port: registry.port) { $0.approvesAutomatically = true }
    await registry.request("report_trust", number: 2)
    #expect(Set(node.directory.store.trustedNodes) == [9, 10])
    await node.stop()
    await registry.stop()
  }

  @Test("a withdrawal holds at once and is told to the registry when it is back")
  func revokedWhileAway() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let port = registry.port
    deliver(registry, inbox(requests: [(9, "")]))
    let node = try TestNode(temporary, port: port) { $0.approvesAutomatically = true }
    await registry.request("report_trust")
    deliver(registry, inbox())
    await registry.stop()
    await node.unreachable()
    #expect(await node.directory.revoke(9))
    #expect(await node.directory.trust(of: 9) == .none)
    try await registry.start(port: port)
    #expect(await registry.request("revoke_trust").body["peer_id"]?.node == 9)
    #expect(!(await node.directory.revoke(9)))
    await node.stop()
    await registry.stop()
  }

  @Test("trust survives a restart and is reported again after every registration")
  func restart() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    deliver(registry, inbox(requests: [(9, "")]))
    let before = try TestNode(temporary, port: registry.port) { $0.approvesAutomatically = true }
    await registry.request("report_trust")
    await before.stop()
    deliver(registry, inbox())
    let reports = registry.count("report_trust")
    let node = try TestNode(temporary, port: registry.port)
    await registry.request("report_trust", number: reports + 1)
    #expect(await node.directory.trust(of: 9) == .trusted)
    await node.stop()
    await registry.stop()
  }

  @Test("a network in common admits without trust")
  func sharedNetwork() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    registry.follow { request in
      guard request.type == "lookup" else { return [.normal] }
      let node = request.body["node_id"] ?? .null
      return [
        .reply(
          .object([
            "type": .text("lookup_ok"), "node_id": node, "networks": .list([.integer(0), .integer(3)]),
          ]))
      ]
    }
    let node = try TestNode(temporary, port: registry.port)
    await node.connected()
    #expect(await node.directory.trust(of: 9) == .none)
    _ = await node.directory.record(of: 9)
    #expect(await node.directory.trust(of: 9) == .sharedNetwork(3))
    #expect(await node.directory.trust(of: 9).isAdmitted)
    await node.stop()
    await registry.stop()
  }

  @Test("a reason that is too long is refused before it is sent")
  func longReason() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let node = try TestNode(temporary, port: registry.port)
    await node.connected()
    let reason = String(repeating: "a", count: 1025)
    #expect(
      await #expect(throws: DirectoryError.self) {
        try await node.directory.requestTrust(9, justification: reason)
      }?.code == "bad_request")
    #expect(registry.count("request_handshake") == 0)
    await node.stop()
    await registry.stop()
  }
}
