// register, heartbeat, deregister, rotate_key, get_key_info against a server on loopback.

import JSON
import Session
import Testing
import Wire

@testable import Rendezvous

@Suite struct RegistrationTests {
  @Test("a registered node gets an id that follows from its key, and the same one again")
  func sameKeySameID() async throws {
    try await Rendezvous.running { rendezvous in
      let node = TestNode()
      let client = try rendezvous.connect()
      let reply = try client.register(node, listen: "127.0.0.1:4711")
      #expect(reply.text("type") == "register_ok")
      let id = reply.id("node_id")
      #expect(id == NodeIdentifier.derived(from: node.identity.publicKey))
      #expect(reply.text("address") == PilotAddress(network: 0, node: id).description)
      #expect(reply.text("public_key") == node.key)
      #expect(reply.text("observed_addr") == "127.0.0.1:4711")
      #expect(try rendezvous.connect().enroll(node) == id)
      #expect(try client.heartbeat(node, id).text("type") == "heartbeat_ok")
    }
  }

  @Test("ids stay out of the range that official daemons trust by number, whatever the key")
  func idsAreHigh() {
    for seed in 0..<2000 {
      var key = Bytes32()
      key.words = (UInt64(seed), 0, 0, 1)
      #expect(NodeIdentifier.range.contains(NodeIdentifier.derived(from: key)))
    }
    #expect(NodeIdentifier.range.lowerBound > 1 << 24)
    #expect(NodeIdentifier.range.upperBound < 0xFFFF_FFFF)
    #expect(NodeIdentifier.following(NodeIdentifier.range.upperBound) == NodeIdentifier.range.lowerBound)
  }

  @Test("a registration without signature, with a wrong one, or with a bad key is refused")
  func badRegistrations() async throws {
    try await Rendezvous.running { rendezvous in
      let node = TestNode()
      let client = try rendezvous.connect()
      let base: [(String, JSONValue)] = [("listen_addr", "127.0.0.1:4000"), ("public_key", .text(node.key))]
      #expect(try client.ask("register", base).text("error") == "signature required")
      let stranger = TestNode().sign("register:127.0.0.1:4000:\(node.key)")
      let refused = try client.ask("register", base + [("signature", stranger)])
      #expect(refused.text("error") == "signature verification failed")
      let other = node.sign("register:127.0.0.1:4001:\(node.key)")
      #expect(
        try client.ask("register", base + [("signature", other)]).text("error") == "signature verification failed")
      for key in ["", "AAAA", String(repeating: "A", count: 44), String(repeating: "!", count: 44)] {
        let reply = try client.ask("register", [("public_key", .text(key)), ("signature", node.sign("x"))])
        #expect(reply.text("error") == "invalid public key")
      }
      // pilotctl's own register sends neither key nor signature.
      #expect(try client.ask("register", [("listen_addr", "")]).text("type") == "error")
      #expect(rendezvous.count(.registrations) == 0)
    }
  }

  @Test("a refused hostname does not fail the registration")
  func refusedHostname() async throws {
    try await Rendezvous.running { rendezvous in
      let client = try rendezvous.connect()
      let first = try client.register(TestNode(), [("hostname", "agent-a")])
      #expect(first.text("hostname") == "agent-a")
      let second = try client.register(TestNode(), [("hostname", "agent-a")])
      #expect(second.text("type") == "register_ok")
      #expect(second.text("hostname_error").contains("already in use"))
      #expect(try client.register(TestNode(), [("hostname", "No Good")]).text("hostname_error") == "invalid hostname")
    }
  }

  @Test("a heartbeat of an unknown node or with a wrong key says what makes a daemon register again")
  func heartbeats() async throws {
    try await Rendezvous.running { rendezvous in
      let node = TestNode()
      let client = try rendezvous.connect()
      let id = try client.enroll(node)
      #expect(try client.heartbeat(node, 77).text("error").contains("node not found"))
      #expect(try client.heartbeat(TestNode(), id).text("error") == "signature verification failed")
      let unsigned = try client.ask("heartbeat", [("node_id", .whole(id))])
      #expect(unsigned.text("error") == "signature required")
    }
  }

  @Test("a node that moved is told to register again, and then is found at its new address")
  func movedNode() async throws {
    try await Rendezvous.running { rendezvous in
      let node = TestNode()
      let id = try rendezvous.connect(from: "127.0.0.2").enroll(node)
      try await rendezvous.eventually("its old connection is gone") { rendezvous.server.connections == 0 }
      let moved = try rendezvous.connect(from: "127.0.0.3")
      #expect(try moved.heartbeat(node, id).text("error").contains("node not found"))
      // Not twice in a row: a host with several addresses would never come to rest.
      #expect(try moved.heartbeat(node, id).text("type") == "heartbeat_ok")
      #expect(try moved.setPublic(node, id, true).text("error").contains("another address"))
      #expect(try moved.register(node).text("observed_addr") == "127.0.0.3:4000")
      #expect(try moved.setPublic(node, id, true).text("type") == "set_visibility_ok")
    }
  }

  @Test("only the source address and the client's port make an endpoint, except for clients on this machine")
  func endpointRule() async throws {
    try await Rendezvous.running { rendezvous in
      let reply = try rendezvous.connect().register(TestNode(), listen: "198.51.100.7:5000")
      #expect(reply.text("observed_addr") == "198.51.100.7:5000")
    }
    try await Rendezvous.running {
      $0.believesLocalClients = false
    } _: { rendezvous in
      let client = try rendezvous.connect(from: "127.0.0.9")
      #expect(try client.register(TestNode(), listen: "198.51.100.7:5000").text("observed_addr") == "127.0.0.9:5000")
      #expect(try client.register(TestNode(), listen: "no.such.host:6000").text("observed_addr") == "127.0.0.9:6000")
      #expect(try client.register(TestNode(), listen: "rubbish").text("observed_addr") == "127.0.0.9:0")
    }
  }

  @Test("a deregistered node is gone, keeps its id, and frees its name")
  func deregister() async throws {
    try await Rendezvous.running { rendezvous in
      let node = TestNode()
      let other = TestNode()
      let client = try rendezvous.connect()
      let id = try client.enroll(node)
      let otherID = try client.enroll(other)
      #expect(try client.setHostname(node, id, "agent-a").text("type") == "set_hostname_ok")
      let members: [(String, JSONValue)] = [("node_id", .whole(id))]
      #expect(try client.signed("deregister", other, "deregister:\(id)", members).text("type") == "error")
      #expect(try client.signed("deregister", node, "deregister:\(id)", members).text("type") == "deregister_ok")
      #expect(try client.heartbeat(node, id).text("error").contains("node not found"))
      #expect(try client.ask("lookup", members).text("error") == "node \(id): node not found")
      #expect(try client.setHostname(other, otherID, "agent-a").text("type") == "set_hostname_ok")
      #expect(try client.enroll(node) == id)
    }
  }

  @Test("after rotate_key the old key is worth nothing and the id stays")
  func rotateKey() async throws {
    try await Rendezvous.running { rendezvous in
      let old = TestNode()
      let new = TestNode()
      let stranger = TestNode()
      let client = try rendezvous.connect()
      let id = try client.enroll(old)
      let strangerID = try client.enroll(stranger)
      func rotate(_ node: TestNode, to key: String) throws -> JSONValue {
        try client.signed(
          "rotate_key", node, "rotate:\(id):\(key)", [("node_id", .whole(id)), ("new_public_key", .text(key))])
      }
      #expect(try rotate(stranger, to: new.key).text("error") == "signature verification failed")
      #expect(try rotate(old, to: stranger.key).text("error").contains("already"))
      let reply = try rotate(old, to: new.key)
      #expect(reply.id("node_id") == id)
      #expect(reply.text("public_key") == new.key)
      #expect(try client.heartbeat(old, id).text("error") == "signature verification failed")
      #expect(try client.heartbeat(new, id).text("type") == "heartbeat_ok")
      #expect(try client.enroll(new) == id)
      let info = try client.ask("get_key_info", [("node_id", .whole(id))])
      #expect(info["rotate_count"] == .integer(1))
      #expect(info.text("rotated_at").hasSuffix("Z"))
      // The old key comes back as somebody else.
      let again = try client.enroll(old)
      #expect(again != id && again != strangerID)
    }
  }

  @Test("a node that is silent for half an hour disappears, and its name waits for it for a day")
  func reaping() async throws {
    let clock = TestClock()
    try await Rendezvous.running {
      $0.clock = { clock.milliseconds() }
    } _: { rendezvous in
      let node = TestNode()
      let other = TestNode()
      let client = try rendezvous.connect()
      let id = try client.enroll(node)
      _ = try client.setHostname(node, id, "agent-a")
      _ = try client.setPublic(node, id, true)
      clock.advance(seconds: 1800)
      #expect(try client.heartbeat(node, id).text("type") == "heartbeat_ok")
      clock.advance(seconds: 1801)
      let otherID = try client.enroll(other)
      #expect(try client.ask("lookup", [("node_id", .whole(id))]).text("error").contains("node not found"))
      #expect(try client.resolve(other, otherID, id).text("error").contains("node not found"))
      #expect(try client.ask("resolve_hostname", [("hostname", "agent-a")]).text("error").contains("not found"))
      #expect(try client.setHostname(other, otherID, "agent-a").text("error").contains("already in use"))
      #expect(try client.heartbeat(node, id).text("error").contains("node not found"))
      let reply = try client.register(node)
      #expect(reply.id("node_id") == id)
      #expect(reply.text("hostname") == "agent-a")
      #expect(try client.ask("lookup", [("node_id", .whole(id))]).flag("public") == false)
      clock.advance(seconds: 86_401)
      #expect(try client.enroll(other) == otherID)
      #expect(try client.setHostname(other, otherID, "agent-a").text("type") == "set_hostname_ok")
      #expect(try client.register(node).text("hostname") == "")
    }
  }

  @Test("many new keys of one source wait, known keys do not")
  func newKeyLimit() async throws {
    try await Rendezvous.running {
      $0.exemptSources = []
      $0.limits.newKeysBurst = 2
      $0.limits.newKeysPerSecond = 4
    } _: { rendezvous in
      let client = try rendezvous.connect()
      let known = TestNode()
      _ = try client.enroll(known)
      _ = try client.enroll(TestNode())
      _ = try client.enroll(TestNode())
      #expect(rendezvous.count(.registrationsDelayed) > 0)
      let before = rendezvous.count(.registrationsDelayed)
      _ = try client.enroll(known)
      #expect(rendezvous.count(.registrationsDelayed) == before)
    }
  }
}
