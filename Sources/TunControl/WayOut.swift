// Which way packets to a beacon leave this machine: another one means another NAT, although all addresses are as before.
// Looked at by Node when links, addresses or routes changed.

import Glibc
import Wire

struct WayOut: Equatable {
  let target: Endpoint
  /// Ours, as the kernel would take it; nil: there is no way.
  let source: IPv6Address?
  /// Of the default route by IPv4, if there is one: machines on two networks may have the same address on both.
  let gateway: IPv6Address?

  /// - except: the overlay's own interface.
  init(to target: Endpoint, except interface: String) {
    let table = (try? SmallFile.read("/proc/net/route")) ?? []
    self.init(
      target: target, source: Self.source(towards: target),
      gateway: DefaultGateway.parse(String(decoding: table, as: UTF8.self), except: interface))
  }

  init(target: Endpoint, source: IPv6Address?, gateway: IPv6Address?) {
    self.target = target
    self.source = source
    self.gateway = gateway
  }

  /// There is a way, and it is another one than before. Of another beacon nothing is known.
  func isNews(after before: WayOut?) -> Bool {
    guard let before, before.target == target, source != nil else { return false }
    return self != before
  }

  /// Nothing is sent.
  static func source(towards target: Endpoint) -> IPv6Address? {
    let descriptor = socket(AF_INET6, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { return sourceIPv4(towards: target) }
    defer { close(descriptor) }
    var raw = sockaddr_in6()
    raw.sin6_family = sa_family_t(AF_INET6)
    raw.sin6_port = target.port.bigEndian
    withUnsafeMutableBytes(of: &raw.sin6_addr) { bytes in
      bytes.storeBytes(of: target.address.high.bigEndian, as: UInt64.self)
      bytes.storeBytes(of: target.address.low.bigEndian, toByteOffset: 8, as: UInt64.self)
    }
    guard isConnected(descriptor, &raw) else { return nil }
    return withUnsafeBytes(of: &raw.sin6_addr) { bytes in
      IPv6Address(
        high: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)),
        low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
    }
  }

  /// Of a kernel without IPv6.
  private static func sourceIPv4(towards target: Endpoint) -> IPv6Address? {
    guard let address = target.address.mappedIPv4 else { return nil }
    let descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var raw = sockaddr_in()
    raw.sin_family = sa_family_t(AF_INET)
    raw.sin_port = target.port.bigEndian
    raw.sin_addr.s_addr = address.bigEndian
    guard isConnected(descriptor, &raw) else { return nil }
    return IPv6Address(mappedIPv4: UInt32(bigEndian: raw.sin_addr.s_addr))
  }

  /// Puts our own address into `name`.
  private static func isConnected<Name>(_ descriptor: Int32, _ name: inout Name) -> Bool {
    var size = socklen_t(MemoryLayout<Name>.size)
    // SAFETY: `Name` is the form of socket address of the descriptor's family, as long as `size` says.
    return withUnsafeMutablePointer(to: &name) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
        connect(descriptor, generic, size) == 0 && getsockname(descriptor, generic, &size) == 0
      }
    }
  }
}
