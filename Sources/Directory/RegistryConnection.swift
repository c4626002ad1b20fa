// One TCP connection to a registry: requests out, replies in, in the same order (wire/registry §1.1). Made and
// owned by RegistryClient.

import Glibc
import JSON
import NIOCore
import NIOPosix
import Session
import Synchronization
import Wire

/// A connection that is up. Calls may overlap: they are pipelined.
final class RegistryConnection: Sendable {
  private let channel: any Channel
  /// Whose key signs a nonce that the registry gives.
  private let identity: (@Sendable () -> Identity)?
  /// The nonce of this connection that was signed already, and by which key.
  private let proven = Mutex<String?>(nil)

  private init(channel: any Channel, identity: (@Sendable () -> Identity)?) {
    self.channel = channel
    self.identity = identity
  }

  /// Dials, by the detour as well when `headStart` says so. Host names are resolved by NIO on a thread of its own; IPv4
  /// and IPv6 are raced (RFC 8305).
  static func open(
    host: String, port: UInt16, timing: DirectoryTiming, group: any EventLoopGroup, detour: RegistryDetour?,
    headStart: Duration?, isPlainMute: Bool, identity: (@Sendable () -> Identity)?,
    onClose: @escaping @Sendable (DirectoryError) -> Void
  ) async throws(DirectoryError) -> (connection: RegistryConnection, isDetour: Bool) {
    let replyTimeout = TimeAmount(timing.replyTimeout)
    let plain: @Sendable () async throws -> any Channel = {
      try await dial(host: host, port: port, timing: timing, group: group)
    }
    do {
      let winner: RegistryRace.Winner
      if let detour, let headStart {
        let eventLoop = group.next()
        winner = try await RegistryRace.run(
          headStart: headStart, plain: detour.isOnly || isPlainMute ? nil : plain,
          detour: { try await detour.dial(eventLoop) },
          on: eventLoop)
      } else {
        winner = RegistryRace.Winner(channel: try await plain(), isDetour: false)
      }
      // Only now, as the end of a connection that lost the race is no news. A registry says nothing before it is asked.
      let channel = winner.channel
      try await channel.eventLoop.submit {
        try channel.pipeline.syncOperations.addHandler(
          RegistryReplyHandler(replyTimeout: replyTimeout, onClose: onClose))
      }.get()
      return (RegistryConnection(channel: channel, identity: identity), winner.isDetour)
    } catch {
      throw unreachable(error, host: host, port: port)
    }
  }

  private static func dial(
    host: String, port: UInt16, timing: DirectoryTiming, group: any EventLoopGroup
  ) async throws -> any Channel {
    let bootstrap = ClientBootstrap(group: group)
      .connectTimeout(TimeAmount(timing.dialTimeout))
      .channelOption(.tcpOption(.tcp_nodelay), value: 1)
      .channelOption(.socketOption(.so_keepalive), value: 1)
    // A dial may take its whole timeout; stopping the node must not wait for it. A channel that comes late is closed.
    let promise = group.any().makePromise(of: (any Channel).self)
    let dialled = bootstrap.connect(host: host, port: Int(port))
    dialled.cascade(to: promise)
    promise.futureResult.whenFailure { _ in dialled.whenSuccess { $0.close(promise: nil) } }
    return try await withTaskCancellationHandler {
      try await promise.futureResult.get()
    } onCancel: {
      promise.fail(CancellationError())
    }
  }

  /// What is wrong with the ways that were tried, and no word of a port that was not.
  static func unreachable(_ error: any Error, host: String, port: UInt16) -> DirectoryError {
    let race = error as? RaceFailure ?? RaceFailure(plain: error)
    var parts: [String] = []
    var hints: [String] = []
    if let plain = race.plain {
      parts.append("\(host) port \(port): \(reason(plain))")
      hints.append("check that pilot-rendezvous runs there and that TCP \(port) is open")
    }
    let explained = race.detour as? any ExplainedError
    if let other = race.detour {
      parts.append("by TLS: " + (explained?.message ?? reason(other)))
      if let hint = explained?.hint { hints.append(race.plain == nil ? hint : "by TLS: \(hint)") }
    }
    hints.append("the node keeps trying")
    var result = DirectoryError(
      .registryUnreachable, "no connection to the registry \(parts.joined(separator: "; "))",
      hint: hints.joined(separator: "; "))
    if race.plain == nil { result.cause = explained?.code }
    return result
  }

  /// Sends one request and waits for its reply. An error reply is thrown as `DirectoryError.refusal`.
  ///
  /// A registry of ours puts a nonce into its reply to `register`, and into a refusal for want of its signature. No
  /// other does, so no other is sent what it does not know.
  func call(_ request: JSONValue, operation: String) async throws(DirectoryError) -> JSONValue {
    var reply = try await exchange(request, operation: operation)
    if let nonce = reply["nonce"]?.text, try await prove(nonce), reply["error"] != nil {
      reply = try await exchange(request, operation: operation)
    }
    if let text = reply["error"]?.text, !text.isEmpty { throw .refusal(text, to: operation) }
    guard reply["type"]?.text != nil else {
      throw DirectoryError(.badReply, "the registry's answer to \(operation) has no type")
    }
    return reply
  }

  /// Signs the nonce, so that recordings of what this key signed are worth nothing elsewhere. False when there is
  /// nothing to sign with or the registry did not take it; then everything goes on as without.
  private func prove(_ nonce: String) async throws(DirectoryError) -> Bool {
    guard let identity = identity?(), (1...128).contains(nonce.utf8.count) else { return false }
    let key = Base64.encode(identity.publicKey.bytes)
    if proven.withLock({ $0 == nonce + key }) { return true }
    let signature = Base64.encode(identity.sign(Array("prove_key:\(nonce):\(key)".utf8)).bytes)
    let proof: JSONValue = .object([
      "type": .text("prove_key"), "public_key": .text(key), "nonce": .text(nonce), "signature": .text(signature),
    ])
    guard try await exchange(proof, operation: "prove_key")["error"] == nil else { return false }
    proven.withLock { $0 = nonce + key }
    return true
  }

  private func exchange(_ request: JSONValue, operation: String) async throws(DirectoryError) -> JSONValue {
    var frame = channel.allocator.buffer(capacity: 256)
    do {
      try RegistryFrame.encode(request, into: &frame)
    } catch {
      throw DirectoryError(.badRequest, "a \(operation) request is too large to send")
    }
    let promise = channel.eventLoop.makePromise(of: JSONValue.self)
    // A closed channel has no handlers left: the write fails, and nobody else would end the call.
    let written = channel.eventLoop.makePromise(of: Void.self)
    written.futureResult.whenFailure { promise.fail($0) }
    channel.writeAndFlush(RegistryCall(frame: frame, reply: promise), promise: written)
    do {
      return try await promise.futureResult.get()
    } catch let error as DirectoryError {
      throw error
    } catch {
      throw DirectoryError(.registryUnreachable, "the registry connection failed: \(Self.reason(error))")
    }
  }

  func close() async {
    try? await channel.close().get()
  }

  static func reason(_ error: any Error) -> String {
    switch error {
    case let error as NIOConnectionError:
      if let first = error.connectionErrors.first { return reason(first.error) }
      return "the host name does not resolve"
    case let error as IOError: return String(cString: strerror(error.errnoCode)).lowercased()
    case ChannelError.connectTimeout: return "no answer in time"
    default: return "\(error)"
    }
  }
}

/// A request on its way through the pipeline.
struct RegistryCall: Sendable {
  var frame: ByteBuffer
  var reply: EventLoopPromise<JSONValue>
}

/// Frames and order. INVARIANT: `waiting` holds the promises of the requests written and not answered, oldest
/// first; each is completed exactly once: by its reply, or by the end of the connection.
private final class RegistryReplyHandler: ChannelDuplexHandler {
  typealias InboundIn = ByteBuffer
  typealias OutboundIn = RegistryCall
  typealias OutboundOut = ByteBuffer

  /// More unanswered requests than a node ever has; keeps a mute registry from collecting memory.
  private static let mostWaiting = 1024

  private struct Waiting {
    var reply: EventLoopPromise<JSONValue>
    var deadline: NIODeadline
  }

  private let replyTimeout: TimeAmount
  private let onClose: @Sendable (DirectoryError) -> Void
  private var waiting = CircularBuffer<Waiting>()
  private var received = ByteBuffer()
  private var timer: Scheduled<Void>?
  private var end: DirectoryError?

  init(replyTimeout: TimeAmount, onClose: @escaping @Sendable (DirectoryError) -> Void) {
    self.replyTimeout = replyTimeout
    self.onClose = onClose
  }

  func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
    let call = unwrapOutboundIn(data)
    if let end {
      call.reply.fail(end)
      promise?.fail(end)
      return
    }
    guard waiting.count < Self.mostWaiting else {
      let error = DirectoryError(.registryBusy, "too many requests wait for the registry")
      call.reply.fail(error)
      promise?.fail(error)
      return
    }
    waiting.append(Waiting(reply: call.reply, deadline: .now() + replyTimeout))
    startTimer(context: context)
    context.write(wrapOutboundOut(call.frame), promise: promise)
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    var bytes = unwrapInboundIn(data)
    guard end == nil else { return }
    received.writeBuffer(&bytes)
    do {
      while let reply = try RegistryFrame.decode(from: &received) {
        guard let first = waiting.popFirst() else {
          return finish(context, DirectoryError(.badReply, "the registry sent a reply that nobody asked for"))
        }
        first.reply.succeed(reply)
      }
    } catch {
      return finish(context, DirectoryError(.badReply, "the registry sent a broken frame: \(error)"))
    }
    received.discardReadBytes()
    startTimer(context: context)
  }

  func channelInactive(context: ChannelHandlerContext) {
    finish(context, DirectoryError(.registryUnreachable, "the registry closed the connection"))
    context.fireChannelInactive()
  }

  func handlerRemoved(context: ChannelHandlerContext) {
    finish(context, DirectoryError(.registryUnreachable, "the registry connection is closed"))
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    finish(
      context,
      DirectoryError(.registryUnreachable, "the registry connection failed: \(RegistryConnection.reason(error))"))
  }

  /// One timer for the oldest request: the replies come in order.
  private func startTimer(context: ChannelHandlerContext) {
    guard let first = waiting.first else {
      timer?.cancel()
      timer = nil
      return
    }
    guard timer == nil else { return }
    let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
    timer = context.eventLoop.scheduleTask(deadline: first.deadline) {
      let (handler, context) = bound.value
      handler.timer = nil
      if let first = handler.waiting.first, first.deadline <= .now() {
        handler.finish(
          context,
          DirectoryError(.registryUnreachable, "the registry did not answer in time", hint: "the node keeps trying"))
      } else {
        handler.startTimer(context: context)
      }
    }
  }

  private func finish(_ context: ChannelHandlerContext, _ error: DirectoryError) {
    guard end == nil else { return }
    end = error
    timer?.cancel()
    timer = nil
    received.clear()
    while let next = waiting.popFirst() { next.reply.fail(error) }
    context.close(promise: nil)
    onClose(error)
  }
}
