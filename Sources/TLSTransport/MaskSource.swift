// The masks of a WebSocket's client (RFC 6455 §5.3): unpredictable, one for each frame. Used by WebSocketOutlet.

import Glibc

/// Hands out masks from a block of the kernel's randomness: a system call for each frame costs more than the frame.
struct MaskSource {
  /// As many as getentropy(3) gives at once, which is 256 bytes.
  static let blockSize = 64

  private var block: [UInt32] = []

  /// The next mask, in the order of its bytes on the wire when written big-endian. None is given twice.
  mutating func next() -> UInt32 {
    if block.isEmpty { refill() }
    return block.removeLast()
  }

  private mutating func refill() {
    // The room of the last block is used again.
    block.append(contentsOf: repeatElement(0, count: Self.blockSize))
    let result = block.withUnsafeMutableBytes { getentropy($0.baseAddress, $0.count) }
    // It fails for more than 256 bytes and on kernels before 3.17.
    precondition(result == 0, "the kernel gives no randomness")
  }

  /// Masks, or unmasks, where the bytes lie: byte i with byte i mod 4 of the mask.
  static func apply(_ mask: UInt32, to bytes: UnsafeMutableRawBufferPointer) {
    let wide = (UInt64(mask) << 32 | UInt64(mask)).bigEndian
    var offset = 0
    // SAFETY: offset + 8 <= count for each wide access, offset < count for each narrow one.
    while offset + 8 <= bytes.count {
      let word = bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
      bytes.storeBytes(of: word ^ wide, toByteOffset: offset, as: UInt64.self)
      offset += 8
    }
    while offset < bytes.count {
      bytes[offset] ^= UInt8(truncatingIfNeeded: mask >> (24 - 8 * UInt32(offset & 3)))
      offset += 1
    }
  }
}
