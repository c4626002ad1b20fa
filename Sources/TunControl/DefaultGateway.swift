// The way out of this machine: whom to ask for a port mapping. Read by Node+PortMapping and netcheck.

import Glibc
import NIOCore
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
      let local = source(towards: gateway)
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

  private static func networkOfIPv6(except interface: String) -> MappingNetwork? {
    // One of the documentation's addresses: any that only the default route leads to.
    let anywhere = IPv6Address(high: 0x2001_0DB8_0000_0000, low: 1)
    guard let content = try? SmallFile.read("/proc/net/ipv6_route", limit: 16 << 20),
      let way = parseIPv6(String(decoding: content, as: UTF8.self), except: interface),
      let local = source(towards: anywhere), !local.isLinkLocal, !local.isLoopback, !OverlayMapping.contains(local)
    else { return nil }
    let scope = way.gateway.isLinkLocal ? if_nametoindex(way.device) : 0
    guard !way.gateway.isLinkLocal || scope != 0 else { return nil }
    return MappingNetwork(
      server: Endpoint(address: way.gateway, port: MappingNetwork.port), local: local, scope: scope)
  }

  /// From the kernel's table, all in hexadecimal: destination, its length, source, its length, gateway, metric, two
  /// counters, flags, interface.
  static func parseIPv6(_ table: String, except interface: String) -> (gateway: IPv6Address, device: String)? {
    let usable: UInt32 = 3  // RTF_UP | RTF_GATEWAY
    let rejects: UInt32 = 0x200  // RTF_REJECT
    var best: (metric: UInt32, gateway: IPv6Address, device: String)?
    for line in table.split(separator: "\n") {
      let fields = line.split(separator: " ")
      guard fields.count >= 10, fields[9] != interface, UInt32(fields[1], radix: 16) == 0,
        let gateway = address(fields[4]), gateway != IPv6Address(high: 0, low: 0),
        let metric = UInt32(fields[5], radix: 16), let flags = UInt32(fields[8], radix: 16),
        flags & usable == usable, flags & rejects == 0
      else { continue }
      if best.map({ metric < $0.metric }) ?? true { best = (metric, gateway, String(fields[9])) }
    }
    return best.map { ($0.gateway, $0.device) }
  }

  private static func address(_ text: Substring) -> IPv6Address? {
    guard text.utf8.count == 32, let high = UInt64(text.prefix(16), radix: 16),
      let low = UInt64(text.dropFirst(16), radix: 16)
    else { return nil }
    return IPv6Address(high: high, low: low)
  }

  /// The source address that the kernel would take; nothing is sent.
  private static func source(towards target: IPv6Address) -> IPv6Address? {
    let way = Endpoint(address: target, port: MappingNetwork.port)
    guard let remote = try? SocketAddress(ipAddress: way.address.description, port: Int(way.port)) else { return nil }
    let family = target.mappedIPv4 != nil ? AF_INET : AF_INET6
    let descriptor = socket(family, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    let isConnected = remote.withSockAddr { connect(descriptor, $0, socklen_t($1)) == 0 }
    guard isConnected else { return nil }
    // SAFETY: the kernel fills the structure of the socket's own family, for which both have room.
    var own = sockaddr_in6()
    var size = socklen_t(MemoryLayout<sockaddr_in6>.size)
    let isTold = withUnsafeMutablePointer(to: &own) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &size) == 0 }
    }
    guard isTold else { return nil }
    return withUnsafeBytes(of: &own) { bytes in
      if family == AF_INET {
        return IPv6Address(mappedIPv4: UInt32(bigEndian: bytes.load(fromByteOffset: 4, as: UInt32.self)))
      }
      return IPv6Address(bytes.baseAddress!, at: 8)
    }
  }
}
