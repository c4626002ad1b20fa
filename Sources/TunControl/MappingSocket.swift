// The socket towards the gateway's port mapping service, and the one that hears its announcements. Node+PortMapping
// owns one for each network.

import Glibc
import NIOCore
import NIOPosix
import PortMapping
import Wire

struct MappingSocket: Sendable {
  let network: MappingNetwork
  private let channel: any Channel
  private let server: SocketAddress
  /// A program of this machine may have the port without sharing it: then renewals notice a restart.
  private let announcements: (any Channel)?

  /// RFC 6887 §14.1.1, RFC 6886 §3.2.1: servers tell 224.0.0.1 and ff02::1 of a restart.
  private static let announcementPort = 5350

  /// By IPv4 connected, so that the kernel passes answers of the server only, and its refusals.
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
    let server = try address(of: network)
    let channel: any Channel
    if network.local.mappedIPv4 != nil {
      channel = try await bootstrap.connect(to: server).get()
    } else {
      // From the address that is to be reached: towards a link-local server the kernel would take another.
      channel = try await bootstrap.bind(host: network.local.description, port: 0).get()
    }
    let every = network.local.mappedIPv4 != nil ? "0.0.0.0" : "::"
    let announcements = try? await bootstrap.bind(host: every, port: announcementPort).get()
    return MappingSocket(network: network, channel: channel, server: server, announcements: announcements)
  }

  /// The server's, with the interface where the address alone does not tell it.
  private static func address(of network: MappingNetwork) throws -> SocketAddress {
    let text = network.server.address.description
    let port = Int(network.server.port)
    // Nothing is resolved: a number and a number.
    return network.scope == 0
      ? try SocketAddress(ipAddress: text, port: port)
      : try SocketAddress.makeAddressResolvingHost("\(text)%\(network.scope)", port: port)
  }

  /// What does not leave is asked again, as if it had been lost.
  func send(_ bytes: [UInt8]) {
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
