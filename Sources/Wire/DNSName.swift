// Domain names: text form, wire form, comparison (RFC 1035 §3.1, RFC 4343). Used by `DNSMessage` and by Naming.

/// A domain name as its labels, the root last and not listed. Case is kept, comparison and hash ignore it (ASCII only).
///
/// At most 255 bytes on the wire, at most 63 per label; no initialiser makes a longer one.
public struct DNSName: Sendable {
  /// From the most specific one; never empty labels.
  public let labels: [[UInt8]]

  public static let wireLimit = 255
  public static let labelLimit = 63
  public static let root = DNSName(unchecked: [])

  private init(unchecked labels: [[UInt8]]) { self.labels = labels }

  /// nil when a label is empty or too long, or the name is.
  public init?(labels: [[UInt8]]) {
    var size = 1
    for label in labels {
      guard (1...Self.labelLimit).contains(label.count) else { return nil }
      size += 1 + label.count
    }
    guard size <= Self.wireLimit else { return nil }
    self.labels = labels
  }

  /// Parses a text with dots, the last one optional; `\.`, `\\` and `\DDD` as in zone files. "." is the root.
  public init?(_ text: some StringProtocol) {
    let bytes = Array(text.utf8)
    guard !bytes.isEmpty else { return nil }
    if bytes == [UInt8(ascii: ".")] {
      self = .root
      return
    }
    var labels: [[UInt8]] = []
    var label: [UInt8] = []
    var index = 0
    while index < bytes.count {
      let byte = bytes[index]
      index += 1
      if byte == UInt8(ascii: ".") {
        labels.append(label)
        label = []
      } else if byte == UInt8(ascii: "\\") {
        guard let (value, size) = Self.escape(bytes[index...]) else { return nil }
        label.append(value)
        index += size
      } else {
        label.append(byte)
      }
    }
    if !label.isEmpty { labels.append(label) }
    self.init(labels: labels)
  }

  /// What follows a backslash: three decimal digits, or one other byte.
  private static func escape(_ bytes: ArraySlice<UInt8>) -> (value: UInt8, size: Int)? {
    func digit(_ byte: UInt8) -> Int? { (48...57).contains(byte) ? Int(byte) - 48 : nil }
    guard let first = bytes.first else { return nil }
    guard let hundreds = digit(first) else { return (first, 1) }
    let rest = bytes.dropFirst().prefix(2).compactMap(digit)
    guard bytes.count >= 3, rest.count == 2, let value = UInt8(exactly: hundreds * 100 + rest[0] * 10 + rest[1])
    else { return nil }
    return (value, 3)
  }

  /// Bytes on the wire without compression, the root's zero included.
  public var wireSize: Int { labels.reduce(1) { $0 + 1 + $1.count } }

  /// The wire form without compression.
  public var wire: [UInt8] {
    var bytes: [UInt8] = []
    for label in labels {
      bytes.append(UInt8(label.count))
      bytes += label
    }
    bytes.append(0)
    return bytes
  }

  public var isRoot: Bool { labels.isEmpty }

  /// The name without its first label; nil for the root.
  public var parent: DNSName? { isRoot ? nil : DNSName(unchecked: Array(labels.dropFirst())) }

  /// Whether this is the zone itself or a name below it.
  public func isWithin(_ zone: DNSName) -> Bool {
    labels.count >= zone.labels.count && DNSName(unchecked: labels.suffix(zone.labels.count)) == zone
  }

  /// The name with one label in front; nil when that is too long or the label empty.
  public func prepending(_ label: some StringProtocol) -> DNSName? { DNSName(labels: [Array(label.utf8)] + labels) }

  static func lowered(_ byte: UInt8) -> UInt8 { (65...90).contains(byte) ? byte | 0x20 : byte }

  static func areEqual(_ a: [UInt8], _ b: [UInt8]) -> Bool {
    a.count == b.count && zip(a, b).allSatisfy { lowered($0) == lowered($1) }
  }
}

extension DNSName: Hashable {
  public static func == (a: DNSName, b: DNSName) -> Bool {
    a.labels.count == b.labels.count && zip(a.labels, b.labels).allSatisfy { areEqual($0, $1) }
  }

  public func hash(into hasher: inout Hasher) {
    for label in labels {
      hasher.combine(label.count)
      for byte in label { hasher.combine(Self.lowered(byte)) }
    }
  }
}

extension DNSName: CustomStringConvertible {
  /// Zone-file text with the final dot. Dots and backslashes in labels are escaped, other bytes outside `!`…`~` are
  /// written `\DDD`: safe to log and to parse again.
  public var description: String {
    guard !isRoot else { return "." }
    return labels.map { label in
      label.map { byte -> String in
        switch byte {
        case UInt8(ascii: "."), UInt8(ascii: "\\"): return "\\" + String(UnicodeScalar(byte))
        case 0x21...0x7E: return String(UnicodeScalar(byte))
        default:
          let digits = String(byte)
          return "\\" + String(repeating: "0", count: 3 - digits.count) + digits
        }
      }.joined() + "."
    }.joined()
  }
}

// Reverse names of IPv6 addresses (RFC 3596 §2.5).
extension DNSName {
  private static let reverseZone: [[UInt8]] = [Array("ip6".utf8), Array("arpa".utf8)]

  /// The name under `ip6.arpa` for the upper `bits` of an address, a multiple of 4: 128 for a host, 48 for the zone of
  /// the overlay prefix.
  public static func reverse(of address: IPv6Address, bits: Int = 128) -> DNSName {
    let nibbles = address.bytes.flatMap { [$0 >> 4, $0 & 15] }.prefix(max(0, min(bits, 128)) / 4)
    let labels = nibbles.reversed().map { [$0 < 10 ? 48 + $0 : 87 + $0] }
    return DNSName(unchecked: labels + reverseZone)
  }

  /// The address that a full reverse name (32 nibbles) stands for, or nil.
  public var reverseAddress: IPv6Address? {
    guard labels.count == 34, isWithin(DNSName(unchecked: Self.reverseZone)) else { return nil }
    var words: (UInt64, UInt64) = (0, 0)
    for label in labels.prefix(32).reversed() {
      guard label.count == 1 else { return nil }
      let nibble: UInt8
      switch Self.lowered(label[0]) {
      case let digit where (48...57).contains(digit): nibble = digit - 48
      case let letter where (97...102).contains(letter): nibble = letter - 87
      default: return nil
      }
      words = (words.0 << 4 | words.1 >> 60, words.1 << 4 | UInt64(nibble))
    }
    return IPv6Address(high: words.0, low: words.1)
  }
}
