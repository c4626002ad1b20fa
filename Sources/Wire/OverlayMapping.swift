// Pilot address <-> IPv6 overlay address, by arithmetic alone (docs/design.md §3). Used on the packet path.

/// The overlay prefix `fd50:494c:4f54::/48` ("PILOT") and the two directions of the mapping.
///
///     fd50:494c:4f54 | network (16) | zero (32) | node (32)
///
/// Any other bit pattern under the prefix is invalid. Network 65535 is local to a node and never travels.
public enum OverlayMapping {
  /// The upper 48 bits, shifted down.
  public static let prefix: UInt64 = 0xfd50_494c_4f54
  /// Network of local services.
  public static let localNetwork: UInt16 = 0xFFFF
  /// `fd50:494c:4f54:ffff::53`, where the resolver stub listens.
  public static let resolver = IPv6Address(high: 0xfd50_494c_4f54_ffff, low: 0x53)

  /// `fd50:494c:4f54:ffff::1`: where the gateway's sockets stand, between local programs and streams of official agents.
  public static let gateway = IPv6Address(high: 0xfd50_494c_4f54_ffff, low: 0x1)
  /// `fd50:494c:4f54:ffff::2`: whom those sockets speak with. No interface carries it; the worker puts the flow's real
  /// addresses in its place.
  public static let phantom = IPv6Address(high: 0xfd50_494c_4f54_ffff, low: 0x2)

  @inlinable
  public static func address(for pilot: PilotAddress) -> IPv6Address {
    IPv6Address(high: 0xfd50_494c_4f54_0000 | UInt64(pilot.network), low: UInt64(pilot.node))
  }

  /// Whether the address is under the overlay prefix at all.
  @inlinable
  public static func contains(_ address: IPv6Address) -> Bool { address.high >> 16 == 0xfd50_494c_4f54 }

  /// The Pilot address, or nil when the address is outside the prefix, malformed or names node 0.
  @inlinable
  public static func pilotAddress(from address: IPv6Address) -> PilotAddress? {
    guard contains(address), address.low >> 32 == 0, address.low != 0 else { return nil }
    return PilotAddress(
      network: UInt16(truncatingIfNeeded: address.high), node: UInt32(truncatingIfNeeded: address.low))
  }
}
