// One packet in two inner frames, for paths that take less than the 1280 bytes which IPv6 may always send. The engine
// writes and joins them (Worker+Send, Rejoiner); docs/design.md §4.

/// A part of an inner frame that was too large for the path:
///
///     0        1                     n
///     | 0x2H   | bytes of the packet |
///
/// - `H`: 0, the first part; 1, the rest. Any other is of a later version: dropped and counted.
/// - There is no identifier and no length, so there is nothing to lie about: the two parts are sealed one right after the
///   other, the rest under the nonce counter that follows the first part's. The replay window lets each counter in once.
/// - Both parts together are an inner frame of the first nibble 6 or 1, of at most 1280 bytes.
/// - Only for peers whose announcement says that they join (PeerAnnouncement, flag bit 2).
@frozen
public enum SplitFrame {
  @inlinable public static var headerSize: Int { 1 }
  /// The first byte of the first part; one more is the rest's.
  @inlinable public static var firstByte: UInt8 { 0x20 }
  /// Larger packets hear Packet Too Big; the kernel always may send this much (RFC 8200 §5).
  @inlinable public static var largestPacket: Int { 1280 }
  /// A path that takes no frame of this size takes no half of the largest packet either.
  @inlinable public static var smallestLimit: Int { headerSize + largestPacket / 2 }
}
