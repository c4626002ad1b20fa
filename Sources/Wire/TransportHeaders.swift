// Views over TCP, UDP and ICMPv6 headers (RFC 9293, 768, 4443). The engine splits, coalesces and filters with them.
// Initialising checks the length once; afterwards every accessor is a plain load.

/// A TCP header with its options; the options and the header are within the bytes.
@frozen
public struct TCPHeader {
  public let base: UnsafeRawPointer
  /// Bytes from the header on.
  public let count: Int

  @inlinable public static var minimumSize: Int { 20 }
  @inlinable public static var checksumOffset: Int { 16 }

  @inlinable @inline(__always)
  public init?(_ base: UnsafeRawPointer, count: Int) {
    guard count >= Self.minimumSize else { return nil }
    let size = Int(base.loadByte(12) >> 4) * 4
    guard size >= Self.minimumSize, size <= count else { return nil }
    self.base = base
    self.count = count
  }

  @inlinable public var sourcePort: UInt16 { base.loadBig16(0) }
  @inlinable public var destinationPort: UInt16 { base.loadBig16(2) }
  @inlinable public var sequence: UInt32 { base.loadBig32(4) }
  @inlinable public var acknowledgement: UInt32 { base.loadBig32(8) }
  /// Header and options, 20 to 60.
  @inlinable public var headerSize: Int { Int(base.loadByte(12) >> 4) * 4 }
  @inlinable public var flags: TCPFlags { TCPFlags(rawValue: base.loadByte(13)) }
  @inlinable public var window: UInt16 { base.loadBig16(14) }
  @inlinable public var checksum: UInt16 { base.loadBig16(16) }
  @inlinable public var payloadLength: Int { count - headerSize }
}

/// Byte 13 of a TCP header.
@frozen
public struct TCPFlags: OptionSet, Hashable, Sendable {
  public var rawValue: UInt8
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
  @inlinable public static var fin: TCPFlags { TCPFlags(rawValue: 0x01) }
  @inlinable public static var syn: TCPFlags { TCPFlags(rawValue: 0x02) }
  @inlinable public static var rst: TCPFlags { TCPFlags(rawValue: 0x04) }
  @inlinable public static var psh: TCPFlags { TCPFlags(rawValue: 0x08) }
  @inlinable public static var ack: TCPFlags { TCPFlags(rawValue: 0x10) }
  @inlinable public static var urg: TCPFlags { TCPFlags(rawValue: 0x20) }
  @inlinable public static var ece: TCPFlags { TCPFlags(rawValue: 0x40) }
  @inlinable public static var cwr: TCPFlags { TCPFlags(rawValue: 0x80) }
}

/// A UDP header. Its own length field is checked by whoever needs it.
@frozen
public struct UDPHeader {
  public let base: UnsafeRawPointer
  /// Bytes from the header on.
  public let count: Int

  @inlinable public static var size: Int { 8 }
  @inlinable public static var checksumOffset: Int { 6 }

  @inlinable @inline(__always)
  public init?(_ base: UnsafeRawPointer, count: Int) {
    guard count >= Self.size else { return nil }
    self.base = base
    self.count = count
  }

  @inlinable public var sourcePort: UInt16 { base.loadBig16(0) }
  @inlinable public var destinationPort: UInt16 { base.loadBig16(2) }
  /// Header and payload as declared.
  @inlinable public var length: Int { Int(base.loadBig16(4)) }
  @inlinable public var checksum: UInt16 { base.loadBig16(6) }
}

/// An ICMPv6 header: the first 8 bytes that all messages here have.
@frozen
public struct ICMPv6Header {
  public let base: UnsafeRawPointer
  /// Bytes from the header on.
  public let count: Int

  @inlinable public static var size: Int { 8 }
  @inlinable public static var checksumOffset: Int { 2 }

  @inlinable @inline(__always)
  public init?(_ base: UnsafeRawPointer, count: Int) {
    guard count >= Self.size else { return nil }
    self.base = base
    self.count = count
  }

  @inlinable public var type: UInt8 { base.loadByte(0) }
  @inlinable public var code: UInt8 { base.loadByte(1) }
  @inlinable public var checksum: UInt16 { base.loadBig16(2) }
  /// Bytes 4 to 7: the MTU of a Packet Too Big, identifier and sequence number of an echo.
  @inlinable public var word: UInt32 { base.loadBig32(4) }
  /// Echo identifier.
  @inlinable public var identifier: UInt16 { base.loadBig16(4) }
  /// Types below 128 are errors.
  @inlinable public var isError: Bool { type < 128 }
}

@available(*, unavailable)
extension TCPHeader: Sendable {}
@available(*, unavailable)
extension UDPHeader: Sendable {}
@available(*, unavailable)
extension ICMPv6Header: Sendable {}
