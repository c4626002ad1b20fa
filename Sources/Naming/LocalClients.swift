// Who may ask the stub: programs of this machine (of this network namespace), by the address they ask from. Held by
// LookupDesk.

import Glibc
package import Wire

/// The addresses of this machine, listed anew when a stranger asks, at most once a second.
///
/// The stub's address stands on an interface of ours, but the kernel takes packets to it from any interface: a machine on
/// the same LAN needs only a route. (Binding the sockets to our interface would shut those out, too, and with them local
/// programs that ask from an address of another interface: unbound's `outgoing-interface`.)
package struct LocalClients: Sendable {
  private var known: Set<IPv6Address> = []
  private var listedAt: UInt64?
  private let list: @Sendable () -> Set<IPv6Address>

  private static let second: UInt64 = 1_000_000_000
  /// An address that went from this machine is believed this much longer.
  static let lifetime = 30 * second

  init(list: @escaping @Sendable () -> Set<IPv6Address>) { self.list = list }

  /// - Parameter now: nanoseconds of a monotonic clock.
  mutating func contains(_ address: IPv6Address, now: UInt64) -> Bool {
    let age = listedAt.map { now > $0 ? now - $0 : 0 }
    if let age, age < Self.lifetime, known.contains(address) { return true }
    if let age, age < Self.second { return false }
    known = list()
    listedAt = now
    return known.contains(address)
  }

  /// All IPv6 addresses of all interfaces.
  package static let system: @Sendable () -> Set<IPv6Address> = {
    var list: UnsafeMutablePointer<ifaddrs>?
    guard getifaddrs(&list) == 0 else { return [] }
    defer { freeifaddrs(list) }
    var addresses: Set<IPv6Address> = []
    var next = list
    while let entry = next {
      next = entry.pointee.ifa_next
      // SAFETY: getifaddrs fills ifa_addr with the structure that its family names; ipv6(7): the address is at byte 8.
      guard let raw = UnsafeRawPointer(entry.pointee.ifa_addr),
        Int32(raw.load(as: sockaddr.self).sa_family) == AF_INET6
      else { continue }
      addresses.insert(IPv6Address(raw, at: 8))
    }
    return addresses
  }
}
