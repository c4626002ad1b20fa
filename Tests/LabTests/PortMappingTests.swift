// A node whose router opens a port for it: miniupnpd, as home routers run it, in the namespace of the NAT.

import Foundation
import Testing

extension KernelTests {
  @Suite("Port mappings")
  struct PortMappingTests {
    /// What the router says is its address: miniupnpd maps nothing for those of the laboratory, which are reserved.
    private static let outside = "11.22.33.44"

    /// Starts miniupnpd on the router of `a`, and gives `outside` a way through the laboratory.
    private func openRouter(_ fleet: NATFleet, _ settings: String) throws -> Program {
      let router = try fleet.machine("nat-a")
      try router.command("ip address add \(Self.outside)/32 dev wan")
      try fleet.machine("core").command("ip route add \(Self.outside) via 203.0.113.10")
      try fleet.machine("nat-b").command("ip route add \(Self.outside) via 203.0.113.13")
      try fleet.b.namespace.command("ip route add \(Self.outside) via 192.168.2.1")
      try fleet.a.namespace.command("ip route add default via 192.168.1.1")
      // The laboratory's NATs answer nobody; a router that opens ports answers its own network.
      try router.command("nft insert rule ip nat input iifname lan accept")
      let rules = """
        table inet filter {
          chain miniupnpd {
          }
          chain prerouting_miniupnpd {
          }
          chain postrouting_miniupnpd {
          }
          chain forward {
            type filter hook forward priority 0; policy accept;
            jump miniupnpd
          }
          chain prerouting {
            type nat hook prerouting priority -100; policy accept;
            jump prerouting_miniupnpd
          }
          chain postrouting {
            type nat hook postrouting priority 100; policy accept;
            jump postrouting_miniupnpd
          }
        }
        """
      let configuration = """
        ext_ifname=wan
        ext_ip=\(Self.outside)
        listening_ip=lan
        secure_mode=yes
        uuid=00000000-0000-0000-0000-000000000001
        \(settings)
        allow 1024-65535 192.168.1.0/24 1024-65535
        deny 0-65535 0.0.0.0/0 0-65535
        """
      let folder = fleet.lab.directory
      try rules.write(toFile: folder + "/miniupnpd.nft", atomically: false, encoding: .utf8)
      try (configuration + "\n").write(toFile: folder + "/miniupnpd.conf", atomically: false, encoding: .utf8)
      try router.command("nft -f \(folder)/miniupnpd.nft")
      return try startRouter(fleet)
    }

    private func startRouter(_ fleet: NATFleet) throws -> Program {
      let folder = fleet.lab.directory
      let program = try fleet.lab.start(
        in: fleet.machine("nat-a"),
        ["/usr/sbin/miniupnpd", "-d", "-f", folder + "/miniupnpd.conf", "-P", folder + "/miniupnpd.pid"])
      try program.waitForLine(containing: "HTTP listening on port")
      return program
    }

    private func mappedPorts(_ fleet: NATFleet) throws -> String {
      try fleet.machine("nat-a").command("nft list chain inet filter prerouting_miniupnpd")
    }

    @Test(
      "a mapped node behind a port-restricted NAT is reached directly from behind a symmetric one",
      arguments: [("PCP", "enable_natpmp=yes\nenable_upnp=yes"), ("UPnP", "enable_natpmp=no\nenable_upnp=yes")])
    func mapped(service: String, settings: String) throws {
      try NATFleet.with("port-restricted:symmetric", isStarted: false) { fleet in
        let router = try openRouter(fleet, settings)
        try fleet.a.start()
        let mapping = try eventually("the router maps the port", within: 30) { () throws -> JSON? in
          let mapping = try fleet.a.status()["port_mapping"]
          return mapping["state"].text == "mapped" ? mapping : nil
        }
        #expect(mapping["protocol"].text == service)
        #expect(mapping["external"].text == "\(Self.outside):4000")
        #expect(mapping["lifetime_seconds"].number == 1200)
        #expect(try mappedPorts(fleet).contains("dnat ip to 192.168.1.10:4000"))
        try fleet.b.start()
        try fleet.b.waitForPing(fleet.a.ipv6)
        try fleet.waitForPath("direct", within: 40)
        #expect(try fleet.b.peer(fleet.a)["endpoint"].text == "\(Self.outside):4000")
        try fleet.transfer(octets: 4 << 20)
        fleet.a.stop()
        let left = try eventually("the mapping is given back", within: 10) {
          let left = try mappedPorts(fleet)
          return left.contains("dnat") ? nil : left
        }
        #expect(!left.isEmpty)
        #expect(router.isRunning)
      }
    }

    @Test("the firewall of an IPv6 router is opened for the tunnel's port, and closed when the node ends")
    func pinhole() throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha", isStarted: false)
        let folder = fleet.lab.directory
        let rules = """
          table inet filter {
            chain miniupnpd {
            }
            chain prerouting_miniupnpd {
            }
            chain postrouting_miniupnpd {
            }
            chain forward {
              type filter hook forward priority 0; policy accept;
              jump miniupnpd
            }
          }
          """
        let settings = """
          ext_ifname=net1
          ext_ip=\(Self.outside)
          listening_ip=net2
          enable_natpmp=yes
          enable_upnp=no
          uuid=00000000-0000-0000-0000-000000000001
          allow 1024-65535 10.77.2.0/24 1024-65535
          """
        try rules.write(toFile: folder + "/pinhole.nft", atomically: false, encoding: .utf8)
        try (settings + "\n").write(toFile: folder + "/pinhole.conf", atomically: false, encoding: .utf8)
        try fleet.router.command("nft -f \(folder)/pinhole.nft")
        let server = try fleet.lab.start(
          in: fleet.router,
          ["/usr/sbin/miniupnpd", "-d", "-f", folder + "/pinhole.conf", "-P", folder + "/pinhole.pid"])
        try server.waitForLine(containing: "Listening for NAT-PMP/PCP traffic")
        try node.start()
        let own = "fd77:0:0:2::2"
        func holes() throws -> String { try fleet.router.command("nft list chain inet filter miniupnpd") }
        do {
          let hole = try eventually("the router opens its firewall", within: 20) { () throws -> JSON? in
            let hole = try node.status()["ipv6_pinhole"]
            return hole["state"].text == "mapped" ? hole : nil
          }
          #expect(hole["external"].text == "[\(own)]:4000" && hole["protocol"].text == "PCP")
          #expect(try holes().contains("\(own) udp dport 4000 accept") || holes().contains("4000"), "\(try holes())")
        } catch {
          throw LabError("\(error)\n\(try node.status()["ipv6_pinhole"])\n\(server.transcript)")
        }
        node.stop()
        _ = try eventually("it is closed again", within: 10) { try holes().contains("4000") ? nil : true }
      }
    }

    @Test("a router's service that appears later is found when the network changes; port-mapping = off asks nobody")
    func later() throws {
      try NATFleet.with("port-restricted:symmetric", isStarted: false) { fleet in
        fleet.b.flags += ["--port-mapping", "off"]
        try fleet.a.start()
        try fleet.b.start()
        #expect(try fleet.b.status()["port_mapping"]["state"].text == "off")
        #expect(try fleet.a.status()["port_mapping"]["reason"].text.contains("no default gateway"))
        _ = try openRouter(fleet, "enable_natpmp=yes\nenable_upnp=yes")
        // The default route came before the server: the node may have found nobody.
        try fleet.a.namespace.command("ip address add 192.168.1.99/24 dev eth0")
        _ = try eventually("the router maps the port", within: 30) {
          try fleet.a.status()["port_mapping"]["state"].text == "mapped" ? true : nil
        }
      }
    }

    @Test("a router that knows NAT-PMP only maps, too, and the directory hears its endpoint first")
    func natPMP() throws {
      try NATFleet.with("port-restricted:symmetric", isStarted: false) { fleet in
        let nat = try fleet.machine("nat-a")
        try nat.command("nft insert rule ip nat input iifname lan accept")
        let tool = Tools.python("nat_pmp", "192.168.1.1", "203.0.113.10", "wan")
        try fleet.lab.start(in: nat, tool).waitForLine(containing: "listening")
        try fleet.a.namespace.command("ip route add default via 192.168.1.1")
        try fleet.a.start()
        let mapping = try eventually("the router maps the port", within: 30) { () throws -> JSON? in
          let mapping = try fleet.a.status()["port_mapping"]
          return mapping["state"].text == "mapped" ? mapping : nil
        }
        #expect(mapping["protocol"].text == "NAT-PMP")
        #expect(mapping["external"].text == "203.0.113.10:4000")
        try fleet.b.start()
        try fleet.b.waitForPing(fleet.a.ipv6)
        try fleet.waitForPath("direct", within: 40)
        try fleet.transfer(octets: 1 << 20)
        let explained = try JSON(parsing: fleet.b.tun("explain", "a", "--json").orThrow().output)["data"]
        let way = explained["candidates"].list.first { $0["path"].text.contains("203.0.113.10:4000") }
        #expect(way?["kind"].text == "directory" && way?["in_use"].isTrue == true, "\(explained)")
        fleet.a.stop()
        _ = try eventually("the mapping is given back", within: 10) {
          try nat.command("nft list table inet pmp").contains("dnat") ? nil : true
        }
      }
    }

    @Test("a router that restarts and forgets is asked again at once")
    func restart() throws {
      try NATFleet.with("port-restricted:symmetric", isStarted: false) { fleet in
        let router = try openRouter(fleet, "enable_natpmp=yes\nenable_upnp=yes")
        try fleet.a.start()
        _ = try eventually("the router maps the port", within: 30) {
          try mappedPorts(fleet).contains("dnat") ? true : nil
        }
        // Two clocks are compared, to two seconds: the old one has to be older than that.
        usleep(4_000_000)
        router.end(SIGKILL)
        try fleet.machine("nat-a").command("nft flush chain inet filter prerouting_miniupnpd")
        try fleet.machine("nat-a").command("nft flush chain inet filter miniupnpd")
        _ = try startRouter(fleet)
        // Not before 10 s after the first question, and up to 5 s later.
        _ = try eventually("the router maps the port again", within: 25) {
          try mappedPorts(fleet).contains("dnat") ? true : nil
        }
      }
    }

    @Test("netcheck names the services that the router answers")
    func netcheck() throws {
      try NATFleet.with("port-restricted:symmetric", isStarted: false) { fleet in
        let command = [Tools.tun, "netcheck", "--json", "--beacon", "203.0.113.2"]
        let before = try JSON(parsing: fleet.a.run(command).orThrow().output)["data"]
        #expect(before["router"].isMissing)
        _ = try openRouter(fleet, "enable_natpmp=yes\nenable_upnp=yes")
        let router = try JSON(parsing: fleet.a.run(command).orThrow().output)["data"]["router"]
        #expect(router["gateway"].text == "192.168.1.1")
        #expect(router["pcp"].isTrue && router["nat_pmp"].isTrue && router["upnp"].isTrue)
        let text = try fleet.a.run([Tools.tun, "netcheck", "--beacon", "203.0.113.2"]).orThrow().output
        #expect(text.contains("192.168.1.1 opens ports by PCP, NAT-PMP, UPnP"))
      }
    }
  }
}
