// Trust in both directions, and the relay of handshakes.

import JSON
import Session
import Testing
import Wire

@testable import Rendezvous

@Suite struct TrustTests {
  private struct Pair {
    let a = TestNode()
    let b = TestNode()
    let first: RegistrySocket
    let second: RegistrySocket
    let x: UInt32
    let y: UInt32

    init(_ rendezvous: Rendezvous) throws {
      first = try rendezvous.connect(from: "127.0.0.2")
      second = try rendezvous.connect(from: "127.0.0.3")
      x = try first.enroll(a, listen: "0.0.0.0:4000")
      y = try second.enroll(b, listen: "0.0.0.0:4000")
    }

    func areTrusted(_ client: RegistrySocket? = nil) throws -> Bool {
      try (client ?? first).ask("check_trust", [("node_id", .whole(x)), ("peer_id", .whole(y))]).flag("trusted")
    }
  }

  @Test("trust needs the word of both ends, and either end can end it")
  func directions() async throws {
    try await Rendezvous.running { rendezvous in
      let pair = try Pair(rendezvous)
      #expect(try pair.first.reportTrust(pair.a, pair.x, in: pair.y).text("type") == "report_trust_ok")
      #expect(try pair.first.reportTrust(pair.a, pair.x, in: pair.y).text("type") == "report_trust_ok")
      #expect(try !pair.areTrusted())
      #expect(try pair.first.resolve(pair.a, pair.x, pair.y).text("error") == "request failed")
      #expect(try pair.second.reportTrust(pair.a, pair.y, in: pair.x).text("error") == "signature verification failed")
      #expect(try pair.second.reportTrust(pair.b, pair.y, in: pair.x).text("type") == "report_trust_ok")
      #expect(try pair.areTrusted())
      #expect(try pair.areTrusted(pair.second))
      // Who trusts whom is nobody else's business.
      #expect(try !pair.areTrusted(rendezvous.connect(from: "127.0.0.4")))
      let members: [(String, JSONValue)] = [("node_id", .whole(pair.y)), ("peer_id", .whole(pair.x))]
      let revoke = "revoke_trust:\(pair.y):\(pair.x)"
      #expect(try pair.second.signed("revoke_trust", pair.b, revoke, members).text("type") == "revoke_trust_ok")
      #expect(try !pair.areTrusted())
      // The other end alone cannot bring it back.
      _ = try pair.first.reportTrust(pair.a, pair.x, in: pair.y)
      #expect(try !pair.areTrusted())
      #expect(try pair.second.signed("revoke_trust", pair.b, revoke, members).text("type") == "revoke_trust_ok")
      #expect(try pair.second.signed("revoke_trust", pair.b, revoke, members).text("error").contains("not found"))
    }
  }

  @Test("nobody trusts himself or nobody")
  func oddReports() async throws {
    try await Rendezvous.running {
      $0.limits.reportsPerNode = 1
    } _: { rendezvous in
      let pair = try Pair(rendezvous)
      #expect(try pair.first.reportTrust(pair.a, pair.x, in: pair.x).text("error") == "cannot trust itself")
      #expect(try pair.first.reportTrust(pair.a, pair.x, in: 0).text("error").contains("not found"))
      let third = try pair.first.enroll(TestNode())
      _ = try pair.first.reportTrust(pair.a, pair.x, in: pair.y)
      #expect(try pair.first.reportTrust(pair.a, pair.x, in: third).text("error").contains("too many"))
    }
  }

  @Test("a handshake goes through the registry: asked, polled once, accepted, answered, trusted")
  func handshake() async throws {
    try await Rendezvous.running { rendezvous in
      let pair = try Pair(rendezvous)
      #expect(try pair.second.respond(pair.b, pair.y, to: pair.x, accept: true).text("error").contains("not found"))
      let asked = try pair.first.requestHandshake(pair.a, pair.x, to: pair.y, "want trust")
      #expect(asked.text("status") == "delivered")
      let again = try pair.first.requestHandshake(pair.a, pair.x, to: pair.y)
      #expect(again.text("error").contains("already pending"))
      let inbox = try pair.second.poll(pair.b, pair.y)
      guard case .list(let requests)? = inbox["requests"], let request = requests.first else {
        Issue.record("no request: \(inbox.written)")
        return
      }
      #expect(requests.count == 1)
      #expect(request.id("from_node_id") == pair.x)
      #expect(request.text("justification") == "want trust")
      #expect(try pair.second.poll(pair.b, pair.y)["requests"] == .list([]))
      #expect(try !pair.areTrusted())
      let accepted = try pair.second.respond(pair.b, pair.y, to: pair.x, accept: true)
      #expect(accepted.text("type") == "respond_handshake_ok")
      #expect(try pair.areTrusted())
      // A reply that got lost is asked for again.
      #expect(try pair.second.respond(pair.b, pair.y, to: pair.x, accept: true).text("type") == "respond_handshake_ok")
      let answer = try pair.first.poll(pair.a, pair.x)
      #expect(answer["responses"]?.written.contains("\"accept\":true,\"from_node_id\":\(pair.y)") == true)
      #expect(try pair.first.poll(pair.a, pair.x)["responses"] == .list([]))
      #expect(try pair.first.resolve(pair.a, pair.x, pair.y).text("real_addr") == "127.0.0.3:4000")
    }
  }

  @Test("a refusal makes no trust, and an accept after it needs a new request")
  func refusal() async throws {
    try await Rendezvous.running { rendezvous in
      let pair = try Pair(rendezvous)
      _ = try pair.first.requestHandshake(pair.a, pair.x, to: pair.y)
      #expect(try pair.second.respond(pair.b, pair.y, to: pair.x, accept: false)["accept"] == .bool(false))
      #expect(try pair.second.respond(pair.b, pair.y, to: pair.x, accept: true).text("error").contains("not found"))
      #expect(try !pair.areTrusted())
      #expect(try pair.first.poll(pair.a, pair.x)["responses"]?.written.contains("\"accept\":false") == true)
      #expect(try pair.first.requestHandshake(pair.a, pair.x, to: pair.y).text("status") == "delivered")
      #expect(try pair.second.respond(pair.b, pair.y, to: pair.x, accept: true).text("type") == "respond_handshake_ok")
      #expect(try pair.areTrusted())
    }
  }

  @Test("after a revocation an earlier accept cannot be used again")
  func revokedAccept() async throws {
    try await Rendezvous.running { rendezvous in
      let pair = try Pair(rendezvous)
      _ = try pair.first.requestHandshake(pair.a, pair.x, to: pair.y)
      _ = try pair.second.respond(pair.b, pair.y, to: pair.x, accept: true)
      let members: [(String, JSONValue)] = [("node_id", .whole(pair.y)), ("peer_id", .whole(pair.x))]
      _ = try pair.second.signed("revoke_trust", pair.b, "revoke_trust:\(pair.y):\(pair.x)", members)
      #expect(try pair.second.respond(pair.b, pair.y, to: pair.x, accept: true).text("type") == "error")
      // Overheard and repeated elsewhere, with a fresh request to go with it: refused.
      _ = try pair.first.requestHandshake(pair.a, pair.x, to: pair.y)
      let replay = try rendezvous.connect(from: "127.0.0.9").respond(pair.b, pair.y, to: pair.x, accept: true)
      #expect(replay.text("error").contains("another address"))
      #expect(try !pair.areTrusted())
    }
  }

  @Test("an inbox is bounded, and so is what a request says")
  func bounds() async throws {
    try await Rendezvous.running {
      $0.limits.inboxSize = 2
    } _: { rendezvous in
      let pair = try Pair(rendezvous)
      let long = String(repeating: "x", count: 1025)
      #expect(try pair.first.requestHandshake(pair.a, pair.x, to: pair.y, long).text("error").contains("too long"))
      #expect(try pair.first.requestHandshake(pair.a, pair.x, to: pair.x).text("error") == "cannot ask itself")
      #expect(try pair.first.requestHandshake(pair.a, pair.x, to: 9).text("error").contains("not found"))
      for _ in 0..<2 {
        let node = TestNode()
        #expect(try pair.first.requestHandshake(node, pair.first.enroll(node), to: pair.y).text("type") != "error")
      }
      #expect(try pair.first.requestHandshake(pair.a, pair.x, to: pair.y).text("error").contains("too many"))
      guard case .list(let requests)? = try pair.second.poll(pair.b, pair.y)["requests"] else { return }
      #expect(requests.count == 2)
      #expect(try pair.first.requestHandshake(pair.a, pair.x, to: pair.y).text("status") == "delivered")
    }
  }

  @Test("many handshake requests from one source are limited")
  func requestLimit() async throws {
    try await Rendezvous.running {
      $0.exemptSources = []
      $0.limits.handshakeRequestsPerMinute = 3
    } _: { rendezvous in
      let pair = try Pair(rendezvous)
      for _ in 0..<3 { _ = try pair.first.requestHandshake(pair.a, pair.x, to: pair.y) }
      #expect(try pair.first.requestHandshake(pair.a, pair.x, to: pair.y).text("error").contains("rate limited"))
    }
  }
}
