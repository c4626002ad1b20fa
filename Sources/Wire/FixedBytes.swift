// Keys, hashes and signatures as values: no array, no reference count. Used by Wire's frames and by Session.

/// 32 bytes: an X25519 or Ed25519 public key, or a hash.
@frozen
public struct Bytes32: Hashable, Sendable {
  public var words: (UInt64, UInt64, UInt64, UInt64)

  @inlinable
  public init() { words = (0, 0, 0, 0) }

  /// Copies exactly 32 bytes; nil for any other length.
  public init?(_ bytes: some Collection<UInt8>) {
    guard bytes.count == 32 else { return nil }
    self.init()
    withUnsafeMutableBytes(of: &words) { $0.copyBytes(from: bytes) }
  }

  @inlinable
  public init(_ base: UnsafeRawPointer, at offset: Int) {
    self.init()
    withUnsafeMutableBytes(of: &words) { $0.baseAddress!.copyMemory(from: base + offset, byteCount: 32) }
  }

  public var bytes: [UInt8] { withUnsafeBytes(of: words) { Array($0) } }

  @inlinable
  public var isZero: Bool { words.0 | words.1 | words.2 | words.3 == 0 }

  @inlinable
  public static func == (a: Bytes32, b: Bytes32) -> Bool { a.words == b.words }

  public func hash(into hasher: inout Hasher) {
    hasher.combine(words.0)
    hasher.combine(words.1)
    hasher.combine(words.2)
    hasher.combine(words.3)
  }
}

extension Bytes32: CustomStringConvertible {
  /// Lower-case hex.
  public var description: String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }
}

/// 64 bytes: an Ed25519 signature.
@frozen
public struct Bytes64: Hashable, Sendable {
  public var first: Bytes32
  public var second: Bytes32

  @inlinable
  public init() {
    first = Bytes32()
    second = Bytes32()
  }

  public init?(_ bytes: some Collection<UInt8>) {
    guard bytes.count == 64, let first = Bytes32(bytes.prefix(32)), let second = Bytes32(bytes.dropFirst(32)) else {
      return nil
    }
    self.first = first
    self.second = second
  }

  @inlinable
  public init(_ base: UnsafeRawPointer, at offset: Int) {
    first = Bytes32(base, at: offset)
    second = Bytes32(base, at: offset + 32)
  }

  public var bytes: [UInt8] { first.bytes + second.bytes }
}
