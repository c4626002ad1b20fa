// A node's connection to the beacon where UDP is blocked: beacon messages in a WebSocket (wire/tunnel §4.7). Opened by
// TunControl, which bridges it to the worker.

package import NIOCore
import NIOHTTP1
import NIOWebSocket
package import Wire

package struct CompatLink: Sendable {
  package static let path = "/v1/compat"
  /// A datagram is at most this long; nothing longer is taken.
  package static let longestMessage = 65_535

  /// Who we are, and how that is proven.
  package struct Credentials: Sendable {
    package var node: UInt32
    package var key: Bytes32
    package var sign: @Sendable ([UInt8]) -> Bytes64

    package init(node: UInt32, key: Bytes32, sign: @escaping @Sendable ([UInt8]) -> Bytes64) {
      self.node = node
      self.key = key
      self.sign = sign
    }
  }

  private let channel: any Channel
  private let outlet: WebSocketOutlet

  /// Dials and proves who we are. `deliver` is called for each message of the beacon, on `eventLoop`; `flush` after
  /// several; `lost` with the number of taken datagrams that went down with the connection; `ended` once, when a link that
  /// was open is not any more.
  package static func open(
    _ dialer: TLSDialer, as credentials: Credentials, on eventLoop: any EventLoop,
    deliver: @escaping @Sendable (ByteBuffer) -> Void, flush: @escaping @Sendable () -> Void,
    lost: @escaping @Sendable (Int) -> Void = { _ in }, ended: @escaping @Sendable (TransportError) -> Void
  ) async throws(TransportError) -> CompatLink {
    let opened = eventLoop.makePromise(of: WebSocketOutlet.self)
    let channel: any Channel
    do {
      channel = try await dialer.connect(on: eventLoop) { channel in
        try upgrade(channel, to: dialer.settings.authority, opened) { channel in
          let outlet = WebSocketOutlet(channel: channel, masks: true) { batch, isWritten in
            if !isWritten { lost(batch.messages) }
          }
          try channel.pipeline.syncOperations.addHandler(
            CompatHandler(
              authority: dialer.settings.authority, credentials: credentials, outlet: outlet, opened: opened,
              deliver: deliver, flush: flush, ended: ended))
        }
      }
    } catch {
      opened.fail(error)
      throw error
    }
    // Whatever else fails on the way ends the connection, and so the wait.
    let authority = dialer.settings.authority
    channel.closeFuture.whenComplete { _ in
      opened.fail(TransportError(.connectionEnded, "\(authority) ended the connection"))
    }
    do {
      return CompatLink(channel: channel, outlet: try await opened.futureResult.get())
    } catch {
      channel.close(promise: nil)
      throw error as? TransportError ?? TransportError(.notARendezvous, "\(error)")
    }
  }

  /// Whether something behind TLS answers as a rendezvous does: 426 to a request without an upgrade. For `netcheck`.
  package static func check(_ dialer: TLSDialer, on eventLoop: any EventLoop) async throws(TransportError) {
    let outcome = eventLoop.makePromise(of: Void.self)
    let channel: any Channel
    do {
      channel = try await dialer.connect(on: eventLoop) { channel in
        try channel.pipeline.syncOperations.addHandler(HeadLimit())
        try channel.pipeline.syncOperations.addHTTPClientHandlers()
        try channel.pipeline.syncOperations.addHandler(
          RequestHandler(authority: dialer.settings.authority, patience: TimeAmount(dialer.settings.patience)) {
            status, error in
            if status == 426 { outcome.succeed() } else { outcome.fail(error) }
          })
      }
    } catch {
      outcome.fail(error)
      throw error
    }
    defer { channel.close(promise: nil) }
    do {
      try await outcome.futureResult.get()
    } catch {
      throw error as? TransportError ?? TransportError(.notARendezvous, "\(error)")
    }
  }

  /// False when more waits than there is room for.
  package func send(_ datagram: ByteBuffer) -> Bool { outlet.send(datagram, isCounted: true) }

  package func close() { outlet.close(.normalClosure) }

  private static func upgrade(
    _ channel: any Channel, to authority: String, _ opened: EventLoopPromise<WebSocketOutlet>,
    _ then: @escaping @Sendable (any Channel) throws -> Void
  ) throws {
    let upgrader = NIOWebSocketClientUpgrader(maxFrameSize: longestMessage + 1) { channel, _ in
      channel.pipeline.removeHandler(name: RequestHandler.name).flatMap {
        channel.pipeline.removeHandler(name: HeadLimit.name)
      }.flatMapThrowing {
        try channel.pipeline.syncOperations.addHandler(
          NIOWebSocketFrameAggregator(
            minNonFinalFragmentSize: 1, maxAccumulatedFrameCount: 16, maxAccumulatedFrameSize: longestMessage + 1))
        try then(channel)
      }
    }
    let configuration: NIOHTTPClientUpgradeConfiguration = (upgraders: [upgrader], completionHandler: { _ in })
    try channel.pipeline.syncOperations.addHandler(HeadLimit(), name: HeadLimit.name)
    try channel.pipeline.syncOperations.addHTTPClientHandlers(
      leftOverBytesStrategy: .forwardBytes, withClientUpgrade: configuration)
    try channel.pipeline.syncOperations.addHandler(
      RequestHandler(authority: authority, patience: .seconds(8)) { _, error in opened.fail(error) },
      name: RequestHandler.name)
  }
}

/// Sends the one request, and hears the answer when it is not the upgrade.
private final class RequestHandler: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = HTTPClientResponsePart
  typealias OutboundOut = HTTPClientRequestPart

  static let name = "compat-request"

  private let authority: String
  private let patience: TimeAmount
  private let answered: (UInt, TransportError) -> Void
  private var deadline: Scheduled<Void>?
  private var isOver = false

  init(authority: String, patience: TimeAmount, _ answered: @escaping (UInt, TransportError) -> Void) {
    self.authority = authority
    self.patience = patience
    self.answered = answered
  }

  func handlerAdded(context: ChannelHandlerContext) {
    let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
    deadline = context.eventLoop.scheduleTask(in: patience) {
      let (handler, context) = bound.value
      handler.end(context, "does not answer in time")
    }
    let headers = HTTPHeaders([("Host", authority), ("Sec-WebSocket-Protocol", "pilot.v1")])
    let head = HTTPRequestHead(version: .http1_1, method: .GET, uri: CompatLink.path, headers: headers)
    context.write(wrapOutboundOut(.head(head)), promise: nil)
    context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
  }

  func handlerRemoved(context: ChannelHandlerContext) {
    isOver = true
    deadline?.cancel()
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard case .head(let head) = unwrapInboundIn(data) else { return }
    end(context, "answered \(head.status.code) to GET \(CompatLink.path)", status: head.status.code)
  }

  func channelInactive(context: ChannelHandlerContext) {
    end(context, "closed the connection without an answer")
    context.fireChannelInactive()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    end(context, "does not speak HTTP, or not as a WebSocket needs it")
  }

  private func end(_ context: ChannelHandlerContext, _ what: String, status: UInt = 0) {
    guard !isOver else { return }
    isOver = true
    deadline?.cancel()
    answered(
      status,
      TransportError(
        .notARendezvous, "\(authority) \(what)",
        hint: "name the host and port of the TLS listener of a rendezvous: rendezvous-tls = HOST:PORT"))
    context.close(promise: nil)
  }
}

/// What goes on in the WebSocket.
private final class CompatHandler: ChannelInboundHandler {
  typealias InboundIn = WebSocketFrame

  private static let pingInterval = TimeAmount.seconds(15)
  /// Two pings without any sign, and the link is dead.
  private static let silence = TimeAmount.seconds(35)
  private static let authenticationTime = TimeAmount.seconds(8)

  private let authority: String
  private let credentials: CompatLink.Credentials
  private let outlet: WebSocketOutlet
  private let opened: EventLoopPromise<WebSocketOutlet>
  private let deliver: @Sendable (ByteBuffer) -> Void
  private let flush: @Sendable () -> Void
  private let ended: @Sendable (TransportError) -> Void
  private var isOpen = false
  private var isOver = false
  private var isAsked = false
  private var heardAt = NIODeadline.now()
  private var clock: RepeatedTask?
  private var deadline: Scheduled<Void>?

  init(
    authority: String, credentials: CompatLink.Credentials, outlet: WebSocketOutlet,
    opened: EventLoopPromise<WebSocketOutlet>, deliver: @escaping @Sendable (ByteBuffer) -> Void,
    flush: @escaping @Sendable () -> Void, ended: @escaping @Sendable (TransportError) -> Void
  ) {
    self.authority = authority
    self.credentials = credentials
    self.outlet = outlet
    self.opened = opened
    self.deliver = deliver
    self.flush = flush
    self.ended = ended
  }

  func handlerAdded(context: ChannelHandlerContext) {
    let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
    deadline = context.eventLoop.scheduleTask(in: Self.authenticationTime) {
      let (handler, context) = bound.value
      handler.end(context, TransportError(.notARendezvous, "\(handler.authority) did not ask who we are in time"))
    }
    clock = context.eventLoop.scheduleRepeatedTask(initialDelay: Self.pingInterval, delay: Self.pingInterval) { _ in
      let (handler, context) = bound.value
      guard .now() - handler.heardAt < Self.silence else {
        return handler.end(context, TransportError(.connectionEnded, "\(handler.authority) fell silent"))
      }
      handler.outlet.send(ByteBuffer(), as: .ping)
    }
  }

  func handlerRemoved(context: ChannelHandlerContext) {
    clock?.cancel()
    deadline?.cancel()
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard !isOver else { return }
    heardAt = .now()
    let frame = unwrapInboundIn(data)
    switch frame.opcode {
    case .binary where isOpen: deliver(frame.data)
    case .text where !isOpen: authenticate(context, Array(frame.data.readableBytesView))
    case .ping:
      if frame.data.readableBytes <= 125 { outlet.send(frame.data, as: .pong) }
    case .connectionClose:
      end(
        context,
        isAsked && !isOpen ? refused : TransportError(.connectionEnded, "\(authority) ended the connection"))
    // Texts of later servers, pongs.
    default: break
    }
  }

  func channelReadComplete(context: ChannelHandlerContext) { if isOpen { flush() } }

  func channelInactive(context: ChannelHandlerContext) {
    end(context, isAsked && !isOpen ? refused : TransportError(.connectionEnded, "\(authority) closed the connection"))
    context.fireChannelInactive()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    end(
      context,
      TransportError(.connectionEnded, "the connection to \(authority) failed: \(TLSDialer.reason(error))"))
  }

  private var refused: TransportError {
    TransportError(
      .identityRefused, "\(authority) does not take us for node \(credentials.node)",
      hint: "registry and TLS listener have to be of one rendezvous: check rendezvous and rendezvous-tls")
  }

  private func authenticate(_ context: ChannelHandlerContext, _ text: [UInt8]) {
    switch CompatAuthentication(text) {
    case .challenge(let nonce, let time) where !isAsked:
      isAsked = true
      let signature = credentials.sign(CompatAuthentication.signed(node: credentials.node, time: time, nonce: nonce))
      outlet.send(
        text: CompatAuthentication.reply(node: credentials.node, key: credentials.key, signature: signature).text)
    case .accepted where isAsked:
      isOpen = true
      deadline?.cancel()
      opened.succeed(outlet)
    default:
      end(context, TransportError(.notARendezvous, "\(authority) does not ask who we are as a rendezvous does"))
    }
  }

  private func end(_ context: ChannelHandlerContext, _ error: TransportError) {
    guard !isOver else { return }
    isOver = true
    clock?.cancel()
    deadline?.cancel()
    if isOpen { ended(error) } else { opened.fail(error) }
    context.close(promise: nil)
  }
}
