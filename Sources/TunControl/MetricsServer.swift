// The page at `--metrics`: GET and HEAD of /metrics, nothing else. Made by NodeProgram. Bounded: few connections, little
// time for each request, no bodies, and pages no more often than four times a second, whoever asks.

package import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization
package import Telemetry
package import Wire

package final class MetricsServer: Sendable {
  /// A scraper keeps one connection; two or three of them and a person with curl fit.
  static let connectionLimit = 16
  /// From the first byte of a request to the last of its answer, and between requests.
  package static let timeLimit = TimeAmount.seconds(10)
  /// Scrapers come once in seconds: a kept connection may rest that long.
  static let restLimit = TimeAmount.minutes(3)

  private let channel: any Channel
  package let endpoint: Endpoint

  package typealias Source = @Sendable () async -> [MetricFamily]

  /// Errors: `metrics_unavailable`.
  package init(
    _ endpoint: Endpoint, group: any EventLoopGroup, timeLimit: TimeAmount = MetricsServer.timeLimit,
    source: @escaping Source
  ) async throws(ControlError) {
    let pages = MetricsPages(source)
    let connections = ConnectionCount()
    do {
      channel = try await ServerBootstrap(group: group)
        .serverChannelOption(.backlog, value: 16)
        .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
        .childChannelOption(.maxMessagesPerRead, value: 1)
        .childChannelInitializer { channel in
          guard connections.enter() else { return channel.close() }
          channel.closeFuture.whenComplete { _ in connections.leave() }
          return channel.eventLoop.makeCompletedFuture {
            let pipeline = channel.pipeline.syncOperations
            try pipeline.configureHTTPServerPipeline(withPipeliningAssistance: true, withErrorHandling: true)
            try pipeline.addHandler(MetricsConnection(pages, timeLimit))
          }
        }
        .bind(to: SocketAddress(ipAddress: endpoint.addressText, port: Int(endpoint.port))).get()
    } catch {
      throw ControlError(
        "metrics_unavailable", "metrics cannot be served on \(endpoint): \(error)",
        hint: "another port or address: --metrics ADDRESS:PORT")
    }
    var bound = endpoint
    if let port = channel.localAddress?.port { bound.port = UInt16(truncatingIfNeeded: port) }
    self.endpoint = bound
  }

  package func close() async { try? await channel.close() }
}

extension Endpoint {
  /// The address without brackets and port.
  fileprivate var addressText: String {
    guard let four = address.mappedIPv4 else { return address.description }
    return (0..<4).map { String(four >> (24 - 8 * UInt32($0)) & 0xFF) }.joined(separator: ".")
  }
}

private final class ConnectionCount: Sendable {
  private let count = Mutex(0)

  func enter() -> Bool {
    count.withLock { count in
      guard count < MetricsServer.connectionLimit else { return false }
      count += 1
      return true
    }
  }

  func leave() { count.withLock { $0 -= 1 } }
}

/// The last figures, kept for a quarter of a second: hostile readers cost the node no more than one that is eager.
private actor MetricsPages {
  private let source: MetricsServer.Source
  private var families: [MetricFamily] = []
  private var madeAt: ContinuousClock.Instant?
  private var making: Task<[MetricFamily], Never>?

  init(_ source: @escaping MetricsServer.Source) { self.source = source }

  func text(_ format: Exposition.Format) async -> String {
    if let madeAt, ContinuousClock.now - madeAt < .milliseconds(250) { return Exposition.text(families, format) }
    if let making { return Exposition.text(await making.value, format) }
    let task = Task { [source] in await source() }
    making = task
    families = await task.value
    madeAt = .now
    making = nil
    return Exposition.text(families, format)
  }
}

private final class MetricsConnection: ChannelInboundHandler {
  typealias InboundIn = HTTPServerRequestPart
  typealias OutboundOut = HTTPServerResponsePart

  private let pages: MetricsPages
  private var head: HTTPRequestHead?
  private var deadline: Scheduled<Void>?

  private let timeLimit: TimeAmount

  init(_ pages: MetricsPages, _ timeLimit: TimeAmount) {
    self.pages = pages
    self.timeLimit = timeLimit
  }

  func handlerAdded(context: ChannelHandlerContext) { wait(timeLimit, context) }
  func channelInactive(context: ChannelHandlerContext) { deadline?.cancel() }
  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

  private func wait(_ limit: TimeAmount, _ context: ChannelHandlerContext) {
    deadline?.cancel()
    let channel = context.channel
    deadline = context.eventLoop.scheduleTask(in: limit) { channel.close(promise: nil) }
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch unwrapInboundIn(data) {
    case .head(let head):
      self.head = head
      wait(timeLimit, context)
    case .body:
      // Nothing here takes a body.
      context.close(promise: nil)
    case .end:
      guard let head else { return }
      self.head = nil
      answer(head, context)
    }
  }

  private func answer(_ request: HTTPRequestHead, _ context: ChannelHandlerContext) {
    guard request.method == .GET || request.method == .HEAD else {
      return reply(request, .methodNotAllowed, "text/plain", "only GET\n", more: [("Allow", "GET, HEAD")], context)
    }
    guard request.uri.prefix(while: { $0 != "?" }) == "/metrics" else {
      return reply(request, .notFound, "text/plain", "the metrics are at /metrics\n", context)
    }
    let format = Exposition.Format(accept: request.headers["Accept"].joined(separator: ","))
    let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
    let loop = context.eventLoop
    let pages = pages
    Task {
      let text = await pages.text(format)
      loop.execute {
        let (handler, context) = bound.value
        guard context.channel.isActive else { return }
        handler.reply(request, .ok, format.contentType, text, context)
      }
    }
  }

  private func reply(
    _ request: HTTPRequestHead, _ status: HTTPResponseStatus, _ type: String, _ body: String,
    more: [(String, String)] = [], _ context: ChannelHandlerContext
  ) {
    var headers = HTTPHeaders(
      [("Content-Type", type), ("Content-Length", String(body.utf8.count)), ("Cache-Control", "no-store")] + more)
    let isKept = request.isKeepAlive && status == .ok
    if !isKept { headers.add(name: "Connection", value: "close") }
    context.write(
      wrapOutboundOut(.head(HTTPResponseHead(version: request.version, status: status, headers: headers))),
      promise: nil)
    if request.method != .HEAD {
      context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(string: body)))), promise: nil)
    }
    let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
    context.writeAndFlush(wrapOutboundOut(.end(nil))).whenComplete { _ in
      let (handler, context) = bound.value
      if isKept { handler.wait(MetricsServer.restLimit, context) } else { context.close(promise: nil) }
    }
  }
}
