// The sending side of a WebSocket that carries datagrams (RFC 6455 §5): bounded, from any thread, many messages in one
// write. Used by CompatLink (a node) and by the rendezvous for each of its clients.

package import NIOCore
package import NIOWebSocket
import Synchronization

/// Frames what it is given into one buffer and hands that to the channel once per turn of its event loop. What is more
/// than `limit` bytes ahead of the network is refused: a reader that stopped costs its own messages and no memory.
package final class WebSocketOutlet: Sendable {
  private struct Outbox {
    var bytes = ByteBuffer()
    /// Given to the channel, not written yet.
    var underWay = 0
    var isScheduled = false
    var random = SystemRandomNumberGenerator()
  }

  private let channel: any Channel
  /// Clients mask, servers do not (§5.1).
  private let masks: Bool
  private let limit: Int
  private let outbox = Mutex(Outbox())

  package init(channel: any Channel, masks: Bool, limit: Int = 1 << 20) {
    self.channel = channel
    self.masks = masks
    self.limit = limit
  }

  /// One message. False when it was refused.
  @discardableResult
  package func send(_ payload: ByteBuffer, as opcode: WebSocketOpcode = .binary) -> Bool {
    let (isTaken, mustSchedule) = outbox.withLock { outbox -> (Bool, Bool) in
      guard outbox.bytes.readableBytes + outbox.underWay + payload.readableBytes <= limit else { return (false, false) }
      let key = masks ? WebSocketMaskingKey.random(using: &outbox.random) : nil
      Self.append(payload, opcode, key, to: &outbox.bytes)
      defer { outbox.isScheduled = true }
      return (true, !outbox.isScheduled)
    }
    if mustSchedule { channel.eventLoop.execute { self.flush() } }
    return isTaken
  }

  package func send(text: String) { send(ByteBuffer(string: text), as: .text) }

  /// Says why and closes, after what waits.
  package func close(_ code: WebSocketErrorCode) {
    var reason = ByteBuffer()
    reason.write(webSocketErrorCode: code)
    send(reason, as: .connectionClose)
    channel.eventLoop.execute {
      self.flush()
      self.channel.close(promise: nil)
    }
  }

  private func flush() {
    let bytes = outbox.withLock { outbox -> ByteBuffer in
      defer {
        outbox.underWay += outbox.bytes.readableBytes
        outbox.bytes = ByteBuffer()
        outbox.isScheduled = false
      }
      return outbox.bytes
    }
    guard bytes.readableBytes > 0 else { return }
    // Past NIO's encoder, which writes each header and each message by itself.
    guard let context = try? channel.pipeline.syncOperations.context(handlerType: WebSocketFrameEncoder.self) else {
      return
    }
    let size = bytes.readableBytes
    let written = channel.eventLoop.makePromise(of: Void.self)
    written.futureResult.whenComplete { _ in self.outbox.withLock { $0.underWay -= size } }
    context.writeAndFlush(NIOAny(bytes), promise: written)
  }

  /// One whole frame (§5.2).
  static func append(
    _ payload: ByteBuffer, _ opcode: WebSocketOpcode, _ key: WebSocketMaskingKey?, to bytes: inout ByteBuffer
  ) {
    let length = payload.readableBytes
    bytes.writeInteger(0x80 | UInt8(webSocketOpcode: opcode))
    let mask: UInt8 = key == nil ? 0 : 0x80
    switch length {
    case 0...125: bytes.writeInteger(mask | UInt8(length))
    case 126...0xFFFF:
      bytes.writeInteger(mask | 126)
      bytes.writeInteger(UInt16(length))
    default:
      bytes.writeInteger(mask | 127)
      bytes.writeInteger(UInt64(length))
    }
    guard let key else {
      bytes.writeImmutableBuffer(payload)
      return
    }
    bytes.writeBytes(key)
    var masked = payload
    masked.webSocketMask(key)
    bytes.writeImmutableBuffer(masked)
  }
}
