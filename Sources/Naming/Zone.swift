// The two zones this server is authoritative for and what a name in them means. Used by NameAnswerer. Pure.
import Wire

/// `pilot.` forward, and backward the 48 bits of the overlay prefix under `ip6.arpa.`
enum Zone {
  static let forward = DNSName(labels: [Array("pilot".utf8)]) ?? .root
  /// `4.5.f.4.c.4.9.4.0.5.d.f.ip6.arpa.` for `fd50:494c:4f54::/48` (RFC 3596 §2.5).
  static let backward = DNSName.reverse(of: OverlayMapping.resolver, bits: 48)
  /// This server inside its zone. The underscore keeps the name out of those a node may claim.
  static let server = forward.prepending("_resolver") ?? .root
  static let mailbox = forward.prepending("hostmaster") ?? .root

  /// What a name asks about.
  enum Meaning: Equatable {
    /// In neither zone.
    case outside
    /// The top of a zone.
    case apex
    /// This server itself.
    case server
    /// A hostname that the directory may know.
    case host(String)
    /// A hostname within a group.
    case member(String, group: String)
    /// The whole address of a node.
    case pointer(IPv6Address)
    /// The address this server answers on.
    case serverPointer
    /// Nothing of its own, but names exist below it (RFC 8020).
    case between
    /// In a zone and impossible.
    case nothing
  }

  /// The meaning of a name, and the zone it is in (the root when outside).
  static func meaning(of name: DNSName) -> (Meaning, zone: DNSName) {
    if name.isWithin(backward) {
      return (backwardMeaning(name.labels.dropLast(backward.labels.count)), backward)
    }
    guard name.isWithin(forward) else { return (.outside, .root) }
    guard name != forward else { return (.apex, forward) }
    guard name != server else { return (.server, forward) }
    guard let hostname = hostname(name.labels[0]) else { return (.nothing, forward) }
    switch name.labels.count {
    case 2: return (.host(hostname), forward)
    case 3:
      // What stands before a node's own name is no group, and there is nothing below a node.
      guard let group = Self.hostname(name.labels[1]) else { return (.nothing, forward) }
      return (.member(hostname, group: group), forward)
    default: return (.nothing, forward)
    }
  }

  /// The labels left of the reverse zone are nibbles, the least significant first; 20 of them make an address.
  private static func backwardMeaning(_ labels: ArraySlice<[UInt8]>) -> Meaning {
    guard !labels.isEmpty else { return .apex }
    guard labels.count <= 20 else { return .nothing }
    var address = IPv6Address(high: OverlayMapping.prefix, low: 0)
    for (index, label) in labels.reversed().enumerated() {
      guard label.count == 1, let nibble = Character(UnicodeScalar(label[0])).hexDigitValue else { return .nothing }
      // Network: 4 nibbles. Then 8 that are zero in every valid address, then 8 of the node.
      guard !(4..<12).contains(index) || nibble == 0 else { return .nothing }
      if index < 4 {
        address.high = address.high << 4 | UInt64(nibble)
      } else {
        address.low = address.low << 4 | UInt64(nibble)
      }
    }
    guard labels.count == 20 else { return .between }
    if address == OverlayMapping.resolver { return .serverPointer }
    return OverlayMapping.pilotAddress(from: address) == nil ? .nothing : .pointer(address)
  }

  /// The label in lower case when it is a possible hostname: 1–63 of `a-z 0-9`, hyphens inside (wire/registry,
  /// set_hostname); otherwise nil.
  static func hostname(_ label: [UInt8]) -> String? {
    guard (1...63).contains(label.count), label.first != UInt8(ascii: "-"), label.last != UInt8(ascii: "-") else {
      return nil
    }
    var lower: [UInt8] = []
    for byte in label {
      switch byte {
      case UInt8(ascii: "A")...UInt8(ascii: "Z"): lower.append(byte | 0x20)
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"):
        lower.append(byte)
      default: return nil
      }
    }
    return String(decoding: lower, as: UTF8.self)
  }
}
