// One TCP connection of the registry: frames in, one reply for each, in order. RegistryListener puts it into each
// connection's pipeline, behind TLS if there is any.

import JSON
import Logging
import NIOCore
import Synchronization
import Wire

/// Answers the requests of one client one after the other. While replies are not read, or many requests wait, it does
/// not read either, so nobody can make it hold much.
final class RegistryConnection: ChannelDuplexHandler {
  typealias InboundIn = ByteBuffer
  typealias OutboundIn = Never
  typealias OutboundOut = ByteBuffer

  private static let waitingLimit = 32

  private let service: RegistryService
  private let limits: RendezvousLimits
  private let client: ClientSession
  private var reader: FrameReader
  private var waiting: [JSONValue] = []
  private var isBusy = false
  private var isClosing = false
  /// A read that was asked for while there was no room.
  private var wantsRead = false
  private var lastRequest: NIODeadline
  private var frameBegan: NIODeadline?
  private var unwritableSince: NIODeadline?
  private var check: RepeatedTask?
  private var delays = 0

  init(_ service: RegistryService, _ client: ClientSession) {
    self.service = service
    self.client = client
    limits = service.configuration.limits
    reader = FrameReader(limit: limits.frameSize)
    lastRequest = .now()
  }

  // MARK: Life

  func handlerAdded(context: ChannelHandlerContext) {
    let shortest = min(limits.idleTime, limits.unfinishedFrameTime, limits.writeTime)
    let interval = TimeAmount.nanoseconds(Int64(max(0.02, min(2, shortest / 4)) * 1e9))
    let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
    check = context.eventLoop.scheduleRepeatedTask(initialDelay: interval, delay: interval) { _ in
      let (connection, context) = bound.value
      connection.enforceDeadlines(context)
    }
  }

  func handlerRemoved(context: ChannelHandlerContext) {
    check?.cancel()
    check = nil
    service.admission.release(reader.takeReserved())
  }

  func channelInactive(context: ChannelHandlerContext) {
    isClosing = true
    waiting = []
    context.fireChannelInactive()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    service.logger.debug("registry connection", metadata: ["error": "\(error)"])
    close(context)
  }

  private func close(_ context: ChannelHandlerContext) {
    guard !isClosing else { return }
    isClosing = true
    waiting = []
    context.close(promise: nil)
  }

  private func enforceDeadlines(_ context: ChannelHandlerContext) {
    let now = NIODeadline.now()
    func isOver(_ since: NIODeadline?, _ seconds: Double) -> Bool {
      since.map { now - $0 >= .nanoseconds(Int64(seconds * 1e9)) } ?? false
    }
    if isOver(frameBegan, limits.unfinishedFrameTime) {
      service.counters.add(.framesUnfinished)
      close(context)
    } else if isOver(unwritableSince, limits.writeTime) {
      service.counters.add(.clientsNotReading)
      close(context)
    } else if !isBusy, isOver(lastRequest, limits.idleTime) {
      close(context)
    }
  }

  // MARK: Reading

  private var hasRoom: Bool { waiting.count < Self.waitingLimit && unwritableSince == nil }

  func read(context: ChannelHandlerContext) {
    if hasRoom { context.read() } else { wantsRead = true }
  }

  private func resumeReading(_ context: ChannelHandlerContext) {
    guard wantsRead, hasRoom, !isClosing else { return }
    wantsRead = false
    context.read()
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard !isClosing else { return }
    var bytes = unwrapInboundIn(data)
    reader.append(&bytes)
    while !isClosing {
      switch reader.next(reserve: service.admission.reserve) {
      case .frame(let frame):
        service.admission.release(reader.takeReserved())
        frameBegan = nil
        accept(frame, context)
      case .incomplete:
        if reader.isUnfinished, frameBegan == nil { frameBegan = .now() }
        return
      case .malformed, .crowded:
        service.counters.add(.framesMalformed)
        return close(context)
      }
    }
  }

  private func accept(_ frame: ByteBuffer, _ context: ChannelHandlerContext) {
    lastRequest = .now()
    let value: JSONValue
    do {
      value = try JSONValue(parsing: Array(frame.readableBytesView), deepest: limits.jsonDepth)
    } catch {
      service.counters.add(.framesMalformed)
      return close(context)
    }
    switch value {
    case .object: waiting.append(value)
    case .null: waiting.append(.object([:]))
    default:
      service.counters.add(.framesMalformed)
      return close(context)
    }
    advance(context)
  }

  // MARK: Answering

  private func advance(_ context: ChannelHandlerContext) {
    while !isBusy, !isClosing, unwritableSince == nil, let request = waiting.first {
      if delays < service.patience(request, from: client, hasWaited: delays > 0) {
        delays += 1
        isBusy = true
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        context.eventLoop.scheduleTask(in: .milliseconds(250)) {
          let (connection, context) = bound.value
          connection.isBusy = false
          connection.advance(context)
        }
        return
      }
      delays = 0
      waiting.removeFirst()
      isBusy = true
      let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
      let eventLoop = context.eventLoop
      // Most answers come before `answer` returns; then no detour over the event loop's queue is needed.
      let slot = ReplySlot()
      service.answer(request, from: client) { value in
        guard slot.put(value) else { return }
        eventLoop.execute {
          let (connection, context) = bound.value
          connection.reply(value, context)
          connection.advance(context)
        }
      }
      if let value = slot.takeOrDetach() { reply(value, context) }
    }
    resumeReading(context)
  }

  private func reply(_ value: JSONValue, _ context: ChannelHandlerContext) {
    isBusy = false
    guard !isClosing else { return }
    let body = value.encoded
    var buffer = context.channel.allocator.buffer(capacity: body.count + 4)
    buffer.writeInteger(UInt32(body.count))
    buffer.writeBytes(body)
    context.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
  }

  func channelWritabilityChanged(context: ChannelHandlerContext) {
    if context.channel.isWritable {
      unwritableSince = nil
      advance(context)
    } else if unwritableSince == nil {
      unwritableSince = .now()
    }
    context.fireChannelWritabilityChanged()
  }
}

/// Where an answer and the one who waits for it meet, whichever comes first.
private final class ReplySlot: Sendable {
  private let state = Mutex<(isDetached: Bool, value: JSONValue?)>((false, nil))

  /// True when nobody waits any longer and the caller must deliver the answer itself.
  func put(_ value: JSONValue) -> Bool {
    state.withLock { state in
      if state.isDetached { return true }
      state.value = value
      return false
    }
  }

  /// The answer if it is there; otherwise it will come by the caller of `put`.
  func takeOrDetach() -> JSONValue? {
    state.withLock { state in
      if state.value == nil { state.isDetached = true }
      return state.value
    }
  }
}
