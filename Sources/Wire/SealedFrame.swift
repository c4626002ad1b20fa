// The layout of PILS, the frame that carries everything else (wire/tunnel §3.2, §3.4). The engine opens and seals with
// these offsets; nothing here touches a key.

/// A sealed frame as it travels in one UDP datagram; all integers big-endian.
///
///     0        4         8              12              20                         n-16       n
///     | "PILS" | sender  | prefix       | counter       | ciphertext               | tag (16) |
///                        |---------- nonce 12 ----------|
///
/// - `sender`: the node id of who sealed it, in clear; the receiver finds the session by it. Its 4 bytes are the
///   associated data.
/// - `prefix`: random per session and direction. `counter`: 1 for the first frame, rising by one.
/// - Smallest: 36 bytes (empty ciphertext). The caller checks the length with `isSealed` once; every other accessor
///   is a plain load.
@frozen
public enum SealedFrame {
  /// "PILS".
  @inlinable public static var magic: UInt32 { 0x5049_4C53 }
  @inlinable public static var headerSize: Int { 20 }
  @inlinable public static var tagSize: Int { 16 }
  /// Header and tag: what sealing adds to an inner frame.
  @inlinable public static var overhead: Int { 36 }

  @inlinable public static var senderOffset: Int { 4 }
  @inlinable public static var nonceOffset: Int { 8 }
  @inlinable public static var counterOffset: Int { 12 }
  @inlinable public static var bodyOffset: Int { 20 }
  @inlinable public static var nonceSize: Int { 12 }
  @inlinable public static var associatedDataSize: Int { 4 }

  /// Whether the datagram is a sealed frame: the magic, and room for header and tag.
  @inlinable @inline(__always)
  public static func isSealed(_ base: UnsafeRawPointer, count: Int) -> Bool {
    count >= overhead && base.loadBig32(0) == magic
  }

  @inlinable @inline(__always)
  public static func sender(_ base: UnsafeRawPointer) -> UInt32 { base.loadBig32(senderOffset) }

  @inlinable @inline(__always)
  public static func noncePrefix(_ base: UnsafeRawPointer) -> UInt32 { base.loadBig32(nonceOffset) }

  @inlinable @inline(__always)
  public static func nonceCounter(_ base: UnsafeRawPointer) -> UInt64 { base.loadBig64(counterOffset) }

  /// Bytes of the inner frame in a sealed frame of `count` bytes.
  @inlinable @inline(__always)
  public static func innerCount(ofFrame count: Int) -> Int { count - overhead }

  /// Writes the 20-byte header. The caller has room for `headerSize` bytes.
  @inlinable @inline(__always)
  public static func writeHeader(
    to base: UnsafeMutableRawPointer, sender: UInt32, prefix: UInt32, counter: UInt64
  ) {
    base.storeBig32(magic, 0)
    base.storeBig32(sender, senderOffset)
    base.storeBig32(prefix, nonceOffset)
    base.storeBig64(counter, counterOffset)
  }
}
