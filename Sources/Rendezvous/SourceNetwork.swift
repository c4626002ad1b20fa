// An address range, for settings that exempt sources, and questions about single addresses. Used by configuration,
// limits and the endpoint rule.

package import Wire

/// A range of addresses: `10.0.0.0/8`, `2001:db8::/32`, or one address.
package struct SourceNetwork: Hashable, Sendable, CustomStringConvertible {
  private var prefix: IPv6Address
  private var length: Int
  package let description: String

  package init?(_ text: some StringProtocol) {
    let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    guard let address = IPv6Address(parts[0]) else { return nil }
    let bits = address.mappedIPv4 == nil ? 128 : 32
    var length = bits
    if parts.count == 2 {
      guard let given = Int(parts[1]), (0...bits).contains(given) else { return nil }
      length = given
    }
    self.length = length + (128 - bits)
    prefix = Self.masked(address, self.length)
    description = String(text)
  }

  package func contains(_ address: IPv6Address) -> Bool { Self.masked(address, length) == prefix }

  private static func masked(_ address: IPv6Address, _ length: Int) -> IPv6Address {
    func mask(_ bits: Int) -> UInt64 { bits <= 0 ? 0 : bits >= 64 ? .max : ~(UInt64.max >> UInt64(bits)) }
    return IPv6Address(high: address.high & mask(length), low: address.low & mask(length - 64))
  }
}

extension IPv6Address {
  var isLoopback: Bool {
    if let v4 = mappedIPv4 { return v4 >> 24 == 127 }
    return high == 0 && low == 1
  }

  /// Private use: RFC 1918, shared address space (RFC 6598) and unique local addresses (RFC 4193).
  var isPrivate: Bool {
    guard let v4 = mappedIPv4 else { return high >> 57 == 0x7E }
    return v4 >> 24 == 10 || v4 >> 20 == 0xAC1 || v4 >> 16 == 0xC0A8 || v4 >> 22 == 0x191
  }

  /// An address that one host can have and others can send to: not unspecified, loopback, multicast or broadcast.
  var isReachableUnicast: Bool {
    if let v4 = mappedIPv4 { return v4 >> 24 != 0 && v4 >> 24 != 127 && v4 >> 28 < 0xE }
    return !isUnspecified && !isLoopback && high >> 56 != 0xFF && high >> 54 != 0x3FA
  }

  /// What limits count by: one IPv4 address, or the /64 that one IPv6 site has at least.
  var limitKey: IPv6Address { mappedIPv4 == nil ? IPv6Address(high: high, low: 0) : self }
}
