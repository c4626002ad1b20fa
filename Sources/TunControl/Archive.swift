// A .tar.gz of a few text files, for `pilot-tun bugreport`: POSIX ustar in a gzip wrapper with stored blocks. Readable by
// every tar; nothing here needs a library or a program that a small container lacks. Pure.

package struct Archive {
  private var bytes: [UInt8] = []
  /// Seconds since 1970, for all files.
  private let time: Int64

  package init(time: Int64) { self.time = time }

  /// `path`: at most 99 bytes.
  package mutating func add(_ path: String, _ content: [UInt8]) {
    precondition(path.utf8.count < 100, "ustar's short names only")
    var header = [UInt8](repeating: 0, count: 512)
    func put(_ text: String, at offset: Int) {
      header.replaceSubrange(offset..<offset + text.utf8.count, with: text.utf8)
    }
    func octal(_ value: Int64, _ digits: Int) -> String {
      let text = String(max(0, value), radix: 8)
      return String(repeating: "0", count: max(0, digits - text.utf8.count)) + text
    }
    put(path, at: 0)
    put(octal(0o600, 7), at: 100)
    put(octal(0, 7), at: 108)
    put(octal(0, 7), at: 116)
    put(octal(Int64(content.count), 11), at: 124)
    put(octal(time, 11), at: 136)
    put("        0", at: 148)  // the checksum counts as blanks; then the type, a plain file
    put("ustar", at: 257)
    put("00", at: 263)
    let sum = header.reduce(0) { $0 + Int64($1) }
    put(octal(sum, 6) + "\0 ", at: 148)
    bytes += header + content + [UInt8](repeating: 0, count: (512 - content.count % 512) % 512)
  }

  /// The whole file: two empty blocks end the archive (POSIX pax), members are RFC 1952 and RFC 1951 §3.2.4.
  package var gzip: [UInt8] {
    let tar = bytes + [UInt8](repeating: 0, count: 1024)
    var result: [UInt8] = [0x1F, 0x8B, 8, 0]
    func append32(_ value: UInt32) {
      for shift in [0, 8, 16, 24] { result.append(UInt8(value >> UInt32(shift) & 0xFF)) }
    }
    append32(UInt32(truncatingIfNeeded: time))
    result += [0, 3]  // no hints; made on Unix
    var start = 0
    while start < tar.count {
      let count = min(65_535, tar.count - start)
      result.append(start + count == tar.count ? 1 : 0)
      let length = UInt16(count)
      result += [UInt8(length & 0xFF), UInt8(length >> 8), UInt8(~length & 0xFF), UInt8(~length >> 8)]
      result += tar[start..<start + count]
      start += count
    }
    append32(Self.crc32(tar))
    append32(UInt32(truncatingIfNeeded: tar.count))
    return result
  }

  /// RFC 1952 §8.
  static func crc32(_ bytes: [UInt8]) -> UInt32 {
    let table = (0..<256).map { index -> UInt32 in
      (0..<8).reduce(UInt32(index)) { value, _ in value & 1 != 0 ? 0xEDB8_8320 ^ (value >> 1) : value >> 1 }
    }
    return ~bytes.reduce(0xFFFF_FFFF) { table[Int(($0 ^ UInt32($1)) & 0xFF)] ^ ($0 >> 8) }
  }
}
