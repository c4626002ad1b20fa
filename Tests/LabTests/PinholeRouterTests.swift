// The firewall of a router for IPv6, opened by PCP: miniupnpd, as home routers run it, with nft rules that let in answers
// only.

import Foundation
import Testing

extension KernelTests {
  @Suite("Pinholes in firewalls")
  struct PinholeRouterTests {
    /// net1 leads outside, net2 to the node.
    private static let rules = """
      table inet filter {
        chain miniupnpd {
        }
        chain prerouting_miniupnpd {
        }
        chain postrouting_miniupnpd {
        }
        chain forward {
          type filter hook forward priority 0; policy accept;
          meta nfproto ipv4 accept
          iifname net1 ct state established,related accept
          iifname net1 jump miniupnpd
          iifname net1 drop
        }
      }
      """
    private static let settings = """
      ext_ifname=net1
      ext_ip=11.22.33.44
      listening_ip=net2
      enable_natpmp=yes
      enable_upnp=no
      uuid=00000000-0000-0000-0000-000000000001
      allow 1024-65535 10.77.2.0/24 1024-65535

      """
    /// The same address, as a person and as nft writes it.
    private static func address(_ last: String) -> (text: String, rule: String) {
      ("2001:db8:0:2::\(last)", "0x20010db800000002" + String(repeating: "0", count: 16 - last.count) + last)
    }

    private func openRouter(_ fleet: Fleet) throws -> Program {
      let folder = fleet.lab.directory
      try Self.rules.write(toFile: folder + "/pinhole.nft", atomically: false, encoding: .utf8)
      try Self.settings.write(toFile: folder + "/pinhole.conf", atomically: false, encoding: .utf8)
      try fleet.router.command("nft -f \(folder)/pinhole.nft")
      for line in ["2001:db8:0:1::1/64 dev net1", "2001:db8:0:2::1/64 dev net2", "fe80::1/64 dev net2"] {
        try fleet.router.command("ip address add \(line) nodad")
      }
      try fleet.rendezvous.command("ip address add 2001:db8:0:1::2/64 dev eth0 nodad")
      let server = try fleet.lab.start(
        in: fleet.router,
        ["/usr/sbin/miniupnpd", "-d", "-f", folder + "/pinhole.conf", "-P", folder + "/pinhole.pid"])
      try server.waitForLine(containing: "Listening for NAT-PMP/PCP traffic")
      return server
    }

    private func holes(_ fleet: Fleet) throws -> String {
      try fleet.router.command("nft list chain inet filter miniupnpd")
    }

    /// How many datagrams of a stranger outside came to the node's port, of one sent.
    private func strangers(_ fleet: Fleet, _ node: LabNode, to address: String) throws -> Int {
      try node.namespace.command("nft add table inet seen")
      defer { _ = try? node.namespace.command("nft delete table inet seen") }
      try node.run(["nft", "add chain inet seen input { type filter hook input priority 0 ; }"]).orThrow()
      try node.run(["nft", "add rule inet seen input ip6 saddr 2001:db8:0:1::2 udp dport 4000 counter"]).orThrow()
      let knock =
        "import socket; s = socket.socket(10, 2); s.bind(('2001:db8:0:1::2', 0)); s.sendto(b'x', ('\(address)', 4000))"
      try fleet.rendezvous.run(["python3", "-c", knock]).orThrow()
      func seen() throws -> Int {
        let words = try node.namespace.command("nft list chain inet seen input").split(separator: " ")
        return words.firstIndex(of: "packets").flatMap { Int(words[$0 + 1]) } ?? -1
      }
      for _ in 0..<10 where try seen() == 0 { usleep(50_000) }
      return try seen()
    }

    @Test("the firewall is opened at the address of the way out, moved with it, explained, and closed at the end")
    func pinhole() throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha")
        let peer = try fleet.node("beta")
        let (first, second) = (Self.address("2"), Self.address("99"))
        // By IPv4 there is no way to everywhere, so nothing is asked.
        try node.namespace.command("ip route add 10.77.0.0/16 via 10.77.2.1")
        try node.namespace.command("ip route delete default")
        let server = try openRouter(fleet)
        // Only a unique local address so far: no use in a pinhole for it.
        #expect(try node.status()["ipv6_pinhole"]["reason"].text.contains("global IPv6 address"))
        try node.namespace.command("ip -6 route delete default")
        try node.namespace.command("ip route add default via fe80::1 dev eth0")
        try node.namespace.command("ip address add \(first.text)/64 dev eth0 nodad")
        func granted(_ wanted: String) throws {
          do {
            let hole = try eventually("the router lets peers in at \(wanted)", within: 20) { () throws -> JSON? in
              let hole = try node.status()["ipv6_pinhole"]
              return hole["external"].text == "[\(wanted)]:4000" ? hole : nil
            }
            #expect(hole["state"].text == "mapped" && hole["protocol"].text == "PCP")
            #expect(hole["lifetime_seconds"].number == 1200)
          } catch { throw LabError("\(error)\n\(try holes(fleet))\n\(server.transcript)") }
        }
        try granted(first.text)
        #expect(try holes(fleet).contains("th dport 4000") && holes(fleet).contains(first.rule))
        #expect(try strangers(fleet, node, to: first.text) == 1)

        try peer.waitForPing(node.ipv6)
        _ = try eventually("the peer hears of it, once", within: 10) {
          let told = try JSON(parsing: peer.tun("explain", "alpha", "--json").orThrow().output)["data"]["candidates"]
          return told.list.count { $0["path"].text.contains("[\(first.text)]:4000") } == 1 ? true : nil
        }
        let explained = try node.tun("explain", "beta").orThrow().output
        #expect(explained.contains("router: the router lets everybody in at [\(first.text)]:4000 by PCP"))
        let check = try node.tun("netcheck", "--beacon", Fleet.rendezvousAddress).orThrow().output
        #expect(check.contains("IPv6 router  fe80::1 lets peers in by PCP"), "\(check)")

        // As a temporary address that had its day.
        try node.namespace.command("ip address add \(second.text)/64 dev eth0 nodad")
        try node.namespace.command("ip address change \(first.text)/64 dev eth0 preferred_lft 0")
        try granted(second.text)
        let moved = try eventually("the pinhole of before is given back", within: 10) { () throws -> String? in
          let rules = try holes(fleet)
          return rules.contains(second.rule) && !rules.contains(first.rule) ? rules : nil
        }
        #expect(!moved.isEmpty)
        #expect(try strangers(fleet, node, to: second.text) == 1)
        #expect(try strangers(fleet, node, to: first.text) == 0)

        node.stop()
        _ = try eventually("it is closed", within: 10) { try holes(fleet).contains("4000") ? nil : true }
      }
    }
  }
}
