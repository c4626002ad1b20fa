// Networks as pilotctl runs them: the requests are those that pilotctl 1.18.0 sends, byte for byte but for ids and
// tokens; the answers are compared as text.

import JSON
import Session
import Testing
import Wire

@testable import Rendezvous

@Suite struct NetworkAdministrationTests {
  /// A rendezvous with network 1 "team" and two nodes: its owner and a member.
  private func withTeam(
    _ rule: String = "open", _ body: (Team) throws -> Void
  ) async throws {
    try await Rendezvous.running { rendezvous in
      let (a, b) = (TestNode(), TestNode())
      let first = try rendezvous.connect(from: "127.0.0.2")
      let second = try rendezvous.connect(from: "127.0.0.3")
      let (x, y) = (try first.enroll(a), try second.enroll(b))
      let operating = try rendezvous.connect(from: "127.0.0.9")
      let made = try operating.ask(
        bytes:
          #"{"admin_token":"operator","join_rule":"\#(rule)","name":"team","node_id":\#(x),"token":"","type":"create_network"}"#
      )
      #expect(made == #"{"type":"create_network_ok","network_id":1,"name":"team","enterprise":false}"#)
      if rule == "open" { #expect(try second.join(b, y, 1).text("type") == "join_network_ok") }
      try body(
        Team(
          rendezvous: rendezvous, admin: operating, owner: first, ownerNode: a, ownerID: x, member: second,
          memberNode: b, memberID: y))
    }
  }

  private struct Team {
    var rendezvous: Rendezvous
    /// A connection that has proven nothing.
    var admin: RegistrySocket
    var owner: RegistrySocket
    var ownerNode: TestNode
    var ownerID: UInt32
    var member: RegistrySocket
    var memberNode: TestNode
    var memberID: UInt32

    func role(of node: UInt32, as socket: RegistrySocket? = nil) throws -> ReplyText {
      try (socket ?? owner).ask(bytes: #"{"network_id":1,"target_node_id":\#(node),"type":"get_member_role"}"#)
    }
  }

  private static let noToken = #"{"type":"error","error":"cannot do this: admin token required"}"#

  @Test("members are promoted, demoted and removed with the token, never by a claimed node id, and never the owner")
  func roles() async throws {
    try await withTeam { (team) throws in
      let (x, y) = (team.ownerID, team.memberID)
      func request(_ type: String, _ target: UInt32, _ token: String = "operator", as node: UInt32 = 0) throws
        -> ReplyText
      {
        try team.admin.ask(
          bytes:
            #"{"admin_token":"\#(token)","network_id":1,"node_id":\#(node),"target_node_id":\#(target),"type":"\#(type)"}"#
        )
      }
      #expect(
        try team.role(of: y) == #"{"type":"get_member_role_ok","network_id":1,"target_node_id":\#(y),"role":"member"}"#)
      let promoted = #"{"type":"promote_member_ok","network_id":1,"target_node_id":\#(y),"role":"admin"}"#
      #expect(try request("promote_member", y) == promoted)
      #expect(try request("promote_member", y) == promoted, "repeated")
      #expect(try team.role(of: y).contains(#""role":"admin""#))
      #expect(
        try request("demote_member", y)
          == #"{"type":"demote_member_ok","network_id":1,"target_node_id":\#(y),"role":"member"}"#)
      for type in ["promote_member", "demote_member", "kick_member", "transfer_ownership"] {
        #expect(try request(type, y, "", as: x) == Self.noToken)
        #expect(try request(type, y, "guessed", as: x) == Self.noToken)
        #expect(try request(type, 77).contains("not a member"))
        if type != "transfer_ownership" { #expect(try request(type, x).contains("cannot")) }
      }
      #expect(
        try request("transfer_ownership", y) == #"{"type":"transfer_ownership_ok","network_id":1,"new_owner":\#(y)}"#)
      #expect(try team.role(of: x).contains(#""role":"admin""#))
      #expect(try team.role(of: y).contains(#""role":"owner""#))
      #expect(try request("kick_member", x) == #"{"type":"kick_member_ok","network_id":1,"target_node_id":\#(x)}"#)
      #expect(try request("kick_member", x).contains("not a member"))
      #expect(try team.member.ask("list_nodes", [("network_id", .integer(1))]).written.contains("\(x)") == false)
    }
  }

  @Test("strangers learn neither roles nor tags of members; members do, and whoever asks from the host of one")
  func sight() async throws {
    try await withTeam { (team) throws in
      let y = team.memberID
      let tagged = try team.admin.ask(
        bytes:
          #"{"admin_token":"operator","network_id":1,"tags":["svc","db"],"target_node_id":\#(y),"type":"set_member_tags"}"#
      )
      #expect(tagged == #"{"type":"set_member_tags_ok","network_id":1,"target_node_id":\#(y),"tags":["svc","db"]}"#)
      #expect(
        try team.admin.ask(
          bytes: #"{"admin_token":"","network_id":1,"tags":["x"],"target_node_id":\#(y),"type":"set_member_tags"}"#)
          == Self.noToken)
      #expect(
        try team.admin.ask(
          bytes:
            #"{"admin_token":"operator","network_id":1,"tags":["Not this"],"target_node_id":\#(y),"type":"set_member_tags"}"#
        )
        .contains("invalid tags"))
      let all = #"{"network_id":1,"type":"get_member_tags"}"#
      let one = #"{"network_id":1,"target_node_id":\#(y),"type":"get_member_tags"}"#
      #expect(
        try team.owner.ask(bytes: all)
          == #"{"type":"get_member_tags_ok","network_id":1,"members":{"\#(y)":["svc","db"]}}"#)
      #expect(
        try team.owner.ask(bytes: one)
          == #"{"type":"get_member_tags_ok","network_id":1,"target_node_id":\#(y),"tags":["svc","db"]}"#)
      // pilotctl asks on a connection of its own.
      let besideMember = try team.rendezvous.connect(from: "127.0.0.3")
      #expect(try besideMember.ask(bytes: one).contains("svc"))
      #expect(try team.role(of: y, as: besideMember).contains("member"))
      #expect(try team.role(of: team.ownerID, as: besideMember).contains("owner"))
      #expect(try team.admin.ask(bytes: all) == #"{"type":"get_member_tags_ok","network_id":1,"members":{}}"#)
      #expect(try team.admin.ask(bytes: one).contains(#""tags":[]"#))
      #expect(try team.role(of: y, as: team.admin) == Self.noToken)
      #expect(
        try team.owner.ask("list_nodes", [("network_id", .integer(1))]).written.contains(#""member_tags":["svc","db"]"#)
      )
    }
  }

  @Test("a network is renamed and deleted; its number is never given again, its members are nobody's any longer")
  func life() async throws {
    let rendezvous = try await Rendezvous.start()
    let client = try rendezvous.connect()
    let node = TestNode()
    let id = try client.enroll(node)
    func create(_ name: String, _ client: RegistrySocket) throws -> ReplyText {
      try client.ask(
        bytes:
          #"{"admin_token":"operator","join_rule":"open","name":"\#(name)","node_id":0,"token":"","type":"create_network"}"#
      )
    }
    _ = try create("one", client)
    _ = try create("two", client)
    #expect(try client.join(node, id, 2).text("type") == "join_network_ok")
    func rename(_ name: String, _ token: String = "operator") throws -> ReplyText {
      try client.ask(bytes: #"{"admin_token":"\#(token)","name":"\#(name)","network_id":2,"type":"rename_network"}"#)
    }
    #expect(try rename("zwei") == #"{"type":"rename_network_ok","network_id":2,"name":"zwei"}"#)
    #expect(try rename("zwei") == #"{"type":"rename_network_ok","network_id":2,"name":"zwei"}"#)
    #expect(try rename("one").contains("already exists"))
    #expect(try rename("backbone").contains("invalid"))
    #expect(try rename("drei", "x") == Self.noToken)
    let delete = #"{"admin_token":"operator","network_id":2,"type":"delete_network"}"#
    #expect(try client.ask(bytes: #"{"admin_token":"x","network_id":2,"type":"delete_network"}"#) == Self.noToken)
    #expect(
      try client.ask(bytes: #"{"admin_token":"operator","network_id":0,"type":"delete_network"}"#).contains("cannot"))
    #expect(try client.ask(bytes: delete) == #"{"type":"delete_network_ok","network_id":2}"#)
    #expect(try client.ask(bytes: delete).contains("not found"))
    #expect(try client.ask("lookup", [("node_id", .whole(id))])["networks"] == .list([.integer(0)]))
    await rendezvous.server.shutdown()
    let again = try await Rendezvous.start(in: rendezvous.directory)
    let second = try again.connect()
    #expect(try create("two", second).contains(#""network_id":3"#))
    #expect(try second.ask("list_networks").written.contains("zwei") == false)
    await again.remove()
  }

  @Test("a network's own token administers that network and no other")
  func networkToken() async throws {
    try await Rendezvous.running { rendezvous in
      let client = try rendezvous.connect(from: "127.0.0.9")
      for name in ["one", "two"] {
        _ = try client.ask(
          bytes:
            #"{"admin_token":"operator","join_rule":"open","name":"\#(name)","network_admin_token":"of-\#(name)","node_id":0,"token":"","type":"create_network"}"#
        )
      }
      func rename(_ id: Int) throws -> ReplyText {
        try client.ask(bytes: #"{"admin_token":"of-one","name":"new","network_id":\#(id),"type":"rename_network"}"#)
      }
      #expect(try rename(1).contains("rename_network_ok"))
      #expect(try rename(2) == Self.noToken)
      #expect(
        try client.ask("list_nodes", [("network_id", .integer(1)), ("admin_token", "of-one")]).written.contains("nodes")
      )
      #expect(
        try client.ask("list_nodes", [("network_id", .integer(0)), ("admin_token", "of-one")]).asText == Self.noToken)
      let label = #"{"admin_token":"of-one","enterprise":true,"network_id":1,"type":"set_network_enterprise"}"#
      #expect(try client.ask(bytes: label) == Self.noToken)
      let made = try client.ask(
        bytes:
          #"{"admin_token":"operator","join_rule":"invite","name":"firm","enterprise":true,"node_id":0,"token":"","type":"create_network"}"#
      )
      #expect(made == #"{"type":"create_network_ok","network_id":3,"name":"firm","enterprise":true}"#)
    }
  }

  // MARK: Policies

  @Test("a policy is set in part, answered to anyone, and limits who may join")
  func policy() async throws {
    try await withTeam { (team) throws in
      func set(_ members: String, _ token: String = "operator") throws -> ReplyText {
        try team.admin.ask(bytes: #"{"admin_token":"\#(token)"\#(members),"network_id":1,"type":"set_network_policy"}"#)
      }
      let whole = #""network_id":1,"max_members":2,"allowed_ports":[7,1002],"description":"hi there"}"#
      #expect(
        try set(#","allowed_ports":[7,1002],"description":"hi there","max_members":2"#)
          == #"{"type":"set_network_policy_ok","# + whole)
      #expect(try set("") == #"{"type":"set_network_policy_ok","# + whole)
      #expect(
        try team.admin.ask(bytes: #"{"network_id":1,"type":"get_network_policy"}"#)
          == #"{"type":"get_network_policy_ok","# + whole)
      #expect(try set("", "x") == Self.noToken)
      for malformed in [
        #","max_members":-1"#, #","max_members":"2""#, #","max_members":1e300"#, #","allowed_ports":[0]"#,
        #","allowed_ports":[65536]"#, #","allowed_ports":7"#, #","description":7"#,
        #","allowed_ports":[\#(Array(repeating: "1", count: 101).joined(separator: ","))]"#,
        #","description":"\#(String(repeating: "x", count: 257))""#,
      ] {
        #expect(try set(malformed).contains("invalid"), "\(malformed.prefix(40))")
      }
      let late = try team.rendezvous.connect(from: "127.0.0.4")
      let node = TestNode()
      let id = try late.enroll(node)
      #expect(try late.join(node, id, 1).text("error").contains("cannot join"))
      #expect(
        try set(#","max_members":0,"allowed_ports":[]"#).contains(
          #""allowed_ports":[],"description":"hi there","max_members":0"#))
      #expect(try late.join(node, id, 1).text("type") == "join_network_ok")
    }
  }

  @Test("documents go in as text and come out as objects: expression policies and rules of managed networks")
  func documents() async throws {
    try await withTeam { (team) throws in
      func set(_ document: String) throws -> ReplyText {
        try team.admin.ask(
          bytes: #"{"admin_token":"operator","expr_policy":\#(document),"network_id":1,"type":"set_expr_policy"}"#)
      }
      let get = #"{"network_id":1,"type":"get_expr_policy"}"#
      #expect(try team.owner.ask(bytes: get) == #"{"type":"get_expr_policy_ok","network_id":1}"#)
      #expect(
        try set(#""{\"version\":1,\"rules\":[{\"name\":\"a\",\"on\":\"join\"}]}""#)
          == #"{"type":"set_expr_policy_ok","network_id":1}"#)
      #expect(
        try team.owner.ask(bytes: get)
          == #"{"type":"get_expr_policy_ok","network_id":1,"expr_policy":{"version":1,"rules":[{"name":"a","on":"join"}]}}"#
      )
      #expect(try team.owner.ask("list_networks").written.contains(#""has_expr_policy":true"#))
      let deep = String(repeating: "[", count: 60) + String(repeating: "]", count: 60)
      for malformed in [
        #""{""#, #""[]""#, "7", #""{\"version\":2,\"rules\":[]}""#, #""{\"version\":1}""#,
        #""{\"version\":1,\"rules\":\#(deep)}""#,
        #""{\"version\":1,\"rules\":[\"\#(String(repeating: "x", count: 70_000))\"]}""#,
      ] {
        let answer = try set(malformed)
        #expect(answer.contains("invalid") || answer.contains("too long"), "\(malformed.prefix(40))")
      }
      #expect(try set(#""""#) == #"{"type":"set_expr_policy_ok","network_id":1,"cleared":true}"#)
      #expect(try team.owner.ask("list_networks").written.contains("has_expr_policy") == false)
      let managed = try team.admin.ask(
        bytes:
          #"{"admin_token":"operator","join_rule":"open","name":"mesh","node_id":0,"rules":"{\"links\":2,\"cycle\":\"1h\"}","token":"","type":"create_network"}"#
      )
      #expect(
        managed == #"{"type":"create_network_ok","network_id":2,"name":"mesh","enterprise":false,"managed":true}"#)
      #expect(try team.owner.ask("list_networks").written.contains(#""rules":{"cycle":"1h","links":2}"#))
      #expect(
        try team.owner.join(team.ownerNode, team.ownerID, 2).written.contains(#""rules":{"cycle":"1h","links":2}"#))
    }
  }

  // MARK: Invites

  @Test("an invite network lets in who was invited, and by the administrator's token")
  func invites() async throws {
    try await withTeam("invite") { (team) throws in
      let (x, y) = (team.ownerID, team.memberID)
      func invite(_ target: UInt32) throws -> ReplyText {
        try team.owner.signed(
          "invite_to_network", team.ownerNode, "invite:\(x):1:\(target)",
          [("inviter_id", .whole(x)), ("network_id", .integer(1)), ("target_node_id", .whole(target))]
        ).asText
      }
      func respond(_ accepts: Bool) throws -> ReplyText {
        try team.member.signed(
          "respond_invite", team.memberNode, "respond_invite:\(y):1",
          [("accept", .bool(accepts)), ("network_id", .integer(1)), ("node_id", .whole(y))]
        ).asText
      }
      func poll() throws -> JSONValue {
        try team.member.signed("poll_invites", team.memberNode, "poll_invites:\(y)", [("node_id", .whole(y))])
      }
      #expect(try team.member.join(team.memberNode, y, 1).text("error") == "cannot join: network 1 requires an invite")
      #expect(try respond(true).contains("not found"))
      #expect(try invite(77).contains("node not found"))
      #expect(try invite(y) == #"{"type":"invite_to_network_ok","network_id":1,"target_node_id":\#(y)}"#)
      #expect(try invite(y).contains(#""status":"already_invited""#))
      guard case .list(let waiting)? = try poll()["invites"] else { return }
      #expect(waiting.count == 1 && waiting[0].id("inviter_id") == x && waiting[0].network("network_id") == 1)
      #expect(try poll()["invites"] != .list([]), "reading does not clear")
      #expect(try respond(false) == #"{"type":"respond_invite_ok","network_id":1,"accepted":false}"#)
      #expect(try poll()["invites"] == .list([]))
      #expect(try invite(y).contains("status") == false)
      #expect(try respond(true) == #"{"type":"respond_invite_ok","network_id":1,"accepted":true}"#)
      #expect(try respond(true).contains(#""accepted":true"#), "repeated")
      #expect(try invite(y).contains("already in network"))
      // A plain member invites nobody, nor does one node in the name of another.
      let forged = try team.member.signed(
        "invite_to_network", team.memberNode, "invite:\(x):1:77",
        [("inviter_id", .whole(x)), ("network_id", .integer(1)), ("target_node_id", .integer(77))])
      #expect(forged.text("error") == "signature verification failed")
      let plain = try team.member.signed(
        "invite_to_network", team.memberNode, "invite:\(y):1:\(x)",
        [("inviter_id", .whole(y)), ("network_id", .integer(1)), ("target_node_id", .whole(x))])
      #expect(plain.text("error").contains("cannot invite"))
      let late = try team.rendezvous.connect(from: "127.0.0.4")
      let node = TestNode()
      let id = try late.enroll(node)
      let byToken = try team.admin.ask(
        bytes:
          #"{"admin_token":"operator","inviter_id":\#(x),"network_id":1,"target_node_id":\#(id),"type":"invite_to_network"}"#
      )
      #expect(byToken.contains("invite_to_network_ok"))
      #expect(try late.join(node, id, 1).text("type") == "join_network_ok")
    }
  }

  @Test("invites and whatever else a network has survive a restart; a month later an invite is over")
  func durable() async throws {
    let clock = TestClock()
    let rendezvous = try await Rendezvous.start { $0.clock = clock.milliseconds }
    let client = try rendezvous.connect()
    let node = TestNode()
    let id = try client.enroll(node)
    for (rule, name) in [("invite", "club"), ("open", "team")] {
      _ = try client.ask(
        bytes:
          #"{"admin_token":"operator","join_rule":"\#(rule)","name":"\#(name)","network_admin_token":"nt","node_id":0,"rules":"{\"links\":1}","token":"","type":"create_network"}"#
      )
    }
    _ = try client.join(node, id, 2)
    for request in [
      #"{"admin_token":"nt","inviter_id":0,"network_id":1,"target_node_id":\#(id),"type":"invite_to_network"}"#,
      #"{"admin_token":"nt","allowed_ports":[7],"description":"d","max_members":9,"network_id":2,"type":"set_network_policy"}"#,
      #"{"admin_token":"nt","expr_policy":"{\"version\":1,\"rules\":[]}","network_id":2,"type":"set_expr_policy"}"#,
      #"{"admin_token":"nt","network_id":2,"tags":["svc"],"target_node_id":\#(id),"type":"set_member_tags"}"#,
    ] { #expect(try client.ask(bytes: request).contains("_ok"), "\(request)") }
    await rendezvous.server.shutdown()
    let again = try await Rendezvous.start(in: rendezvous.directory) { $0.clock = clock.milliseconds }
    let second = try again.connect()
    _ = try second.enroll(node)
    func invited() throws -> ReplyText {
      try second.signed("poll_invites", node, "poll_invites:\(id)", [("node_id", .whole(id))]).asText
    }
    #expect(try invited().contains(#""inviter_id":0,"network_id":1"#))
    #expect(
      try second.ask(bytes: #"{"network_id":2,"type":"get_network_policy"}"#)
        .contains(#""allowed_ports":[7],"description":"d","max_members":9"#))
    #expect(try second.ask(bytes: #"{"network_id":2,"type":"get_expr_policy"}"#).contains(#"{"rules":[],"version":1}"#))
    #expect(try second.ask(bytes: #"{"network_id":2,"type":"get_member_tags"}"#).contains("svc"))
    #expect(try second.ask("list_networks").written.contains(#""rules":{"links":1}"#))
    #expect(
      try second.ask(bytes: #"{"admin_token":"nt","name":"club2","network_id":1,"type":"rename_network"}"#).contains(
        "_ok"))
    clock.advance(seconds: 31 * 86_400)
    _ = try second.enroll(node)
    #expect(try invited().contains(#""invites":[]"#))
    await again.remove()
  }
}
