// Which hostnames, network names and tags are accepted (wire/registry §2.4, §6.1). Used by requests and configuration.

enum Names {
  private static let reserved: Set<String> = ["localhost", "backbone", "broadcast"]

  /// 1–63 of `a-z 0-9` with inner hyphens, and no reserved word.
  static func isValidHostname(_ name: String) -> Bool { isLabel(name, limit: 63) && !reserved.contains(name) }

  static func isValidNetworkName(_ name: String) -> Bool { isLabel(name, limit: 63) && name != "backbone" }

  static let tagLimit = 10

  /// A leading `#` is dropped, repetitions too. Nil when a tag is malformed or there are more than ten.
  static func tags(_ given: [String]) -> [String]? {
    guard given.count <= 64 else { return nil }
    var tags: [String] = []
    for tag in given {
      let name = tag.hasPrefix("#") ? String(tag.dropFirst()) : tag
      guard isLabel(name, limit: 32) else { return nil }
      if !tags.contains(name) { tags.append(name) }
    }
    return tags.count <= tagLimit ? tags : nil
  }

  private static func isLabel(_ name: String, limit: Int) -> Bool {
    let bytes = Array(name.utf8)
    guard (1...limit).contains(bytes.count) else { return false }
    let hyphen = UInt8(ascii: "-")
    guard bytes.first != hyphen, bytes.last != hyphen else { return false }
    return bytes.allSatisfy { $0 == hyphen || (0x30...0x39).contains($0) || (0x61...0x7A).contains($0) }
  }
}
