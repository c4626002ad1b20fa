// For whom a TCP connection speaks. Made by RegistryListener, asked by requests that carry no identity.

import NIOCore
import Synchronization
import Wire

/// A node and the key with which it has signed. Worth nothing once the node has another key.
struct ProvenIdentity: Hashable, Sendable {
  var node: UInt32
  var key: Bytes32
}

/// Connections of one host opened within a quarter of a second: most likely the pool of one daemon (wire/registry
/// §5.4). As soon as two nodes have proven themselves in it, it speaks for nobody and each connection for itself.
final class ClientGroup: Sendable {
  let openedAt: Int64
  private let proven = Mutex<Set<ProvenIdentity>>([])

  init(openedAt: Int64) { self.openedAt = openedAt }

  func prove(_ identity: ProvenIdentity) {
    proven.withLock { if $0.count < 2 { _ = $0.insert(identity) } }
  }

  var identity: ProvenIdentity? { proven.withLock { $0.count == 1 ? $0.first : nil } }
}

/// One connection: where it comes from, and which nodes have signed something on it.
///
/// An ordinary signature opens reading only, as it could be a recorded one. A key that signed this connection's nonce
/// is certainly at the other end.
final class ClientSession: Sendable {
  let host: IPv6Address
  /// The address of ours that the client reached.
  let localHost: IPv6Address
  let isProtected: Bool
  /// Never used for another connection. Base64 of 16 bytes.
  let nonce: String
  private let group: ClientGroup?
  private let presence: Presence?
  /// Ends the connection soon if nobody is at its other end.
  private let prober: @Sendable () -> Void
  private let own = Mutex(Own())
  private let fresh = Mutex<Set<Bytes32>>([])
  private static let limit = 16

  private struct Own {
    var identities: [ProvenIdentity] = []
    var isEnded = false
  }

  init(
    host: IPv6Address, localHost: IPv6Address, isProtected: Bool, group: ClientGroup?, presence: Presence? = nil,
    prober: @escaping @Sendable () -> Void = {}
  ) {
    self.host = host
    self.localHost = localHost
    self.isProtected = isProtected
    self.group = group
    self.presence = presence
    self.prober = prober
    nonce = Base64.encode((0..<16).map { _ in UInt8.random(in: 0...255) })
  }

  func prove(_ node: UInt32, _ key: Bytes32) {
    let identity = ProvenIdentity(node: node, key: key)
    let isNew = own.withLock { own in
      // A reply may be on its way to the disk while the connection closes: who has left is not entered again.
      guard !own.isEnded, !own.identities.contains(identity), own.identities.count < Self.limit else { return false }
      own.identities.append(identity)
      presence?.enter(node, self)
      return true
    }
    if isNew { group?.prove(identity) }
  }

  /// The key has signed the nonce. False when the connection has proven too many.
  func proveFresh(_ key: Bytes32) -> Bool {
    fresh.withLock { fresh in
      guard fresh.count < Self.limit || fresh.contains(key) else { return false }
      fresh.insert(key)
      return true
    }
  }

  func isFresh(_ key: Bytes32) -> Bool { fresh.withLock { $0.contains(key) } }

  /// What was proven here, or where nothing was, on the connections that opened together with this one.
  var claims: [ProvenIdentity] {
    let own = own.withLock { $0.identities }
    if !own.isEmpty { return own }
    return group?.identity.map { [$0] } ?? []
  }

  func probe() { prober() }

  /// The connection has closed. Called once.
  func end() {
    let identities = own.withLock { own in
      own.isEnded = true
      return own.identities
    }
    for identity in identities { presence?.leave(identity.node, self) }
  }
}

extension Endpoint {
  /// Nil for anything but an IP socket address. An IPv4 address arrives mapped or plain and is held mapped.
  init?(_ address: SocketAddress?) {
    guard let address, let port = address.port, let port = UInt16(exactly: port) else { return nil }
    let host: IPv6Address? = address.withSockAddr { socket, size in
      // SAFETY: no IP socket address is shorter than sockaddr_in (16), and NIO's have the size of their family.
      size >= 16 ? IPv6Address(socketAddress: UnsafeRawPointer(socket)) : nil
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

extension SocketAddress {
  /// To listen on. No resolver is asked: it knows no IPv6 address on a host that has none of its own.
  init(_ endpoint: Endpoint) throws {
    try self.init(ipAddress: endpoint.address.description, port: Int(endpoint.port))
  }
}
