// A TCP segment with RST in answer to another one (RFC 9293 §3.5.2): what a program hears when the other side of its
// connection refused it or does not know it.

@frozen
public enum TCPReset {
  /// IPv6 and TCP header.
  @inlinable public static var size: Int { 60 }

  /// Writes the whole packet into `buffer` (at least `size` bytes, apart from the packet) and returns its length; 0 when
  /// the packet is no whole TCP segment right behind its IPv6 header, or is a reset itself.
  public static func write(
    inReplyTo packet: UnsafeRawPointer, count: Int, to buffer: UnsafeMutableRawPointer
  ) -> Int {
    guard let view = IPv6Packet(packet, count: count), view.nextHeader == IPProtocol.tcp,
      let header = TCPHeader(packet + IPv6Packet.headerSize, count: view.payloadLength), !header.flags.contains(.rst)
    else { return 0 }
    IPv6Packet.writeHeader(
      to: buffer, payloadLength: 20, nextHeader: IPProtocol.tcp, source: view.destination, destination: view.source)
    let tcp = buffer + IPv6Packet.headerSize
    let isAcknowledging = header.flags.contains(.ack)
    var taken = UInt32(truncatingIfNeeded: header.payloadLength)
    if header.flags.contains(.syn) { taken &+= 1 }
    if header.flags.contains(.fin) { taken &+= 1 }
    tcp.storeBig16(header.destinationPort, 0)
    tcp.storeBig16(header.sourcePort, 2)
    tcp.storeBig32(isAcknowledging ? header.acknowledgement : 0, 4)
    tcp.storeBig32(isAcknowledging ? 0 : header.sequence &+ taken, 8)
    tcp.storeByte(5 << 4, 12)
    tcp.storeByte(isAcknowledging ? TCPFlags.rst.rawValue : TCPFlags.rst.rawValue | TCPFlags.ack.rawValue, 13)
    tcp.storeBig16(0, 14)
    tcp.storeBig16(0, 16)
    tcp.storeBig16(0, 18)
    let pseudo = InternetChecksum.pseudoHeader(
      source: view.destination, destination: view.source, nextHeader: IPProtocol.tcp, length: 20)
    tcp.storeBig16(
      InternetChecksum.finish(InternetChecksum.partial(UnsafeRawPointer(tcp), count: 20, initial: pseudo)), 16)
    return size
  }
}
