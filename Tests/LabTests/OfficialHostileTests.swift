// What strangers and impostors try against a node that talks with an official daemon. The daemon is the real one; who
// lies is made by hand (Stranger). What our own kind is attacked with is in HostileTests.

import Foundation
import Glibc
import Testing
import Wire

extension KernelTests {
  @Suite(
    "Attacks on what a node shares with official agents",
    .enabled(if: Official.isThere, "the official programs are not here: scripts/setup --interop installs them"))
  struct OfficialHostileTests {
    private func stranger(_ name: String, in fleet: Fleet, at node: LabNode) throws -> Stranger {
      let namespace = try fleet.lab.namespace(name)
      let stranger = try Stranger(in: namespace, underlay: try fleet.connect(namespace))
      stranger.aim(at: node.underlay)
      return stranger
    }

    /// The agent is where it was, and both reach each other.
    private func expectUndisturbed(_ node: LabNode, _ agent: OfficialAgent) throws {
      let peer = try node.peer(agent)
      #expect(peer["endpoint"].text == "\(agent.underlay):4000" && peer["path"].text == "direct", "\(peer)")
      _ = try node.serveAnew()
      try agent.moves("put", 100_000, node)
      #expect(try node.pings(agent))
    }

    @Test("an official daemon that is not trusted, and sends all the same, hears nothing of a private node")
    func untrusted() throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha", isStarted: false)
        node.flags = ["--public", "--ipc", node.ipcSocket]
        try node.start()
        let agent = try OfficialAgent("official", ["--public"], in: fleet)
        try agent.reaches(node)
        _ = try node.serveAnew()
        // The daemon goes on using what it knows of a public node for a minute, with a session that stands.
        try node.ctl("set-private").orThrow()
        let before = try node.drops("stream-not-trusted")
        #expect(try !agent.pings(node))
        let put = try agent.start("put", 1000, node).wait(within: 60)
        #expect(!put.isSuccess, "\(put)")
        #expect(try node.drops("stream-not-trusted") > before)
        #expect(try node.pings(agent), "answers to this side come in")
        try node.ctl("set-public").orThrow()
        try agent.reaches(node)
      }
    }

    @Test("who takes an official daemon's id, in key exchanges, in frames or in the relay's wrapper, gets nothing")
    func impostor() throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha")
        let agent = try OfficialAgent("official", ["--public"], in: fleet)
        try agent.reaches(node)
        func drops(_ reason: String, _ count: Int, _ body: () throws -> Void) throws {
          let before = try node.drops(reason)
          try body()
          _ = try eventually("\(count) drops of kind \(reason)", within: 5) {
            try node.drops(reason) >= before + count ? true : nil
          }
        }

        let impostor = try stranger("impostor", in: fleet, at: node)
        impostor.claim(agent.nodeID)
        try drops("pila-wrong-key", 3) {
          for _ in 0..<3 { impostor.send(impostor.keyExchange()) }
          #expect(impostor.receive(magic: "PILA", within: 1) == nil)
        }
        let opening = impostor.packet([.syn], .stream, to: node.nodeID, ports: (50_000, 7))
        try drops("authentication-failed", 100) {
          for counter in 1...100 { impostor.send(impostor.sealed(opening, counter: UInt64(counter))) }
        }

        // A peer with a session of its own, which the node confirms, that speaks in the daemon's name inside.
        let peer = try stranger("peer", in: fleet, at: node)
        try peer.register()
        try peer.handshake()
        _ = peer.receive(magic: "PILS", within: 2)
        try drops("pilot-packet-spoofed", 1) {
          let ping = peer.packet([], .control, to: node.nodeID, from: agent.nodeID, ports: (9, 0), "ping")
          peer.send(peer.sealed(ping, counter: 1))
        }
        try drops("spoofed-source", 1) {
          let datagram = peer.packet([], .datagram, to: node.nodeID, from: agent.nodeID, ports: (9, 9), "datagram")
          peer.send(peer.sealed(datagram, counter: 2))
        }
        let alien = peer.packet([.syn], .stream, to: node.nodeID, from: agent.nodeID, ports: (50_000, 7))
        peer.send(peer.sealed(alien, counter: 3))
        // The node's own probes of the path have a payload; an answer to a SYN is a bare header.
        let answers = peer.receiveAll(magic: "PILS", within: 1).filter { $0.count == 36 + 34 }
        #expect(answers.isEmpty, "no answer to the daemon goes to the peer")
        try expectUndisturbed(node, agent)

        // A beacon that lies about who sent what.
        fleet.killRendezvous()
        let beacon = try Stranger(in: fleet.rendezvous, underlay: Fleet.rendezvousAddress, port: 9001)
        beacon.aim(at: node.underlay)
        try drops("pila-wrong-key", 1) { beacon.send(Stranger.relayed(impostor.keyExchange(), from: agent.nodeID)) }
        try drops("authentication-failed", 20) {
          for counter in 1...20 {
            beacon.send(Stranger.relayed(impostor.sealed(opening, counter: UInt64(counter)), from: agent.nodeID))
          }
        }
        // The peer's genuine frames under the daemon's name are the peer's.
        beacon.send(Stranger.relayed(peer.keyExchange(), from: agent.nodeID))
        try drops("pilot-packet-spoofed", 1) {
          let ping = peer.packet([], .control, to: node.nodeID, from: agent.nodeID, ports: (9, 0), "ping")
          beacon.send(Stranger.relayed(peer.sealed(ping, counter: 4), from: agent.nodeID))
        }
        try expectUndisturbed(node, agent)
      }
    }

    @Test("key exchanges recorded from an official daemon, of this life and the one before, move and end nothing")
    func replays() throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha")
        let tap = try node.helper(Tools.python("frame_tap", "PILA"))
        let agent = try OfficialAgent("official", ["--public"], in: fleet)
        try agent.reaches(node)
        try agent.restart()
        try agent.reaches(node, within: 40)
        let recorded = tap.outputText.split(separator: "\n").filter { $0.hasPrefix(agent.underlay + " ") }
          .compactMap { $0.split(separator: " ").last.map(Self.bytes) }
        let keys = Set(recorded.map { Array($0[8..<40]) })
        try #require(keys.count == 2, "one key of each life: \(tap.transcript)")

        let replayer = try stranger("replayer", in: fleet, at: node)
        // While bytes flow towards the node, from it, and in silence.
        for verb in ["put", "get"] {
          let sink = try node.serveAnew()
          let flow = try agent.start(verb, 48_000_000, node)
          try (verb == "put" ? sink : flow).waitForLine(containing: "flowing")
          var rounds = 0
          while flow.isRunning {
            for frame in recorded { replayer.send(frame) }
            rounds += 1
            usleep(100_000)
          }
          let outcome = try flow.wait(within: 90)
          #expect(outcome.isSuccess && outcome.output.contains("whole") && rounds > 3, "\(rounds) rounds, \(outcome)")
          if verb == "put" { try sink.waitForLine(containing: "sink 48000000") }
          try expectUndisturbed(node, agent)
        }
        for _ in 0..<20 {
          for frame in recorded { replayer.send(frame) }
          usleep(100_000)
        }
        try expectUndisturbed(node, agent)
        #expect(replayer.receive(magic: "PILS", within: 0.5) == nil, "nothing sealed goes to who replays")
        #expect(try node.drops("event-queue-full") == 0)
      }
    }

    private static func bytes(_ hex: Substring) -> [UInt8] {
      stride(from: 0, to: hex.utf8.count, by: 2).compactMap { UInt8(hex.dropFirst($0).prefix(2), radix: 16) }
    }

    @Test("ten thousand streams that one peer opens a second cost others nothing, and little memory")
    func flood() throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha")
        let agent = try OfficialAgent("official", ["--public"], in: fleet)
        _ = try node.serveAnew()
        try agent.moves("put", 1_000_000, node)
        let peer = try stranger("peer", in: fleet, at: node)
        try peer.register()
        try peer.handshake()
        let openings = (0..<30_000).map {
          let port = UInt16(20_000 + $0 % 40_000)
          let inner = peer.packet([.syn], .stream, to: node.nodeID, ports: (port, 8002))
          return peer.sealed(inner, counter: UInt64($0 + 1))
        }
        let memory = try residentKilobytes(node)
        let drops = try node.drops("stream-over-limit")

        let ping = try fleet.lab.start(
          in: agent.namespace, [Official.folder + "/pilotctl", "ping", node.address, "--count", "3"],
          environment: agent.environment)
        let begin = ContinuousClock.now
        for (index, frame) in openings.enumerated() {
          peer.send(frame)
          if index % 100 == 99 {
            let ahead = begin + .milliseconds((index + 1) / 10) - .now
            if ahead > .zero { usleep(UInt32(ahead / .microseconds(1))) }
          }
        }
        let lasted = ContinuousClock.now - begin
        #expect(lasted < .seconds(5), "30,000 in \(lasted)")
        let outcome = try ping.wait(within: 30)
        #expect(OfficialAgent.answers(outcome) == 3, "\(outcome)")
        try agent.moves("put", 4_000_000, node)

        let refused = try node.drops("stream-over-limit") - drops
        #expect(refused > 25_000, "\(refused) were refused under their own name")
        let grown = try residentKilobytes(node) - memory
        #expect(grown < 30_000, "\(grown) KB more than before")
      }
    }

    private func residentKilobytes(_ node: LabNode) throws -> Int {
      try #require(node.program).residentKilobytes()
    }
  }
}
