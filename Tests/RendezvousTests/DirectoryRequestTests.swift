// lookup, resolve, resolve_hostname, names, visibility, tags, punch: who may see what.

import JSON
import Session
import Testing
import Wire

@testable import Rendezvous

@Suite struct DirectoryRequestTests {
  /// A node on a host of its own.
  private struct Party {
    var node = TestNode()
    var client: RegistrySocket
    var id: UInt32

    init(_ rendezvous: Rendezvous, _ host: String, listen: String = "0.0.0.0:4000") throws {
      client = try rendezvous.connect(from: host)
      id = try client.enroll(node, listen: listen)
    }
  }

  @Test("a stranger sees of a private node its key and that it exists, and no more")
  func sparseLookup() async throws {
    try await Rendezvous.running { rendezvous in
      let hidden = try Party(rendezvous, "127.0.0.2")
      _ = try hidden.client.setHostname(hidden.node, hidden.id, "hidden")
      _ = try hidden.client.ask(
        "create_network", [("name", "team"), ("admin_token", "operator"), ("node_id", .whole(hidden.id))])
      let reply = try rendezvous.connect(from: "127.0.0.3").ask("lookup", [("node_id", .whole(hidden.id))])
      #expect(reply.text("public_key") == hidden.node.key)
      #expect(reply["public"] == .bool(false))
      #expect(reply["networks"] == .list([.integer(0)]))
      for member in ["hostname", "tags", "version", "last_seen_unix", "real_addr", "lan_addrs", "owner"] {
        #expect(reply[member] == nil, "\(member) is shown")
      }
      // Its own daemon learns its networks on a connection that has proven nothing.
      let own = try rendezvous.connect(from: "127.0.0.2").ask("lookup", [("node_id", .whole(hidden.id))])
      #expect(own["networks"] == .list([.integer(0), .integer(1)]))
    }
  }

  @Test("a public node shows where it is, to everyone")
  func publicNode() async throws {
    try await Rendezvous.running { rendezvous in
      let open = try Party(rendezvous, "127.0.0.2")
      let other = try Party(rendezvous, "127.0.0.3")
      _ = try open.client.setPublic(open.node, open.id, true)
      _ = try open.client.setHostname(open.node, open.id, "open")
      let reply = try rendezvous.connect(from: "127.0.0.4").ask("lookup", [("node_id", .whole(open.id))])
      #expect(reply.text("real_addr") == "127.0.0.2:4000")
      #expect(reply.text("hostname") == "open")
      let resolved = try other.client.resolve(other.node, other.id, open.id)
      #expect(resolved.text("real_addr") == "127.0.0.2:4000")
      #expect(resolved.text("public_key") == open.node.key)
      let named = try rendezvous.connect(from: "127.0.0.4").ask("resolve_hostname", [("hostname", "open")])
      #expect(named.id("node_id") == open.id)
      _ = try open.client.setPublic(open.node, open.id, false)
      #expect(try other.client.resolve(other.node, other.id, open.id).text("error") == "request failed")
    }
  }

  @Test("a private node is found only by those it trusts and who trust it, by name, number and punch")
  func privateNode() async throws {
    try await Rendezvous.running { rendezvous in
      let hidden = try Party(rendezvous, "127.0.0.2")
      let other = try Party(rendezvous, "127.0.0.3")
      let stranger = try Party(rendezvous, "127.0.0.4")
      _ = try hidden.client.setHostname(hidden.node, hidden.id, "hidden")
      func found(_ party: Party) throws -> (name: Bool, endpoint: Bool, punch: Bool) {
        let name = try party.client.ask("resolve_hostname", [("hostname", "hidden")])
        let resolved = try party.client.resolve(party.node, party.id, hidden.id)
        let punch = try party.client.signed(
          "punch", party.node, "punch:\(party.id):\(hidden.id)",
          [("requester_id", .whole(party.id)), ("node_a", .whole(party.id)), ("node_b", .whole(hidden.id))])
        return (
          name.id("node_id") == hidden.id, resolved.text("real_addr") == "127.0.0.2:4000",
          punch.text("node_b_addr") == "127.0.0.2:4000"
        )
      }
      #expect(try found(other) == (false, false, false))
      _ = try other.client.reportTrust(other.node, other.id, in: hidden.id)
      #expect(try found(other) == (false, false, false))
      _ = try hidden.client.reportTrust(hidden.node, hidden.id, in: other.id)
      #expect(try found(other) == (true, true, true))
      #expect(try found(stranger) == (false, false, false))
      // The same words whether it is hidden or missing.
      let no = try stranger.client.ask("resolve_hostname", [("hostname", "hidden")]).text("error")
      #expect(no == "hostname \"hidden\" not found")
      // A signature that was overheard tells its finder nothing.
      let replayed = try rendezvous.connect(from: "127.0.0.5").resolve(other.node, other.id, hidden.id)
      #expect(replayed.text("error") == "request failed")
    }
  }

  @Test("our own client says who asks for a name, with a signature over the name")
  func signedNames() async throws {
    try await Rendezvous.running {
      $0.groupsConnections = false
    } _: { rendezvous in
      let a = try Party(rendezvous, "127.0.0.2")
      let b = try Party(rendezvous, "127.0.0.3")
      _ = try a.client.setHostname(a.node, a.id, "agent-a")
      _ = try a.client.reportTrust(a.node, a.id, in: b.id)
      _ = try b.client.reportTrust(b.node, b.id, in: a.id)
      let fresh = try rendezvous.connect(from: "127.0.0.3")
      #expect(try fresh.ask("resolve_hostname", [("hostname", "agent-a")]).text("type") == "error")
      let members: [(String, JSONValue)] = [("hostname", "agent-a"), ("requester_id", .whole(b.id))]
      let wrong = try fresh.signed("resolve_hostname", b.node, "resolve_hostname:\(b.id):agent-b", members)
      #expect(wrong.text("error") == "signature verification failed")
      let right = try fresh.signed("resolve_hostname", b.node, "resolve_hostname:\(b.id):agent-a", members)
      #expect(right.id("node_id") == a.id)
      // From now on the connection speaks for b.
      #expect(try fresh.ask("resolve_hostname", [("hostname", "agent-a")]).id("node_id") == a.id)
    }
  }

  @Test("connections that a host opens together speak for the one node that proved itself on one of them")
  func groupedConnections() async throws {
    let clock = TestClock()
    try await Rendezvous.running {
      $0.clock = { clock.milliseconds() }
    } _: { rendezvous in
      let a = try Party(rendezvous, "127.0.0.2")
      _ = try a.client.setHostname(a.node, a.id, "agent-a")
      let first = try rendezvous.connect(from: "127.0.0.3")
      let second = try rendezvous.connect(from: "127.0.0.3")
      // Both are accepted before anything is asked.
      _ = try second.ask("beacon_list")
      let (b, c) = (TestNode(), TestNode())
      let id = try first.enroll(b)
      _ = try a.client.reportTrust(a.node, a.id, in: id)
      _ = try first.reportTrust(b, id, in: a.id)
      #expect(try second.ask("resolve_hostname", [("hostname", "agent-a")]).id("node_id") == a.id)
      let elsewhere = try rendezvous.connect(from: "127.0.0.4")
      #expect(try elsewhere.ask("resolve_hostname", [("hostname", "agent-a")]).text("type") == "error")
      clock.advance(seconds: 1)
      let late = try rendezvous.connect(from: "127.0.0.3")
      #expect(try late.ask("resolve_hostname", [("hostname", "agent-a")]).text("type") == "error")
      // A second node in the group: each connection speaks for itself.
      _ = try second.enroll(c)
      #expect(try second.ask("resolve_hostname", [("hostname", "agent-a")]).text("type") == "error")
      #expect(try first.ask("resolve_hostname", [("hostname", "agent-a")]).id("node_id") == a.id)
    }
  }

  @Test("names are checked, unique, given up with an empty one, and cheap to repeat")
  func hostnames() async throws {
    try await Rendezvous.running { rendezvous in
      let a = try Party(rendezvous, "127.0.0.2")
      let b = try Party(rendezvous, "127.0.0.3")
      for name in [
        "-a", "a-", "A", "a_b", "a.b", "localhost", "backbone", "broadcast", String(repeating: "a", count: 64),
      ] {
        #expect(try a.client.setHostname(a.node, a.id, name).text("error") == "invalid hostname")
      }
      let longest = String(repeating: "a", count: 63)
      #expect(try a.client.setHostname(a.node, a.id, longest).text("hostname") == longest)
      #expect(try a.client.setHostname(a.node, a.id, "x").text("type") == "set_hostname_ok")
      #expect(try b.client.setHostname(b.node, b.id, "x").text("error").contains("already in use"))
      #expect(try b.client.setHostname(b.node, b.id, longest).text("type") == "set_hostname_ok")
      let commits = rendezvous.count(.commits)
      #expect(try a.client.setHostname(a.node, a.id, "x").text("type") == "set_hostname_ok")
      #expect(rendezvous.count(.commits) == commits)
      #expect(try a.client.setHostname(a.node, a.id, "").text("type") == "set_hostname_ok")
      #expect(try b.client.setHostname(b.node, b.id, "x").text("type") == "set_hostname_ok")
      #expect(try b.client.setHostname(a.node, b.id, "y").text("error") == "signature verification failed")
    }
  }

  @Test("a change that was overheard cannot be repeated from elsewhere with another value")
  func replayedChange() async throws {
    try await Rendezvous.running { rendezvous in
      let a = try Party(rendezvous, "127.0.0.2")
      _ = try a.client.setHostname(a.node, a.id, "agent-a")
      let thief = try rendezvous.connect(from: "127.0.0.9")
      #expect(try thief.setHostname(a.node, a.id, "stolen").text("error").contains("another address"))
      #expect(try thief.setPublic(a.node, a.id, true).text("error").contains("another address"))
      #expect(try thief.poll(a.node, a.id).text("error").contains("another address"))
      #expect(try thief.setHostname(a.node, a.id, "agent-a").text("type") == "set_hostname_ok")
      // Nor does an overheard signature make the thief's connection speak for the node.
      #expect(try thief.ask("resolve_hostname", [("hostname", "agent-a")]).text("type") == "error")
    }
  }

  @Test("tags are cleaned, bounded and shown")
  func tags() async throws {
    try await Rendezvous.running { rendezvous in
      let a = try Party(rendezvous, "127.0.0.2")
      func set(_ tags: [String]) throws -> JSONValue {
        try a.client.signed(
          "set_tags", a.node, "set_tags:\(a.id)", [("node_id", .whole(a.id)), ("tags", .list(of: tags))])
      }
      #expect(try set(["#swift", "swift", "llm-proxy"]).texts("tags") == ["swift", "llm-proxy"])
      #expect(try set((0..<11).map { "t\($0)" }).text("error").contains("invalid tags"))
      #expect(try set(["No"]).text("error").contains("invalid tags"))
      let seen = try a.client.ask("lookup", [("node_id", .whole(a.id))])
      #expect(seen.texts("tags") == ["swift", "llm-proxy"])
      #expect(try set([]).text("type") == "set_tags_ok")
    }
  }

  @Test("lan addresses are private ones, eight at most, shown to those who may resolve")
  func lanAddresses() async throws {
    try await Rendezvous.running { rendezvous in
      let a = try Party(rendezvous, "127.0.0.2")
      let other = try Party(rendezvous, "127.0.0.3")
      let given = ["8.8.8.8:1", "10.0.0.1:0", "127.0.0.1:5", "rubbish"] + (1...20).map { "192.168.1.\($0):4000" }
      let reply = try a.client.register(a.node, listen: "0.0.0.0:4000", [("lan_addrs", .list(of: given))])
      #expect(reply.id("node_id") == a.id)
      _ = try a.client.setPublic(a.node, a.id, true)
      let seen = try other.client.resolve(other.node, other.id, a.id)
      #expect(seen.texts("lan_addrs") == (1...8).map { "192.168.1.\($0):4000" })
    }
  }

  @Test("an endpoint at the address that a node registers from goes before the port that the beacon saw")
  func openPort() async throws {
    try await Rendezvous.running { rendezvous in
      let a = try Party(rendezvous, "127.0.0.2")
      let other = try Party(rendezvous, "127.0.0.3")
      let beacon = try BeaconSocket(rendezvous, from: "127.0.0.2")
      try beacon.discover(a.id)
      func seen(_ lan: [String]) throws -> JSONValue {
        _ = try a.client.register(a.node, listen: "0.0.0.0:4000", [("lan_addrs", .list(of: lan))])
        _ = try a.client.setPublic(a.node, a.id, true)
        return try other.client.resolve(other.node, other.id, a.id)
      }
      #expect(try seen(["127.0.0.9:7"]).text("real_addr") == "127.0.0.2:\(beacon.localPort)")
      let open = try seen(["127.0.0.9:7", "192.168.1.2:4000", "127.0.0.2:4444"])
      #expect(open.text("real_addr") == "127.0.0.2:4444")
      #expect(open.texts("lan_addrs") == ["192.168.1.2:4000"])
    }
  }

  @Test("a relay-only node is reached at the beacon")
  func relayOnly() async throws {
    try await Rendezvous.running { rendezvous in
      let a = try Party(rendezvous, "127.0.0.2")
      let other = try Party(rendezvous, "127.0.0.3")
      _ = try a.client.register(a.node, listen: "0.0.0.0:0", [("relay_only", .bool(true))])
      _ = try a.client.setPublic(a.node, a.id, true)
      let seen = try other.client.resolve(other.node, other.id, a.id)
      #expect(seen["relay_only"] == .bool(true))
      #expect(seen.text("real_addr") == "127.0.0.1:\(rendezvous.bound.beacon.port)")
    }
  }

  @Test("beacons that run by themselves are named apart: official daemons would pick them")
  func moreBeacons() async throws {
    try await Rendezvous.running {
      $0.moreBeacons = ["203.0.113.6:9001", "[2001:db8::6]:9001"].compactMap { Endpoint($0) }
    } _: { rendezvous in
      let reply = try rendezvous.connect().ask("beacon_list")
      #expect(reply["beacons"] == .list([]))
      #expect(reply["more_beacons"] == .list([.text("203.0.113.6:9001"), .text("[2001:db8::6]:9001")]))
    }
  }

  @Test("what the registry does not know is answered as unknown")
  func unknownRequests() async throws {
    try await Rendezvous.running { rendezvous in
      let client = try rendezvous.connect()
      for type in ["", "nonsense", "subscribe_replication", "beacon_register", "submit_badge", "get_audit_log"] {
        #expect(try client.ask(type).text("error") == "unknown message type")
      }
      #expect(try client.ask(.object(of: [("type", .integer(1))])).text("error") == "unknown message type")
      #expect(try client.ask("beacon_list")["beacons"] == .list([]))
      #expect(try client.ask("beacon_list")["more_beacons"] == nil)
      // Wrong types read as nothing.
      #expect(try client.ask("lookup", [("node_id", "1")]).text("error") == "node 0: node not found")
      #expect(try client.ask("lookup", [("node_id", .integer(-1))]).text("error") == "node 0: node not found")
      #expect(try client.ask("lookup", [("node_id", .number(7.9))]).text("error") == "node 7: node not found")
    }
  }
}
