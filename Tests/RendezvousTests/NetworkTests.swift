// Networks: created, configured, joined, left, listed; policies.

import JSON
import Session
import Testing
import Wire

@testable import Rendezvous

@Suite struct NetworkTests {
  @Test("networks are made with the administrator's token only")
  func create() async throws {
    try await Rendezvous.running { rendezvous in
      let client = try rendezvous.connect()
      let node = TestNode()
      let id = try client.enroll(node)
      func create(_ members: [(String, JSONValue)]) throws -> JSONValue { try client.ask("create_network", members) }
      #expect(try create([("name", "team"), ("join_rule", "open")]).text("error").contains("admin token"))
      #expect(try create([("name", "team"), ("admin_token", "operatox")]).text("error").contains("admin token"))
      let admin: (String, JSONValue) = ("admin_token", "operator")
      #expect(try create([("name", "backbone"), admin]).text("error") == "invalid network name")
      #expect(try create([("name", "team"), ("join_rule", "token"), admin]).text("error").contains("require"))
      #expect(try create([("name", "team"), ("join_rule", "secret"), admin]).text("error").contains("cannot"))
      let made = try create([("name", "team"), ("join_rule", "open"), ("node_id", .whole(id)), admin])
      #expect(made.text("type") == "create_network_ok")
      #expect(made.network("network_id") == 1)
      #expect(try create([("name", "team"), ("join_rule", "open"), admin]).text("error").contains("already"))
      let list = try client.ask("list_networks").written
      #expect(list.contains(#""enterprise":false,"id":0,"join_rule":"open","name":"backbone""#))
      #expect(list.contains(#""enterprise":false,"id":1,"join_rule":"open","name":"team""#))
      #expect(!list.contains("members"))
      #expect(try client.ask("list_networks", [admin]).written.contains(#""members":1"#))
    }
  }

  @Test("without a configured token nobody is an administrator")
  func noAdministrator() async throws {
    try await Rendezvous.running {
      $0.adminToken = nil
    } _: { rendezvous in
      let reply = try rendezvous.connect().ask("create_network", [("name", "team"), ("admin_token", "")])
      #expect(reply.text("error").contains("admin token"))
    }
  }

  @Test("configured networks exist from the start, once, and follow the configuration")
  func configured() async throws {
    let networks = [try NetworkSpecification("team:open"), try NetworkSpecification("ops:token:a:b")]
    let rendezvous = try await Rendezvous.start { $0.networks = networks }
    let node = TestNode()
    let client = try rendezvous.connect()
    let id = try client.enroll(node)
    #expect(try client.join(node, id, 1).text("address") == PilotAddress(network: 1, node: id).description)
    #expect(try client.join(node, id, 2, token: "a").text("error") == "invalid network token")
    #expect(try client.join(node, id, 2, token: "a:b").text("type") == "join_network_ok")
    await rendezvous.server.shutdown()
    let changed = [try NetworkSpecification("team:token:new")] + networks.dropFirst()
    let again = try await Rendezvous.start(in: rendezvous.directory) { $0.networks = Array(changed) }
    let second = try again.connect()
    let other = TestNode()
    let otherID = try second.enroll(other)
    guard case .list(let list)? = try second.ask("list_networks")["networks"] else { return }
    #expect(list.map { $0.text("name") } == ["backbone", "team", "ops"])
    #expect(try second.join(other, otherID, 1).text("error") == "invalid network token")
    #expect(try second.join(other, otherID, 1, token: "new").text("type") == "join_network_ok")
    await again.remove()
  }

  @Test(
    "malformed network settings are refused",
    arguments: [
      "", "team", "team:", "team:open:x", "team:token", "team:token:", "Team:open", "backbone:open", "team:invite",
    ])
  func malformed(_ text: String) {
    #expect(throws: RendezvousError.self) { try NetworkSpecification(text) }
  }

  @Test("joining makes two private nodes visible to each other, leaving hides them")
  func membership() async throws {
    try await Rendezvous.running {
      $0.networks = [.init(name: "team", token: nil)]
    } _: { rendezvous in
      let (a, b) = (TestNode(), TestNode())
      let first = try rendezvous.connect(from: "127.0.0.2")
      let second = try rendezvous.connect(from: "127.0.0.3")
      let x = try first.enroll(a, listen: "0.0.0.0:4000")
      let y = try second.enroll(b, listen: "0.0.0.0:4000")
      _ = try second.setHostname(b, y, "agent-b")
      #expect(try first.join(a, x, 0).text("error").contains("backbone"))
      #expect(try first.join(a, x, 9).text("error").contains("not found"))
      #expect(try first.join(a, x, 1).text("type") == "join_network_ok")
      #expect(try first.join(a, x, 1).text("error").contains("already"))
      #expect(try first.resolve(a, x, y).text("error") == "request failed")
      #expect(try second.join(b, y, 1).text("type") == "join_network_ok")
      #expect(try first.resolve(a, x, y).text("real_addr") == "127.0.0.3:4000")
      #expect(try first.ask("resolve_hostname", [("hostname", "agent-b")]).id("node_id") == y)
      let trusted = try first.ask("check_trust", [("node_id", .whole(x)), ("peer_id", .whole(y))])
      #expect(trusted.flag("trusted"))
      let seen = try first.ask("lookup", [("node_id", .whole(y))])
      #expect(seen["networks"] == .list([.integer(0), .integer(1)]))
      func leave(_ network: UInt16) throws -> JSONValue {
        try second.signed(
          "leave_network", b, "leave_network:\(y):\(network)",
          [("node_id", .whole(y)), ("network_id", .whole(network))])
      }
      #expect(try leave(0).text("error").contains("cannot"))
      #expect(try leave(1).text("type") == "leave_network_ok")
      #expect(try leave(1).text("error").contains("not a member"))
      #expect(try first.resolve(a, x, y).text("error") == "request failed")
    }
  }

  @Test("members are listed for members and for the administrator")
  func listNodes() async throws {
    try await Rendezvous.running {
      $0.networks = [.init(name: "team", token: nil)]
    } _: { rendezvous in
      let node = TestNode()
      let client = try rendezvous.connect(from: "127.0.0.2")
      let id = try client.enroll(node)
      let question: [(String, JSONValue)] = [("network_id", .integer(1))]
      #expect(try client.ask("list_nodes", question).text("error").contains("admin token"))
      _ = try client.join(node, id, 1)
      let list = try client.ask("list_nodes", question)
      #expect(list["nodes"]?.written.contains("\"node_id\":\(id)") == true)
      #expect(list["nodes"]?.written.contains("real_addr") == false)
      let stranger = try rendezvous.connect(from: "127.0.0.3")
      #expect(try stranger.ask("list_nodes", question).text("error").contains("admin token"))
      let admin = try stranger.ask("list_nodes", [("network_id", .integer(0)), ("admin_token", "operator")])
      #expect(admin["nodes"]?.written.contains("\"node_id\":\(id)") == true)
      #expect(try client.ask("list_nodes", [("network_id", .integer(0))]).text("error").contains("admin token"))
    }
  }

  @Test("policies are empty and present, for the backbone too")
  func policies() async throws {
    try await Rendezvous.running { rendezvous in
      let client = try rendezvous.connect()
      let policy = try client.ask("get_network_policy", [("network_id", .integer(0))])
      #expect(
        policy.asText
          == #"{"type":"get_network_policy_ok","network_id":0,"max_members":0,"allowed_ports":[],"description":""}"#)
      #expect(try client.ask("get_network_policy", [("network_id", .integer(7))]).text("error").contains("not found"))
      let tags = try client.ask("get_member_tags", [("network_id", .integer(0)), ("target_node_id", .integer(5))])
      #expect(tags["tags"] == .list([]))
      #expect(try client.ask("get_member_tags", [("network_id", .integer(0))])["members"] == .object([:]))
      let expression = try client.ask("get_expr_policy", [("network_id", .integer(0))])
      #expect(expression.text("type") == "get_expr_policy_ok")
    }
  }
}
