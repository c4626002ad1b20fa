// Underlay links that take less than a packet of the interface's MTU, and less than two halves of 1280 bytes would
// need whole: what programs send arrives all the same. The links are the nodes' own, so the kernel refuses what is too
// large.

import Testing

extension KernelTests {
  @Suite("Small paths")
  struct SmallPathTests {
    /// Two nodes whose own links take `mtu` bytes.
    private func pair(_ fleet: Fleet, mtu: Int, _ flags: [String] = ["--public"]) throws -> (LabNode, LabNode) {
      let nodes = try ["alpha", "beta"].map { try fleet.node($0, flags, isStarted: false) }
      for (index, node) in nodes.enumerated() {
        try fleet.router.command("ip link set net\(index + 2) mtu \(mtu)")
        try node.namespace.command("ip link set eth0 mtu \(mtu)")
      }
      for node in nodes { try node.start() }
      return (nodes[0], nodes[1])
    }

    @Test(
      "pings and datagrams of every size and 16 MiB of TCP pass links of 1400, 1280, 1200 and 720 bytes",
      arguments: [1400, 1280, 1200, 720])
    func direct(mtu: Int) throws {
      try Fleet.with { fleet in
        let (alpha, beta) = try pair(fleet, mtu: mtu)
        try exchange(alpha, beta, inner: mtu - 28 - 36)
      }
    }

    @Test("the same through the relay, which has 9 bytes of its own", arguments: [1280, 1200])
    func relayed(mtu: Int) throws {
      try Fleet.with { fleet in
        let (alpha, beta) = try pair(fleet, mtu: mtu, ["--public", "--relay-only"])
        try exchange(alpha, beta, inner: mtu - 28 - 36 - 9)
      }
    }

    /// `inner`: the largest inner frame that the links take.
    private func exchange(_ alpha: LabNode, _ beta: LabNode, inner: Int) throws {
      try alpha.waitForPing(beta.ipv6)
      // The first packet of full size, each way, is what tells the size; it is lost.
      for (node, other) in [(alpha, beta), (beta, alpha)] {
        _ = try node.run(["ping", "-M", "do", "-c", "1", "-W", "1", "-s", "1352", other.ipv6])
        _ = try eventually("\(node.name) has adapted", within: 10) {
          let ping = try node.run(["ping", "-M", "do", "-c", "1", "-W", "1", "-s", "1232", other.ipv6])
          return ping.isSuccess ? true : nil
        }
        _ = try eventually("\(node.name) knows the size to the byte", within: 15) {
          try node.peer(other)["path_mtu"].number == inner ? true : nil
        }
      }
      let lost = try alpha.drops("path-too-small") + beta.drops("path-too-small")
      #expect(lost > 0)
      let largest = max(inner, 1280)
      let sweep = try alpha.run(Tools.python("ping_sweep", beta.ipv6, "0", "\(largest)"), within: 60)
      #expect(sweep.isSuccess, "\(sweep)")
      let above = try alpha.run(["ping", "-M", "do", "-c", "1", "-W", "2", "-s", "\(largest - 47)", beta.ipv6])
      let words = above.output + above.errors
      #expect(!above.isSuccess && (words.contains("mtu: \(largest)") || words.contains("mtu=\(largest)")), "\(above)")
      let echo = try beta.helper(Tools.python("udp_echo", beta.ipv6, "5002"))
      let datagrams = try alpha.run(Tools.python("udp_sweep", beta.ipv6, "5002", "1", "1232"), within: 60)
      #expect(datagrams.isSuccess, "\(datagrams)")
      echo.end()
      for (server, client) in [(beta, alpha), (alpha, beta)] {
        let program = try server.helper(Tools.python("tcp_serve", server.ipv6, "5001", "16777216"))
        let fetch = try client.run(Tools.python("tcp_fetch", server.ipv6, "5001"), within: 60).orThrow()
        #expect(fetch.output.contains("the content is right"))
        program.end()
      }
      for node in [alpha, beta] {
        let split = try node.counter("split-packets")
        #expect((split > 0) == (inner < 1280), "\(split)")
        #expect(try node.drops("part-alone") == 0)
        #expect(try node.drops("inner-malformed") == 0)
      }
      // Nothing but the packets that told the size was lost, and the search's probes just above it.
      #expect(try alpha.drops("path-too-small") + beta.drops("path-too-small") <= lost + 12)
    }

    @Test(
      "streams of programs to an official agent pass a way of 1200 bytes, whether our own link or a silent router makes it",
      .enabled(if: Official.isThere, "the official programs are not here: scripts/setup --interop installs them"),
      arguments: [false, true])
    func official(isSilent: Bool) throws {
      try Fleet.with { fleet in
        // The router's rule sees a train of datagrams as one long packet.
        let environment = isSilent ? ["PILOT_TUN_DISABLE_OFFLOADS": "udp-gso"] : [:]
        let node = try fleet.node("alpha", environment: environment, isStarted: false)
        if !isSilent {
          try fleet.router.command("ip link set net2 mtu 1200")
          try node.namespace.command("ip link set eth0 mtu 1200")
        }
        try node.start()
        let agent = try OfficialAgent("official", ["--public"], in: fleet)
        let server = try fleet.lab.start(
          in: agent.namespace, agent.streams(["serve"]), environment: agent.environment)
        try server.waitForLine(containing: "ready")
        if isSilent {
          // What the official daemon sends passes: it never learns of silent routers.
          try fleet.router.command("nft add table inet lab")
          try fleet.router.run(["nft", "add chain inet lab forward { type filter hook forward priority 0 ; }"])
            .orThrow()
          try fleet.router.command(
            "nft add rule inet lab forward ip saddr \(node.underlay) ip daddr \(agent.underlay) ip length > 1200 drop")
        }
        // The connection begins while nobody knows the size: what was sent too large is sent again in parts.
        let sent = try node.run(Tools.python("streams", "put", "2000000", "8002", "socket", agent.ipv6), within: 60)
        #expect(sent.isSuccess, "\(sent)")
        try server.waitForLine(containing: "sink 2000000")
        let limit = 1200 - 28 - 36
        #expect(try (limit - 8...limit).contains(node.peer(agent)["path_mtu"].number))
        if !isSilent {
          let echoed = try node.run(
            Tools.python("streams", "echo", "1000000", "8001", "socket", agent.ipv6), within: 60)
          #expect(echoed.isSuccess, "\(echoed)")
        }
      }
    }

    @Test("our datagrams are never fragmented: what a link does not take is refused, on IPv4 and IPv6")
    func noFragments() throws {
      try Fleet.with { fleet in
        let (alpha, beta) = try pair(fleet, mtu: 1280)
        try alpha.waitForPing(beta.ipv6)
        for _ in 0..<3 { _ = try alpha.run(["ping", "-M", "do", "-c", "1", "-W", "1", "-s", "1352", beta.ipv6]) }
        for node in [alpha, beta] {
          let counters = try node.namespace.run(["cat", "/proc/net/snmp", "/proc/net/snmp6"]).orThrow().output
          let lines = counters.split(separator: "\n").map { $0.split(whereSeparator: \.isWhitespace) }
          let ip = lines.filter { $0.first == "Ip:" }
          let column = try #require(ip.first?.firstIndex(of: "FragCreates"))
          #expect(ip.count == 2 && ip[1][column] == "0")
          #expect(lines.first { $0.first == "Ip6FragCreates" }?.last == "0")
        }
        #expect(try alpha.drops("path-too-small") > 0)
      }
    }
  }
}
