// The way out by IPv6 as the kernel tells it, against iproute2 in a network namespace.

import Shim
import Testing
import Wire

@testable import LinkIO

@Suite struct RouteQueryTests {
  private static let anywhere = IPv6Address(high: 0x2000_0000_0000_0000, low: 1)
  private static let site: UInt64 = 0x2001_0DB8_0000_0002

  @Test("gateway, interface and source follow metrics, rules and deprecated addresses; no route is no way")
  func ways() throws {
    let seen = try inNamespace {
      func now() -> RouteQuery? { RouteQuery(towards: Self.anywhere) }
      var ways: [RouteQuery?] = [now()]
      var said = ""
      for n in 0...1 {
        said += shell("ip link add eth\(n) type veth peer name peer\(n)")
        said += shell("ip link set eth\(n) up && ip link set peer\(n) up")
      }
      said += shell("ip address add 2001:db8:0:2::10/64 dev eth0 nodad")
      said += shell("ip route add default via fe80::1 dev eth0 metric 200")
      ways.append(now())
      // Preferred now: the other one is deprecated, as temporary addresses become.
      said += shell("ip address add 2001:db8:0:2::11/64 dev eth0 nodad")
      said += shell("ip address change 2001:db8:0:2::10/64 dev eth0 preferred_lft 0")
      ways.append(now())
      said += shell("ip route add default via fe80::2 dev eth1 metric 100")
      ways.append(now())
      // A VPN's way: a table of its own, without a gateway.
      said += shell("ip -6 route add default dev eth1 table 77 && ip -6 rule add pref 100 lookup 77")
      ways.append(now())
      said += shell("ip route add unreachable 2000::/16 table 77")
      ways.append(now())
      let indexes = (UInt32(max(0, pt_link_index("eth0"))), UInt32(max(0, pt_link_index("eth1"))))
      return (ways, said, indexes)
    }
    #expect(seen.1.isEmpty, "\(seen.1)")
    let (eth0, eth1) = seen.2
    let gateway = IPv6Address(high: 0xFE80_0000_0000_0000, low: 1)
    try #require(seen.0.count == 6)
    #expect(seen.0[0] == nil)
    #expect(seen.0[1]?.interface == eth0 && seen.0[1]?.gateway == gateway)
    #expect(seen.0[1]?.source == IPv6Address(high: Self.site, low: 0x10))
    #expect(seen.0[2]?.source == IPv6Address(high: Self.site, low: 0x11))
    #expect(seen.0[3]?.interface == eth1 && seen.0[3]?.gateway == IPv6Address(high: gateway.high, low: 2))
    #expect(seen.0[4]?.interface == eth1 && seen.0[4]?.gateway == nil)
    #expect(seen.0[5] == nil)
  }
}
