// One connection of the control socket: cuts lines, answers one request after the other, gives up on clients that
// neither send nor read. Made by ControlServer.

import Directory
import Logging
import NIOCore

final class ControlConnection: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  private let access: ControlAccess
  private let service: any ControlService
  private let logger: Logger
  private var pending: [UInt8] = []
  private var running: Task<Void, Never>?
  private var isEnding = false
  private var idle: Scheduled<Void>?

  /// A client that says nothing this long is cut off.
  private static let idleLimit = TimeAmount.seconds(60)
  /// A client that does not read its answer this long is cut off.
  fileprivate static let writeLimit = TimeAmount.seconds(10)

  init(access: ControlAccess, service: any ControlService, logger: Logger) {
    self.access = access
    self.service = service
    self.logger = logger
  }

  func handlerAdded(context: ChannelHandlerContext) { waitForNext(context) }

  func channelInactive(context: ChannelHandlerContext) {
    idle?.cancel()
    running?.cancel()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard !isEnding else { return }
    pending += unwrapInboundIn(data).readableBytesView
    next(context)
  }

  private static let tooLong = ControlError(
    "request_too_long", "a request is at most \(ControlRequest.lengthLimit) bytes",
    hint: "tool and node are of different versions: restart the node")

  private func waitForNext(_ context: ChannelHandlerContext) {
    idle?.cancel()
    let channel = context.channel
    idle = context.eventLoop.scheduleTask(in: Self.idleLimit) { channel.close(promise: nil) }
  }

  /// Starts the next request when none runs. At most one line waits beyond the running one: reading stops until then.
  private func next(_ context: ChannelHandlerContext) {
    guard running == nil, !isEnding else { return }
    guard let end = pending.firstIndex(of: UInt8(ascii: "\n")) else {
      if pending.count > ControlRequest.lengthLimit {
        refuse(context, Self.tooLong)
      }
      return
    }
    let line = Array(pending[..<end])
    pending.removeFirst(end + 1)
    guard line.count <= ControlRequest.lengthLimit else {
      refuse(context, Self.tooLong)
      return
    }
    let request: ControlRequest
    do {
      request = try ControlRequest(parsing: line)
      try access.check(request.verb)
    } catch {
      // After a broken line nothing tells where the next one begins to make sense.
      refuse(context, error)
      return
    }
    idle?.cancel()
    start(request, context)
  }

  private func start(_ request: ControlRequest, _ context: ChannelHandlerContext) {
    let channel = context.channel
    let service = service
    let writer = ControlWriter(channel: channel)
    channel.setOption(.autoRead, value: false).whenComplete { _ in }
    let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
    running = Task {
      let reply: ControlReply
      do {
        reply = .done(try await service.answer(request) { try await writer.send(.part($0)) })
      } catch {
        reply = .failed(ControlError(error))
      }
      try? await writer.send(reply)
      channel.eventLoop.execute {
        let (handler, context) = bound.value
        handler.running = nil
        guard channel.isActive else { return }
        channel.setOption(.autoRead, value: true).whenComplete { _ in }
        handler.waitForNext(context)
        handler.next(context)
      }
    }
  }

  private func refuse(_ context: ChannelHandlerContext, _ error: ControlError) {
    isEnding = true
    let channel = context.channel
    let buffer = ByteBuffer(bytes: ControlReply.failed(error).encoded)
    context.writeAndFlush(wrapOutboundOut(buffer)).whenComplete { _ in channel.close(promise: nil) }
  }
}

/// Writes replies from a task; a client that does not read is closed.
private struct ControlWriter: Sendable {
  let channel: any Channel

  func send(_ reply: ControlReply) async throws {
    let channel = channel
    let deadline = channel.eventLoop.scheduleTask(in: ControlConnection.writeLimit) { channel.close(promise: nil) }
    defer { deadline.cancel() }
    try await channel.writeAndFlush(ByteBuffer(bytes: reply.encoded)).get()
  }
}
