// Withdrawing trust, from either end: what holds at once, who is told when, and two directories that end up the same.

import JSON
import Logging
import Rendezvous
import Session
import Synchronization
import Testing
import Wire

@testable import Directory

@Suite("Trust withdrawal", .timeLimit(.minutes(1)))
struct TrustWithdrawalTests {
  /// A node that trusts peer 9, with which it has a tunnel.
  private func withTrusted(
    farewell: Duration = .milliseconds(500),
    _ body: (TestNode, TrustPeer, ScriptedRegistry) async throws -> Void
  ) async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let node = try TestNode(temporary, port: registry.port) {
      $0.timing.farewell = farewell
      $0.timing.messenger = .seconds(1)
    }
    let peer = TrustPeer(9)
    await peer.connect(to: node.directory)
    await node.connected()
    #expect(await peer.say(.request, to: node.directory) == nil)
    try await node.directory.approve(9)
    await peer.hears(.accept)
    await registry.request("report_trust")
    try await eventually("the answer is away") { await node.directory.lastMessages.isEmpty }
    try await body(node, peer, registry)
    await node.stop()
    await registry.stop()
  }

  @Test("trust is gone and packets stop before the peer is told, and the tunnel is cut after it")
  func order() async throws {
    try await withTrusted { node, peer, registry in
      let start = node.events.all.count
      let directory = node.directory
      // What held when the message left.
      let seen = Mutex<(isTrusted: Bool, events: [DirectoryEvent])?>(nil)
      let events = node.events
      await directory.setTrustMessenger { _, bytes in
        await events.first(after: start) { $0 == .trustEnding(peer: 9) }
        let state = (directory.store.isTrusted(9), Array(events.all.dropFirst(start)))
        seen.withLock { $0 = state }
        return (try? TrustMessage(parsing: bytes))?.kind == .revoke
      }
      #expect(await directory.revoke(9))
      await node.events.first(after: start) { $0 == .trustChanged(peer: 9) }
      let state = try #require(seen.withLock { $0 })
      #expect(!state.isTrusted && state.events.contains(.trustEnding(peer: 9)))
      #expect(!state.events.contains(.trustChanged(peer: 9)))
      #expect(!directory.owesWithdrawal(to: 9))
      #expect(await registry.request("revoke_trust").body["peer_id"]?.node == 9)
    }
  }

  @Test("a peer that takes no message holds the cut up for the farewell only, and is told when it is back")
  func away() async throws {
    try await withTrusted { node, peer, _ in
      await node.directory.setTrustMessenger { _, _ in
        try? await Task.sleep(for: .seconds(600))
        return true
      }
      let start = ContinuousClock.now
      #expect(await node.directory.revoke(9))
      #expect(ContinuousClock.now - start < .seconds(2))
      #expect(node.directory.owesWithdrawal(to: 9))
      await peer.connect(to: node.directory)
      await node.directory.peerIsBack(9)
      #expect(peer.count(.revoke) == 1)
      #expect(!node.directory.owesWithdrawal(to: 9))
      await node.directory.peerIsBack(9)
      #expect(peer.count(.revoke) == 1)
    }
  }

  @Test("an acceptance that is still on its way does not arrive behind the withdrawal, nor a void one at all")
  func overtaking() async throws {
    try await withTrusted { node, peer, _ in
      let directory = node.directory
      let (gate, open) = AsyncStream<Void>.makeStream()
      let sent = Watch<TrustMessage.Kind>()
      await directory.setTrustMessenger { _, bytes in
        for await _ in gate { break }
        if let message = try? TrustMessage(parsing: bytes) { sent.add(message.kind) }
        return true
      }
      #expect(await peer.say(.request, to: directory) == nil)
      try await eventually("the acceptance is under way") { await directory.lastMessages[9] != nil }
      async let isRevoked = directory.revoke(9)
      await node.events.first { $0 == .trustEnding(peer: 9) }
      open.finish()
      #expect(await isRevoked)
      try await eventually("nothing is under way") { await directory.lastMessages.isEmpty }
      #expect(sent.all == [.accept, .revoke] || sent.all == [.revoke])
    }
  }

  @Test("a withdrawal, by either end, is on disk before anybody is told")
  func onDisk() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    // Nothing else is saved for as long as the test lasts.
    let node = try TestNode(temporary, port: registry.port) { $0.timing.saveInterval = .seconds(600) }
    await node.connected()
    let peers = [TrustPeer(9), TrustPeer(10)]
    for peer in peers {
      await peer.connect(to: node.directory)
      #expect(await peer.say(.request, to: node.directory) == nil)
      try await node.directory.approve(peer.node)
    }
    node.directory.store.flush()
    func trusted() throws -> [UInt32] {
      let path = node.directory.store.directory + "/trust.json"
      let book = try #require(TrustBook(JSONValue(parsing: StateFile.read(path, limit: 1 << 20).bytes)))
      return book.trusted.keys.sorted()
    }
    #expect(try trusted() == [9, 10])
    #expect(await node.directory.revoke(9))
    #expect(try trusted() == [10])
    #expect(await peers[1].say(.revoke, to: node.directory) == nil)
    #expect(try trusted().isEmpty)
    await node.stop()
    await registry.stop()
  }

  @Test("that there was trust is remembered over a restart, until there is trust again")
  func former() throws {
    let temporary = TemporaryDirectory()
    let path = temporary.path + "/store"
    let store = try NodeStore(directory: path, logger: quiet)
    store.changeTrust { trust in
      for node: UInt32 in [9, 10, 11] { _ = trust.settle(node, now: 1) }
      _ = trust.revoke(9, now: 2)
      _ = trust.revoked(by: 10, at: 3)
    }
    store.noteFormer(12)
    store.close()
    let again = try NodeStore(directory: path, logger: quiet)
    #expect([9, 10, 11, 12, 13].filter { again.wasTrusted($0) } == [9, 10, 12])
    again.changeTrust { trust in _ = trust.settle(9, now: 4) }
    again.close()
    #expect(try !NodeStore(directory: path, logger: quiet).wasTrusted(9))
  }

  @Test("the list of those who were trusted is bounded, and the oldest give way")
  func formerBound() throws {
    var book = TrustBook()
    for node in 1...UInt32(TrustBook.mostFormer + 10) { book.noteFormer(node, now: Int64(node)) }
    #expect(book.former.count == TrustBook.mostFormer)
    #expect(book.former[10] == nil && book.former[11] == 11)
    let read = try #require(TrustBook(book.encoded))
    let isSame = read == book
    #expect(isSame)
  }

  @Test("what a peer was not told is remembered over a restart, and forgotten when trust is agreed anew")
  func owed() async throws {
    let temporary = TemporaryDirectory()
    let path = temporary.path + "/store"
    let store = try NodeStore(directory: path, logger: quiet)
    store.changeTrust { trust in
      for node: UInt32 in [9, 10, 11] {
        _ = trust.settle(node, now: 1)
        _ = trust.revoke(node, now: 2)
      }
    }
    store.close()
    let again = try NodeStore(directory: path, logger: quiet)
    #expect(again.trust { $0.untold } == [9, 10, 11])
    again.changeTrust { trust in
      _ = trust.settle(9, now: 2)
      trust.keepOutgoing(10, HandshakeEntry(time: 2, justification: ""))
    }
    #expect(again.trust { $0.untold } == [11])
    again.close()
  }

  @Test("a withdrawal of the peer is taken at once, and the registry hears it from this end, too")
  func received() async throws {
    try await withTrusted { node, peer, registry in
      let start = node.events.all.count
      #expect(await peer.say(.revoke, to: node.directory, reason: "over") == nil)
      #expect(await node.directory.trust(of: 9) == .none)
      await node.events.first(after: start) { $0 == .trustChanged(peer: 9) }
      await registry.request("revoke_trust")
      // No answer: two nodes that withdraw would go on telling each other.
      #expect(peer.count(.revoke) == 0 && !node.directory.owesWithdrawal(to: 9))
      let changes = node.events.all.count
      #expect(await peer.say(.revoke, to: node.directory) == nil)
      #expect(!node.events.all.dropFirst(changes).contains(.trustChanged(peer: 9)))
    }
  }

  @Test("a withdrawal of the peer takes its own request along, but not what we asked since")
  func requestsAndWithdrawal() async throws {
    try await withTrusted { node, peer, _ in
      let directory = node.directory
      #expect(await peer.say(.revoke, to: directory) == nil)
      #expect(await peer.say(.request, to: directory) == nil)
      #expect(await directory.trust(of: 9) == .pending)
      #expect(await peer.say(.revoke, to: directory) == nil)
      #expect(await directory.trust(of: 9) == .none)
      try await directory.requestTrust(9)
      let asked = try #require(directory.store.trust { $0.outgoing[9]?.time })
      #expect(await peer.say(.revoke, to: directory, at: asked - 20) == nil)
      #expect(await directory.trust(of: 9) == .requested)
      #expect(await peer.say(.revoke, to: directory, at: asked + 20) == nil)
      #expect(await directory.trust(of: 9) == .none)
    }
  }

  @Test("trust can be agreed again at once, in either direction")
  func again() async throws {
    try await withTrusted { node, peer, registry in
      #expect(await node.directory.revoke(9))
      try await node.directory.requestTrust(9)
      // The withdrawal goes first: at the registry it would take the request along.
      await registry.request("revoke_trust")
      #expect(node.directory.store.trust { $0.revoked.isEmpty })
      #expect(await peer.say(.accept, to: node.directory) == nil)
      #expect(await node.directory.trust(of: 9) == .trusted)
      #expect(await peer.say(.revoke, to: node.directory) == nil)
      #expect(await peer.say(.request, to: node.directory) == nil)
      try await node.directory.approve(9)
      #expect(await node.directory.trust(of: 9) == .trusted)
      let reports = registry.count("report_trust")
      await registry.request("report_trust", number: reports)
      #expect(node.directory.store.trust { $0.revoked.isEmpty && $0.untold.isEmpty })
    }
  }

  @Test("withdrawing a request of ours, or one that waits for us, tells the peer that it is over")
  func openRequests() async throws {
    try await withTrusted { node, peer, _ in
      #expect(await node.directory.revoke(9))
      await peer.hears(.revoke)
      try await node.directory.requestTrust(9)
      #expect(await node.directory.revoke(9))
      await peer.hears(.revoke, number: 2)
      #expect(await peer.say(.request, to: node.directory) == nil)
      #expect(await node.directory.revoke(9))
      await peer.hears(.reject)
      #expect(await node.directory.trust(of: 9) == .none)
      #expect(!(await node.directory.revoke(9)))
    }
  }
}

// MARK: - Two directories

/// Two nodes at one rendezvous whose messages reach each other.
private struct Pair {
  var a: TestNode
  var b: TestNode
  var idA: UInt32
  var idB: UInt32

  /// `from` reaches `to`, which takes what comes for the tunnel peer `id`.
  static func connect(_ from: TestNode, _ id: UInt32, to: TestNode) async {
    let key = from.directory.identity.publicKey
    let (there, receiver) = (to.directory, await to.registered())
    await from.directory.setTrustMessenger { node, bytes in
      guard node == receiver else { return false }
      if let refusal = await there.receiveTrustMessage(bytes, from: TrustSender(node: id, key: key)) {
        Issue.record("\(refusal)")
      }
      return true
    }
  }
}

@Suite("Trust between two directories", .timeLimit(.minutes(1)))
struct TrustPairTests {
  private func withPair(
    change: (inout DirectoryConfiguration) -> Void = { _ in }, _ body: (Pair) async throws -> Void
  ) async throws {
    let temporary = TemporaryDirectory()
    let loopback = IPv6Address(mappedIPv4: 0x7F00_0001)
    let rendezvous = RendezvousServer(
      configuration: RendezvousConfiguration(
        stateDirectory: temporary.path + "/rendezvous", registryListen: Endpoint(address: loopback, port: 0),
        beaconListen: Endpoint(address: loopback, port: 0)), logger: quiet)
    let port = try await rendezvous.start().registry.port
    let a = try TestNode(temporary, named: "a", port: port, change: change)
    let b = try TestNode(temporary, named: "b", port: port, change: change)
    let pair = Pair(a: a, b: b, idA: await a.registered(), idB: await b.registered())
    await a.connected()
    await b.connected()
    await Pair.connect(a, pair.idA, to: b)
    await Pair.connect(b, pair.idB, to: a)
    try await body(pair)
    await a.stop()
    await b.stop()
    await rendezvous.shutdown()
  }

  private func states(_ pair: Pair) async -> [TrustState] {
    [await pair.a.directory.trust(of: pair.idB), await pair.b.directory.trust(of: pair.idA)]
  }

  @Test("public nodes ask, agree and withdraw over the tunnel, and both show the same after each step")
  func direct() async throws {
    try await withPair(change: { $0.isPublic = true }) { pair in
      try await pair.a.directory.requestTrust(pair.idB, justification: "let us work together")
      #expect(await states(pair) == [.requested, .pending])
      try await pair.b.directory.approve(pair.idA)
      try await eventually("both trust") { await states(pair) == [.trusted, .trusted] }
      try await eventually("both messages are away") { await pair.b.directory.lastMessages.isEmpty }
      #expect(await pair.a.directory.revoke(pair.idB))
      #expect(await states(pair) == [.none, .none])
      try await pair.b.directory.requestTrust(pair.idA)
      #expect(await states(pair) == [.pending, .requested])
      try await pair.a.directory.reject(pair.idB)
      try await eventually("the refusal arrives") { await states(pair) == [.none, .none] }
    }
  }

  @Test("private nodes ask through the registry, and the withdrawal goes over the tunnel")
  func relayed() async throws {
    try await withPair { pair in
      try await pair.a.directory.requestTrust(pair.idB)
      #expect(await states(pair) == [.requested, .none])
      await pair.b.directory.pollNow()
      try await eventually("the request arrives") { await states(pair) == [.requested, .pending] }
      try await pair.b.directory.approve(pair.idA)
      try await eventually("both trust") { await states(pair) == [.trusted, .trusted] }
      #expect(await pair.b.directory.revoke(pair.idA))
      #expect(await states(pair) == [.none, .none])
    }
  }

  @Test("nodes that ask each other at the same moment trust each other", arguments: [true, false])
  func simultaneous(isPublic: Bool) async throws {
    try await withPair(change: { $0.isPublic = isPublic }) { pair in
      async let first: Void = pair.a.directory.requestTrust(pair.idB)
      async let second: Void = pair.b.directory.requestTrust(pair.idA)
      _ = try await (first, second)
      try await eventually("both trust") {
        await pair.a.directory.pollNow()
        await pair.b.directory.pollNow()
        return await states(pair) == [.trusted, .trusted]
      }
    }
  }

  @Test("nodes that withdraw at the same moment are both without trust, and owe each other nothing")
  func simultaneousWithdrawal() async throws {
    try await withPair(change: { ($0.isPublic, $0.approvesAutomatically) = (true, true) }) { pair in
      try await pair.a.directory.requestTrust(pair.idB)
      try await eventually("both trust") { await states(pair) == [.trusted, .trusted] }
      async let first = pair.a.directory.revoke(pair.idB)
      async let second = pair.b.directory.revoke(pair.idA)
      _ = await (first, second)
      #expect(await states(pair) == [.none, .none])
      #expect(!pair.a.directory.owesWithdrawal(to: pair.idB) && !pair.b.directory.owesWithdrawal(to: pair.idA))
    }
  }
}
