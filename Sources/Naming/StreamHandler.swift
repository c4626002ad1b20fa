// Queries by TCP: two bytes of length before each message, several queries under way at once, answers as they come
// (RFC 7766). Lives in each accepted connection of StubServer.
import NIOCore
import Wire

/// Reads only while the asker has fewer than `maximumPending` queries open and takes its answers, so that a connection
/// costs a bounded amount of memory whatever it sends.
final class StreamHandler: ChannelDuplexHandler {
  typealias InboundIn = ByteBuffer
  typealias OutboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  /// A longer query is no query: 255 bytes of name, and EDNS options that nobody needs here.
  static let maximumQuery = 4096
  static let maximumPending = 32

  private let desk: LookupDesk
  private let idleTimeout: TimeAmount
  private var received = ByteBuffer()
  private var pending = 0
  private var isReadHeld = false
  private var hasEnded = false
  private var idleTimer: Scheduled<Void>?

  init(desk: LookupDesk, idleTimeout: TimeAmount) {
    self.desk = desk
    self.idleTimeout = idleTimeout
  }

  private var isFull: Bool { pending >= Self.maximumPending }

  func channelActive(context: ChannelHandlerContext) {
    // Before it can take one of the places.
    guard let remote = context.remoteAddress.flatMap({ IPv6Address($0) }), desk.isLocal(remote) else {
      desk.counters.add(.connectionsRefused)
      return context.close(promise: nil)
    }
    desk.counters.add(.connectionsAccepted)
    restartIdleTimer(context)
    context.fireChannelActive()
  }

  func channelInactive(context: ChannelHandlerContext) {
    idleTimer?.cancel()
    hasEnded = true
    context.fireChannelInactive()
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    var buffer = unwrapInboundIn(data)
    received.writeBuffer(&buffer)
    takeQueries(context)
  }

  func read(context: ChannelHandlerContext) {
    if isFull || !context.channel.isWritable { isReadHeld = true } else { context.read() }
  }

  func channelWritabilityChanged(context: ChannelHandlerContext) {
    resume(context)
    context.fireChannelWritabilityChanged()
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    // The asker has said all it wants; it still gets its answers.
    if case .some(ChannelEvent.inputClosed) = event as? ChannelEvent {
      hasEnded = true
      resume(context)
    }
    context.fireUserInboundEventTriggered(event)
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    context.close(promise: nil)
  }

  private func takeQueries(_ context: ChannelHandlerContext) {
    while !isFull, let length = received.getInteger(at: received.readerIndex, as: UInt16.self) {
      guard (DNSMessage.headerSize...Self.maximumQuery).contains(Int(length)) else {
        desk.counters.add(.connectionsBroken)
        return context.close(promise: nil)
      }
      guard received.readableBytes >= 2 + Int(length) else { break }
      received.moveReaderIndex(forwardBy: 2)
      guard let bytes = received.readBytes(length: Int(length)) else { break }
      received.discardReadBytes()
      pending += 1
      restartIdleTimer(context)
      take(bytes, context)
      guard context.channel.isActive else { return }
    }
  }

  private func take(_ bytes: [UInt8], _ context: ChannelHandlerContext) {
    let bound = NIOLoopBound((handler: self, context: context), eventLoop: context.eventLoop)
    desk.take(
      bytes, by: .tcp, from: context.remoteAddress.flatMap { IPv6Address($0) }, on: context.eventLoop
    ) { outcome in
      let (handler, context) = bound.value
      handler.pending -= 1
      guard context.channel.isActive else { return }
      switch outcome {
      case .response(let response):
        var buffer = context.channel.allocator.buffer(capacity: 2 + response.bytes.count)
        buffer.writeInteger(UInt16(response.bytes.count))
        buffer.writeBytes(response.bytes)
        context.writeAndFlush(handler.wrapOutboundOut(buffer), promise: nil)
      case .dropped:
        // Silence would leave the asker waiting; a closed connection tells it to go elsewhere.
        context.close(promise: nil)
        return
      }
      // Not within takeQueries' own loop: a run of instant answers must not recurse.
      if handler.isReadHeld || handler.hasEnded || handler.received.readableBytes > 0 {
        context.eventLoop.execute {
          let (handler, context) = bound.value
          handler.resume(context)
        }
      }
    }
  }

  private func resume(_ context: ChannelHandlerContext) {
    guard context.channel.isActive else { return }
    takeQueries(context)
    closeIfDone(context)
    guard isReadHeld, !isFull, context.channel.isActive, context.channel.isWritable else { return }
    isReadHeld = false
    context.read()
  }

  private func closeIfDone(_ context: ChannelHandlerContext) {
    // What is left in `received` then is no whole query, or takeQueries would have taken it.
    guard hasEnded, pending == 0 else { return }
    // Behind the answers already written.
    context.writeAndFlush(wrapOutboundOut(ByteBuffer())).assumeIsolated().whenComplete { _ in
      context.close(promise: nil)
    }
  }

  /// Only a whole query counts as life: an asker who sends byte after byte, or never reads, is let go.
  private func restartIdleTimer(_ context: ChannelHandlerContext) {
    idleTimer?.cancel()
    idleTimer = context.eventLoop.assumeIsolated().scheduleTask(in: idleTimeout) {
      guard context.channel.isActive else { return }
      self.desk.counters.add(.connectionsIdle)
      context.close(promise: nil)
    }
  }
}
