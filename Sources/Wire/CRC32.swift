// The IEEE CRC-32 of Pilot packets (wire/tunnel §2), eight bytes per step. Called by `PilotPacket` only: raw IPv6 inner
// frames carry no CRC.

/// CRC-32/IEEE: reflected 0xEDB88320, initial value and final xor 0xFFFFFFFF, as in zlib.
public enum CRC32 {
  /// Eight tables of 256: table k advances a byte by k further zero bytes.
  // SAFETY: written once before the pointer is published by the runtime's one-time initialisation, read-only after.
  private nonisolated(unsafe) static let tables: UnsafePointer<UInt32> = {
    let tables = UnsafeMutablePointer<UInt32>.allocate(capacity: 8 * 256)
    for index in 0..<256 {
      var value = UInt32(index)
      for _ in 0..<8 { value = value >> 1 ^ (value & 1 == 1 ? 0xEDB8_8320 : 0) }
      tables[index] = value
    }
    for index in 256..<2048 {
      let previous = tables[index - 256]
      tables[index] = previous >> 8 ^ tables[Int(previous & 0xFF)]
    }
    return UnsafePointer(tables)
  }()

  /// The checksum of one run of bytes.
  public static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt32 { ~update(~0, bytes) }

  public static func checksum(_ bytes: [UInt8]) -> UInt32 { bytes.withUnsafeBytes { checksum($0) } }

  /// Carries a running state (start: all ones; result: complement it) over more bytes.
  public static func update(_ state: UInt32, _ bytes: UnsafeRawBufferPointer) -> UInt32 {
    guard let base = bytes.baseAddress else { return state }
    let tables = Self.tables
    var state = state
    var offset = 0
    while bytes.count - offset >= 8 {
      let low = UInt32(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) ^ state
      let high = UInt32(littleEndian: base.loadUnaligned(fromByteOffset: offset + 4, as: UInt32.self))
      let first =
        tables[1792 + Int(low & 0xFF)] ^ tables[1536 + Int(low >> 8 & 0xFF)]
        ^ tables[1280 + Int(low >> 16 & 0xFF)] ^ tables[1024 + Int(low >> 24)]
      let second =
        tables[768 + Int(high & 0xFF)] ^ tables[512 + Int(high >> 8 & 0xFF)]
        ^ tables[256 + Int(high >> 16 & 0xFF)] ^ tables[Int(high >> 24)]
      state = first ^ second
      offset += 8
    }
    while offset < bytes.count {
      state = state >> 8 ^ tables[Int((state ^ UInt32(base.loadByte(offset))) & 0xFF)]
      offset += 1
    }
    return state
  }
}
