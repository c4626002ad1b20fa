// The SACK payload of pure stream ACKs (wire/tunnel §5.4). For whoever carries streams to official peers.

/// Selective acknowledgement.
///
///     0        4       5
///     | "SACK" | n u8  | n × (left u32, right u32)      n from 1 to 4; right is the first byte not covered
///
/// An official receiver decides by content: stream data that reads as this is never delivered. A sender has to cut its
/// segments so that none begins this way (`matches`).
public struct SelectiveAcknowledgement: Equatable, Sendable {
  public struct Block: Equatable, Sendable {
    public var left: UInt32
    public var right: UInt32

    public init(left: UInt32, right: UInt32) {
      self.left = left
      self.right = right
    }
  }

  public static let magic = Array("SACK".utf8)
  public static let blockLimit = 4

  /// One to four, in the order of the wire.
  public let blocks: [Block]

  /// nil for no block or more than four.
  public init?(blocks: [Block]) {
    guard (1...Self.blockLimit).contains(blocks.count) else { return nil }
    self.blocks = blocks
  }

  /// Reads the beginning of a payload; bytes after the last block are ignored. nil: ordinary data.
  public init?(_ payload: some Collection<UInt8>) {
    var reader = ByteReader(Array(payload.prefix(5 + 8 * Self.blockLimit)))
    guard reader.take(4).map(Array.init) == Self.magic, let count = reader.byte(),
      (1...UInt8(Self.blockLimit)).contains(count)
    else {
      return nil
    }
    var blocks: [Block] = []
    for _ in 0..<count {
      guard let left = reader.u32(), let right = reader.u32() else { return nil }
      blocks.append(Block(left: left, right: right))
    }
    self.blocks = blocks
  }

  /// Whether an official receiver would swallow this stream payload as a SACK.
  public static func matches(_ payload: some Collection<UInt8>) -> Bool { SelectiveAcknowledgement(payload) != nil }

  public func encoded() -> [UInt8] {
    var bytes = Self.magic
    bytes.append(UInt8(blocks.count))
    for block in blocks {
      bytes.appendBig(block.left)
      bytes.appendBig(block.right)
    }
    return bytes
  }
}
