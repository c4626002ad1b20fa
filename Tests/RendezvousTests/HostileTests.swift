// Frames that are too long, too slow, too deep or no frames; clients that do not read; random requests.

import JSON
import SeededRandom
import Session
import Testing
import Wire

@testable import Rendezvous

@Suite struct HostileTests {
  @Test(
    "what is no frame closes the connection without an answer",
    arguments: [
      [0xFF, 0xFF, 0xFF, 0xFF], [0x00, 0x10, 0x00, 0x01], [0, 0, 0, 0], Array("GET / HTTP/1.1\r\n\r\n".utf8),
      [0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0], Array("PILT\u{1}".utf8), [0, 0, 0, 2, 0x5B, 0x5D], [0, 0, 0, 1, 0x31],
      [0, 0, 0, 3, 0x7B, 0xFF, 0x7D],
    ] as [[UInt8]])
  func noFrame(_ bytes: [UInt8]) async throws {
    try await Rendezvous.running { rendezvous in
      let client = try rendezvous.connect()
      try client.send(bytes)
      #expect(try client.reply() == nil)
      #expect(rendezvous.count(.framesMalformed) == 1)
      #expect(try rendezvous.connect().ask("beacon_list").text("type") == "beacon_list_ok")
    }
  }

  @Test("null counts as an empty request")
  func null() async throws {
    try await Rendezvous.running { rendezvous in
      let reply = try rendezvous.connect().ask(.null)
      #expect(reply.text("error") == "unknown message type")
    }
  }

  @Test("the largest frame passes, and nesting is bounded at 64")
  func bounds() async throws {
    try await Rendezvous.running { rendezvous in
      let client = try rendezvous.connect()
      let filler = String(repeating: "x", count: (1 << 20) - 40)
      var body = Array(#"{"type":"beacon_list","x":"\#(filler)"}"#.utf8)
      body += [UInt8](repeating: 0x20, count: (1 << 20) - body.count)
      try client.send(RegistrySocket.frame(body))
      #expect(try client.reply()?.text("type") == "beacon_list_ok")
      func nested(_ depth: Int) -> [UInt8] {
        Array((#"{"x":"# + String(repeating: "[", count: depth) + String(repeating: "]", count: depth) + "}").utf8)
      }
      try client.send(RegistrySocket.frame(nested(63)))
      #expect(try client.reply()?.text("error") == "unknown message type")
      try client.send(RegistrySocket.frame(nested(64)))
      #expect(try client.reply() == nil)
      let deep = try rendezvous.connect()
      try deep.send(RegistrySocket.frame([UInt8](repeating: UInt8(ascii: "["), count: 1 << 20)))
      #expect(try deep.reply() == nil)
    }
  }

  @Test("requests in one packet, and one request byte by byte, are answered in order")
  func streams() async throws {
    try await Rendezvous.running { rendezvous in
      let client = try rendezvous.connect()
      let ids = Array(1...200)
      let requests = ids.map { JSONValue.object(of: [("type", "lookup"), ("node_id", .whole($0))]) }
      try client.send(requests.flatMap { RegistrySocket.frame($0.encoded) })
      for id in ids { #expect(try client.reply()?.text("error") == "node \(id): node not found") }
      for byte in RegistrySocket.frame(requests[0].encoded) { try client.send([byte]) }
      #expect(try client.reply()?.text("error") == "node 1: node not found")
    }
  }

  @Test("an unfinished frame is waited for a limited time, also when bytes keep trickling in")
  func slowFrame() async throws {
    try await Rendezvous.running {
      $0.limits.unfinishedFrameTime = 0.3
    } _: { rendezvous in
      let client = try rendezvous.connect()
      try client.send([0, 0, 0, 100])
      for _ in 0..<20 {
        do { try client.send([0x20]) } catch { break }
        try await Task.sleep(for: .milliseconds(50))
      }
      #expect(try client.reply() == nil)
      #expect(rendezvous.count(.framesUnfinished) == 1)
    }
  }

  @Test("an idle connection is closed, also one that never said anything")
  func idle() async throws {
    try await Rendezvous.running {
      $0.limits.idleTime = 0.2
    } _: { rendezvous in
      let silent = try rendezvous.connect()
      let client = try rendezvous.connect()
      #expect(try client.ask("beacon_list").text("type") == "beacon_list_ok")
      #expect(try client.reply() == nil)
      #expect(try silent.reply() == nil)
    }
  }

  @Test("a client that does not read its replies is closed")
  func notReading() async throws {
    try await Rendezvous.running {
      $0.limits.writeTime = 0.3
    } _: { rendezvous in
      let client = try rendezvous.connect()
      let request = RegistrySocket.frame(Array(#"{"type":"list_networks"}"#.utf8))
      let many = Array(repeatElement(request, count: 2000).joined())
      for _ in 0..<200 {
        do { try client.send(many) } catch { break }
      }
      try await rendezvous.eventually("closed") { rendezvous.count(.clientsNotReading) == 1 }
      #expect(try rendezvous.connect().ask("beacon_list").text("type") == "beacon_list_ok")
    }
  }

  @Test("connections of one source are limited, and leave room again")
  func connectionLimit() async throws {
    try await Rendezvous.running {
      $0.exemptSources = []
      $0.limits.connectionsPerSource = 3
    } _: { rendezvous in
      do {
        let clients = try (0..<3).map { _ in try rendezvous.connect(from: "127.0.0.2") }
        for client in clients { #expect(try client.ask("beacon_list").text("type") == "beacon_list_ok") }
        #expect(try rendezvous.connect(from: "127.0.0.2").reply() == nil)
        #expect(try rendezvous.connect(from: "127.0.0.3").ask("beacon_list").text("type") == "beacon_list_ok")
      }
      try await rendezvous.eventually("room again") {
        guard let client = try? rendezvous.connect(from: "127.0.0.2") else { return false }
        let request = RegistrySocket.frame(Array(#"{"type":"beacon_list"}"#.utf8))
        return (try? client.send(request)) != nil && (try? client.reply()) != nil
      }
    }
  }

  @Test("long unfinished frames share a bounded room")
  func frameRoom() async throws {
    try await Rendezvous.running {
      $0.limits.unfinishedBytes = 1 << 20
    } _: { rendezvous in
      let body = Array(#"{"type":"beacon_list"}"#.utf8) + [UInt8](repeating: 0x20, count: (600 << 10) - 22)
      let frame = RegistrySocket.frame(body)
      let both = [try rendezvous.connect(), try rendezvous.connect()]
      for client in both { try client.send(Array(frame.prefix(10))) }
      // Whichever came second is closed; the other one may finish.
      let closed = try #require(RegistrySocket.firstReadable(both), "both were let in")
      #expect(try both[closed].reply() == nil)
      let kept = both[1 - closed]
      try kept.send(Array(frame.dropFirst(10)))
      #expect(try kept.reply()?.text("type") == "beacon_list_ok")
      // The frame that ended has given its room back.
      let third = try rendezvous.connect()
      try third.send(frame)
      #expect(try third.reply()?.text("type") == "beacon_list_ok")
      #expect(rendezvous.count(.framesMalformed) == 1)
    }
  }

  @Test("lookups of one source are limited")
  func lookupLimit() async throws {
    try await Rendezvous.running {
      $0.exemptSources = []
      $0.limits.lookupsPerSecond = 5
    } _: { rendezvous in
      let client = try rendezvous.connect()
      let replies = try (0..<20).map { try client.ask("lookup", [("node_id", .whole($0))]).text("error") }
      #expect(replies.contains { $0.contains("rate limited") })
      #expect(replies[0].contains("not found"))
    }
  }

  @Test("random requests with members of every kind get exactly one reply each")
  func randomRequests() async throws {
    let seed = UInt64.random(in: 0...UInt64.max)
    for seed in [1, seed] {
      try await Rendezvous.running {
        $0.networks = [.init(name: "team", token: nil)]
      } _: { rendezvous in
        var random = SeededGenerator(seed: seed)
        let node = TestNode()
        let client = try rendezvous.connect()
        let id = try client.enroll(node)
        let types = [
          "register", "heartbeat", "deregister", "rotate_key", "get_key_info", "lookup", "resolve", "resolve_hostname",
          "set_hostname", "set_visibility", "set_tags", "punch", "report_trust", "revoke_trust", "check_trust",
          "request_handshake", "poll_handshakes", "respond_handshake", "list_networks", "create_network",
          "join_network", "leave_network", "list_nodes", "get_network_policy", "get_member_tags", "get_expr_policy",
          "beacon_list",
        ]
        let names = [
          "node_id", "peer_id", "requester_id", "from_node_id", "to_node_id", "network_id", "hostname", "tags",
          "public_key", "new_public_key", "signature", "listen_addr", "lan_addrs", "token", "admin_token", "accept",
        ]
        func value(_ depth: Int) -> JSONValue {
          switch Int.random(in: 0..<12, using: &random) {
          case 0: .null
          case 1: .bool(Bool.random(using: &random))
          case 2: .integer(Int64.random(in: .min ... .max, using: &random))
          case 3: .number(Double.random(in: -1e300...1e300, using: &random))
          case 4: .whole(id)
          case 5: .text(node.key)
          case 6: node.sign("heartbeat:\(id)")
          case 7: "operator"
          case 8: .text(String(repeating: "é\"\\\u{0}", count: Int.random(in: 0..<50, using: &random)))
          case 9 where depth < 4: .list((0..<3).map { _ in value(depth + 1) })
          case 10 where depth < 4: .object(of: [("x", value(depth + 1))])
          default: .integer(1)
          }
        }
        for _ in 0..<400 {
          var members: [(String, JSONValue)] = [("type", .text(types.randomElement(using: &random) ?? ""))]
          for _ in 0..<Int.random(in: 0..<8, using: &random) {
            members.append((names.randomElement(using: &random) ?? "", value(0)))
          }
          let reply = try client.ask(.object(of: members))
          let type = reply.text("type")
          #expect(type == "error" || type.hasSuffix("_ok"), "seed \(seed)")
        }
        #expect(try rendezvous.connect().heartbeat(node, id).text("type") == "heartbeat_ok", "seed \(seed)")
      }
    }
  }

  @Test("random bytes never hang or stop the server")
  func randomBytes() async throws {
    let chosen = UInt64.random(in: 0...UInt64.max)
    try await Rendezvous.running {
      $0.limits.unfinishedFrameTime = 0.2
    } _: { rendezvous in
      for seed in [7, chosen] {
        var random = SeededGenerator(seed: seed)
        for _ in 0..<30 {
          let client = try rendezvous.connect()
          let body = (0..<Int.random(in: 1..<200, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random)
          }
          try client.send(RegistrySocket.frame(body))
          #expect(try client.reply() == nil, "seed \(seed)")
        }
      }
      #expect(try rendezvous.connect().ask("beacon_list").text("type") == "beacon_list_ok")
    }
  }
}
