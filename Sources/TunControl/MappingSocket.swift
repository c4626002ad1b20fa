// The socket towards the gateway's port mapping service, and the one that hears its announcements. Node+PortMapping
// owns one for each network.

import NIOCore
import NIOPosix
import PortMapping
import Wire

struct MappingSocket: Sendable {
  let network: MappingNetwork
  private let channel: any Channel
  /// A program of this machine may have the port without sharing it: then renewals notice a restart.
  private let announcements: (any Channel)?

  /// RFC 6887 §14.1.1, RFC 6886 §3.2.1: servers tell 224.0.0.1 of a restart.
  private static let announcementPort = 5350

  /// Connected, so that the kernel passes answers of the server only, and its refusals.
  static func open(
    _ network: MappingNetwork, _ group: any EventLoopGroup, _ deliver: @escaping @Sendable (PortMapperEvent) -> Void
  ) async throws -> MappingSocket {
    let bootstrap = DatagramBootstrap(group: group)
      .channelOption(.socketOption(.so_reuseaddr), value: 1)
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(MappingHandler(deliver))
        }
      }
    let server = try SocketAddress(
      ipAddress: network.server.address.description, port: Int(network.server.port))
    let channel = try await bootstrap.connect(to: server).get()
    let announcements = try? await bootstrap.bind(host: "0.0.0.0", port: announcementPort).get()
    return MappingSocket(network: network, channel: channel, announcements: announcements)
  }

  /// What does not leave is asked again, as if it had been lost.
  func send(_ bytes: [UInt8]) {
    guard let server = channel.remoteAddress else { return }
    let buffer = channel.allocator.buffer(bytes: bytes)
    channel.writeAndFlush(AddressedEnvelope(remoteAddress: server, data: buffer), promise: nil)
  }

  func close() async {
    try? await channel.close()
    try? await announcements?.close()
  }
}

private final class MappingHandler: ChannelInboundHandler {
  typealias InboundIn = AddressedEnvelope<ByteBuffer>
  typealias OutboundOut = AddressedEnvelope<ByteBuffer>

  private let deliver: @Sendable (PortMapperEvent) -> Void

  init(_ deliver: @escaping @Sendable (PortMapperEvent) -> Void) { self.deliver = deliver }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    let envelope = unwrapInboundIn(data)
    guard envelope.data.readableBytes <= PCPMessage.largest, let host = envelope.remoteAddress.ipAddress,
      let address = IPv6Address(host), let port = envelope.remoteAddress.port.flatMap(UInt16.init(exactly:))
    else { return }
    deliver(.received(from: Endpoint(address: address, port: port), Array(envelope.data.readableBytesView)))
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    if let error = error as? IOError, error.errnoCode == ECONNREFUSED { deliver(.refused) }
  }
}
