// The dialogue with an HTTP proxy before TLS begins: one CONNECT, one answer (RFC 9110 §9.3.6). TLSDialer puts it into a
// new connection's pipeline and waits for what comes of it.

import NIOCore
import NIOHTTP1

/// Asks for a tunnel to `authority`; then takes itself and HTTP out of the pipeline, and `outcome` is fulfilled.
final class ProxyConnectHandler: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = HTTPClientResponsePart
  typealias OutboundOut = HTTPClientRequestPart

  private let authority: String
  private let proxy: ProxyAddress
  private let credentials: ProxyCredentials?
  private let outcome: EventLoopPromise<Void>
  private let patience: TimeAmount
  private var deadline: Scheduled<Void>?
  private var isAsked = false
  private var isOver = false

  init(
    authority: String, proxy: ProxyAddress, credentials: ProxyCredentials?, patience: TimeAmount,
    outcome: EventLoopPromise<Void>
  ) {
    self.authority = authority
    self.proxy = proxy
    self.credentials = credentials
    self.patience = patience
    self.outcome = outcome
  }

  /// Adds the handlers of HTTP and one of these.
  static func install(
    on channel: any Channel, authority: String, proxy: ProxyAddress, credentials: ProxyCredentials?,
    patience: TimeAmount, outcome: EventLoopPromise<Void>
  ) throws {
    let pipeline = channel.pipeline.syncOperations
    try pipeline.addHandler(HeadLimit(), name: HeadLimit.name)
    try pipeline.addHandler(HTTPRequestEncoder(), name: names[0])
    try pipeline.addHandler(
      ByteToMessageHandler(HTTPResponseDecoder(leftOverBytesStrategy: .forwardBytes), maximumBufferSize: 64 << 10),
      name: names[1])
    try pipeline.addHandler(
      ProxyConnectHandler(
        authority: authority, proxy: proxy, credentials: credentials, patience: patience, outcome: outcome),
      name: names[2])
  }

  private static let names = ["proxy-encoder", "proxy-decoder", "proxy-connect"]

  func handlerAdded(context: ChannelHandlerContext) {
    let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
    deadline = context.eventLoop.scheduleTask(in: patience) {
      let (handler, context) = bound.value
      handler.fail(context, TransportError(.proxyUnreachable, "the proxy \(handler.proxy) does not answer in time"))
    }
    if context.channel.isActive { ask(context) }
  }

  func channelActive(context: ChannelHandlerContext) {
    ask(context)
    context.fireChannelActive()
  }

  /// Once: a connection that is up when the handler comes may be told of as up after that.
  private func ask(_ context: ChannelHandlerContext) {
    guard !isAsked else { return }
    isAsked = true
    var headers = HTTPHeaders([("Host", authority)])
    if let credentials { headers.add(name: "Proxy-Authorization", value: credentials.authorization) }
    let head = HTTPRequestHead(version: .http1_1, method: .CONNECT, uri: authority, headers: headers)
    context.write(wrapOutboundOut(.head(head)), promise: nil)
    context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard !isOver else { return }
    switch unwrapInboundIn(data) {
    case .head(let head):
      switch head.status.code {
      case 200..<300: break
      case 407:
        fail(
          context,
          TransportError(
            .proxyCredentials,
            credentials == nil
              ? "the proxy \(proxy) wants credentials (407)" : "the proxy \(proxy) does not take the credentials (407)",
            hint: "put USER:PASSWORD@ into the proxy's URL, or name a command that prints them: "
              + "proxy-credentials-command"))
      default:
        fail(
          context,
          TransportError(
            .proxyRefused, "the proxy \(proxy) does not connect to \(authority): it answered \(head.status.code)",
            hint: "ask whoever runs the proxy to allow CONNECT to \(authority), or except it with NO_PROXY"))
      }
    case .body: break
    case .end: finish(context)
    }
  }

  func channelInactive(context: ChannelHandlerContext) {
    fail(context, TransportError(.proxyRefused, "the proxy \(proxy) closed the connection without an answer"))
    context.fireChannelInactive()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    fail(
      context,
      TransportError(
        .proxyRefused, "the proxy \(proxy) does not answer as an HTTP proxy does",
        hint: "is this the proxy's address and port?"))
  }

  private func finish(_ context: ChannelHandlerContext) {
    isOver = true
    deadline?.cancel()
    let pipeline = context.pipeline
    let outcome = outcome
    pipeline.removeHandler(name: Self.names[2])
      .flatMap { pipeline.removeHandler(name: Self.names[0]) }
      .flatMap { pipeline.removeHandler(name: Self.names[1]) }
      .flatMap { pipeline.removeHandler(name: HeadLimit.name) }
      .cascade(to: outcome)
  }

  private func fail(_ context: ChannelHandlerContext, _ error: TransportError) {
    guard !isOver else { return }
    isOver = true
    deadline?.cancel()
    outcome.fail(error)
    context.close(promise: nil)
  }
}
