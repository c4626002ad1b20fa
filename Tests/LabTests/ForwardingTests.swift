// A machine behind a node reaches the overlay through it: packets that come from another interface and carry
// checksums of another kind. And the same traffic with each offload refused.

import Testing

extension KernelTests {
  @Suite("Forwarding and offloads")
  struct ForwardingTests {
    @Test("packets forwarded from another interface arrive with right checksums", arguments: ["on", "off"])
    func forwarding(checksumOffload: String) throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let beta = try fleet.node("beta")
        let laptop = try fleet.lab.namespace("laptop")
        try fleet.lab.cable(alpha.namespace, "lan", laptop, "eth0")
        try alpha.namespace.command("ip address add fd99::1/64 dev lan nodad")
        try laptop.command("ip address add fd99::2/64 dev eth0 nodad")
        try laptop.command("ip route add fd50:494c:4f54::/48 via fd99::1")
        // With `tx off` the laptop computes checksums itself: the TUN gets complete ones instead of partial ones.
        try laptop.command("ethtool -K eth0 tx \(checksumOffload)")
        try alpha.namespace.command("sysctl -qw net.ipv6.conf.all.forwarding=1")
        try alpha.namespace.command("nft add table ip6 lab")
        try alpha.namespace.run([
          "nft", "add chain ip6 lab post { type nat hook postrouting priority 100 ; }",
        ]).orThrow()
        try alpha.namespace.command("nft add rule ip6 lab post oifname pilot0 masquerade")

        _ = try beta.helper(Tools.python("tcp_serve", beta.ipv6, "5001", "4194304"))
        let fetch = try laptop.run(Tools.python("tcp_fetch", beta.ipv6, "5001"), within: 40)
        #expect(fetch.isSuccess, "\(fetch)")
        _ = try beta.helper(Tools.python("udp_echo", beta.ipv6, "5002"))
        let sweep = try laptop.run(Tools.python("udp_sweep", beta.ipv6, "5002", "1", "1352"), within: 60)
        #expect(sweep.isSuccess, "\(sweep)")
        let ping = try laptop.run(["ping", "-c", "2", "-i", "0.2", "-W", "2", beta.ipv6])
        #expect(ping.isSuccess, "\(ping)")
        let counters = try beta.namespace.command("nstat -asz Udp6InCsumErrors Icmp6InCsumErrors TcpInCsumErrors")
        let errors = counters.split(separator: "\n").filter { $0.contains("CsumErrors") }
        let isClean = errors.allSatisfy { $0.split(separator: " ").dropFirst().first == "0" }
        #expect(errors.count == 3 && isClean, "\(counters)")
      }
    }

    @Test(
      "everything works with an offload refused, and status says which and why",
      arguments: [
        "tun-csum", "tun-tso", "tun-uso", "udp-gso", "udp-gro", "tun-vnet",
        "tun-csum,tun-tso,tun-uso,udp-gso,udp-gro,tun-vnet",
      ])
    func offloads(refused: String) throws {
      try Fleet.with { fleet in
        let environment = ["PILOT_TUN_DISABLE_OFFLOADS": refused]
        let alpha = try fleet.node("alpha", environment: environment)
        let beta = try fleet.node("beta")
        for name in refused.split(separator: ",") {
          let state = try alpha.status()["offloads"][String(name)]
          #expect(!state.isMissing && !state["on"].isTrue, "\(name): \(state)")
          #expect(!state["reason"].text.isEmpty, "\(name): \(state)")
        }
        for (server, client) in [(beta, alpha), (alpha, beta)] {
          let program = try server.helper(Tools.python("tcp_serve", server.ipv6, "5001", "4194304"))
          let fetch = try client.run(Tools.python("tcp_fetch", server.ipv6, "5001"), within: 40)
          #expect(fetch.isSuccess, "\(fetch)")
          program.end()
        }
        _ = try beta.helper(Tools.python("udp_echo", beta.ipv6, "5002"))
        let sweep = try alpha.run(Tools.python("udp_sweep", beta.ipv6, "5002", "1200", "1372"), within: 60)
        #expect(sweep.isSuccess, "\(sweep)")
      }
    }
  }
}
