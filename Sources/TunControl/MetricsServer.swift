// The page at `--metrics`: GET and HEAD of /metrics, nothing else. Made by NodeProgram. Bounded: few connections, of which
// those that ask for nothing make room for others, little time for each request, no bodies, and pages no more often than
// four times a second, whoever asks.

package import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization
package import Telemetry
package import Wire

package final class MetricsServer: Sendable {
  /// A scraper keeps one connection; two or three of them and a person with curl fit.
  static let connectionLimit = 16
  /// From the first byte of a request (of a connection's first one: from its beginning) to the last of the answer.
  package static let timeLimit = TimeAmount.seconds(10)
  /// Scrapers come once in seconds: a kept connection may rest that long.
  package static let restLimit = TimeAmount.minutes(3)

  private let channel: any Channel
  package let endpoint: Endpoint

  package typealias Source = @Sendable () async -> [MetricFamily]

  /// Errors: `metrics_unavailable`. `crowded` is called for each connection that was closed because there are too many.
  package init(
    _ endpoint: Endpoint, group: any EventLoopGroup, timeLimit: TimeAmount = MetricsServer.timeLimit,
    restLimit: TimeAmount = MetricsServer.restLimit, crowded: @escaping @Sendable () -> Void = {},
    source: @escaping Source
  ) async throws(ControlError) {
    let pages = MetricsPages(source)
    let places = MetricsPlaces(crowded)
    do {
      channel = try await ServerBootstrap(group: group)
        .serverChannelOption(.backlog, value: 16)
        .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
        .childChannelOption(.maxMessagesPerRead, value: 1)
        .childChannelInitializer { channel in
          guard places.enter(channel) else { return channel.close() }
          channel.closeFuture.whenComplete { _ in places.leave(channel) }
          return channel.eventLoop.makeCompletedFuture {
            let pipeline = channel.pipeline.syncOperations
            let connection = MetricsConnection(pages, places, channel, timeLimit: timeLimit, restLimit: restLimit)
            try pipeline.addHandler(FirstByte(connection))
            try pipeline.configureHTTPServerPipeline(withPipeliningAssistance: true, withErrorHandling: true)
            try pipeline.addHandler(connection)
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

/// The connections that there are. Where all places are taken, the one that has owed a request the longest makes room, so
/// that nobody shuts scrapers out by being there; where all are being answered, the new one goes.
private final class MetricsPlaces: Sendable {
  private struct Place {
    let channel: any Channel
    /// Since when a whole request is waited for, as a number that grows; nil: it is being answered.
    var owes: UInt64?
  }

  private let state = Mutex<(places: [ObjectIdentifier: Place], clock: UInt64)>(([:], 0))
  private let crowded: @Sendable () -> Void

  init(_ crowded: @escaping @Sendable () -> Void) { self.crowded = crowded }

  /// Whether the new one may stay.
  func enter(_ channel: any Channel) -> Bool {
    let (isFull, leaves) = state.withLock { state -> (Bool, (any Channel)?) in
      var leaves: (any Channel)?
      if state.places.count >= MetricsServer.connectionLimit {
        let owing = state.places.compactMap { key, place in place.owes.map { (key, since: $0, place.channel) } }
        guard let (key, _, channel) = owing.min(by: { $0.since < $1.since }) else { return (true, nil) }
        leaves = channel
        state.places[key] = nil
      }
      state.clock += 1
      state.places[ObjectIdentifier(channel)] = Place(channel: channel, owes: state.clock)
      return (false, leaves)
    }
    leaves?.close(promise: nil)
    if isFull || leaves != nil { crowded() }
    return !isFull
  }

  func leave(_ channel: any Channel) { state.withLock { $0.places[ObjectIdentifier(channel)] = nil } }

  func answering(_ channel: any Channel) { state.withLock { $0.places[ObjectIdentifier(channel)]?.owes = nil } }

  func resting(_ channel: any Channel) {
    state.withLock { state in
      state.clock += 1
      state.places[ObjectIdentifier(channel)]?.owes = state.clock
    }
  }
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

/// Sees a request's first byte, which the parser behind keeps to itself until the head is whole.
private final class FirstByte: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer
  typealias InboundOut = ByteBuffer

  private let connection: MetricsConnection

  init(_ connection: MetricsConnection) { self.connection = connection }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    connection.requestBegins()
    context.fireChannelRead(data)
  }
}

private final class MetricsConnection: ChannelInboundHandler {
  typealias InboundIn = HTTPServerRequestPart
  typealias OutboundOut = HTTPServerResponsePart

  private let pages: MetricsPages
  private let places: MetricsPlaces
  private let channel: any Channel
  private let timeLimit: TimeAmount
  private let restLimit: TimeAmount
  private var head: HTTPRequestHead?
  private var deadline: Scheduled<Void>?
  private var isResting = false

  init(
    _ pages: MetricsPages, _ places: MetricsPlaces, _ channel: any Channel, timeLimit: TimeAmount,
    restLimit: TimeAmount
  ) {
    self.pages = pages
    self.places = places
    self.channel = channel
    self.timeLimit = timeLimit
    self.restLimit = restLimit
  }

  func handlerAdded(context: ChannelHandlerContext) { wait(timeLimit) }
  func channelInactive(context: ChannelHandlerContext) { deadline?.cancel() }
  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

  private func wait(_ limit: TimeAmount) {
    deadline?.cancel()
    deadline = channel.eventLoop.scheduleTask(in: limit) { [channel] in channel.close(promise: nil) }
  }

  /// What follows of the request does not lengthen its time.
  func requestBegins() {
    guard isResting else { return }
    isResting = false
    wait(timeLimit)
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch unwrapInboundIn(data) {
    case .head(let head):
      self.head = head
      // One that came along with the request before it.
      requestBegins()
    case .body:
      // Nothing here takes a body.
      context.close(promise: nil)
    case .end:
      guard let head else { return }
      self.head = nil
      places.answering(channel)
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
      guard isKept else { return context.close(promise: nil) }
      handler.isResting = true
      handler.places.resting(handler.channel)
      handler.wait(handler.restLimit)
    }
  }
}
