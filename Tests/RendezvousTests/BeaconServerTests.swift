// A beacon without a registry: who is let in, and what it does not do.

import JSON
import Logging
import Session
import Testing
import Wire

@testable import Rendezvous

@Suite("Beacon alone") struct BeaconServerTests {
  private func running(_ body: (BeaconServer, UInt16) async throws -> Void) async throws {
    let any = try #require(Endpoint("127.0.0.1:0"))
    var configuration = RendezvousConfiguration(stateDirectory: "/nonexistent", registryListen: any, beaconListen: any)
    configuration.limits.relayedPerSecond = 50
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    let server = BeaconServer(configuration: configuration, logger: logger)
    let bound = try await server.start()
    do {
      try await body(server, bound.beacon.port)
    } catch {
      await server.shutdown()
      throw error
    }
    await server.shutdown()
  }

  private func id(_ node: TestNode) -> UInt32 { NodeIdentifier.derived(from: node.identity.publicKey) }

  @Test("nodes that prove their keys reach each other; without a proof nobody is bound")
  func relay() async throws {
    try await running { server, port in
      let (a, b) = (TestNode(), TestNode())
      let (first, second) = (
        try BeaconSocket(port: port, from: "127.0.0.2"), try BeaconSocket(port: port, from: "127.0.0.3")
      )
      #expect(try first.discover(0) == Endpoint("127.0.0.2:\(first.localPort)"))
      try first.discover(id(a))
      try first.send(.relay(source: id(a), destination: id(b), frame: [1]))
      try first.prove(a, id(a))
      try first.send(.relay(source: id(a), destination: id(b), frame: [2]))
      try second.prove(b, id(b))
      try first.send(.relay(source: id(a), destination: id(b), frame: [3]))
      #expect(try second.message() == .relayDeliver(source: id(a), frame: [3]))
      try second.send(.relay(source: id(b), destination: id(a), frame: [4]))
      #expect(try first.message() == .relayDeliver(source: id(b), frame: [4]))
      #expect(server.counters[.relaySpoofed] == 1 && server.counters[.relayUnknownTarget] == 1)
    }
  }

  @Test("an id that does not follow from the key is not given, one nearby is; a foreign one belongs to who came first")
  func ids() async throws {
    try await running { _, port in
      let (a, b) = (TestNode(), TestNode())
      let socket = try BeaconSocket(port: port, from: "127.0.0.2")
      let far = id(a) > NodeIdentifier.range.lowerBound + 100 ? id(a) - 100 : id(a) + 100
      #expect(try socket.challenge(far, a.identity.publicKey) == nil)
      // The id may have been taken when the node registered: the registry gave it the next one.
      if id(a) < NodeIdentifier.range.upperBound - 2 { try socket.prove(a, id(a) + 1) }
      // Of an official registry: small numbers, in order.
      let other = try BeaconSocket(port: port, from: "127.0.0.3")
      try socket.prove(a, 4711)
      #expect(try other.challenge(4711, b.identity.publicKey) == nil)
      try other.prove(b, 4712)
    }
  }

  @Test("it tells nobody where a node is, and relays no more than a node's share")
  func refusals() async throws {
    try await running { server, port in
      let (a, b) = (TestNode(), TestNode())
      let (first, second) = (
        try BeaconSocket(port: port, from: "127.0.0.2"), try BeaconSocket(port: port, from: "127.0.0.3")
      )
      try first.prove(a, id(a))
      try second.prove(b, id(b))
      try first.send(.punchRequest(requester: id(a), target: id(b), grant: nil))
      for _ in 0..<200 { try first.send(.relay(source: id(a), destination: id(b), frame: [1])) }
      var count = 0
      while try second.receive(milliseconds: 200) != nil { count += 1 }
      #expect((50...70).contains(count))
      #expect(try first.receive(milliseconds: 10) == nil)
      #expect(server.counters[.punchesRefused] == 1 && server.counters[.datagramsLimited] > 100)
    }
  }
}
