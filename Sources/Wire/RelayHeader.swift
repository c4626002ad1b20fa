// The wrappers of relayed frames, for the packet path (wire/tunnel §4.1, codes 05, 06, 09). The engine writes the first
// and strips the second in place; `BeaconMessage` is the same layout for control.

/// Headers in front of a frame that goes through a beacon; all integers big-endian.
///
///     0    1        5             9
///     | 05 | source | destination | frame…      to the beacon
///     | 06 | source | frame…                    from the beacon
///     | 09 | source | destination | frame…      from the beacon, to gateway clients
@frozen
public enum RelayHeader {
  @inlinable public static var relayCode: UInt8 { 5 }
  @inlinable public static var deliverCode: UInt8 { 6 }
  @inlinable public static var deliverWithDestinationCode: UInt8 { 9 }
  /// Bytes that going to the beacon adds.
  @inlinable public static var relaySize: Int { 9 }
  /// Bytes that coming from the beacon adds.
  @inlinable public static var deliverSize: Int { 5 }
  @inlinable public static var sourceOffset: Int { 1 }
  @inlinable public static var destinationOffset: Int { 5 }

  /// Writes the 9 bytes in front of a frame to the beacon. The caller has the room.
  @inlinable @inline(__always)
  public static func writeRelay(to base: UnsafeMutableRawPointer, source: UInt32, destination: UInt32) {
    base.storeByte(relayCode, 0)
    base.storeBig32(source, sourceOffset)
    base.storeBig32(destination, destinationOffset)
  }

  /// Writes the 5 bytes in front of a frame from the beacon. The caller has the room.
  @inlinable @inline(__always)
  public static func writeDeliver(to base: UnsafeMutableRawPointer, source: UInt32) {
    base.storeByte(deliverCode, 0)
    base.storeBig32(source, sourceOffset)
  }

  /// Whether this is a frame to the beacon: code 05 and at least one byte of frame.
  @inlinable @inline(__always)
  public static func isRelay(_ base: UnsafeRawPointer, count: Int) -> Bool {
    count > relaySize && base.loadByte(0) == relayCode
  }

  /// Whether this is a frame from the beacon: code 06 and at least one byte of frame.
  @inlinable @inline(__always)
  public static func isDeliver(_ base: UnsafeRawPointer, count: Int) -> Bool {
    count > deliverSize && base.loadByte(0) == deliverCode
  }

  /// The source node of any of the three.
  @inlinable @inline(__always)
  public static func source(_ base: UnsafeRawPointer) -> UInt32 { base.loadBig32(sourceOffset) }

  /// The destination node of codes 05 and 09.
  @inlinable @inline(__always)
  public static func destination(_ base: UnsafeRawPointer) -> UInt32 { base.loadBig32(destinationOffset) }
}
