// The addresses of this machine at which peers on the same networks may reach it.

import Glibc
import Wire

enum LocalAddresses {
  /// Bridges of containers and virtual machines of this host: their addresses mean nothing elsewhere, and often the same
  /// ones mean something else there.
  private static let bridges = ["docker", "br-", "virbr", "podman", "cni", "lxcbr", "lxdbr", "flannel", "cali"]

  /// Addresses of interfaces that are up with a carrier; not loopback, link-local, our own interface, or those of
  /// containers. IPv4 first, 16 at most.
  static func list(except interface: String) -> [IPv6Address] {
    var list: UnsafeMutablePointer<ifaddrs>?
    guard getifaddrs(&list) == 0 else { return [] }
    defer { freeifaddrs(list) }
    var v4: [IPv6Address] = []
    var v6: [IPv6Address] = []
    var entry = list
    while let current = entry {
      entry = current.pointee.ifa_next
      let flags = current.pointee.ifa_flags
      let isUp = flags & UInt32(IFF_UP) != 0 && flags & UInt32(IFF_RUNNING) != 0
      let isLoopback = flags & UInt32(IFF_LOOPBACK) != 0
      let name = String(cString: current.pointee.ifa_name)
      guard isUp, !isLoopback, name != interface, !bridges.contains(where: name.hasPrefix),
        let raw = UnsafeRawPointer(current.pointee.ifa_addr)
      else { continue }
      // SAFETY: getifaddrs fills ifa_addr with the structure that its family names.
      switch Int32(raw.load(as: sockaddr.self).sa_family) {
      case AF_INET:
        let address = UInt32(bigEndian: raw.load(as: sockaddr_in.self).sin_addr.s_addr)
        if address >> 16 != 0xA9FE { v4.append(IPv6Address(mappedIPv4: address)) }
      case AF_INET6:
        let bytes = raw.load(as: sockaddr_in6.self).sin6_addr
        let address = withUnsafeBytes(of: bytes) { IPv6Address($0.baseAddress!, at: 0) }
        if address.high >> 54 != 0x3FA, !OverlayMapping.contains(address) { v6.append(address) }
      default: break
      }
    }
    return Array((v4 + v6).prefix(16))
  }
}
