// Recorded requests, sent again from elsewhere: what a connected node, and a node that signs nonces, is safe from.

import JSON
import Session
import Testing
import Wire

@testable import Rendezvous

@Suite struct ReplayTests {
  /// As our clients do it.
  private func prove(_ node: TestNode, _ socket: RegistrySocket, _ nonce: String) throws -> String {
    try socket.ask(
      "prove_key",
      [
        ("public_key", .text(node.key)), ("nonce", .text(nonce)),
        ("signature", node.sign("prove_key:\(nonce):\(node.key)")),
      ]
    ).written
  }

  @Test(
    "a recorded registration does not move a node that is connected, and nothing of it can be changed from elsewhere")
  func connected() async throws {
    try await Rendezvous.running {
      $0.limits.displacementTime = 0.5
    } _: { rendezvous in
      let node = TestNode()
      let home = try rendezvous.connect(from: "127.0.0.2")
      let id = try home.enroll(node)
      let thief = try rendezvous.connect(from: "127.0.0.3")
      let reply = try thief.register(node)
      #expect(reply.text("error").contains("connected from another address"))
      #expect(try thief.setPublic(node, id, true).text("error").contains("another address"))
      // Its heartbeat would make the node register again; it need not, as it is connected where it was.
      #expect(try thief.heartbeat(node, id).text("type") == "heartbeat_ok")
      #expect(try home.setPublic(node, id, true).text("type") == "set_visibility_ok")
      #expect(try home.resolve(node, id, id).text("real_addr") == "127.0.0.2:4000")
    }
  }

  @Test("a node that moved waits for the end of its old connection and no longer")
  func moved() async throws {
    try await Rendezvous.running { rendezvous in
      let node = TestNode()
      var home: RegistrySocket? = try rendezvous.connect(from: "127.0.0.2")
      let id = try #require(try home?.enroll(node))
      let away = try rendezvous.connect(from: "127.0.0.3")
      let text = "register:127.0.0.1:4000:\(node.key)"
      let request: JSONValue = .object(of: [
        ("type", "register"), ("listen_addr", "127.0.0.1:4000"), ("public_key", .text(node.key)),
        ("signature", node.sign(text)),
      ])
      try away.send(RegistrySocket.frame(request.encoded))
      #expect(try rendezvous.connect(from: "127.0.0.3").ask("list_networks").text("type") == "list_networks_ok")
      home = nil
      #expect(try away.reply()?.id("node_id") == id)
      #expect(try away.setPublic(node, id, true).text("type") == "set_visibility_ok")
    }
  }

  @Test("a connection speaks for a node only as long as the node is where the connection comes from, with the same key")
  func outdated() async throws {
    try await Rendezvous.running { rendezvous in
      let (a, b) = (TestNode(), TestNode())
      let second = try rendezvous.connect(from: "127.0.0.4")
      let y = try second.enroll(b)
      _ = try second.setHostname(b, y, "agent-b")
      var first: RegistrySocket? = try rendezvous.connect(from: "127.0.0.2")
      let x = try #require(try first?.enroll(a))
      _ = try first?.reportTrust(a, x, in: y)
      _ = try second.reportTrust(b, y, in: x)
      func found(_ socket: RegistrySocket?) throws -> Bool {
        try socket?.ask("resolve_hostname", [("hostname", "agent-b")]).id("node_id") == y
      }
      #expect(try found(first))
      first = nil
      let thief = try rendezvous.connect(from: "127.0.0.3")
      #expect(try thief.register(a).text("type") == "register_ok", "nobody is connected: as if it had moved")
      #expect(try found(thief))
      let key = TestNode()
      let rotated = try thief.signed(
        "rotate_key", a, "rotate:\(x):\(key.key)", [("node_id", .whole(x)), ("new_public_key", .text(key.key))])
      #expect(rotated.text("type") == "rotate_key_ok")
      #expect(try !found(thief), "the old key is dead at once")
    }
  }

  @Test("a report about a node that has not come back yet counts when it does")
  func earlyReport() async throws {
    try await Rendezvous.running { rendezvous in
      let (a, b) = (TestNode(), TestNode())
      let first = try rendezvous.connect(from: "127.0.0.2")
      let second = try rendezvous.connect(from: "127.0.0.3")
      let x = try first.enroll(a)
      let y = NodeIdentifier.derived(from: b.identity.publicKey)
      #expect(try first.reportTrust(a, x, in: y).text("type") == "report_trust_ok")
      #expect(try second.enroll(b) == y)
      #expect(try first.resolve(a, x, y).text("error") == "request failed")
      #expect(try second.reportTrust(b, y, in: x).text("type") == "report_trust_ok")
      #expect(try first.resolve(a, x, y).text("type") == "resolve_ok")
    }
  }

  @Test("a key that signed a nonce is taken at nothing less, on any connection, until it deregisters")
  func nonces() async throws {
    let rendezvous = try await Rendezvous.start()
    let node = TestNode()
    let home = try rendezvous.connect(from: "127.0.0.2")
    let registered = try home.register(node)
    let id = registered.id("node_id")
    let nonce = registered.text("nonce")
    #expect(nonce.utf8.count == 24)
    #expect(try prove(TestNode(), home, nonce).contains("prove_key_ok"), "another key may do so as well")
    #expect(try prove(node, home, nonce) == #"{"type":"prove_key_ok"}"#)
    #expect(try home.setPublic(node, id, true).text("type") == "set_visibility_ok")

    // The same host, so nothing but the nonce tells this connection from the node's.
    let thief = try rendezvous.connect(from: "127.0.0.2")
    let refusals = [
      try thief.register(node), try thief.heartbeat(node, id), try thief.setPublic(node, id, false),
      try thief.resolve(node, id, id), try thief.poll(node, id),
    ]
    for refusal in refusals {
      #expect(refusal.text("error").contains("signature of the nonce required"))
      #expect(refusal.text("nonce") == refusals[0].text("nonce") && refusal.text("nonce") != nonce)
    }
    #expect(try prove(node, thief, nonce).contains("signature verification failed"), "a recorded proof")
    #expect(rendezvous.count(.signaturesStale) == 5)
    #expect(try thief.ask("prove_key", []).text("error") == "invalid public key")
    await rendezvous.server.shutdown()

    // It outlives the server, and the node gets through by a new proof, from another address at once.
    let again = try await Rendezvous.start(in: rendezvous.directory)
    let away = try again.connect(from: "127.0.0.3")
    let refused = try away.register(node)
    #expect(refused.text("error").contains("nonce"))
    #expect(try prove(node, away, refused.text("nonce")).contains("prove_key_ok"))
    #expect(try away.register(node).id("node_id") == id)
    let gone = try away.signed("deregister", node, "deregister:\(id)", [("node_id", .whole(id))])
    #expect(gone.text("type") == "deregister_ok")
    #expect(try again.connect(from: "127.0.0.4").register(node).id("node_id") == id)
    await again.remove()
  }

  @Test("one connection proves a limited number of keys")
  func limited() async throws {
    try await Rendezvous.running { rendezvous in
      let client = try rendezvous.connect()
      let nonce = try client.register(TestNode()).text("nonce")
      for _ in 0..<16 { #expect(try prove(TestNode(), client, nonce).contains("prove_key_ok")) }
      #expect(try prove(TestNode(), client, nonce).contains("too many"))
    }
  }
}
