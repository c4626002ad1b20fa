// The way out of this machine: whom to ask for a port mapping. Read by Node+PortMapping and netcheck.

import Glibc
import LinkIO
import PortMapping
import Wire

enum DefaultGateway {
  /// The gateway and our address towards it; nil without a default route over anything but our own interface.
  static func network(_ family: MappingFamily, except interface: String) -> MappingNetwork? {
    family == .ipv4 ? networkOfIPv4(except: interface) : networkOfIPv6(except: interface)
  }

  private static func networkOfIPv4(except interface: String) -> MappingNetwork? {
    guard let content = try? SmallFile.read("/proc/net/route"),
      let gateway = parse(String(decoding: content, as: UTF8.self), except: interface),
      let local = Endpoint(address: gateway, port: MappingNetwork.port).sourceAddress
    else { return nil }
    return MappingNetwork(server: Endpoint(address: gateway, port: MappingNetwork.port), local: local)
  }

  /// From the kernel's table: interface, destination, gateway, flags, …, metric, mask; addresses in hexadecimal of this
  /// machine's byte order.
  static func parse(_ table: String, except interface: String) -> IPv6Address? {
    let usable: UInt32 = 3  // RTF_UP | RTF_GATEWAY
    var best: (metric: UInt32, gateway: IPv6Address)?
    for line in table.split(separator: "\n").dropFirst() {
      let fields = line.split { $0 == "\t" || $0 == " " }
      guard fields.count >= 8, fields[0] != interface, UInt32(fields[1], radix: 16) == 0,
        UInt32(fields[7], radix: 16) == 0, let raw = UInt32(fields[2], radix: 16), raw != 0,
        let flags = UInt32(fields[3], radix: 16), flags & usable == usable, let metric = UInt32(fields[6])
      else { continue }
      if best.map({ metric < $0.metric }) ?? true {
        best = (metric, IPv6Address(mappedIPv4: UInt32(bigEndian: raw)))
      }
    }
    return best?.gateway
  }

  /// Where an address of the Internet is sent from and through. Only one that others reach is worth a pinhole: no ULA
  /// (RFC 4193), and none that a VPN without a gateway gave us.
  private static func networkOfIPv6(except interface: String) -> MappingNetwork? {
    // Allotted to nobody, so that only a route to everywhere leads there.
    let anywhere = IPv6Address(high: 0x2000_0000_0000_0000, low: 1)
    guard let way = RouteQuery(towards: anywhere), way.interface != if_nametoindex(interface),
      let gateway = way.gateway, let local = way.source, local.isGlobalUnicast
    else { return nil }
    return MappingNetwork(
      server: Endpoint(address: gateway, port: MappingNetwork.port), local: local,
      scope: gateway.isLinkLocal ? way.interface : 0)
  }
}
