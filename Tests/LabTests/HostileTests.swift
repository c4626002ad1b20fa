// Frames that a node must refuse: replays, truncations, forgeries, plaintext, other people's names. Each is sent by a
// peer made by hand whose honest frames do arrive, and each refusal is counted under its own name.

import SeededRandom
import Testing
import Wire

extension KernelTests {
  @Suite("Hostile frames")
  struct HostileTests {
    /// A public node with a program that prints datagrams, and a stranger with a session to it.
    private struct Scene {
      var fleet: Fleet
      var node: LabNode
      var stranger: Stranger
      var receiver: Program
      var nodeAddress: IPv6Address
      var strangerAddress: IPv6Address
      var counter: UInt64 = 0

      func inner(_ text: String, from source: IPv6Address? = nil, to destination: IPv6Address? = nil) -> [UInt8] {
        Stranger.datagram(
          from: source ?? strangerAddress, to: destination ?? nodeAddress, port: 5003, text)
      }

      /// Seals under the next counter.
      mutating func seal(_ inner: [UInt8]) -> [UInt8] {
        counter += 1
        return stranger.sealed(inner, counter: counter)
      }

      /// Proves that everything before has been handled: an honest frame arrives.
      mutating func expectHonest(_ text: String) throws {
        stranger.send(seal(inner(text)))
        try receiver.waitForLine(containing: text, within: 5)
      }

      func count(_ text: String) -> Int {
        receiver.outputText.split(separator: "\n").count { $0.hasSuffix(" " + text) }
      }

      func expectDrops(_ reason: String, atLeast wanted: Int, after before: Int) throws {
        _ = try eventually("\(wanted) drops of kind \(reason)", within: 5) {
          try node.drops(reason) >= before + wanted ? true : nil
        }
      }
    }

    private func withScene(_ body: (inout Scene) throws -> Void) throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha")
        let namespace = try fleet.lab.namespace("stranger")
        let stranger = try Stranger(in: namespace, underlay: try fleet.connect(namespace))
        try stranger.register()
        stranger.aim(at: node.underlay)
        try stranger.handshake()
        let receiver = try node.helper(Tools.python("udp_receive", "::", "5003"))
        let address = try #require(IPv6Address(node.ipv6))
        var scene = Scene(
          fleet: fleet, node: node, stranger: stranger, receiver: receiver, nodeAddress: address,
          strangerAddress: OverlayMapping.address(for: PilotAddress(network: 0, node: stranger.node)))
        try scene.expectHonest("first honest word")
        try body(&scene)
      }
    }

    @Test("a replayed frame is refused, at once and later, and honest frames go on")
    func replay() throws {
      try withScene { scene in
        let before = try scene.node.drops("replayed")
        let recorded = scene.seal(scene.inner("recorded"))
        for _ in 0..<5 { scene.stranger.send(recorded) }
        for number in 0..<20 { scene.stranger.send(scene.seal(scene.inner("word \(number)"))) }
        scene.stranger.send(recorded)
        try scene.expectHonest("after the replays")
        #expect(scene.count("recorded") == 1)
        try scene.expectDrops("replayed", atLeast: 5, after: before)
      }
    }

    @Test("a frame older than the window is refused; one out of order inside the window is taken")
    func window() throws {
      try withScene { scene in
        let early = scene.stranger.sealed(scene.inner("early"), counter: 10)
        let late = scene.stranger.sealed(scene.inner("late"), counter: 50_000)
        let within = scene.stranger.sealed(scene.inner("within"), counter: 49_000)
        let before = try scene.node.drops("replayed")
        for frame in [late, within, early] { scene.stranger.send(frame) }
        scene.counter = 50_000
        try scene.expectHonest("after the window")
        #expect(scene.count("late") == 1)
        #expect(scene.count("within") == 1)
        #expect(scene.count("early") == 0)
        try scene.expectDrops("replayed", atLeast: 1, after: before)
      }
    }

    @Test("truncated, stretched and altered frames are refused and harm nobody")
    func truncation() throws {
      try withScene { scene in
        let frame = scene.seal(scene.inner("cut"))
        for count in 0..<frame.count { scene.stranger.send(Array(frame[..<count])) }
        scene.stranger.send(frame + [0])
        for position in stride(from: 0, to: frame.count, by: 3) {
          var altered = frame
          altered[position] ^= 0x40
          scene.stranger.send(altered)
        }
        try scene.expectHonest("after the cuts")
        #expect(scene.count("cut") == 0)
        #expect(try scene.node.drops("frame-short") > 0)
        #expect(try scene.node.drops("authentication-failed") > 0)
        scene.stranger.send(frame)
        try scene.receiver.waitForLine(containing: "cut", within: 5)
      }
    }

    @Test("an inner source that is not the sender's own address is refused")
    func spoofedSource() throws {
      try withScene { scene in
        let before = try scene.node.drops("spoofed-source")
        let other = OverlayMapping.address(for: PilotAddress(network: 0, node: 0x4242_4242))
        scene.stranger.send(scene.seal(scene.inner("lie 1", from: other)))
        scene.stranger.send(scene.seal(scene.inner("lie 2", from: scene.nodeAddress)))
        scene.stranger.send(scene.seal(scene.inner("lie 3", from: OverlayMapping.resolver)))
        scene.stranger.send(scene.seal(scene.inner("lie 4", from: IPv6Address(high: 0, low: 1))))
        try scene.expectHonest("the truth")
        #expect(!scene.receiver.outputText.contains("lie"))
        try scene.expectDrops("spoofed-source", atLeast: 4, after: before)
      }
    }

    @Test("an inner destination that is not the node's own is not forwarded")
    func wrongDestination() throws {
      try withScene { scene in
        let before = try scene.node.drops("wrong-destination")
        scene.stranger.send(scene.seal(scene.inner("astray 1", to: IPv6Address(high: 0, low: 1))))
        scene.stranger.send(scene.seal(scene.inner("astray 2", to: OverlayMapping.resolver)))
        let underlay = try #require(IPv6Address("fd77:0:0:2::2"))
        scene.stranger.send(scene.seal(scene.inner("astray 3", to: underlay)))
        try scene.expectHonest("well addressed")
        #expect(!scene.receiver.outputText.contains("astray"))
        try scene.expectDrops("wrong-destination", atLeast: 3, after: before)
      }
    }

    @Test("plaintext (PILT) and unauthenticated key exchange (PILK) carry nothing in, and are counted")
    func plaintext() throws {
      try withScene { scene in
        let before = try scene.node.drops("frame-plaintext")
        for _ in 0..<5 { scene.stranger.send(scene.stranger.plaintext(scene.inner("in the clear"))) }
        try scene.expectHonest("after the plaintext")
        #expect(scene.count("in the clear") == 0)
        try scene.expectDrops("frame-plaintext", atLeast: 5, after: before)

        // A second stranger that never registered gets no session by PILK.
        let namespace = try scene.fleet.lab.namespace("second")
        let second = try Stranger(in: namespace, underlay: try scene.fleet.connect(namespace))
        second.claim(0x4444_4444)
        second.aim(at: scene.node.underlay)
        second.send(second.keyRequest())
        second.send(second.keyExchange())
        #expect(second.receive(magic: "PILA", within: 2) == nil, "nobody unknown is answered with a session")
        // That the directory knows no such node holds for a while: further ones are counted at once.
        let unknown = try scene.node.drops("stranger-unknown")
        second.send(second.keyRequest())
        second.send(second.keyExchange())
        try scene.expectDrops("stranger-unknown", atLeast: 2, after: unknown)

        // The stranger that has a session asks eight times at once: each is counted, few are answered, nothing changes.
        let requests = try (asked: scene.node.counter("pilk-request"), limited: scene.node.drops("pilk-limited"))
        for _ in 0..<8 { scene.stranger.send(scene.stranger.keyRequest()) }
        _ = try eventually("eight requests are counted", within: 5) {
          let asked = try scene.node.counter("pilk-request") - requests.asked
          let limited = try scene.node.drops("pilk-limited") - requests.limited
          return asked >= 1 && limited >= 4 && asked + limited == 8 ? true : nil
        }
        try scene.expectHonest("after the requests")
      }
    }

    @Test("frames under many unknown ids bring nothing back to where they came from")
    func reflection() throws {
      try withScene { scene in
        let namespace = try scene.fleet.lab.namespace("nobody")
        let nobody = try Stranger(in: namespace, underlay: try scene.fleet.connect(namespace))
        nobody.aim(at: scene.node.underlay)
        let before = try scene.node.drops("sender-unknown")
        for id in UInt32(0)..<200 {
          nobody.claim(0x4200_0000 + id)
          nobody.send(nobody.sealed([], counter: 1))
        }
        try scene.expectDrops("sender-unknown", atLeast: 200, after: before)
        #expect(nobody.receive(magic: "PIL", within: 1) == nil)
        try scene.expectHonest("after the flood")
      }
    }

    @Test("a key exchange in someone else's name is refused, and the real one keeps its session")
    func wrongKey() throws {
      try withScene { scene in
        let beta = try scene.fleet.node("beta")
        try beta.waitForPing(scene.node.ipv6)
        let namespace = try scene.fleet.lab.namespace("impostor")
        let impostor = try Stranger(in: namespace, underlay: try scene.fleet.connect(namespace))
        impostor.claim(beta.nodeID)
        impostor.aim(at: scene.node.underlay)
        let before = try (
          refused: scene.node.drops("pila-wrong-key"), alarms: scene.node.drops("peer-key-changed"),
          unopened: scene.node.drops("authentication-failed")
        )
        for _ in 0..<3 { impostor.send(impostor.keyExchange()) }
        #expect(impostor.receive(magic: "PILA", within: 2) == nil)
        try scene.expectDrops("pila-wrong-key", atLeast: 3, after: before.refused)
        #expect(try scene.node.drops("peer-key-changed") == before.alarms + 1, "one alarm, not one for each frame")
        // Neither do frames that only claim the id, however many, cost the real one its session.
        for counter in 1...200 { impostor.send(impostor.sealed(scene.inner("impostor"), counter: UInt64(counter))) }
        let ping = try beta.run(["ping", "-c", "5", "-i", "0.2", "-W", "2", scene.node.ipv6])
        #expect(ping.isSuccess && ping.output.contains(" 0% packet loss"), "\(ping)")
        try scene.expectDrops("authentication-failed", atLeast: 200, after: before.unopened)
        #expect(!scene.receiver.outputText.contains("impostor"))
        #expect(try scene.node.peer(beta)["endpoint"].text == "\(beta.underlay):4000", "its endpoint has not moved")
      }
    }

    @Test("noise on the tunnel port is counted and harms nobody", arguments: [UInt64.random(in: 0..<1_000_000)])
    func noise(seed: UInt64) throws {
      try withScene { scene in
        let before = try scene.node.drops("frame-unknown")
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<2000 {
          let count = Int.random(in: 0...1400, using: &generator)
          var frame = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
          let magic = ["PILS", "PILA", "PILK", "PILP", "PILX", ""].randomElement(using: &generator) ?? ""
          if frame.count >= 4 { frame.replaceSubrange(0..<magic.utf8.count, with: magic.utf8) }
          scene.stranger.send(frame)
        }
        do {
          try scene.expectHonest("after the noise")
        } catch {
          throw LabError("seed \(seed): \(error)")
        }
        #expect(try scene.node.drops("frame-unknown") > before, "seed \(seed)")
      }
    }
  }
}
