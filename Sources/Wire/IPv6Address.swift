// An IPv6 address as two words, and its text form (RFC 4291 §2.2, RFC 5952). No system calls: Wire is pure.

/// A 128-bit address, host order in two words.
@frozen
public struct IPv6Address: Hashable, Sendable {
  public var high: UInt64
  public var low: UInt64

  @inlinable
  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// `::ffff:a.b.c.d`, how a dual-stack socket shows an IPv4 peer (RFC 4291 §2.5.5.2).
  @inlinable
  public init(mappedIPv4 address: UInt32) {
    self.init(high: 0, low: 0x0000_FFFF_0000_0000 | UInt64(address))
  }

  /// The IPv4 address inside, when this is a mapped one.
  @inlinable
  public var mappedIPv4: UInt32? { high == 0 && low >> 32 == 0xFFFF ? UInt32(truncatingIfNeeded: low) : nil }

  @inlinable
  public var isUnspecified: Bool { high == 0 && low == 0 }

  /// Reads 16 bytes at `offset`. The caller has checked the length.
  @inlinable
  public init(_ base: UnsafeRawPointer, at offset: Int) {
    self.init(
      high: UInt64(bigEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self)),
      low: UInt64(bigEndian: base.loadUnaligned(fromByteOffset: offset + 8, as: UInt64.self)))
  }

  /// Of a Linux socket address: family, port, then IPv4 at byte 4 (ip(7)) or IPv6 at byte 8 (ipv6(7)). nil for another
  /// family. The caller has what the family says: the members of the C structures cannot be named where a package brings a
  /// second module with them.
  public init?(socketAddress base: UnsafeRawPointer) {
    switch base.loadUnaligned(as: UInt16.self) {
    case 2: self.init(mappedIPv4: UInt32(bigEndian: base.loadUnaligned(fromByteOffset: 4, as: UInt32.self)))
    case 10: self.init(base, at: 8)
    default: return nil
    }
  }

  /// Writes 16 bytes at `offset`.
  @inlinable
  public func store(to base: UnsafeMutableRawPointer, at offset: Int) {
    base.storeBytes(of: high.bigEndian, toByteOffset: offset, as: UInt64.self)
    base.storeBytes(of: low.bigEndian, toByteOffset: offset + 8, as: UInt64.self)
  }

  /// The 16 bytes in network order.
  public var bytes: [UInt8] {
    withUnsafeBytes(of: (high.bigEndian, low.bigEndian)) { Array($0) }
  }

  /// Parses an IPv6 text, or a dotted IPv4 text as the mapped address. No zone, no prefix length, no brackets.
  public init?(_ text: some StringProtocol) {
    if let v4 = Self.parseIPv4(Array(text.utf8)[...]) {
      self.init(mappedIPv4: v4)
      return
    }
    guard let value = Self.parseIPv6(Array(text.utf8)) else { return nil }
    self = value
  }

  private static func parseIPv4(_ text: ArraySlice<UInt8>) -> UInt32? {
    let parts = text.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
    guard parts.count == 4 else { return nil }
    var value: UInt32 = 0
    for part in parts {
      guard (1...3).contains(part.count), !(part.count > 1 && part.first == UInt8(ascii: "0")) else { return nil }
      var octet: UInt32 = 0
      for digit in part {
        guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(digit) else { return nil }
        octet = octet * 10 + UInt32(digit - UInt8(ascii: "0"))
      }
      guard octet <= 255 else { return nil }
      value = value << 8 | octet
    }
    return value
  }

  private static func parseIPv6(_ text: [UInt8]) -> IPv6Address? {
    guard (2...45).contains(text.count) else { return nil }
    var groups: [UInt16] = []
    var gap: Int?
    var index = 0
    if text[0] == UInt8(ascii: ":") {
      guard text[1] == UInt8(ascii: ":") else { return nil }
      gap = 0
      index = 2
    }
    while index < text.count {
      let end = text[index...].firstIndex(of: UInt8(ascii: ":")) ?? text.count
      let part = text[index..<end]
      if end == text.count, part.contains(UInt8(ascii: ".")) {
        guard let v4 = parseIPv4(part), groups.count <= 6 else { return nil }
        groups.append(UInt16(v4 >> 16))
        groups.append(UInt16(truncatingIfNeeded: v4))
        index = end
        break
      }
      guard (1...4).contains(part.count), groups.count < 8 else { return nil }
      var value: UInt16 = 0
      for digit in part {
        guard let nibble = Character(UnicodeScalar(digit)).hexDigitValue else { return nil }
        value = value << 4 | UInt16(nibble)
      }
      groups.append(value)
      guard end < text.count else {
        index = end
        break
      }
      index = end + 1
      guard index < text.count else { return nil }
      if text[index] == UInt8(ascii: ":") {
        guard gap == nil else { return nil }
        gap = groups.count
        index += 1
      }
    }
    if let gap {
      guard groups.count < 8 else { return nil }
      groups.insert(contentsOf: [UInt16](repeating: 0, count: 8 - groups.count), at: gap)
    }
    guard groups.count == 8 else { return nil }
    func word(_ slice: ArraySlice<UInt16>) -> UInt64 { slice.reduce(0) { $0 << 16 | UInt64($1) } }
    return IPv6Address(high: word(groups[0..<4]), low: word(groups[4..<8]))
  }
}

extension IPv6Address: CustomStringConvertible {
  /// RFC 5952 text; a mapped address as `a.b.c.d` alone.
  public var description: String {
    if let v4 = mappedIPv4 {
      return "\(v4 >> 24).\(v4 >> 16 & 255).\(v4 >> 8 & 255).\(v4 & 255)"
    }
    let groups = (0..<8).map { UInt16(truncatingIfNeeded: ($0 < 4 ? high : low) >> UInt64(48 - 16 * ($0 & 3))) }
    var best: Range<Int> = 0..<0
    var start = 0
    while start < 8 {
      var end = start
      while end < 8, groups[end] == 0 { end += 1 }
      if end - start > max(best.count, 1) { best = start..<end }
      start = max(end, start + 1)
    }
    func text(_ slice: ArraySlice<UInt16>) -> String { slice.map { String($0, radix: 16) }.joined(separator: ":") }
    guard !best.isEmpty else { return text(groups[...]) }
    return text(groups[..<best.lowerBound]) + "::" + text(groups[best.upperBound...])
  }
}
