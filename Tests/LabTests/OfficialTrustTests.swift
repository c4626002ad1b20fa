// Trust between a node and an official agent: asked, given and withdrawn on either side, seen the same on both.

import Foundation
import Testing

extension KernelTests {
  @Suite(
    "Trust with official agents",
    .enabled(if: Official.isThere, "the official programs are not here: scripts/setup --interop installs them"))
  struct OfficialTrustTests {
    /// Whether `pilotctl trust` of the agent names the node.
    private func trusts(_ agent: OfficialAgent, _ node: LabNode) throws -> Bool {
      try JSON(parsing: agent.ctl("--json", "trust").orThrow().output)["data"]["trusted"].list
        .contains { $0["node_id"].number == Int(node.nodeID) }
    }

    private func trusts(_ node: LabNode, _ address: String) throws -> Bool {
      try JSON(parsing: node.tun("trust", "list", "--json").orThrow().output)["data"].description.contains(address)
        && node.tun("trust", "list").orThrow().output.split(separator: "\n").contains {
          $0.contains(address) && $0.contains("trusted")
        }
    }

    private func expectSoon(_ what: String, within seconds: Double = 20, _ condition: () throws -> Bool) throws {
      _ = try eventually(what, within: seconds) { try condition() ? true : nil }
    }

    @Test(
      "an official agent asks, we approve; it withdraws, and the tunnel is cut within 2 s; private and public ones",
      arguments: [[], ["--public"]] as [[String]])
    func asked(flags: [String]) throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha", flags)
        let agent = try OfficialAgent("official", flags, in: fleet)
        let (address, ipv6) = (try agent.address(), try agent.ipv6())
        _ = try agent.ctl("handshake", node.address, "let me in").orThrow()
        try expectSoon("the request is there") {
          try node.tun("trust", "pending").orThrow().output.contains("let me in")
        }
        try node.tun("trust", "approve", address).orThrow()
        try expectSoon("the agent knows that it is trusted") { try trusts(agent, node) }
        #expect(try trusts(node, address))
        _ = try node.tun("ping", address, "--count", "1", within: 20).orThrow()
        let ping = try agent.ctl("ping", node.address, "--count", "1").orThrow()
        #expect(ping.output.contains("time="), "\(ping)")
        try node.waitForPing(ipv6)

        _ = try agent.ctl("untrust", node.address).orThrow()
        try expectSoon("the withdrawal is known here", within: 2) { try !trusts(node, address) }
        guard flags.isEmpty else { return }
        let silent = try node.run(["ping", "-c", "2", "-i", "0.3", "-W", "1", ipv6])
        #expect(silent.output.contains(" 0 received"), "\(silent)")
      }
    }

    @Test("we ask, the official agent approves; we withdraw, and it knows within 2 s")
    func asking() throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha", [])
        let agent = try OfficialAgent("official", [], in: fleet)
        let address = try agent.address()
        try node.tun("trust", "request", address, "a test").orThrow()
        try expectSoon("the request is there", within: 70) {
          try agent.ctl("pending").orThrow().output.contains("\(node.nodeID)")
        }
        _ = try agent.ctl("approve", "\(node.nodeID)").orThrow()
        try expectSoon("we know that we are trusted") { try trusts(node, address) }
        #expect(try trusts(agent, node))
        try node.waitForPing(try agent.ipv6())

        try node.tun("trust", "revoke", address).orThrow()
        try expectSoon("the agent knows that trust is withdrawn", within: 2) { try !trusts(agent, node) }
        #expect(try !trusts(node, address))
      }
    }
  }
}
