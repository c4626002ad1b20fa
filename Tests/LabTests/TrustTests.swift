// Private by default: who gets in, who is told no, and what changes that.

import Foundation
import Testing

extension KernelTests {
  @Suite("Trust")
  struct TrustTests {
    @Test("an untrusted peer is told at once that it is prohibited; after mutual trust packets pass; revoked, no more")
    func privateByDefault() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha", [])
        let beta = try fleet.node("beta", [])
        let refused = try alpha.run(["ping", "-c", "1", "-W", "5", beta.ipv6])
        #expect(!refused.isSuccess && refused.output.contains("Administratively prohibited"), "\(refused)")
        let why = try alpha.tun("status").orThrow().output
        #expect(why.contains("without mutual trust"), "status says why: \(why)")
        #expect(try alpha.drops("destination-prohibited") > 0)

        let asked = try alpha.tun("trust", "request", beta.address, "a test").orThrow().output
        #expect(asked.contains("pilot-tun trust approve \(alpha.address)"), "to be passed on: \(asked)")
        let pending = try eventually("the request arrives", within: 15) {
          let pending = try beta.tun("trust", "pending").orThrow().output
          return pending.contains("a test") ? pending : nil
        }
        #expect(pending.contains("\(alpha.nodeID)") || pending.contains(alpha.address), "\(pending)")
        let early = try alpha.tun("ping", beta.address)
        #expect(
          !early.isSuccess && early.errors.contains("not approved")
            && early.errors.contains("pilot-tun trust approve \(alpha.address)"), "\(early)")
        try beta.tun("trust", "approve", alpha.address).orThrow()
        // At once: the approval may still be on its way.
        try alpha.tun("ping", beta.address, "--count", "1").orThrow()
        try alpha.waitForPing(beta.ipv6)
        try beta.waitForPing("alpha.pilot")
        #expect(try alpha.tun("trust", "list").orThrow().output.contains(beta.address))

        try beta.tun("trust", "revoke", alpha.address).orThrow()
        _ = try eventually("the revoked peer is told that it is prohibited", within: 10) {
          let ping = try alpha.run(["ping", "-c", "1", "-W", "1", beta.ipv6])
          return !ping.isSuccess && ping.output.contains("Administratively prohibited") ? true : nil
        }
        let revoked = try alpha.run(["ping", "-c", "3", "-i", "0.3", "-W", "2", beta.ipv6])
        #expect(revoked.output.contains("Administratively prohibited"), "\(revoked)")
        #expect(revoked.output.contains(" 0 received"), "it stays so: \(revoked)")
      }
    }

    @Test("two nodes are introduced by the lines of docs/getting-started.md, and find each other by name from then on")
    func introducedAsDocumented() throws {
      try Fleet.with { fleet in
        let hub = try fleet.node("hub", [])
        let papers = try fleet.node("papers", [])
        let byName = try papers.tun("trust", "request", "hub")
        #expect(
          byName.status == 1 && byName.errors.contains("use its address"), "strangers do not see names: \(byName)")

        let page = try String(
          contentsOf: URL(filePath: #filePath).deletingLastPathComponent().appending(
            path: "../../docs/getting-started.md"), encoding: .utf8)
        let section = try #require(page.components(separatedBy: "## 3. Introduce them").dropFirst().first)
        let lines = section.components(separatedBy: "```").dropFirst().first?.split(separator: "\n") ?? []
        #expect(lines.count == 4)
        for line in lines {
          let (prompt, command) = try #require(line.firstIndex(of: "$").map { (line[..<$0], line[$0...].dropFirst()) })
          // What stands in quotes is one word; what comes after `#` is said to the reader.
          let words = command.split(separator: "#")[0].components(separatedBy: "\"").enumerated().flatMap {
            $0 % 2 == 1 ? [$1] : $1.split(separator: " ").map(String.init)
          }.map { ["0:0000.23C4.55F0": hub.address, "0:0000.1A2B.3C4D": papers.address][$0] ?? $0 }
          #expect(words.first == "pilot-tun")
          let node = prompt == "hub" ? hub : papers
          try node.namespace.run(
            [Tools.tun] + words.dropFirst(), environment: ["PILOT_TUN_CONTROL_SOCKET": node.socket], within: 30
          ).orThrow()
        }
        _ = try eventually("it answers by name", within: 10) { try papers.tun("ping", "hub").isSuccess ? true : nil }
        try hub.waitForPing("papers.pilot")
        try papers.waitForPing("hub.pilot")
      }
    }

    @Test("a peer that is let in by nobody reaches no port, and the drop is counted where it arrives")
    func countedWhereItArrives() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha", ["--public"])
        let beta = try fleet.node("beta", ["--public"])
        try alpha.waitForPing(beta.ipv6)
        // Beta comes back private; alpha still has its record and its session.
        beta.stop()
        beta.flags = []
        try beta.start()
        let refused = try alpha.run(["ping", "-c", "3", "-i", "0.3", "-W", "3", beta.ipv6])
        #expect(!refused.isSuccess && refused.output.contains("Administratively prohibited"), "\(refused)")
        // The answer alone could be alpha's own: beta has to have seen the packet and dropped it.
        #expect(try beta.drops("not-trusted") > 0)
        #expect(try beta.counter("icmp-answers") > 0)
      }
    }

    @Test("--trust-auto-approve says yes to whoever asks")
    func autoApprove() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha", [])
        let beta = try fleet.node("beta", ["--trust-auto-approve"])
        try alpha.tun("trust", "request", beta.address).orThrow()
        try alpha.waitForPing("beta.pilot")
      }
    }

    @Test("members of a network are reached at their address in it, without any handshake")
    func sharedNetwork() throws {
      try Fleet.with(rendezvousFlags: ["--network", "fleet:open"]) { fleet in
        let flags = ["--network", "1"]
        let alpha = try fleet.node("alpha", flags)
        let beta = try fleet.node("beta", flags)
        try alpha.waitForPing(beta.ipv6)
        try beta.waitForPing("alpha.pilot")
      }
    }

    @Test("a peer whose key differs from the pinned one is refused until the operator accepts it, and status says so")
    func changedKey() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let beta = try fleet.node("beta")
        try alpha.waitForPing(beta.ipv6)
        beta.stop()
        // The pin of another key under alpha's node id, as if alpha's identity had been replaced.
        let path = beta.stateDirectory + "/peers.json"
        var book = try #require(
          JSONSerialization.jsonObject(with: Data(contentsOf: URL(fileURLWithPath: path))) as? [String: Any])
        var peers = try #require(book["peers"] as? [String: Any])
        var entry = try #require(peers["\(alpha.nodeID)"] as? [String: Any], "beta has pinned alpha: \(peers)")
        entry["key"] = Data((0..<32).map { UInt8($0) }).base64EncodedString()
        peers["\(alpha.nodeID)"] = entry
        book["peers"] = peers
        try JSONSerialization.data(withJSONObject: book).write(to: URL(fileURLWithPath: path))
        try beta.start()

        #expect(try !beta.run(["ping", "-c", "2", "-i", "0.3", "-W", "2", alpha.ipv6]).isSuccess)
        #expect(try !alpha.run(["ping", "-c", "2", "-i", "0.3", "-W", "2", beta.ipv6]).isSuccess)
        let status = try beta.tun("status").orThrow().output
        #expect(status.contains("key"), "status says why: \(status)")
        let lines = try #require(beta.program).errorText.split(separator: "\n").filter { $0.contains("key") }
        #expect(lines.count == 1, "logged once, not per packet: \(lines)")

        try beta.tun("trust", "accept-key", alpha.address).orThrow()
        try beta.waitForPing(alpha.ipv6)
        try alpha.waitForPing(beta.ipv6)
      }
    }
  }
}
