// ICMPv6 error messages (RFC 4443), written into a buffer of the caller: the engine answers local programs and peers
// with them. Nothing is allocated.

/// Builds error messages in answer to a packet.
@frozen
public enum ICMPv6 {
  /// Type and what goes with it.
  @frozen
  public enum Message: Equatable, Sendable {
    /// Type 1.
    case unreachable(Unreachable)
    /// Type 2; the MTU that would have fitted, at least 1280.
    case packetTooBig(mtu: UInt32)
    /// Type 3 code 0.
    case hopLimitExceeded

    @inlinable
    public var type: UInt8 {
      switch self {
      case .unreachable: 1
      case .packetTooBig: 2
      case .hopLimitExceeded: 3
      }
    }

    @inlinable
    public var code: UInt8 {
      switch self {
      case .unreachable(let code): code.rawValue
      case .packetTooBig, .hopLimitExceeded: 0
      }
    }

    /// Bytes 4 to 7.
    @inlinable
    public var word: UInt32 {
      switch self {
      case .packetTooBig(let mtu): mtu
      case .unreachable, .hopLimitExceeded: 0
      }
    }
  }

  /// Codes of type 1 (RFC 4443 §3.1).
  @frozen
  public enum Unreachable: UInt8, Sendable {
    case noRoute = 0
    case prohibited = 1
    case beyondScope = 2
    case address = 3
    case port = 4
    case sourcePolicy = 5
    case rejectRoute = 6
  }

  /// IPv6 header and the first 8 bytes of the message.
  @inlinable public static var headerSize: Int { 48 }
  /// Largest message built: the smallest MTU of IPv6.
  @inlinable public static var maximumSize: Int { IPv6Packet.minimumMTU }

  /// Whether RFC 4443 §2.4 (e) lets an error answer this packet: its source names one node; it is no ICMPv6 error and
  /// no redirect; its destination is no multicast group, but for Packet Too Big. An ICMPv6 packet whose type cannot be
  /// seen (cut, or a later fragment) gets none.
  @inlinable
  public static func mayAnswer(_ packet: IPv6Packet, with message: Message) -> Bool {
    let source = packet.source
    guard !source.isUnspecified, !IPv6Packet.isMulticast(source) else { return false }
    if IPv6Packet.isMulticast(packet.destination) {
      guard case .packetTooBig = message else { return false }
    }
    guard let transport = packet.transport else { return !mayHideICMPv6(packet) }
    guard transport.nextHeader == IPProtocol.icmpv6 else { return true }
    guard transport.count >= 1 else { return false }
    let type = packet.base.loadByte(transport.offset)
    return type >= 128 && type != 137
  }

  /// Whether the extension headers of a packet without a reachable upper-layer header may end in ICMPv6. Only the
  /// fragment header of a later fragment says what follows; a broken chain is taken for the worst.
  @inlinable
  public static func mayHideICMPv6(_ packet: IPv6Packet) -> Bool {
    guard packet.nextHeader == IPProtocol.fragment, packet.payloadLength >= 8 else { return true }
    switch packet.base.loadByte(IPv6Packet.headerSize) {
    case IPProtocol.tcp, IPProtocol.udp: return false
    default: return true
    }
  }

  /// Writes a whole IPv6 packet with the error into `buffer` and returns its length; 0 when no answer is allowed or
  /// the buffer has no room for 48 bytes. Quotes as much of the packet as fits 1280 bytes and the buffer.
  ///
  /// - `packet`: the offending packet; one that is no whole IPv6 packet gets no answer.
  /// - `source`: the address the error comes from.
  /// - `buffer` must not overlap the packet.
  @inlinable
  public static func writeError(
    _ message: Message, inReplyTo packet: UnsafeRawPointer, count: Int, from source: IPv6Address,
    hopLimit: UInt8 = 64, to buffer: UnsafeMutableRawBufferPointer
  ) -> Int {
    guard let view = IPv6Packet(packet, count: count), mayAnswer(view, with: message),
      let target = buffer.baseAddress, buffer.count >= headerSize
    else { return 0 }
    let quoted = min(view.totalLength, maximumSize - headerSize, buffer.count - headerSize)
    let length = 8 + quoted
    IPv6Packet.writeHeader(
      to: target, payloadLength: UInt16(truncatingIfNeeded: length), nextHeader: IPProtocol.icmpv6,
      hopLimit: hopLimit, source: source, destination: view.source)
    target.storeByte(message.type, 40)
    target.storeByte(message.code, 41)
    target.storeBig16(0, 42)
    target.storeBig32(message.word, 44)
    // SAFETY: 48 + quoted <= buffer.count, quoted <= totalLength <= count, and the two do not overlap.
    (target + headerSize).copyMemory(from: packet, byteCount: quoted)
    let pseudo = InternetChecksum.pseudoHeader(
      source: source, destination: view.source, nextHeader: IPProtocol.icmpv6,
      length: UInt32(truncatingIfNeeded: length))
    let sum = InternetChecksum.partial(UnsafeRawPointer(target) + 40, count: length, initial: pseudo)
    target.storeBig16(InternetChecksum.finish(sum), 42)
    return headerSize + quoted
  }
}
