// The beacon: discover, notify, punch, relay, and what it refuses.

import SeededRandom
import Session
import Testing
import Wire

@testable import Rendezvous

@Suite struct BeaconTests {
  /// A registered node whose tunnel socket the beacon knows.
  private struct Party {
    let node = TestNode()
    let client: RegistrySocket
    let socket: BeaconSocket
    let id: UInt32

    init(_ rendezvous: Rendezvous, _ host: String) throws {
      client = try rendezvous.connect(from: host)
      socket = try BeaconSocket(rendezvous, from: host)
      id = try client.enroll(node, listen: "0.0.0.0:\(socket.localPort)")
      try socket.discover(id)
    }

    func trust(_ other: Party) throws {
      _ = try client.reportTrust(node, id, in: other.id)
      _ = try other.client.reportTrust(other.node, other.id, in: id)
    }
  }

  @Test("everyone learns its public endpoint, registered or not")
  func discover() async throws {
    try await Rendezvous.running { rendezvous in
      let socket = try BeaconSocket(rendezvous, from: "127.0.0.5")
      let expected = try #require(Endpoint("127.0.0.5:\(socket.localPort)"))
      #expect(try socket.discover(0) == expected)
      #expect(try socket.discover(12_345) == expected)
      #expect(rendezvous.count(.discoversUnbound) == 1)
    }
  }

  @Test("a check is answered with as many bytes, to whichever port of the asking host, from either port of the beacon")
  func checks() async throws {
    try await Rendezvous.running { rendezvous in
      let socket = try BeaconSocket(rendezvous, from: "127.0.0.5")
      let neighbour = try BeaconSocket(rendezvous, from: "127.0.0.5")
      let seen = try #require(Endpoint("127.0.0.5:\(socket.localPort)"))
      let second = try #require(rendezvous.bound.checks?.port)
      try socket.send(.check(transaction: 7, answerPort: 0, size: 30))
      #expect(
        try socket.message() == .checkReply(transaction: 7, seen: seen, otherPort: second, size: 30))
      try socket.send(.check(transaction: 8, answerPort: neighbour.localPort, size: 1400), to: second)
      #expect(
        try neighbour.message()
          == .checkReply(transaction: 8, seen: seen, otherPort: rendezvous.bound.beacon.port, size: 1400))
      #expect(rendezvous.count(.checks) == 2)
    }
  }

  @Test("a check too short for its answer, and anything else at the second port, is refused")
  func refusedChecks() async throws {
    try await Rendezvous.running { rendezvous in
      let socket = try BeaconSocket(rendezvous, from: "127.0.0.5")
      let second = try #require(rendezvous.bound.checks?.port)
      try socket.send([UInt8](BeaconMessage.check(transaction: 7, answerPort: 0, size: 30).encoded().dropLast()))
      try socket.send(.discover(node: 0, key: nil), to: second)
      try socket.send(.relay(source: 1, destination: 2, frame: [1]), to: second)
      try socket.send(
        .checkReply(
          transaction: 7, seen: Endpoint(address: IPv6Address(mappedIPv4: 1), port: 1), otherPort: 0, size: 30),
        to: second)
      try socket.send(.check(transaction: 9, answerPort: 0, size: 30), to: second)
      guard case .checkReply(9, _, _, _)? = try socket.message() else {
        Issue.record("not the answer to the last check")
        return
      }
      #expect(rendezvous.count(.datagramsMalformed) == 4)
    }
  }

  @Test("a node behind a NAT is resolved at the port that the beacon saw")
  func observedPort() async throws {
    try await Rendezvous.running {
      $0.believesLocalClients = false
    } _: { rendezvous in
      let (a, b) = (TestNode(), TestNode())
      let first = try rendezvous.connect(from: "127.0.0.2")
      let x = try first.enroll(a, listen: "10.0.0.1:4000")
      _ = try first.setPublic(a, x, true)
      let client = try rendezvous.connect(from: "127.0.0.3")
      let y = try client.enroll(b)
      #expect(try client.resolve(b, y, x).text("real_addr") == "127.0.0.2:4000")
      let socket = try BeaconSocket(rendezvous, from: "127.0.0.2")
      try socket.discover(x)
      #expect(try client.resolve(b, y, x).text("real_addr") == "127.0.0.2:\(socket.localPort)")
    }
  }

  @Test("another host cannot take over a node's id, nor can a wrong key")
  func spoofedDiscover() async throws {
    try await Rendezvous.running { rendezvous in
      let a = try Party(rendezvous, "127.0.0.2")
      let b = try Party(rendezvous, "127.0.0.3")
      let thief = try BeaconSocket(rendezvous, from: "127.0.0.9")
      #expect(try thief.discover(a.id) != nil)
      #expect(rendezvous.count(.discoversSpoofed) == 1)
      let neighbour = try BeaconSocket(rendezvous, from: "127.0.0.2")
      #expect(try neighbour.discover(a.id, key: TestNode().identity.publicKey) != nil)
      #expect(rendezvous.count(.discoversSpoofed) == 2)
      try b.socket.send(.relay(source: b.id, destination: a.id, frame: [1, 2, 3]))
      #expect(try a.socket.message() == .relayDeliver(source: b.id, frame: [1, 2, 3]))
      #expect(try thief.receive(milliseconds: 50) == nil)
    }
  }

  @Test("a program that started anew is followed to its new port at once")
  func restartedNode() async throws {
    try await Rendezvous.running { rendezvous in
      let a = try Party(rendezvous, "127.0.0.2")
      let b = try Party(rendezvous, "127.0.0.3")
      let fresh = try BeaconSocket(rendezvous, from: "127.0.0.2")
      // Without a registration a new port so soon is not believed.
      try fresh.discover(a.id)
      #expect(rendezvous.count(.discoversSpoofed) == 1)
      _ = try a.client.enroll(a.node, listen: "0.0.0.0:\(fresh.localPort)")
      try fresh.discover(a.id, key: a.node.identity.publicKey)
      try b.socket.send(.relay(source: b.id, destination: a.id, frame: [7]))
      #expect(try fresh.message() == .relayDeliver(source: b.id, frame: [7]))
    }
  }

  @Test("a node with its key is bound from another host, or to another port at once, by a proof; others are not")
  func proof() async throws {
    try await Rendezvous.running { rendezvous in
      let a = try Party(rendezvous, "127.0.0.2")
      let b = try Party(rendezvous, "127.0.0.3")
      let key = a.node.identity.publicKey
      let moved = try BeaconSocket(rendezvous, from: "127.0.0.9")
      try moved.prove(a.node, a.id)
      try b.socket.send(.relay(source: b.id, destination: a.id, frame: [1, 2, 3]))
      #expect(try moved.message() == .relayDeliver(source: b.id, frame: [1, 2, 3]))
      // Known there now: asked again, it answers without.
      #expect(try moved.discover(a.id, key: key) == Endpoint("127.0.0.9:\(moved.localPort)"))
      let neighbour = try BeaconSocket(rendezvous, from: "127.0.0.9")
      try neighbour.prove(a.node, a.id)
      try b.socket.send(.relay(source: b.id, destination: a.id, frame: [4]))
      #expect(try neighbour.message() == .relayDeliver(source: b.id, frame: [4]))
      // The key of another node, a signature of somebody else, a challenge of another endpoint.
      let thief = try BeaconSocket(rendezvous, from: "127.0.0.8")
      #expect(try thief.discover(a.id, key: b.node.identity.publicKey) != nil)
      let challenge = try #require(try thief.challenge(a.id, key))
      let forged = b.node.identity.sign(BeaconMessage.proofText(node: a.id, challenge: challenge))
      try thief.send(.provenDiscover(node: a.id, key: key, challenge: challenge, signature: forged))
      _ = try thief.message()
      let other = try #require(try moved.challenge(a.id, key))
      let right = a.node.identity.sign(BeaconMessage.proofText(node: a.id, challenge: other))
      try thief.send(.provenDiscover(node: a.id, key: key, challenge: other, signature: right))
      _ = try thief.message()
      try b.socket.send(.relay(source: b.id, destination: a.id, frame: [5]))
      #expect(try neighbour.message() == .relayDeliver(source: b.id, frame: [5]))
      #expect(try thief.receive(milliseconds: 50) == nil)
    }
  }

  @Test("relayed frames of every size arrive unchanged, from the beacon")
  func relay() async throws {
    try await Rendezvous.running { rendezvous in
      let a = try Party(rendezvous, "127.0.0.2")
      let b = try Party(rendezvous, "127.0.0.3")
      for size in [1, 2, 36, 1200, 1400, 1472, 2000] {
        let frame = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ size) }
        try a.socket.send(.relay(source: a.id, destination: b.id, frame: frame))
        #expect(try b.socket.message() == .relayDeliver(source: a.id, frame: frame), "\(size) bytes")
        try b.socket.send(.relay(source: b.id, destination: a.id, frame: frame))
        #expect(try a.socket.message() == .relayDeliver(source: b.id, frame: frame), "\(size) bytes back")
      }
      // A node can send to itself.
      try a.socket.send(.relay(source: a.id, destination: a.id, frame: [9]))
      #expect(try a.socket.message() == .relayDeliver(source: a.id, frame: [9]))
    }
  }

  @Test("frames under another's id, from an unknown sender or to an unknown target go nowhere")
  func relayRefusals() async throws {
    try await Rendezvous.running { rendezvous in
      let a = try Party(rendezvous, "127.0.0.2")
      let b = try Party(rendezvous, "127.0.0.3")
      try b.socket.send(.relay(source: a.id, destination: a.id, frame: [1]))
      try BeaconSocket(rendezvous, from: "127.0.0.2").send(.relay(source: a.id, destination: b.id, frame: [2]))
      try BeaconSocket(rendezvous, from: "127.0.0.8").send(.relay(source: 5, destination: b.id, frame: [3]))
      try await rendezvous.eventually("three refusals") { rendezvous.count(.relaySpoofed) == 3 }
      try a.socket.send(.relay(source: a.id, destination: 99, frame: [4]))
      try await rendezvous.eventually("an unknown target") { rendezvous.count(.relayUnknownTarget) == 1 }
      #expect(try b.socket.receive(milliseconds: 50) == nil)
      #expect(rendezvous.count(.relayed) == 0)
    }
  }

  @Test("a beacon that has just started relays for the nodes it served before, without waiting for their discovers")
  func restartedBeacon() async throws {
    let rendezvous = try await Rendezvous.start()
    let a = try Party(rendezvous, "127.0.0.2")
    let b = try Party(rendezvous, "127.0.0.3")
    await rendezvous.server.shutdown()
    let again = try await Rendezvous.start(in: rendezvous.directory)
    let port = again.bound.beacon.port
    try BeaconSocket(again, from: "127.0.0.9").send(.relay(source: a.id, destination: b.id, frame: [6]))
    try await again.eventually("spoofed") { again.count(.relaySpoofed) == 1 }
    try a.socket.send(.relay(source: a.id, destination: b.id, frame: [5]), to: port)
    #expect(try b.socket.message() == .relayDeliver(source: a.id, frame: [5]))
    await again.remove()
  }

  @Test("relaying is limited by sender")
  func relayLimit() async throws {
    try await Rendezvous.running {
      $0.limits.relayedPerSecond = 5
    } _: { rendezvous in
      let a = try Party(rendezvous, "127.0.0.2")
      let b = try Party(rendezvous, "127.0.0.3")
      for _ in 0..<50 { try a.socket.send(.relay(source: a.id, destination: b.id, frame: [1])) }
      try await rendezvous.eventually("all seen") {
        rendezvous.count(.relayed) + rendezvous.count(.datagramsLimited) == 50
      }
      #expect(rendezvous.count(.relayed) < 20)
    }
  }

  @Test("a binding is forgotten after ten minutes of silence")
  func forgetting() async throws {
    let clock = TestClock()
    try await Rendezvous.running {
      $0.clock = { clock.milliseconds() }
    } _: { rendezvous in
      let a = try Party(rendezvous, "127.0.0.2")
      let b = try Party(rendezvous, "127.0.0.3")
      clock.advance(seconds: 590)
      try a.socket.discover(a.id)
      clock.advance(seconds: 20)
      try a.socket.send(.relay(source: a.id, destination: b.id, frame: [1]))
      try await rendezvous.eventually("unknown target") { rendezvous.count(.relayUnknownTarget) == 1 }
      try b.socket.discover(b.id)
      try a.socket.send(.relay(source: a.id, destination: b.id, frame: [1]))
      #expect(try b.socket.message() == .relayDeliver(source: a.id, frame: [1]))
    }
  }

  @Test("both ends are told where the other is, if the one may resolve the other")
  func punch() async throws {
    try await Rendezvous.running { rendezvous in
      let a = try Party(rendezvous, "127.0.0.2")
      let b = try Party(rendezvous, "127.0.0.3")
      try a.socket.send(.punchRequest(requester: a.id, target: b.id, grant: nil))
      try await rendezvous.eventually("refused") { rendezvous.count(.punchesRefused) == 1 }
      try a.trust(b)
      try BeaconSocket(rendezvous, from: "127.0.0.2").send(.punchRequest(requester: a.id, target: b.id, grant: nil))
      try await rendezvous.eventually("wrong source") { rendezvous.count(.punchesRefused) == 2 }
      try a.socket.send(.punchRequest(requester: a.id, target: b.id, grant: nil))
      #expect(try a.socket.message() == .punchCommand(try #require(Endpoint("127.0.0.3:\(b.socket.localPort)"))))
      #expect(try b.socket.message() == .punchCommand(try #require(Endpoint("127.0.0.2:\(a.socket.localPort)"))))
    }
  }

  @Test("a handshake request and its answer ring at the other end")
  func notification() async throws {
    try await Rendezvous.running { rendezvous in
      let a = try Party(rendezvous, "127.0.0.2")
      let b = try Party(rendezvous, "127.0.0.3")
      _ = try a.client.requestHandshake(a.node, a.id, to: b.id)
      #expect(try b.socket.receive() == [0x0A, 0x01])
      _ = try b.client.respond(b.node, b.id, to: a.id, accept: true)
      #expect(try a.socket.receive() == [0x0A, 0x01])
    }
  }

  @Test("rubbish is counted and answered by nothing")
  func rubbish() async throws {
    try await Rendezvous.running { rendezvous in
      let socket = try BeaconSocket(rendezvous)
      var random = SeededGenerator(seed: 42)
      for _ in 0..<300 {
        var bytes = (0..<Int.random(in: 1...60, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
        // Neither discover (answered) nor one of the other messages that mean something.
        if bytes[0] == 1 || bytes[0] == 3 { bytes = [bytes[0]] }
        try socket.send(bytes)
      }
      #expect(try socket.discover(0) != nil)
      #expect(rendezvous.count(.datagramsMalformed) > 200)
    }
  }

  @Test("discovers of one host are limited")
  func discoverLimit() async throws {
    try await Rendezvous.running {
      $0.limits.discoversPerSecond = 3
    } _: { rendezvous in
      let socket = try BeaconSocket(rendezvous)
      for _ in 0..<20 { try socket.send(.discover(node: 0, key: nil)) }
      try await rendezvous.eventually("all seen") {
        rendezvous.count(.discovers) + rendezvous.count(.datagramsLimited) == 20
      }
      #expect(rendezvous.count(.discovers) < 10)
      #expect(try BeaconSocket(rendezvous, from: "127.0.0.7").discover(0) != nil)
    }
  }
}
