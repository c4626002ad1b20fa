// Where a datagram goes to or came from on the underlay. Used by LinkIO, Engine, Traversal, Directory.

/// An underlay address and UDP port. IPv4 is held as an IPv4-mapped IPv6 address, as a dual-stack socket does.
@frozen
public struct Endpoint: Hashable, Sendable {
  public var address: IPv6Address
  public var port: UInt16

  @inlinable
  public init(address: IPv6Address, port: UInt16) {
    self.address = address
    self.port = port
  }

  @inlinable
  public var isIPv4: Bool { address.mappedIPv4 != nil }

  /// Parses `a.b.c.d:port` or `[v6]:port`. Host names are not endpoints.
  public init?(_ text: some StringProtocol) {
    guard let colon = text.lastIndex(of: ":") else { return nil }
    let digits = text[text.index(after: colon)...]
    // `UInt16(_:)` alone reads a sign, too.
    guard digits.utf8.allSatisfy({ (48...57).contains($0) }), let port = UInt16(digits) else { return nil }
    var host = text[..<colon]
    if host.hasPrefix("["), host.hasSuffix("]") {
      host = host.dropFirst().dropLast()
    } else if host.contains(":") {
      return nil
    }
    guard let address = IPv6Address(host) else { return nil }
    self.init(address: address, port: port)
  }
}

extension Endpoint: CustomStringConvertible {
  public var description: String { isIPv4 ? "\(address):\(port)" : "[\(address)]:\(port)" }
}
