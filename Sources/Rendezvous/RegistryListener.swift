// Accepts the registry's TCP connections, chooses plain or TLS by the first byte (wire/registry §1.4) and, behind TLS,
// registry or WebSocket by the next. Made by RendezvousServer, for the registry's port and for the TLS port.

import NIOCore
import NIOPosix
import NIOSSL
import Wire

enum RegistryListener {
  /// `takesPlain`: connections without TLS are let in.
  static func bind(
    _ endpoint: Endpoint, service: RegistryService, tls: NIOSSLContext?, compat: CompatBeacon, takesPlain: Bool,
    on group: any EventLoopGroup
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
          let entrance = Entrance(
            service: service, compat: compat, source: source, tls: tls, takesPlain: takesPlain,
            group: service.admission.group(of: source.address, now: service.now))
          try channel.pipeline.syncOperations.addHandler(ProtocolChoice(entrance, isProtected: false))
        }
      }
      .bind(to: SocketAddress(endpoint)).get()
  }
}

/// What a connection may become.
private struct Entrance {
  var service: RegistryService
  var compat: CompatBeacon
  var source: Endpoint
  var tls: NIOSSLContext?
  var takesPlain: Bool
  var group: ClientGroup?
}

/// Looks at the first byte of a connection, or of what is behind TLS, and then makes way for the handlers it calls for.
private final class ProtocolChoice: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = ByteBuffer
  typealias InboundOut = ByteBuffer

  private let entrance: Entrance
  private let isProtected: Bool
  private var deadline: Scheduled<Void>?

  init(_ entrance: Entrance, isProtected: Bool) {
    self.entrance = entrance
    self.isProtected = isProtected
  }

  func handlerAdded(context: ChannelHandlerContext) {
    let channel = context.channel
    let idle = Int64(entrance.service.configuration.limits.idleTime * 1e9)
    deadline = context.eventLoop.scheduleTask(in: .nanoseconds(idle)) { channel.close(promise: nil) }
  }

  func handlerRemoved(context: ChannelHandlerContext) { deadline?.cancel() }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    let bytes = unwrapInboundIn(data)
    guard let first = bytes.getInteger(at: bytes.readerIndex, as: UInt8.self) else { return }
    let pipeline = context.pipeline.syncOperations
    do {
      switch first {
      case 0x16 where !isProtected && entrance.tls != nil:
        if let tls = entrance.tls { try pipeline.addHandler(NIOSSLServerHandler(context: tls)) }
        try pipeline.addHandler(ProtocolChoice(entrance, isProtected: true))
      // A first length byte other than zero is a frame above any limit we allow.
      case 0 where isProtected || entrance.takesPlain:
        try pipeline.addHandler(RegistryConnection(entrance.service, session(context)))
      // The first letter of an HTTP method.
      case UInt8(ascii: "A")...UInt8(ascii: "Z") where isProtected:
        try CompatEndpoint.install(on: context.channel, entrance.service, entrance.compat, source: entrance.source)
      default:
        entrance.service.counters.add(.framesMalformed)
        context.close(promise: nil)
        return
      }
    } catch {
      context.close(promise: nil)
      return
    }
    context.fireChannelRead(data)
    context.fireChannelReadComplete()
    pipeline.removeHandler(context: context, promise: nil)
  }

  private func session(_ context: ChannelHandlerContext) -> ClientSession {
    let local = Endpoint(context.channel.localAddress)?.address ?? IPv6Address(high: 0, low: 0)
    let client = ClientSession(
      host: entrance.source.address, localHost: local, isProtected: isProtected, group: entrance.group,
      presence: entrance.service.presence,
      prober: { [channel = context.channel] in TCPProbe.start(on: channel) })
    context.channel.closeFuture.whenComplete { _ in client.end() }
    return client
  }
}
