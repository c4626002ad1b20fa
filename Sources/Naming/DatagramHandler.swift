// Queries by UDP: one datagram in, one datagram out. Lives in StubServer's datagram channel.
import NIOCore
import Wire

final class DatagramHandler: ChannelInboundHandler {
  typealias InboundIn = AddressedEnvelope<ByteBuffer>
  typealias OutboundOut = AddressedEnvelope<ByteBuffer>

  private let desk: LookupDesk

  init(desk: LookupDesk) { self.desk = desk }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    let envelope = unwrapInboundIn(data)
    guard let port = envelope.remoteAddress.port, port != 0 else { return desk.counters.add(.droppedSource) }
    let channel = context.channel
    let remote = envelope.remoteAddress
    desk.take(
      Array(envelope.data.readableBytesView), by: .udp, from: IPv6Address(remote), on: context.eventLoop
    ) { [desk] outcome in
      guard case .response(let response) = outcome else { return }
      guard channel.isActive, channel.isWritable else { return desk.counters.add(.droppedSend) }
      let buffer = channel.allocator.buffer(bytes: response.bytes)
      channel.writeAndFlush(AddressedEnvelope(remoteAddress: remote, data: buffer)).whenFailure { _ in
        desk.counters.add(.droppedSend)
      }
    }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    // An ICMP error about an earlier answer: the socket is fine, the asker is gone.
    desk.counters.add(.droppedSend)
  }
}

extension IPv6Address {
  /// The sender's address, nil for anything but IP. Layout of the two structures: ip(7), ipv6(7).
  init?(_ address: SocketAddress) {
    switch address {
    case .v6: self = address.withSockAddr { pointer, _ in IPv6Address(UnsafeRawPointer(pointer), at: 8) }
    case .v4:
      self = address.withSockAddr { pointer, _ in
        IPv6Address(mappedIPv4: UInt32(bigEndian: UnsafeRawPointer(pointer).load(fromByteOffset: 4, as: UInt32.self)))
      }
    case .unixDomainSocket: return nil
    }
  }
}
