// Frames on the registry's TCP connections: a 4-byte big-endian length, then that many bytes of JSON (wire/registry
// §1.1). Used by RegistryConnection.

import NIOCore

/// Cuts frames out of a stream. Pure: bytes in, frames out, so tests can feed it anything.
struct FrameReader {
  /// The longest frame that is kept without asking for room first.
  static let freeLength = 16 << 10

  private(set) var buffer = ByteBuffer()
  private let limit: Int
  /// Bytes reserved for the long frame that is arriving.
  private(set) var reserved = 0

  enum Outcome: Equatable {
    case frame(ByteBuffer)
    /// More bytes are needed.
    case incomplete
    /// The length is zero or above the limit: nothing after it can be trusted.
    case malformed
    /// No room for a long frame at the moment.
    case crowded
  }

  init(limit: Int) { self.limit = limit }

  /// Whether part of a frame waits for the rest.
  var isUnfinished: Bool { buffer.readableBytes > 0 }

  mutating func append(_ bytes: inout ByteBuffer) {
    if buffer.readableBytes == 0 { buffer.clear(minimumCapacity: bytes.readableBytes) }
    buffer.writeBuffer(&bytes)
  }

  /// The next frame. `reserve` is asked once for a long one, when its length is known and before it is stored.
  mutating func next(reserve: (Int) -> Bool) -> Outcome {
    guard let length = buffer.getInteger(at: buffer.readerIndex, as: UInt32.self).map(Int.init) else {
      return .incomplete
    }
    guard length > 0, length <= limit else { return .malformed }
    guard buffer.readableBytes >= 4 + length else {
      if length > Self.freeLength, reserved == 0 {
        guard reserve(length) else { return .crowded }
        reserved = length
      }
      return .incomplete
    }
    buffer.moveReaderIndex(forwardBy: 4)
    guard let frame = buffer.readSlice(length: length) else { return .malformed }
    if buffer.readableBytes == 0 { buffer = ByteBuffer() }
    return .frame(frame)
  }

  mutating func takeReserved() -> Int {
    defer { reserved = 0 }
    return reserved
  }
}
