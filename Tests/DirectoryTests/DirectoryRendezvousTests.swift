// Directories against the project's own rendezvous: identity, trust by the relay, names, networks, loss of its state.

import Glibc
import JSON
import Rendezvous
import Session
import Synchronization
import Testing
import Wire

@testable import Directory

private let loopback = IPv6Address(mappedIPv4: 0x7F00_0001)

/// A rendezvous that can be stopped and started again on the same ports.
private final class TestRendezvous: Sendable {
  let server: RendezvousServer
  let port: UInt16

  init(_ path: String, port: UInt16 = 0, networks: [NetworkSpecification] = []) async throws {
    var configuration = RendezvousConfiguration(
      stateDirectory: path, registryListen: Endpoint(address: loopback, port: port),
      beaconListen: Endpoint(address: loopback, port: 0))
    configuration.networks = networks
    server = RendezvousServer(configuration: configuration, logger: quiet)
    self.port = try await server.start().registry.port
  }
}

@Suite("Directory and rendezvous", .timeLimit(.minutes(2)))
struct DirectoryRendezvousTests {
  @Test("two private nodes agree on trust by the relay, and only then find each other")
  func trust() async throws {
    let temporary = TemporaryDirectory()
    let rendezvous = try await TestRendezvous(temporary.path + "/rendezvous")
    let a = try TestNode(temporary, named: "a", port: rendezvous.port) { $0.hostname = "agent-a" }
    let b = try TestNode(temporary, named: "b", port: rendezvous.port) { $0.hostname = "agent-b" }
    let (idA, idB) = (await a.registered(), await b.registered())
    await a.connected()
    await b.connected()
    #expect(await a.directory.node(named: "agent-b") == .notFound)
    let stranger = try #require(await a.directory.record(of: idB))
    #expect(stranger.publicKey == b.directory.identity.publicKey)
    #expect(stranger.isEndpointRefused && stranger.endpoints.isEmpty)

    try await a.directory.requestTrust(idB, justification: "let us work together")
    await b.directory.pollNow()
    await b.events.first { $0 == .handshakeRequested(peer: idA, justification: "let us work together") }
    #expect(await b.directory.trust(of: idA) == .pending)
    let asked = a.events.all.count
    try await b.directory.approve(idA)
    await a.events.first(after: asked) { $0 == .trustChanged(peer: idB) }
    #expect(await a.directory.trust(of: idB) == .trusted)
    #expect(await b.directory.trust(of: idA) == .trusted)

    let record = try #require(await a.directory.record(of: idB, fresh: true))
    #expect(record.endpoints.first == Endpoint(address: loopback, port: 4000))
    #expect(record.hostname == "agent-b")
    await a.directory.recordsExpire()
    guard case .found(let found, _, _, false) = await a.directory.node(named: "agent-b") else {
      Issue.record("a trusted private node is not found by name")
      return
    }
    #expect(found == idB)

    await b.directory.revoke(idA)
    try await eventually("the rendezvous is told of the withdrawal") {
      b.directory.store.trust { $0.revoked.isEmpty }
    }
    await a.directory.recordsExpire()
    #expect(await a.directory.record(of: idB, fresh: true)?.isEndpointRefused == true)
    await a.stop()
    await b.stop()
    await rendezvous.server.shutdown()
  }

  @Test("the same key gets the same id from a rendezvous that lost its database, and trust heals by itself")
  func lostDatabase() async throws {
    let temporary = TemporaryDirectory()
    let first = try await TestRendezvous(temporary.path + "/first")
    let a = try TestNode(temporary, named: "a", port: first.port) { $0.approvesAutomatically = true }
    let b = try TestNode(temporary, named: "b", port: first.port) { $0.hostname = "agent-b" }
    let (idA, idB) = (await a.registered(), await b.registered())
    await a.connected()
    await b.connected()
    try await b.directory.requestTrust(idA)
    try await eventually("both trust each other") {
      await a.directory.pollNow()
      await b.directory.pollNow()
      let isMutual = await (a.directory.trust(of: idB), b.directory.trust(of: idA)) == (.trusted, .trusted)
      return isMutual
    }
    await first.server.shutdown()
    await a.unreachable()
    await b.unreachable()
    let (startA, startB) = (a.events.all.count, b.events.all.count)
    let second = try await TestRendezvous(temporary.path + "/second", port: first.port)
    let returned = ContinuousClock.now
    #expect(await a.registered(after: startA) == idA)
    #expect(await b.registered(after: startB) == idB)
    #expect(ContinuousClock.now - returned < .seconds(10))
    // Both report the pair again, so that the private name is found.
    try await eventually("the private name is found") {
      await a.directory.recordsExpire()
      return await a.directory.node(named: "agent-b") != .notFound
    }
    await a.stop()
    await b.stop()
    await second.server.shutdown()
  }

  @Test("members of a token network admit and resolve each other without trust; a wrong token is reported")
  func networks() async throws {
    let temporary = TemporaryDirectory()
    let rendezvous = try await TestRendezvous(
      temporary.path + "/rendezvous", networks: [NetworkSpecification(name: "team", token: "sekrit")])
    let client = RegistryClient(host: "127.0.0.1", port: rendezvous.port)
    let team = try #require(try await client.listNetworks().first { $0.name == "team" })
    await client.shutdown()
    let a = try TestNode(temporary, named: "a", port: rendezvous.port) {
      $0.networks = [NetworkMembership(id: team.id, token: "sekrit")]
    }
    let b = try TestNode(temporary, named: "b", port: rendezvous.port) {
      $0.networks = [NetworkMembership(id: team.id, token: "sekrit")]
    }
    let c = try TestNode(temporary, named: "c", port: rendezvous.port) {
      $0.networks = [NetworkMembership(id: team.id, token: "wrong")]
    }
    await a.connected()
    await b.connected()
    await c.connected()
    let idB = await b.registered()
    #expect(await a.directory.networks == [0, team.id])
    #expect(await c.directory.networks == [0])
    #expect(await c.directory.networkProblems[team.id] != nil)
    #expect(await a.directory.record(of: idB)?.endpoints.isEmpty == false)
    #expect(await a.directory.trust(of: idB) == .sharedNetwork(team.id))
    #expect(await c.directory.record(of: idB)?.isEndpointRefused == true)
    await a.stop()
    // The membership is known to the registry after a restart, without the token.
    let again = try TestNode(temporary, named: "a", port: rendezvous.port)
    await again.connected()
    #expect(await again.directory.networks == [0, team.id])
    for node in [again, b, c] { await node.stop() }
    await rendezvous.server.shutdown()
  }

  @Test("a hostname that another node has is a reported problem, and taken once it is free")
  func takenName() async throws {
    let temporary = TemporaryDirectory()
    let rendezvous = try await TestRendezvous(temporary.path + "/rendezvous")
    let a = try TestNode(temporary, named: "a", port: rendezvous.port) { $0.hostname = "agent" }
    await a.connected()
    let b = try TestNode(temporary, named: "b", port: rendezvous.port) {
      $0.hostname = "agent"
      $0.timing.heartbeat = .milliseconds(50)
    }
    await b.connected()
    #expect(await b.directory.hostname == nil)
    #expect(await b.directory.hostnameProblem?.message.contains("already in use") == true)
    #expect(await b.directory.hostnameProblem?.hint?.contains("another hostname") == true)
    try await a.directory.setHostname("other")
    try await eventually("the name that is free now is taken") { await b.directory.hostname == "agent" }
    #expect(await b.directory.hostnameProblem == nil)
    await a.stop()
    await b.stop()
    await rendezvous.server.shutdown()
  }

  @Test("a rotated key is the node's, here, on disk and at the registry, and the node keeps its id and trust")
  func rotation() async throws {
    let temporary = TemporaryDirectory()
    let rendezvous = try await TestRendezvous(temporary.path + "/rendezvous")
    let a = try TestNode(temporary, named: "a", port: rendezvous.port) { $0.hostname = "agent-a" }
    let b = try TestNode(temporary, named: "b", port: rendezvous.port)
    await a.connected()
    await b.connected()
    let old = a.directory.identity.publicKey
    let id = try #require(await a.directory.node)
    let reply = try await a.directory.rotateKey()
    let new = a.directory.identity.publicKey
    #expect(new != old && reply["node_id"]?.node == id)
    #expect(reply["public_key"]?.text == Base64.encode(new.bytes))
    #expect(await b.directory.record(of: id, fresh: true)?.publicKey == new)
    try await a.directory.setHostname("other")
    await a.stop()
    #expect(access(temporary.path + "/a/identity-next.json", F_OK) != 0)
    let again = try TestNode(temporary, named: "a", port: rendezvous.port)
    #expect(again.directory.identity.publicKey == new)
    #expect(await again.registered() == id)
    await again.stop()
    await b.stop()
    await rendezvous.server.shutdown()
  }

  @Test("a key that the registry refuses changes nothing, one that it may have taken is kept, one that it took is used")
  func failedRotation() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let node = try TestNode(temporary, named: "a", port: registry.port)
    await node.connected()
    let old = node.directory.identity.publicKey
    let next = temporary.path + "/a/identity-next.json"
    registry.follow { $0.type == "rotate_key" ? [.error("signature verification failed")] : [.normal] }
    let refused = await #expect(throws: DirectoryError.self) { try await node.directory.rotateKey() }
    #expect(refused?.registryText == "signature verification failed" && access(next, F_OK) != 0)
    registry.follow { $0.type == "rotate_key" || $0.type == "lookup" ? [.close] : [.normal] }
    let unknown = await #expect(throws: DirectoryError.self) { try await node.directory.rotateKey() }
    #expect(unknown?.registryText == nil && access(next, F_OK) == 0)
    #expect(node.directory.identity.publicKey == old)

    // Taken, the answer lost, the repetition refused.
    let taken = Mutex<JSONValue?>(nil)
    registry.follow { request in
      if request.type == "rotate_key" {
        return taken.withLock { taken in
          defer { taken = request.body["new_public_key"] }
          return [taken == nil ? .close : .error("signature verification failed")]
        }
      }
      guard request.type == "lookup", let key = taken.withLock({ $0 }), let id = request.body["node_id"] else {
        return [.normal]
      }
      return [.reply(.object(["type": .text("lookup_ok"), "node_id": id, "public_key": key]))]
    }
    let reply = try await node.directory.rotateKey()
    #expect(reply["public_key"]?.text == Base64.encode(node.directory.identity.publicKey.bytes))
    #expect(node.directory.identity.publicKey != old && access(next, F_OK) != 0)
    await node.stop()
    await registry.stop()
  }

  @Test("requests that wait at the registry are fetched on demand, and networks show their members")
  func forClients() async throws {
    let temporary = TemporaryDirectory()
    let rendezvous = try await TestRendezvous(
      temporary.path + "/rendezvous", networks: [NetworkSpecification(name: "team", token: "sekrit")])
    let a = try TestNode(temporary, named: "a", port: rendezvous.port)
    let b = try TestNode(temporary, named: "b", port: rendezvous.port) { $0.timing.poll = .seconds(3600) }
    let (idA, idB) = (await a.registered(), await b.registered())
    await a.connected()
    await b.connected()
    try await a.directory.requestTrust(idB)
    try await eventually("the request is fetched") {
      await b.directory.fetchHandshakes()
      return b.directory.pendingHandshakes().map(\.node) == [idA]
    }
    let networks = try await a.directory.networksReply()
    let team = try #require(networks["networks"]?.list?.first { $0["name"]?.text == "team" }?["id"]?.port16)
    try await a.directory.join(NetworkMembership(id: team, token: "sekrit"))
    let members = try await a.directory.networkMembers(team)
    #expect(members["nodes"]?.list?.compactMap { $0["node_id"]?.node } == [idA])
    #expect(try await a.directory.pollInvites()["invites"]?.list?.isEmpty == true)
    await a.stop()
    await b.stop()
    await rendezvous.server.shutdown()
  }
}
