// Nodes that never heard of each other: what is answered before the directory has spoken, and what that lets in.

import Foundation
import Testing
import Wire

extension KernelTests {
  @Suite("First contact")
  struct FirstContactTests {
    @Test("a node that nobody knew is answered ahead of the directory, and its first packet arrives")
    func answeredAhead() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha", ["--public"])
        let beta = try fleet.node("beta", ["--public"])
        #expect(try beta.counter("handshakes-answered-ahead") == 0)
        let first = try alpha.run(["ping", "-c", "1", "-W", "5", beta.ipv6])
        #expect(first.isSuccess, "\(first)")
        #expect(try beta.counter("handshakes-answered-ahead") == 1)
        // Whom we asked for is answered as always.
        #expect(try alpha.counter("handshakes-answered-ahead") == 0)
      }
    }

    @Test("who lies about its node, or is in no directory, gets an answer and nothing in; the real one still does")
    func impostors() throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha", ["--public"])
        let address = try #require(IPv6Address(node.ipv6))
        let receiver = try node.helper(Tools.python("udp_receive", "::", "5003"))
        func inner(_ text: String, from stranger: Stranger) -> [UInt8] {
          Stranger.datagram(
            from: OverlayMapping.address(for: PilotAddress(network: 0, node: stranger.node)), to: address, port: 5003,
            text)
        }
        func stranger(_ name: String) throws -> Stranger {
          let namespace = try fleet.lab.namespace(name)
          let stranger = try Stranger(in: namespace, underlay: try fleet.connect(namespace))
          stranger.aim(at: node.underlay)
          return stranger
        }
        let honest = try stranger("honest")
        try honest.register()

        let impostor = try stranger("impostor")
        impostor.claim(honest.node)
        #expect(try impostor.announcedHandshake(with: node.nodeID))
        for counter in 1...5 {
          impostor.send(impostor.sealed(inner("a lie", from: impostor), counter: UInt64(counter)))
        }
        _ = try eventually("the directory's key is not the impostor's", within: 5) {
          try node.drops("pila-wrong-key") > 0 ? true : nil
        }

        let nobody = try stranger("nobody")
        nobody.claim(honest.node ^ 0x0055_5555)
        #expect(try nobody.announcedHandshake(with: node.nodeID))
        for counter in 1...5 { nobody.send(nobody.sealed(inner("a ghost", from: nobody), counter: UInt64(counter))) }
        _ = try eventually("the directory knows no such node", within: 5) {
          try node.drops("stranger-unknown") > 0 ? true : nil
        }
        #expect(try node.counter("handshakes-answered-ahead") == 0)

        // The impostor came first and has spoilt nothing.
        #expect(try honest.announcedHandshake(with: node.nodeID))
        honest.send(honest.sealed(inner("the truth", from: honest), counter: 1))
        try receiver.waitForLine(containing: "the truth", within: 5)
        #expect(!receiver.outputText.contains("a lie") && !receiver.outputText.contains("a ghost"))
      }
    }
  }
}
