// The sending side of a WebSocket that carries datagrams (RFC 6455 §5): bounded, from any thread, many messages in one
// write. Used by CompatLink (a node) and by the rendezvous for each of its clients.

package import NIOCore
package import NIOWebSocket
import Synchronization

/// Frames what it is given into one buffer and hands that to the channel once per turn of its event loop. What is more
/// than `limit` bytes ahead of the network is refused: a reader that stopped costs its own messages and no memory.
package final class WebSocketOutlet: Sendable {
  /// Messages that were sent as counted, and the bytes of their payloads.
  package struct Batch: Sendable {
    package var messages = 0
    package var bytes = 0
  }

  private struct Outbox {
    var bytes = ByteBuffer()
    var counted = Batch()
    /// Given to the channel, not written yet.
    var underWay = 0
    var isScheduled = false
    var isClosing = false
    var masks = MaskSource()
  }

  private let channel: any Channel
  /// Clients mask, servers do not (§5.1).
  private let masks: Bool
  private let limit: Int
  private let settled: @Sendable (Batch, _ isWritten: Bool) -> Void
  private let outbox = Mutex(Outbox())

  /// `settled` hears of counted messages, on the event loop: the network has them, or they were lost with the connection.
  package init(
    channel: any Channel, masks: Bool, limit: Int = 1 << 20,
    settled: @escaping @Sendable (Batch, _ isWritten: Bool) -> Void = { _, _ in }
  ) {
    self.channel = channel
    self.masks = masks
    self.limit = limit
    self.settled = settled
  }

  /// One message. False when it was refused: there is no room, or the end was announced.
  @discardableResult
  package func send(_ payload: ByteBuffer, as opcode: WebSocketOpcode = .binary, isCounted: Bool = false) -> Bool {
    enqueue(payload, opcode, isCounted: isCounted, isLast: false)
  }

  private func enqueue(_ payload: ByteBuffer, _ opcode: WebSocketOpcode, isCounted: Bool, isLast: Bool) -> Bool {
    let (isTaken, mustSchedule) = outbox.withLock { outbox -> (Bool, Bool) in
      defer { if isLast { outbox.isClosing = true } }
      guard !outbox.isClosing, outbox.bytes.readableBytes + outbox.underWay + payload.readableBytes <= limit else {
        return (false, false)
      }
      let key = masks ? outbox.masks.next() : nil
      Self.append(payload, opcode, key, to: &outbox.bytes)
      if isCounted {
        outbox.counted.messages += 1
        outbox.counted.bytes += payload.readableBytes
      }
      defer { outbox.isScheduled = true }
      return (true, !outbox.isScheduled)
    }
    if mustSchedule { channel.eventLoop.execute { self.flush() } }
    return isTaken
  }

  package func send(text: String) { send(ByteBuffer(string: text), as: .text) }

  /// The end was announced by this side.
  package var isClosing: Bool { outbox.withLock { $0.isClosing } }

  /// Says why and closes, after what waits.
  package func close(_ code: WebSocketErrorCode) {
    var reason = ByteBuffer()
    reason.write(webSocketErrorCode: code)
    _ = enqueue(reason, .connectionClose, isCounted: false, isLast: true)
    channel.eventLoop.execute {
      self.flush()
      self.channel.close(promise: nil)
    }
  }

  private func flush() {
    let (bytes, counted) = outbox.withLock { outbox -> (ByteBuffer, Batch) in
      defer {
        outbox.underWay += outbox.bytes.readableBytes
        outbox.bytes = ByteBuffer()
        outbox.counted = Batch()
        outbox.isScheduled = false
      }
      return (outbox.bytes, outbox.counted)
    }
    guard bytes.readableBytes > 0 else { return }
    let size = bytes.readableBytes
    let written = channel.eventLoop.makePromise(of: Void.self)
    written.futureResult.whenComplete { [settled] result in
      self.outbox.withLock { $0.underWay -= size }
      guard counted.messages > 0 else { return }
      if case .success = result { settled(counted, true) } else { settled(counted, false) }
    }
    // Past NIO's encoder, which writes each header and each message by itself. A closed channel has no handlers left.
    do {
      let context = try channel.pipeline.syncOperations.context(handlerType: WebSocketFrameEncoder.self)
      context.writeAndFlush(NIOAny(bytes), promise: written)
    } catch {
      written.fail(error)
    }
  }

  /// One whole frame (§5.2).
  static func append(
    _ payload: ByteBuffer, _ opcode: WebSocketOpcode, _ key: UInt32?, to bytes: inout ByteBuffer
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
    if let key { bytes.writeInteger(key) }
    bytes.writeImmutableBuffer(payload)
    if let key {
      bytes.withUnsafeMutableReadableBytes { whole in
        // SAFETY: the payload was written last, so its bytes are the last of the readable ones.
        MaskSource.apply(key, to: UnsafeMutableRawBufferPointer(rebasing: whole.suffix(length)))
      }
    }
  }
}
