// The addresses of this machine at which peers on the same networks may reach it.

import Glibc
import Wire

enum LocalAddresses {
  /// Bridges of containers and virtual machines of this host: their addresses mean nothing elsewhere, and often the same
  /// ones mean something else there.
  private static let bridges = ["docker", "br-", "virbr", "podman", "cni", "lxcbr", "lxdbr", "flannel", "cali"]

  /// Addresses of interfaces that are up with a carrier; not loopback, link-local, our own interface, those of
  /// containers, or those that may be another machine's. IPv4 first, 16 at most. Deprecated ones, as temporary addresses
  /// of the last days, where there is no other of IPv6.
  static func list(except interface: String) -> [IPv6Address] {
    var v4: [IPv6Address] = []
    var v6: [IPv6Address] = []
    var deprecated: [IPv6Address] = []
    let table = (try? SmallFile.read("/proc/net/if_inet6")) ?? []
    let states = states(in: String(decoding: table, as: UTF8.self))
    for (name, flags, address) in all() {
      let isUp = flags & UInt32(IFF_UP) != 0 && flags & UInt32(IFF_RUNNING) != 0
      let isLoopback = flags & UInt32(IFF_LOOPBACK) != 0
      guard isUp, !isLoopback, name != interface, !bridges.contains(where: name.hasPrefix) else { continue }
      if let old = address.mappedIPv4 {
        if old >> 16 != 0xA9FE { v4.append(address) }
      } else if address.high >> 54 != 0x3FA, !OverlayMapping.contains(address) {
        switch states[address] ?? .preferred {
        case .preferred: v6.append(address)
        case .deprecated: deprecated.append(address)
        case .unproven: break
        }
      }
    }
    return Array((v4 + (v6.isEmpty ? deprecated : v6)).prefix(16))
  }

  /// RFC 4862 §5.5.4.
  enum State { case preferred, deprecated, unproven }

  /// From the kernel's table, in hexadecimal: address, interface's number, length of the prefix, scope, flags; and the
  /// interface's name.
  static func states(in table: String) -> [IPv6Address: State] {
    var states: [IPv6Address: State] = [:]
    for line in table.split(separator: "\n") {
      let fields = line.split(separator: " ")
      guard fields.count >= 6, fields[0].utf8.count == 32, let high = UInt64(fields[0].prefix(16), radix: 16),
        let low = UInt64(fields[0].dropFirst(16), radix: 16), let flags = UInt32(fields[4], radix: 16)
      else { continue }
      // IFA_F_TENTATIVE | IFA_F_DADFAILED but not optimistic, IFA_F_DEPRECATED
      let isUnproven = flags & 0x48 != 0 && flags & 0x04 == 0
      states[IPv6Address(high: high, low: low)] = isUnproven ? .unproven : flags & 0x20 != 0 ? .deprecated : .preferred
    }
    return states
  }

  /// Addresses of the overlay that stand on an interface: those of the last run on one that was kept.
  static func overlay(on interface: String) -> [IPv6Address] {
    all().filter { $0.name == interface && OverlayMapping.contains($0.address) }.map(\.address)
  }

  private static func all() -> [(name: String, flags: UInt32, address: IPv6Address)] {
    var list: UnsafeMutablePointer<ifaddrs>?
    guard getifaddrs(&list) == 0 else { return [] }
    defer { freeifaddrs(list) }
    var all: [(name: String, flags: UInt32, address: IPv6Address)] = []
    var entry = list
    while let current = entry {
      entry = current.pointee.ifa_next
      // SAFETY: getifaddrs fills ifa_addr with the structure that its family names.
      guard let raw = UnsafeRawPointer(current.pointee.ifa_addr), let address = IPv6Address(socketAddress: raw) else {
        continue
      }
      all.append((String(cString: current.pointee.ifa_name), current.pointee.ifa_flags, address))
    }
    return all
  }
}
