// HTTP on the TLS listener: the one path that becomes a WebSocket, and what everything else is told. RegistryListener
// puts it into the pipeline of a connection whose first byte behind TLS is no registry frame's.

import NIOCore
import NIOHTTP1
import NIOWebSocket
import TLSTransport
import Wire

enum CompatEndpoint {
  private static let patience = TimeAmount.seconds(10)

  static func install(
    on channel: any Channel, _ service: RegistryService, _ compat: CompatBeacon, source: Endpoint
  ) throws {
    let upgrader = NIOWebSocketServerUpgrader(
      maxFrameSize: CompatLink.longestMessage + 1,
      shouldUpgrade: { channel, head in
        guard path(of: head) == CompatLink.path else { return channel.eventLoop.makeSucceededFuture(nil) }
        var headers = HTTPHeaders()
        if head.headers[canonicalForm: "Sec-WebSocket-Protocol"].contains("pilot.v1") {
          headers.add(name: "Sec-WebSocket-Protocol", value: "pilot.v1")
        }
        return channel.eventLoop.makeSucceededFuture(headers)
      },
      upgradePipelineHandler: { channel, _ in
        channel.pipeline.removeHandler(name: Refusal.name).flatMapThrowing {
          let pipeline = channel.pipeline.syncOperations
          try pipeline.addHandler(MaskRule())
          try pipeline.addHandler(
            NIOWebSocketFrameAggregator(
              minNonFinalFragmentSize: 1, maxAccumulatedFrameCount: 16,
              maxAccumulatedFrameSize: CompatLink.longestMessage + 1))
          let outlet = WebSocketOutlet(channel: channel, masks: false) {
            [counters = service.counters] batch, isWritten in
            if isWritten {
              counters.addRelayed(batch.messages, bytes: batch.bytes - batch.messages * Beacon.deliverHead)
            } else {
              counters.add(.compatNotWritten, batch.messages)
            }
          }
          try pipeline.addHandler(CompatConnection(service, compat, source: source, outlet: outlet))
        }
      })
    let pipeline = channel.pipeline.syncOperations
    try pipeline.configureHTTPServerPipeline(
      withServerUpgrade: (upgraders: [upgrader], completionHandler: { _ in }), withErrorHandling: true)
    try pipeline.addHandler(Refusal(patience), name: Refusal.name)
  }

  fileprivate static func path(of head: HTTPRequestHead) -> Substring { head.uri.prefix { $0 != "?" } }
}

/// Answers what is no upgrade, and ends the connection.
private final class Refusal: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = HTTPServerRequestPart
  typealias OutboundOut = HTTPServerResponsePart

  static let name = "compat-refusal"

  private let patience: TimeAmount
  private var deadline: Scheduled<Void>?
  private var isOver = false

  init(_ patience: TimeAmount) { self.patience = patience }

  func handlerAdded(context: ChannelHandlerContext) {
    let channel = context.channel
    deadline = context.eventLoop.scheduleTask(in: patience) { channel.close(promise: nil) }
  }

  func handlerRemoved(context: ChannelHandlerContext) { deadline?.cancel() }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard !isOver, case .head(let head) = unwrapInboundIn(data) else { return }
    isOver = true
    var headers = HTTPHeaders([("Content-Length", "0"), ("Connection", "close"), ("Cache-Control", "no-store")])
    let status: HTTPResponseStatus
    if CompatEndpoint.path(of: head) != CompatLink.path {
      status = .notFound
    } else if head.method != .GET {
      status = .methodNotAllowed
      headers.add(name: "Allow", value: "GET")
    } else {
      status = .upgradeRequired
      headers.replaceOrAdd(name: "Connection", value: "Upgrade, close")
      headers.add(name: "Upgrade", value: "websocket")
    }
    let answer = HTTPResponseHead(version: .http1_1, status: status, headers: headers)
    context.write(wrapOutboundOut(.head(answer)), promise: nil)
    let channel = context.channel
    context.writeAndFlush(wrapOutboundOut(.end(nil))).whenComplete { _ in channel.close(promise: nil) }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    // Another path than ours, or headers that are no upgrade: the request comes here next.
    if error is NIOWebSocketUpgradeError { return }
    context.close(promise: nil)
  }
}
