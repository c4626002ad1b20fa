// The classic Pilot packet: what an official daemon carries inside sealed frames (wire/tunnel §2, §6). Control uses it
// for pings, keepalives and, later, streams and datagrams.

/// Stream flags, low nibble of byte 0.
@frozen
public struct PilotFlags: OptionSet, Hashable, Sendable {
  public var rawValue: UInt8
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue & 0x0F }
  public static let syn = PilotFlags(rawValue: 1)
  public static let ack = PilotFlags(rawValue: 2)
  public static let fin = PilotFlags(rawValue: 4)
  public static let rst = PilotFlags(rawValue: 8)
}

/// The protocol byte. Numbers other than these three parse, and are dropped by whoever reads them.
@frozen
public struct PilotProtocol: RawRepresentable, Hashable, Sendable {
  public var rawValue: UInt8
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
  public static let stream = PilotProtocol(rawValue: 1)
  public static let datagram = PilotProtocol(rawValue: 2)
  public static let control = PilotProtocol(rawValue: 3)
}

/// Well-known ports (wire/tunnel §1.2).
public enum PilotPort {
  public static let ping: UInt16 = 0
  public static let echo: UInt16 = 7
  public static let handshake: UInt16 = 444
  public static let dataExchange: UInt16 = 1001
  public static let eventStream: UInt16 = 1002
  public static let firstEphemeral: UInt16 = 49152
}

/// Why bytes are not a Pilot packet. Each is a silent, counted drop.
public enum PilotPacketFault: Error, Equatable, Sendable {
  /// Fewer than 34 bytes.
  case truncated
  /// Version other than 1.
  case version
  /// The declared payload reaches beyond the bytes.
  case length
  case checksum
}

/// A Pilot packet; all integers big-endian.
///
///     0                 1          2                4        10            16
///     | version, flags  | protocol | payload length | source | destination | …
///     16            18                 20    24    28       30       34
///     | source port | destination port | seq | ack | window | CRC-32 | payload
///
/// - The CRC is over the header with the CRC field zero, then the payload.
/// - Bytes after the declared payload are not part of it: a packet may carry a trailer (`trailer(of:)`).
public struct PilotPacket: Equatable, Sendable {
  public static let headerSize = 34
  public static let version: UInt8 = 1
  /// The length field has 16 bits.
  public static let payloadLimit = 0xFFFF

  public var flags: PilotFlags
  public var protocolNumber: PilotProtocol
  public var source: PilotAddress
  public var destination: PilotAddress
  public var sourcePort: UInt16
  public var destinationPort: UInt16
  public var sequence: UInt32
  public var acknowledgement: UInt32
  /// In segments, not bytes.
  public var window: UInt16
  public var payload: [UInt8]

  public init(
    flags: PilotFlags = [], protocolNumber: PilotProtocol, source: PilotAddress, destination: PilotAddress,
    sourcePort: UInt16 = 0, destinationPort: UInt16 = 0, sequence: UInt32 = 0, acknowledgement: UInt32 = 0,
    window: UInt16 = 0, payload: [UInt8] = []
  ) {
    self.flags = flags
    self.protocolNumber = protocolNumber
    self.source = source
    self.destination = destination
    self.sourcePort = sourcePort
    self.destinationPort = destinationPort
    self.sequence = sequence
    self.acknowledgement = acknowledgement
    self.window = window
    self.payload = payload
  }

  /// Reads a packet; a trailer is left out.
  public init(_ bytes: some Collection<UInt8>) throws(PilotPacketFault) {
    let bytes = Array(bytes)
    var reader = ByteReader(bytes)
    guard bytes.count >= Self.headerSize, let first = reader.byte(), let number = reader.byte(),
      let length = reader.u16(), let sourceNetwork = reader.u16(), let sourceNode = reader.u32(),
      let destinationNetwork = reader.u16(), let destinationNode = reader.u32(), let sourcePort = reader.u16(),
      let destinationPort = reader.u16(), let sequence = reader.u32(), let acknowledgement = reader.u32(),
      let window = reader.u16(), let checksum = reader.u32()
    else { throw .truncated }
    guard first >> 4 == Self.version else { throw .version }
    guard let payload = reader.take(Int(length)) else { throw .length }
    self.init(
      flags: PilotFlags(rawValue: first), protocolNumber: PilotProtocol(rawValue: number),
      source: PilotAddress(network: sourceNetwork, node: sourceNode),
      destination: PilotAddress(network: destinationNetwork, node: destinationNode), sourcePort: sourcePort,
      destinationPort: destinationPort, sequence: sequence, acknowledgement: acknowledgement, window: window,
      payload: Array(payload))
    guard Self.checksum(bytes, payloadCount: Int(length)) == checksum else { throw .checksum }
  }

  /// The bytes after the declared payload of a valid packet; empty for anything shorter.
  public static func trailer(of bytes: [UInt8]) -> ArraySlice<UInt8> {
    guard bytes.count >= headerSize else { return [] }
    return bytes.dropFirst(headerSize + Int(bytes[2]) << 8 + Int(bytes[3]))
  }

  /// The bytes on the wire. A payload above `payloadLimit` is cut there: callers split before.
  public func encoded() -> [UInt8] {
    let body = payload.prefix(Self.payloadLimit)
    var bytes: [UInt8] = []
    bytes.reserveCapacity(Self.headerSize + body.count)
    bytes.append(Self.version << 4 | flags.rawValue)
    bytes.append(protocolNumber.rawValue)
    bytes.appendBig(UInt16(body.count))
    bytes.appendBig(source.network)
    bytes.appendBig(source.node)
    bytes.appendBig(destination.network)
    bytes.appendBig(destination.node)
    bytes.appendBig(sourcePort)
    bytes.appendBig(destinationPort)
    bytes.appendBig(sequence)
    bytes.appendBig(acknowledgement)
    bytes.appendBig(window)
    bytes.appendBig(UInt32(0))
    bytes += body
    let checksum = Self.checksum(bytes, payloadCount: body.count)
    bytes.withUnsafeMutableBytes { $0.baseAddress?.storeBig32(checksum, 30) }
    return bytes
  }

  /// The CRC over header (CRC field as zero) and payload. `bytes` holds both.
  private static func checksum(_ bytes: [UInt8], payloadCount: Int) -> UInt32 {
    bytes.withUnsafeBytes { bytes in
      // SAFETY: the callers made or checked the header and `payloadCount` bytes behind it.
      bytes.baseAddress.map { PilotPacketView.checksum($0, payloadCount: payloadCount) } ?? 0
    }
  }
}

// Control packets (wire/tunnel §6, §3.13).
extension PilotPacket {
  /// The payload of official path probes; answered like any ping.
  public static let pathProbePayload = Array("pathprobe.v1".utf8)

  /// A liveness check. The payload must not be empty, or the packet would be a keepalive.
  public static func ping(
    from source: PilotAddress, to destination: PilotAddress, sourcePort: UInt16 = 0, sequence: UInt32, payload: [UInt8]
  ) -> PilotPacket {
    PilotPacket(
      protocolNumber: .control, source: source, destination: destination, sourcePort: sourcePort,
      destinationPort: PilotPort.ping, sequence: sequence, payload: payload)
  }

  /// What refreshes a NAT mapping: empty, to nobody, swallowed by the receiver.
  public static func keepalive(from source: PilotAddress) -> PilotPacket {
    PilotPacket(protocolNumber: .control, source: source, destination: PilotAddress(network: 0, node: 0))
  }

  /// A control packet to port 0 that wants an answer: payload not empty, ACK not set.
  public var isPing: Bool {
    protocolNumber == .control && destinationPort == PilotPort.ping && !payload.isEmpty && !flags.contains(.ack)
  }

  /// An answer to a ping. The port is the one the ping came from.
  public var isPong: Bool { protocolNumber == .control && flags.contains(.ack) && !payload.isEmpty }

  /// An empty control packet without ACK.
  public var isKeepalive: Bool {
    protocolNumber == .control && destinationPort == PilotPort.ping && payload.isEmpty && !flags.contains(.ack)
  }

  /// One of the empty frames by which a relayed official daemon tries the direct way; nobody answers them
  /// (wire/tunnel §4.5).
  public var isUpgradeProbe: Bool {
    protocolNumber == .control && destinationPort == PilotPort.ping && payload.isEmpty && flags.contains(.ack)
  }

  /// The answer to this ping, or nil when it is none. `own` stands in when the ping names no destination.
  public func pong(own: PilotAddress) -> PilotPacket? {
    guard isPing else { return nil }
    return PilotPacket(
      flags: .ack, protocolNumber: .control, source: destination.node == 0 ? own : destination, destination: source,
      sourcePort: PilotPort.ping, destinationPort: sourcePort, sequence: sequence, acknowledgement: sequence &+ 1,
      payload: payload)
  }
}
