// Accepts the registry's TCP connections, chooses plain or TLS by the first byte (wire/registry §1.4). Made by
// RendezvousServer.

import NIOCore
import NIOPosix
import NIOSSL
import Wire

enum RegistryListener {
  static func bind(
    _ endpoint: Endpoint, service: RegistryService, tls: NIOSSLContext?, on group: any EventLoopGroup
  ) async throws -> any Channel {
    try await ServerBootstrap(group: group)
      .serverChannelOption(ChannelOptions.socketOption(.so_reuseaddr), value: 1)
      .serverChannelOption(ChannelOptions.backlog, value: 1024)
      .childChannelOption(ChannelOptions.tcpOption(.tcp_nodelay), value: 1)
      .childChannelOption(ChannelOptions.socketOption(.so_keepalive), value: 1)
      .childChannelOption(ChannelOptions.maxMessagesPerRead, value: 4)
      // What a client that does not read can make us hold.
      .childChannelOption(
        ChannelOptions.writeBufferWaterMark, value: .init(low: 64 << 10, high: 256 << 10)
      )
      .childChannelInitializer { channel in
        guard let source = Endpoint(channel.remoteAddress), service.admission.enter(source.address) else {
          service.counters.add(.connectionsRefused)
          return channel.close()
        }
        service.counters.add(.connectionsAccepted)
        channel.closeFuture.whenComplete { _ in service.admission.leave(source.address) }
        return channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(ProtocolChoice(service, source: source.address, tls: tls))
        }
      }
      .bind(to: SocketAddress(endpoint)).get()
  }
}

/// Looks at the first byte of a connection and then makes way for the handlers it calls for.
private final class ProtocolChoice: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = ByteBuffer
  typealias InboundOut = ByteBuffer

  private let service: RegistryService
  private let source: IPv6Address
  private let tls: NIOSSLContext?
  private var deadline: Scheduled<Void>?
  private let group: ClientGroup?

  init(_ service: RegistryService, source: IPv6Address, tls: NIOSSLContext?) {
    self.service = service
    self.source = source
    self.tls = tls
    group = service.admission.group(of: source, now: service.now)
  }

  func handlerAdded(context: ChannelHandlerContext) {
    let channel = context.channel
    let idle = Int64(service.configuration.limits.idleTime * 1e9)
    deadline = context.eventLoop.scheduleTask(in: .nanoseconds(idle)) { channel.close(promise: nil) }
  }

  func handlerRemoved(context: ChannelHandlerContext) { deadline?.cancel() }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    let bytes = unwrapInboundIn(data)
    guard let first = bytes.getInteger(at: bytes.readerIndex, as: UInt8.self) else { return }
    let isProtected = first == 0x16
    // A first length byte other than zero is a frame above any limit we allow.
    guard isProtected ? tls != nil : first == 0 else {
      service.counters.add(.framesMalformed)
      context.close(promise: nil)
      return
    }
    let local = Endpoint(context.channel.localAddress)?.address ?? IPv6Address(high: 0, low: 0)
    let client = ClientSession(
      host: source, localHost: local, isProtected: isProtected, group: group, presence: service.presence,
      prober: { [channel = context.channel] in TCPProbe.start(on: channel) })
    context.channel.closeFuture.whenComplete { _ in client.end() }
    let pipeline = context.pipeline.syncOperations
    do {
      if isProtected, let tls { try pipeline.addHandler(NIOSSLServerHandler(context: tls)) }
      try pipeline.addHandler(RegistryConnection(service, client))
    } catch {
      context.close(promise: nil)
      return
    }
    context.fireChannelRead(data)
    context.fireChannelReadComplete()
    pipeline.removeHandler(context: context, promise: nil)
  }
}
