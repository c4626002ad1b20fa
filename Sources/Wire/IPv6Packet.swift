// Views over IPv6 packets and the headers inside, by raw pointer (RFC 8200). The engine reads packets from the TUN and
// from opened frames with them; `ICMPv6` quotes packets with them.

/// Next-header numbers that anyone here looks at.
@frozen
public enum IPProtocol {
  @inlinable public static var hopByHop: UInt8 { 0 }
  @inlinable public static var tcp: UInt8 { 6 }
  @inlinable public static var udp: UInt8 { 17 }
  @inlinable public static var routing: UInt8 { 43 }
  @inlinable public static var fragment: UInt8 { 44 }
  @inlinable public static var authentication: UInt8 { 51 }
  @inlinable public static var icmpv6: UInt8 { 58 }
  @inlinable public static var noNext: UInt8 { 59 }
  @inlinable public static var destinationOptions: UInt8 { 60 }
}

/// An IPv6 packet in memory that outlives the view.
///
///     0                4                6             7           8           24               40
///     | version, class | payload length | next header | hop limit | source 16 | destination 16 | …
///
/// - Initialising checks once: 40 bytes there, version 6, the declared length within the bytes. Afterwards every
///   accessor is a plain load and cannot fail. Bytes past `totalLength` are not the packet's.
/// - No jumbograms: a payload length of 0 is an empty payload.
@frozen
public struct IPv6Packet {
  public let base: UnsafeRawPointer
  /// Header and declared payload, at most the count given.
  public let totalLength: Int

  @inlinable public static var headerSize: Int { 40 }
  /// Smallest MTU that a link under IPv6 has.
  @inlinable public static var minimumMTU: Int { 1280 }

  @inlinable @inline(__always)
  public init?(_ base: UnsafeRawPointer, count: Int) {
    guard count >= Self.headerSize, base.loadByte(0) >> 4 == 6 else { return nil }
    let total = Self.headerSize + Int(base.loadBig16(4))
    guard total <= count else { return nil }
    self.base = base
    totalLength = total
  }

  @inlinable public var payloadLength: Int { totalLength - Self.headerSize }
  @inlinable public var nextHeader: UInt8 { base.loadByte(6) }
  @inlinable public var hopLimit: UInt8 { base.loadByte(7) }
  @inlinable public var source: IPv6Address { IPv6Address(base, at: 8) }
  @inlinable public var destination: IPv6Address { IPv6Address(base, at: 24) }
  /// Traffic class: DSCP in the upper six bits, ECN in the lower two.
  @inlinable public var trafficClass: UInt8 { UInt8(truncatingIfNeeded: base.loadBig16(0) >> 4) }

  /// Most extension headers that `transport` walks over. Real packets have none or one.
  @inlinable public static var extensionLimit: Int { 8 }

  /// Where the upper-layer header is; nil when the chain is cut, too long, encrypted, or this is a later fragment
  /// (which has no upper-layer header).
  @inlinable
  public var transport: TransportHeader? {
    var next = nextHeader
    var offset = Self.headerSize
    for _ in 0...Self.extensionLimit {
      let left = totalLength - offset
      let size: Int
      switch next {
      case IPProtocol.hopByHop, IPProtocol.routing, IPProtocol.destinationOptions:
        guard left >= 8 else { return nil }
        size = 8 + 8 * Int(base.loadByte(offset + 1))
      case IPProtocol.authentication:
        guard left >= 8 else { return nil }
        size = 8 + 4 * Int(base.loadByte(offset + 1))
      case IPProtocol.fragment:
        guard left >= 8, base.loadBig16(offset + 2) & 0xFFF8 == 0 else { return nil }
        size = 8
      default:
        return TransportHeader(nextHeader: next, offset: offset, count: left)
      }
      guard size <= left else { return nil }
      next = base.loadByte(offset)
      offset += size
    }
    return nil
  }

  /// The TCP header with its options, when that is what the packet carries and it is whole.
  @inlinable
  public var tcp: TCPHeader? {
    guard let transport, transport.nextHeader == IPProtocol.tcp else { return nil }
    return TCPHeader(base + transport.offset, count: transport.count)
  }

  /// The UDP header, when that is what the packet carries and it is whole.
  @inlinable
  public var udp: UDPHeader? {
    guard let transport, transport.nextHeader == IPProtocol.udp else { return nil }
    return UDPHeader(base + transport.offset, count: transport.count)
  }

  /// The ICMPv6 header, when that is what the packet carries and it is whole.
  @inlinable
  public var icmpv6: ICMPv6Header? {
    guard let transport, transport.nextHeader == IPProtocol.icmpv6 else { return nil }
    return ICMPv6Header(base + transport.offset, count: transport.count)
  }

  /// Whether an address is a multicast one (ff00::/8).
  @inlinable
  public static func isMulticast(_ address: IPv6Address) -> Bool { address.high >> 56 == 0xFF }

  /// Writes a 40-byte header with traffic class and flow label 0. The caller has the room.
  @inlinable
  public static func writeHeader(
    to base: UnsafeMutableRawPointer, payloadLength: UInt16, nextHeader: UInt8, hopLimit: UInt8 = 64,
    source: IPv6Address, destination: IPv6Address
  ) {
    base.storeBig32(0x6000_0000, 0)
    base.storeBig16(payloadLength, 4)
    base.storeByte(nextHeader, 6)
    base.storeByte(hopLimit, 7)
    source.store(to: base, at: 8)
    destination.store(to: base, at: 24)
  }
}

@available(*, unavailable)
extension IPv6Packet: Sendable {}

/// Where an upper-layer header starts in its packet and how many bytes of packet there are from it on.
@frozen
public struct TransportHeader: Equatable, Sendable {
  public let nextHeader: UInt8
  public let offset: Int
  public let count: Int

  @inlinable
  public init(nextHeader: UInt8, offset: Int, count: Int) {
    self.nextHeader = nextHeader
    self.offset = offset
    self.count = count
  }
}
