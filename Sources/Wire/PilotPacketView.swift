// A Pilot packet in memory, read and written in place: the worker turns datagrams and pings into IPv6 packets and back
// with it. Layout: PilotPacket.swift.

/// A valid packet: version, length and checksum are right. Accessors are plain loads.
@frozen
public struct PilotPacketView {
  public let base: UnsafeRawPointer

  /// Checks everything once; nil for what is no packet.
  public init?(_ base: UnsafeRawPointer, count: Int) {
    guard count >= PilotPacket.headerSize, base.loadByte(0) >> 4 == PilotPacket.version else { return nil }
    let payload = Int(base.loadBig16(2))
    guard PilotPacket.headerSize + payload <= count, Self.checksum(base, payloadCount: payload) == base.loadBig32(30)
    else { return nil }
    self.base = base
  }

  @inlinable public var flags: PilotFlags { PilotFlags(rawValue: base.loadByte(0)) }
  @inlinable public var protocolNumber: PilotProtocol { PilotProtocol(rawValue: base.loadByte(1)) }
  @inlinable public var payloadCount: Int { Int(base.loadBig16(2)) }
  @inlinable public var source: PilotAddress { PilotAddress(network: base.loadBig16(4), node: base.loadBig32(6)) }
  @inlinable public var destination: PilotAddress {
    PilotAddress(network: base.loadBig16(10), node: base.loadBig32(12))
  }
  @inlinable public var sourcePort: UInt16 { base.loadBig16(16) }
  @inlinable public var destinationPort: UInt16 { base.loadBig16(18) }
  @inlinable public var sequence: UInt32 { base.loadBig32(20) }
  @inlinable public var acknowledgement: UInt32 { base.loadBig32(24) }
  @inlinable public var payload: UnsafeRawPointer { base + PilotPacket.headerSize }

  /// Writes the header of a packet whose payload stands behind it already, with its checksum. No stream fields but the
  /// sequence number: datagrams and control packets have no others that count.
  public static func writeHeader(
    to base: UnsafeMutableRawPointer, protocolNumber: PilotProtocol, source: PilotAddress, destination: PilotAddress,
    sourcePort: UInt16, destinationPort: UInt16, sequence: UInt32 = 0, payloadCount: Int
  ) {
    base.storeByte(PilotPacket.version << 4, 0)
    base.storeByte(protocolNumber.rawValue, 1)
    base.storeBig16(UInt16(truncatingIfNeeded: payloadCount), 2)
    base.storeBig16(source.network, 4)
    base.storeBig32(source.node, 6)
    base.storeBig16(destination.network, 10)
    base.storeBig32(destination.node, 12)
    base.storeBig16(sourcePort, 16)
    base.storeBig16(destinationPort, 18)
    base.storeBig32(sequence, 20)
    base.storeBig32(0, 24)
    base.storeBig16(0, 28)
    base.storeBig32(checksum(UnsafeRawPointer(base), payloadCount: payloadCount), 30)
  }

  /// The CRC over the header (CRC field as zero) and the payload behind it.
  static func checksum(_ base: UnsafeRawPointer, payloadCount: Int) -> UInt32 {
    var state = CRC32.update(~0, UnsafeRawBufferPointer(start: base, count: 30))
    state = withUnsafeBytes(of: UInt32(0)) { CRC32.update(state, $0) }
    return ~CRC32.update(
      state, UnsafeRawBufferPointer(start: base + PilotPacket.headerSize, count: payloadCount))
  }
}

@available(*, unavailable)
extension PilotPacketView: Sendable {}
