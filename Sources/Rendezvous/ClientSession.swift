// For whom a TCP connection speaks. Made by RegistryConnection, asked by requests that carry no identity.

import NIOCore
import Synchronization
import Wire

/// Connections of one host opened within a quarter of a second: most likely the pool of one daemon (wire/registry
/// §5.4). As soon as two nodes have proven themselves in it, it speaks for nobody and each connection for itself.
final class ClientGroup: Sendable {
  let openedAt: Int64
  private let proven = Mutex<Set<UInt32>>([])

  init(openedAt: Int64) { self.openedAt = openedAt }

  func prove(_ node: UInt32) {
    proven.withLock { if $0.count < 2 { _ = $0.insert(node) } }
  }

  var identity: UInt32? { proven.withLock { $0.count == 1 ? $0.first : nil } }
}

/// One connection: where it comes from, and which nodes have signed something on it. Opens reading only; nothing that
/// changes state ever relies on it.
final class ClientSession: Sendable {
  let host: IPv6Address
  /// The address of ours that the client reached.
  let localHost: IPv6Address
  let isProtected: Bool
  private let group: ClientGroup?
  private let own = Mutex<[UInt32]>([])
  private static let limit = 16

  init(host: IPv6Address, localHost: IPv6Address, isProtected: Bool, group: ClientGroup?) {
    self.host = host
    self.localHost = localHost
    self.isProtected = isProtected
    self.group = group
  }

  func prove(_ node: UInt32) {
    let isNew = own.withLock { own in
      guard !own.contains(node), own.count < Self.limit else { return false }
      own.append(node)
      return true
    }
    if isNew { group?.prove(node) }
  }

  /// The nodes as which this connection may read.
  var identities: [UInt32] {
    let own = own.withLock { $0 }
    if !own.isEmpty { return own }
    return group?.identity.map { [$0] } ?? []
  }
}

extension Endpoint {
  /// Nil for anything but an IP socket address. An IPv4 address arrives mapped or plain and is held mapped.
  init?(_ address: SocketAddress?) {
    guard let address, let port = address.port, let port = UInt16(exactly: port) else { return nil }
    let host: IPv6Address? = address.withSockAddr { socket, size in
      let base = UnsafeRawPointer(socket)
      // SAFETY: the sizes are those of sockaddr_in (address at 4) and sockaddr_in6 (address at 8).
      switch address {
      case .v4 where size >= 8:
        return IPv6Address(mappedIPv4: UInt32(bigEndian: base.loadUnaligned(fromByteOffset: 4, as: UInt32.self)))
      case .v6 where size >= 24: return IPv6Address(base, at: 8)
      default: return nil
      }
    }
    guard let host else { return nil }
    self.init(address: host, port: port)
  }

  /// For a socket of the given family: an IPv6 socket reaches IPv4 hosts by mapped addresses.
  func socketAddress(isIPv6: Bool) -> SocketAddress? {
    var bytes = ByteBuffer()
    if let v4 = address.mappedIPv4, !isIPv6 {
      bytes.writeInteger(v4)
    } else if isIPv6 {
      bytes.writeInteger(address.high)
      bytes.writeInteger(address.low)
    } else {
      return nil
    }
    return try? SocketAddress(packedIPAddress: bytes, port: Int(port))
  }
}
