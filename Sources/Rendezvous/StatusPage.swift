// The status page on HTTP: /healthz, /api/public-stats, /metrics (wire/registry §7). Numbers only: no ids, names or
// addresses. Made by RendezvousServer.

import JSON
import NIOCore
import NIOHTTP1
import NIOPosix
import Telemetry
import Wire

enum StatusPage {
  static func bind(
    _ endpoint: Endpoint, service: RegistryService, on group: any EventLoopGroup
  ) async throws -> any Channel {
    try await ServerBootstrap(group: group)
      .serverChannelOption(ChannelOptions.socketOption(.so_reuseaddr), value: 1)
      .childChannelInitializer { channel in
        guard let source = Endpoint(channel.remoteAddress), service.admission.enter(source.address) else {
          return channel.close()
        }
        channel.closeFuture.whenComplete { _ in service.admission.leave(source.address) }
        return channel.eventLoop.makeCompletedFuture {
          let pipeline = channel.pipeline.syncOperations
          try pipeline.addHandler(IdleStateHandler(readTimeout: .seconds(10)))
          try pipeline.configureHTTPServerPipeline(withErrorHandling: true)
          try pipeline.addHandler(StatusHandler(service))
        }
      }
      .bind(to: SocketAddress(endpoint)).get()
  }
}

private final class StatusHandler: ChannelInboundHandler {
  typealias InboundIn = HTTPServerRequestPart
  typealias OutboundOut = HTTPServerResponsePart

  private let service: RegistryService
  private var head: HTTPRequestHead?

  init(_ service: RegistryService) { self.service = service }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch unwrapInboundIn(data) {
    case .head(let head): self.head = head
    case .body: break
    case .end:
      guard let head else { return }
      self.head = nil
      answer(head, context)
    }
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if event is IdleStateHandler.IdleStateEvent { return context.close(promise: nil) }
    context.fireUserInboundEventTriggered(event)
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

  private func answer(_ request: HTTPRequestHead, _ context: ChannelHandlerContext) {
    let path = request.uri.prefix { $0 != "?" }
    var status = HTTPResponseStatus.ok
    var type = "application/json"
    let body: String
    if request.method != .GET && request.method != .HEAD {
      status = .methodNotAllowed
      body = #"{"status":"error","error":"only GET"}"#
    } else {
      switch path {
      case "/healthz": body = service.health.written
      case "/api/public-stats": body = service.publicStatistics.written
      case "/metrics":
        let format = Exposition.Format(accept: request.headers["Accept"].joined(separator: ","))
        type = format.contentType
        body = Exposition.text(service.metrics, format)
      default:
        status = .notFound
        body = #"{"status":"error","error":"not found"}"#
      }
    }
    var headers = HTTPHeaders([
      ("Content-Type", type), ("Content-Length", String(body.utf8.count)), ("Cache-Control", "no-store"),
    ])
    if !request.isKeepAlive { headers.add(name: "Connection", value: "close") }
    let head = HTTPResponseHead(version: request.version, status: status, headers: headers)
    context.write(wrapOutboundOut(.head(head)), promise: nil)
    if request.method != .HEAD {
      context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(string: body)))), promise: nil)
    }
    context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    if !request.isKeepAlive { context.close(promise: nil) }
  }
}

extension RegistryService {
  private var uptime: Int64 { (now - startedAt) / 1000 }

  var health: JSONValue {
    .object(of: [
      ("status", .text("ok")), ("version", .text(RendezvousServer.version)),
      ("uptime_seconds", .integer(uptime)), ("nodes_online", .whole(liveNodes.live)),
    ])
  }

  var publicStatistics: JSONValue {
    let nodes = liveNodes
    return .object(of: [
      ("server_time", .integer(now / 1000)), ("uptime_seconds", .integer(uptime)),
      ("active_nodes", .whole(nodes.live)), ("total_nodes", .whole(nodes.known)),
      (
        "components",
        .object(of: [
          ("registry", .text("up")), ("beacon", .text("up")), ("dashboard", .text("up")),
        ])
      ),
    ])
  }
}
