// Trust by messages on port 444: who agrees to what, by which way it is said, and what cannot be brought about.

import JSON
import Session
import Testing
import Wire

@testable import Directory

/// A registry that shows node 9 as private, or as a member of a network, or as it is.
private enum Shown { case publicNode, privateNode, fellow }

private func show(_ registry: ScriptedRegistry, _ shown: Shown) {
  registry.follow { request in
    guard request.type == "lookup", request.body["node_id"] == .integer(9) else { return [.normal] }
    let networks: [JSONValue] = shown == .fellow ? [.integer(0), .integer(3)] : [.integer(0)]
    return [
      .reply(
        .object([
          "type": .text("lookup_ok"), "node_id": .integer(9),
          "public": .bool(shown == .publicNode), "networks": .list(networks),
        ]))
    ]
  }
}

@Suite("Directory trust messages", .timeLimit(.minutes(1)))
struct DirectoryTrustMessageTests {
  /// Runs the body with a node that is registered, and a peer 9 that its messages reach.
  private func withPeer(
    shown: Shown = .publicNode, change: (inout DirectoryConfiguration) -> Void = { _ in },
    _ body: (TestNode, TrustPeer, ScriptedRegistry) async throws -> Void
  ) async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    show(registry, shown)
    let node = try TestNode(temporary, port: registry.port) {
      $0.timing.directAttempt = .milliseconds(500)
      $0.timing.farewell = .milliseconds(500)
      change(&$0)
    }
    let peer = TrustPeer(9)
    await peer.connect(to: node.directory)
    await node.connected()
    try await body(node, peer, registry)
    await node.stop()
    await registry.stop()
  }

  // MARK: Asked

  @Test(
    "a request waits for the operator, and the answer goes over the tunnel alone, for the registry knows of nothing")
  func approve() async throws {
    try await withPeer { node, peer, registry in
      #expect(await peer.say(.request, to: node.directory, justification: "hello") == nil)
      await node.events.first { $0 == .handshakeRequested(peer: 9, justification: "hello") }
      #expect(await node.directory.trust(of: 9) == .pending)
      #expect(peer.heard.all.isEmpty)
      #expect(node.directory.expectsTrustMessage(of: 9) && !node.directory.expectsTrustMessage(of: 10))
      try await node.directory.approve(9)
      #expect(await node.directory.trust(of: 9) == .trusted)
      let answer = try #require(await peer.hears(.accept))
      var checks = TrustChecks()
      let me = try #require(await node.directory.node)
      let sender = TrustSender(node: me, key: node.directory.identity.publicKey)
      #expect(throws: Never.self) {
        try checks.admit(answer.encoded, from: sender, to: 9, now: NodeStore.unixTime())
      }
      await registry.request("report_trust")
      #expect(registry.count("respond_handshake") == 0)
    }
  }

  @Test("a request that also came through the registry is one request, and is answered by both ways")
  func bothWays() async throws {
    try await withPeer { node, peer, registry in
      #expect(await peer.say(.request, to: node.directory, justification: "first") == nil)
      registry.follow { request in
        guard request.type == "poll_handshakes" else { return [.normal] }
        let relayed: JSONValue = .object(["from_node_id": .whole(9), "justification": .text("second")])
        return [
          .reply(.object(["type": .text("poll_handshakes_ok"), "requests": .list([relayed]), "responses": .list([])]))
        ]
      }
      await node.directory.pollNow()
      try await eventually("the second is there") {
        node.directory.pendingHandshakes().map(\.justification) == ["second"]
      }
      registry.follow { _ in [.normal] }
      let requests = node.events.all.filter { if case .handshakeRequested = $0 { true } else { false } }
      #expect(requests == [.handshakeRequested(peer: 9, justification: "first")])
      try await node.directory.approve(9)
      await peer.hears(.accept)
      #expect(await registry.request("respond_handshake").body["accept"]?.isTrue == true)
    }
  }

  @Test("a request that came over the tunnel is approved while the registry is away")
  func withoutRegistry() async throws {
    try await withPeer { node, peer, registry in
      #expect(await peer.say(.request, to: node.directory) == nil)
      await registry.stop()
      await node.unreachable()
      try await node.directory.approve(9)
      #expect(await node.directory.trust(of: 9) == .trusted)
      await peer.hears(.accept)
    }
  }

  @Test("a peer whose port is closed hears of the approval by a request through the registry, which it has to agree to")
  func remind() async throws {
    try await withPeer { node, peer, registry in
      peer.setReachable(false)
      #expect(await peer.say(.request, to: node.directory) == nil)
      try await node.directory.approve(9)
      #expect(await registry.request("request_handshake").body["to_node_id"]?.node == 9)
    }
  }

  @Test("with automatic approval every request is accepted at once")
  func automatic() async throws {
    try await withPeer(change: { $0.approvesAutomatically = true }) { node, peer, _ in
      #expect(await peer.say(.request, to: node.directory) == nil)
      #expect(await node.directory.trust(of: 9) == .trusted)
      await peer.hears(.accept)
    }
  }

  @Test("a peer that we trust and that asks again, because it lost its state, is answered yes every time")
  func again() async throws {
    try await withPeer(change: { $0.approvesAutomatically = true }) { node, peer, _ in
      #expect(await peer.say(.request, to: node.directory) == nil)
      await peer.hears(.accept)
      try await eventually("the answer is away") { await node.directory.answersUnderWay.isEmpty }
      let changes = node.events.all.count
      #expect(await peer.say(.request, to: node.directory) == nil)
      await peer.hears(.accept, number: 2)
      #expect(!node.events.all.dropFirst(changes).contains(.trustChanged(peer: 9)))
    }
  }

  @Test("a member of a common network is accepted without asking anybody, and trusted beyond the network")
  func fellow() async throws {
    try await withPeer(shown: .fellow, change: { $0.networks = [NetworkMembership(id: 3)] }) { node, peer, _ in
      #expect(await node.directory.networks == [0, 3])
      #expect(await peer.say(.request, to: node.directory) == nil)
      await peer.hears(.accept)
      #expect(await node.directory.trust(of: 9) == .trusted)
      try await node.directory.leave(3)
      #expect(await node.directory.trust(of: 9) == .trusted)
    }
  }

  @Test("a membership that only the state directory remembers is no agreement")
  func staleFellow() async throws {
    try await withPeer(shown: .fellow, change: { $0.networks = [NetworkMembership(id: 3)] }) { node, peer, registry in
      _ = await node.directory.record(of: 9)
      await registry.stop()
      await node.unreachable()
      #expect(await peer.say(.request, to: node.directory) == nil)
      #expect(!node.directory.store.isTrusted(9))
      #expect(node.directory.pendingHandshakes().map(\.node) == [9])
    }
  }

  @Test("a stranger of another network waits like any other, and so does one of the backbone")
  func otherNetwork() async throws {
    for (shown, network) in [(Shown.fellow, UInt16(4)), (.publicNode, 3)] {
      try await withPeer(shown: shown, change: { $0.networks = [NetworkMembership(id: network)] }) { node, peer, _ in
        #expect(await peer.say(.request, to: node.directory) == nil)
        #expect(await node.directory.trust(of: 9) == .pending)
      }
    }
  }

  @Test("a rejected peer is told over the tunnel, with the reason, and may ask again")
  func reject() async throws {
    try await withPeer { node, peer, registry in
      #expect(await peer.say(.request, to: node.directory) == nil)
      try await node.directory.reject(9, reason: "who are you?")
      #expect(await peer.hears(.reject)?.reason == "who are you?")
      #expect(await node.directory.trust(of: 9) == .none)
      #expect(registry.count("respond_handshake") == 0)
      #expect(await peer.say(.request, to: node.directory) == nil)
      #expect(await node.directory.trust(of: 9) == .pending)
    }
  }

  @Test("256 requests wait at most, for thirty days; what is full is refused by name")
  func pendingLimit() async throws {
    try await withPeer { node, peer, _ in
      let store = node.directory.store
      let now = NodeStore.unixTime()
      for other in 100..<UInt32(100 + TrustBook.mostPending) {
        _ = store.changeTrust { $0.keepPending(other, HandshakeEntry(time: now, justification: "")) }
      }
      #expect(await peer.say(.request, to: node.directory) == .pendingFull)
      #expect(node.directory.pendingHandshakes().count == 256)
      // One of them is a month old.
      store.changeTrust { $0.pending[100]?.time = now - TrustBook.pendingLasts }
      #expect(await peer.say(.request, to: node.directory) == nil)
      #expect(await node.directory.trust(of: 9) == .pending)
      #expect(await node.directory.trust(of: 100) == .none)
    }
  }

  // MARK: Asking

  @Test("a public peer is asked over the tunnel and not through the registry, and its yes makes trust")
  func request() async throws {
    try await withPeer { node, peer, registry in
      try await node.directory.requestTrust(9, justification: "want trust")
      #expect(await peer.hears(.request)?.justification == "want trust")
      #expect(await node.directory.trust(of: 9) == .requested)
      #expect(node.directory.expectsTrustMessage(of: 9))
      #expect(registry.count("request_handshake") == 0)
      #expect(await peer.say(.accept, to: node.directory) == nil)
      #expect(await node.directory.trust(of: 9) == .trusted)
      await registry.request("report_trust")
      // The same yes by another way changes nothing, and is nothing to count.
      let changes = node.events.all.count
      #expect(await peer.say(.accept, to: node.directory) == nil)
      #expect(!node.events.all.dropFirst(changes).contains(.trustChanged(peer: 9)))
    }
  }

  @Test("a private stranger is asked through the registry alone: it would not let our stream in")
  func privatePeer() async throws {
    try await withPeer(shown: .privateNode) { node, peer, registry in
      try await node.directory.requestTrust(9)
      await registry.request("request_handshake")
      #expect(peer.heard.all.isEmpty)
      // Its yes may come over the tunnel all the same.
      #expect(await peer.say(.accept, to: node.directory) == nil)
      #expect(await node.directory.trust(of: 9) == .trusted)
    }
  }

  @Test("a peer that is not reached is asked through the registry")
  func fallback() async throws {
    try await withPeer { node, peer, registry in
      peer.setReachable(false)
      try await node.directory.requestTrust(9, justification: "want trust")
      #expect(await registry.request("request_handshake").body["justification"]?.text == "want trust")
      #expect(await node.directory.trust(of: 9) == .requested)
    }
  }

  @Test("a messenger that hangs holds nobody up")
  func hanging() async throws {
    try await withPeer { node, _, registry in
      await node.directory.setTrustMessenger { _, _ in
        try? await Task.sleep(for: .seconds(600))
        return true
      }
      try await node.directory.requestTrust(9)
      await registry.request("request_handshake")
      #expect(await node.directory.trust(of: 9) == .requested)
    }
  }

  @Test("with neither way the request fails, and nothing is left of it")
  func unreachable() async throws {
    try await withPeer { node, peer, registry in
      peer.setReachable(false)
      await registry.stop()
      await node.unreachable()
      await #expect(throws: DirectoryError.self) { try await node.directory.requestTrust(9) }
      #expect(await node.directory.trust(of: 9) == .none)
    }
  }

  @Test("a request that is not answered within half a minute goes through the registry as well, once")
  func unanswered() async throws {
    try await withPeer { node, _, registry in
      try await node.directory.requestTrust(9)
      node.directory.store.changeTrust { $0.outgoing[9]?.time -= 31 }
      await node.directory.pollNow()
      await registry.request("request_handshake")
      try await eventually("it is noted") { node.directory.store.trust { $0.outgoing[9]?.isRelayed == true } }
      let polls = registry.count("poll_handshakes")
      await node.directory.pollNow()
      await registry.request("poll_handshakes", number: polls + 2)
      #expect(registry.count("request_handshake") == 1)
    }
  }

  @Test("requests that cross are agreement: each end takes the other's for its answer")
  func crossing() async throws {
    try await withPeer { node, peer, _ in
      try await node.directory.requestTrust(9)
      #expect(await peer.say(.request, to: node.directory) == nil)
      #expect(await node.directory.trust(of: 9) == .trusted)
      await peer.hears(.accept)
      #expect(await peer.say(.accept, to: node.directory) == nil)
      #expect(await node.directory.trust(of: 9) == .trusted)
    }
  }

  @Test("asking a peer that has asked already is approving")
  func requestOfPending() async throws {
    try await withPeer { node, peer, _ in
      #expect(await peer.say(.request, to: node.directory) == nil)
      try await node.directory.requestTrust(9)
      #expect(await node.directory.trust(of: 9) == .trusted)
      await peer.hears(.accept)
      #expect(peer.count(.request) == 0)
    }
  }

  @Test("a refusal ends the request; an acceptance behind it is none")
  func refused() async throws {
    try await withPeer { node, peer, _ in
      try await node.directory.requestTrust(9)
      #expect(await peer.say(.reject, to: node.directory, reason: "no") == nil)
      #expect(await node.directory.trust(of: 9) == .none)
      #expect(await peer.say(.accept, to: node.directory) == .unasked)
      #expect(!node.directory.store.isTrusted(9))
    }
  }

  @Test("answers that nobody asked for change nothing", arguments: [TrustMessage.Kind.accept, .reject])
  func unasked(kind: TrustMessage.Kind) async throws {
    try await withPeer { node, peer, _ in
      #expect(await peer.say(kind, to: node.directory) == .unasked)
      #expect(await peer.say(.request, to: node.directory) == nil)
      #expect(await peer.say(kind, to: node.directory) == .unasked)
      #expect(await node.directory.trust(of: 9) == .pending)
    }
  }

  @Test("what does not hold its checks changes nothing, not even a withdrawal")
  func forged() async throws {
    try await withPeer(change: { $0.approvesAutomatically = true }) { node, peer, _ in
      let request = await peer.message(.request, to: node.directory)
      let other = TrustSender(node: 10, key: peer.identity.publicKey)
      #expect(await node.directory.receiveTrustMessage(request, from: other) == .otherSender)
      let wrongKey = TrustSender(node: 9, key: node.directory.identity.publicKey)
      #expect(await node.directory.receiveTrustMessage(request, from: wrongKey) == .otherKey)
      let old = NodeStore.unixTime() - 400
      #expect(await peer.say(.request, to: node.directory, at: old) == .expired)
      #expect(node.directory.store.trustedNodes.isEmpty)
      let right = TrustSender(node: 9, key: peer.identity.publicKey)
      #expect(await node.directory.receiveTrustMessage(request, from: right) == nil)
      #expect(await node.directory.receiveTrustMessage(request, from: right) == .repeated)
      #expect(await peer.say(.revoke, to: node.directory, at: old) == .expired)
      #expect(node.directory.store.isTrusted(9))
    }
  }
}
