// One client of the beacon over a WebSocket: proves which node it is, then each binary message is what would be one UDP
// datagram (wire/tunnel §4.7). CompatEndpoint puts it into the pipeline after the upgrade.

import Logging
import NIOCore
import NIOWebSocket
import Session
import TLSTransport
import Wire

/// What a connection needs of the beacon.
struct CompatBeacon: Sendable {
  let beacon: Beacon
  /// The beacon's socket: on another event loop.
  let channel: any Channel
}

final class CompatConnection: ChannelInboundHandler {
  typealias InboundIn = WebSocketFrame

  private static let authenticationTime = TimeAmount.seconds(10)
  private static let pingInterval = TimeAmount.seconds(30)
  private static let silence = TimeAmount.seconds(90)

  private let service: RegistryService
  private let compat: CompatBeacon
  private let source: Endpoint
  private let outlet: WebSocketOutlet
  private let nonce: String
  /// Unix seconds of the challenge.
  private let time: Int64
  /// Who it is, and by which key that was proven.
  private var client: (node: UInt32, key: Bytes32)?
  private var isOver = false
  private var heardAt = NIODeadline.now()
  private var clock: RepeatedTask?
  private var deadline: Scheduled<Void>?
  /// For nodes on UDP; they leave together when all that has come is handled.
  private var datagrams: [AddressedEnvelope<ByteBuffer>] = []

  init(_ service: RegistryService, _ compat: CompatBeacon, source: Endpoint, outlet: WebSocketOutlet) {
    self.service = service
    self.compat = compat
    self.source = source
    self.outlet = outlet
    time = service.now / 1000
    var generator = SystemRandomNumberGenerator()
    nonce = Cryptography.hexadecimal((0..<32).map { _ in UInt8.random(in: 0...255, using: &generator) })
  }

  // MARK: Life

  func handlerAdded(context: ChannelHandlerContext) {
    outlet.send(text: CompatAuthentication.challenge(nonce: nonce, time: time).text)
    let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
    deadline = context.eventLoop.scheduleTask(in: Self.authenticationTime) {
      bound.value.refuse()
    }
    clock = context.eventLoop.scheduleRepeatedTask(initialDelay: Self.pingInterval, delay: Self.pingInterval) { _ in
      bound.value.look()
    }
  }

  func handlerRemoved(context: ChannelHandlerContext) {
    leave()
    clock?.cancel()
    deadline?.cancel()
  }

  func channelInactive(context: ChannelHandlerContext) {
    lose()
    context.fireChannelInactive()
  }

  /// What breaks the rules of WebSockets is the client's doing, everything else the network's.
  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    service.logger.debug("compat connection", metadata: ["error": "\(error)"])
    switch error {
    case is NIOWebSocketError, is NIOWebSocketFrameAggregator.Error, is MaskRule.Unmasked:
      end(.protocolError, .compatMalformed)
    default:
      lose()
      context.close(promise: nil)
    }
  }

  /// The connection is gone without a word of either end.
  private func lose() {
    if !isOver, !outlet.isClosing { service.counters.add(.compatLost) }
    leave()
  }

  private func leave() {
    isOver = true
    if let client { service.compat.leave(client.node, outlet) }
    client = nil
  }

  private func end(_ code: WebSocketErrorCode, _ cause: Counter? = nil) {
    guard !isOver else { return }
    if let cause { service.counters.add(cause) }
    leave()
    outlet.close(code)
  }

  private func refuse() {
    guard client == nil else { return }
    end(.policyViolation, .compatRefused)
  }

  /// Once in a while: is it still there, and still who it was?
  private func look() {
    guard .now() - heardAt < Self.silence else { return end(.goingAway, .compatSilent) }
    if let client, !service.stillOwns(client.node, client.key) { return end(.policyViolation, .compatRevoked) }
    outlet.send(ByteBuffer(), as: .ping)
  }

  // MARK: Messages

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard !isOver else { return }
    heardAt = .now()
    let frame = unwrapInboundIn(data)
    switch frame.opcode {
    case .binary:
      guard let client else { return refuse() }
      receive(frame.unmaskedData, of: client.node, client.key)
    case .text:
      if client == nil { authenticate(Array(frame.unmaskedData.readableBytesView)) }
    case .ping:
      if frame.length <= 125 { outlet.send(frame.unmaskedData, as: .pong) }
    case .pong: break
    case .connectionClose: end(.normalClosure)
    default: end(.protocolError, .compatMalformed)
    }
  }

  func channelReadComplete(context: ChannelHandlerContext) {
    guard !datagrams.isEmpty else { return }
    let (batch, beacon, channel, counters) = (datagrams, compat.beacon, compat.channel, service.counters)
    datagrams.removeAll(keepingCapacity: true)
    channel.eventLoop.execute {
      for envelope in batch {
        guard channel.isWritable else {
          counters.add(.relayNotWritten)
          continue
        }
        channel.write(envelope, promise: beacon.counted(envelope.data, on: channel.eventLoop))
      }
      channel.flush()
    }
  }

  private func authenticate(_ text: [UInt8]) {
    guard case .reply(let claimed, let key, let signature)? = CompatAuthentication(text),
      service.isKey(key, of: claimed),
      Ed25519.verify(signature, of: CompatAuthentication.signed(node: claimed, time: time, nonce: nonce), by: key)
    else {
      service.logger.debug(
        "compat client is not who it says", metadata: ["text": "\(String(decoding: text, as: UTF8.self))"])
      return refuse()
    }
    deadline?.cancel()
    client = (claimed, key)
    outlet.send(text: CompatAuthentication.accepted.text)
    service.counters.add(.compatAccepted)
    if let before = service.compat.enter(claimed, outlet) {
      service.counters.add(.compatReplaced)
      before.close(.goingAway)
    }
  }

  private func receive(_ message: ByteBuffer, of node: UInt32, _ key: Bytes32) {
    var datagram = message
    let now = service.now
    switch compat.beacon.receive(&datagram, of: node, key, from: source, now: now) {
    case .nothing: break
    case .stranger: end(.policyViolation, .compatRevoked)
    case .answer(let answer): outlet.send(ByteBuffer(bytes: answer.encoded()))
    case .endpoint(let address):
      datagrams.append(AddressedEnvelope(remoteAddress: address, data: datagram))
    case .client(let other):
      if !other.send(datagram, isCounted: true) { service.counters.add(.compatNotWritten) }
    }
  }
}

/// What a client sends is masked (RFC 6455 §5.1). Stands before fragments are joined, which forgets the key.
final class MaskRule: ChannelInboundHandler {
  typealias InboundIn = WebSocketFrame

  struct Unmasked: Error {}

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    let frame = unwrapInboundIn(data)
    guard frame.maskKey != nil || frame.length == 0 else { return context.fireErrorCaught(Unmasked()) }
    context.fireChannelRead(data)
  }
}

extension RegistryService {
  /// Whether `node` is registered with this key.
  func isKey(_ key: Bytes32, of node: UInt32) -> Bool {
    let now = now
    let record = try? read { state throws(RequestError) in try state.live(node, now: now) }
    return record?.key == key
  }
}
