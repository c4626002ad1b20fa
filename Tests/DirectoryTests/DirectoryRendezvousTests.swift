// Directories against the project's own rendezvous: identity, trust by the relay, names, networks, loss of its state.

import Rendezvous
import Session
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
    try await a.directory.setHostname("other")
    try await eventually("the name that is free now is taken") { await b.directory.hostname == "agent" }
    #expect(await b.directory.hostnameProblem == nil)
    await a.stop()
    await b.stop()
    await rendezvous.server.shutdown()
  }
}
