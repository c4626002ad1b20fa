// The Internet checksum (RFC 1071), one word at a time. For small headers and ICMPv6 messages; the engine has its own
// for whole packets.

/// Ones' complement sums. A partial sum is any number of big-endian 16-bit words added up in 64 bits, not folded.
@frozen
public enum InternetChecksum {
  /// Adds `count` bytes to a partial sum; an odd last byte counts as the high half of a word. Runs that are joined
  /// must have even lengths, but for the last.
  @inlinable
  public static func partial(_ base: UnsafeRawPointer, count: Int, initial: UInt64 = 0) -> UInt64 {
    var sum = initial
    var offset = 0
    // A 32-bit word is worth the sum of its halves once folded: 2^16 is 1 in this arithmetic.
    while count - offset >= 4 {
      sum &+= UInt64(base.loadBig32(offset))
      offset += 4
    }
    if count - offset >= 2 {
      sum &+= UInt64(base.loadBig16(offset))
      offset += 2
    }
    if offset < count { sum &+= UInt64(base.loadByte(offset)) << 8 }
    return sum
  }

  /// The partial sum of the pseudo-header of RFC 8200 §8.1. `length` is that of the upper-layer packet.
  @inlinable
  public static func pseudoHeader(
    source: IPv6Address, destination: IPv6Address, nextHeader: UInt8, length: UInt32
  ) -> UInt64 {
    UInt64(length) &+ UInt64(nextHeader) &+ halves(source) &+ halves(destination)
  }

  /// The partial sum of one address.
  @inlinable @inline(__always)
  public static func halves(_ address: IPv6Address) -> UInt64 {
    (address.high >> 32) &+ (address.high & 0xFFFF_FFFF) &+ (address.low >> 32) &+ (address.low & 0xFFFF_FFFF)
  }

  /// The 16-bit ones' complement sum of a partial sum.
  @inlinable
  public static func fold(_ partial: UInt64) -> UInt16 {
    var sum = (partial >> 32) &+ (partial & 0xFFFF_FFFF)
    sum = (sum >> 32) &+ (sum & 0xFFFF_FFFF)
    sum = (sum >> 16) &+ (sum & 0xFFFF)
    sum = (sum >> 16) &+ (sum & 0xFFFF)
    return UInt16(truncatingIfNeeded: sum)
  }

  /// What goes into a checksum field that was zero while summing. UDP sends 0 as 0xFFFF; that is its caller's to do.
  @inlinable
  public static func finish(_ partial: UInt64) -> UInt16 { ~fold(partial) }
}
