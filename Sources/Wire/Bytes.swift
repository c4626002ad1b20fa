// Big-endian loads and stores, a bounded reader and appenders. Everything in Wire stands on these; Session, Engine and
// Directory use them for layouts of their own.

extension UnsafeRawPointer {
  /// The big-endian 16-bit word at `offset`, aligned or not. The caller has checked the length.
  @inlinable @inline(__always)
  public func loadBig16(_ offset: Int) -> UInt16 {
    UInt16(bigEndian: loadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }

  /// The big-endian 32-bit word at `offset`, aligned or not. The caller has checked the length.
  @inlinable @inline(__always)
  public func loadBig32(_ offset: Int) -> UInt32 {
    UInt32(bigEndian: loadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }

  /// The big-endian 64-bit word at `offset`, aligned or not. The caller has checked the length.
  @inlinable @inline(__always)
  public func loadBig64(_ offset: Int) -> UInt64 {
    UInt64(bigEndian: loadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }

  /// The byte at `offset`. The caller has checked the length.
  @inlinable @inline(__always)
  public func loadByte(_ offset: Int) -> UInt8 { load(fromByteOffset: offset, as: UInt8.self) }
}

extension UnsafeMutableRawPointer {
  /// Stores a 16-bit word big-endian at `offset`, aligned or not. The caller has checked the length.
  @inlinable @inline(__always)
  public func storeBig16(_ value: UInt16, _ offset: Int) {
    storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt16.self)
  }

  /// Stores a 32-bit word big-endian at `offset`, aligned or not. The caller has checked the length.
  @inlinable @inline(__always)
  public func storeBig32(_ value: UInt32, _ offset: Int) {
    storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt32.self)
  }

  /// Stores a 64-bit word big-endian at `offset`, aligned or not. The caller has checked the length.
  @inlinable @inline(__always)
  public func storeBig64(_ value: UInt64, _ offset: Int) {
    storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt64.self)
  }

  /// Stores one byte at `offset`. The caller has checked the length.
  @inlinable @inline(__always)
  public func storeByte(_ value: UInt8, _ offset: Int) {
    storeBytes(of: value, toByteOffset: offset, as: UInt8.self)
  }
}

/// Reads integers and byte runs from a message of unknown origin; every read past the end is nil and moves nothing.
public struct ByteReader: Sendable {
  private let bytes: ArraySlice<UInt8>
  private var position: Int

  public init(_ bytes: ArraySlice<UInt8>) {
    self.bytes = bytes
    position = bytes.startIndex
  }

  public init(_ bytes: [UInt8]) { self.init(bytes[...]) }

  /// Bytes not read yet.
  public var remaining: Int { bytes.endIndex - position }
  /// Bytes read so far.
  public var offset: Int { position - bytes.startIndex }

  public mutating func byte() -> UInt8? { integer(UInt8.self) }
  public mutating func u16() -> UInt16? { integer(UInt16.self) }
  public mutating func u32() -> UInt32? { integer(UInt32.self) }
  public mutating func u64() -> UInt64? { integer(UInt64.self) }

  private mutating func integer<Value: FixedWidthInteger>(_: Value.Type) -> Value? {
    let size = Value.bitWidth / 8
    guard remaining >= size else { return nil }
    var value: Value = 0
    for byte in bytes[position..<(position + size)] {
      value = size == 1 ? Value(byte) : value << 8 | Value(byte)
    }
    position += size
    return value
  }

  /// The next `count` bytes; nil when fewer are left or the count is negative.
  public mutating func take(_ count: Int) -> ArraySlice<UInt8>? {
    guard count >= 0, remaining >= count else { return nil }
    defer { position += count }
    return bytes[position..<(position + count)]
  }

  public mutating func bytes32() -> Bytes32? { take(32).flatMap { Bytes32($0) } }
  public mutating func bytes64() -> Bytes64? { take(64).flatMap { Bytes64($0) } }

  /// Everything that is left.
  public mutating func rest() -> ArraySlice<UInt8> {
    defer { position = bytes.endIndex }
    return bytes[position...]
  }
}

extension [UInt8] {
  /// Appends an integer big-endian.
  public mutating func appendBig<Value: FixedWidthInteger>(_ value: Value) {
    Swift.withUnsafeBytes(of: value.bigEndian) { append(contentsOf: $0) }
  }
}
