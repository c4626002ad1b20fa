// What may not leave the machine in a bug report: secrets that are known are taken out wherever they occur, what looks
// like one too, and public addresses when asked for. Pure; the last thing that sees every file of a report.

import Shim
import Wire

package struct Redactor: Sendable {
  /// Exact texts.
  private let secrets: [String]
  /// Nil: addresses stay. Else what makes their marks unguessable; equal addresses have equal marks within a report.
  private let salt: [UInt8]?

  /// Texts of less than four bytes are no secrets: they would turn up in everything.
  package init(secrets: [String], addressSalt: [UInt8]? = nil) {
    self.secrets = Set(secrets.filter { $0.utf8.count >= 4 }).sorted { $0.utf8.count > $1.utf8.count }
    salt = addressSalt
  }

  package func clean(_ text: String) -> String {
    var text = text
    for secret in secrets { text = Self.replace(secret, in: text) }
    text = Self.withoutNamedSecrets(text)
    return salt == nil ? text : hidingAddresses(text)
  }

  private static func replace(_ secret: String, in text: String) -> String {
    let parts = text.utf8.count < secret.utf8.count ? [] : split(Array(text.utf8), by: Array(secret.utf8))
    guard parts.count > 1 else { return text }
    return parts.map { String(decoding: $0, as: UTF8.self) }.joined(separator: "(redacted)")
  }

  private static func split(_ text: [UInt8], by secret: [UInt8]) -> [ArraySlice<UInt8>] {
    var parts: [ArraySlice<UInt8>] = []
    var start = 0
    var position = 0
    while position + secret.count <= text.count {
      if text[position] == secret[0], text[position..<position + secret.count].elementsEqual(secret) {
        parts.append(text[start..<position])
        position += secret.count
        start = position
      } else {
        position += 1
      }
    }
    return parts + [text[start...]]
  }

  // MARK: What is called a secret

  private static let names = ["token", "secret", "password", "private_key", "privatekey", "authorization"]

  /// `token=VALUE`, `"private_key": "VALUE"`, `--network 7:VALUE` lose the value.
  private static func withoutNamedSecrets(_ text: String) -> String {
    text.split(separator: "\n", omittingEmptySubsequences: false).map { line -> String in
      let lower = line.lowercased()
      guard names.contains(where: { lower.contains($0) }) || lower.contains("network") else { return String(line) }
      return withoutNetworkTokens(withoutValues(String(line)))
    }.joined(separator: "\n")
  }

  private static func withoutValues(_ line: String) -> String {
    var result: [UInt8] = []
    let bytes = Array(line.utf8)
    let lower = bytes.map { (0x41...0x5A).contains($0) ? $0 + 32 : $0 }
    var position = 0
    while position < bytes.count {
      let name = names.first { lower[position...].starts(with: $0.utf8) }
      guard let name else {
        result.append(bytes[position])
        position += 1
        continue
      }
      var end = position + name.utf8.count
      result += bytes[position..<end]
      // Quotes, then `=` or `:`, then blanks and quotes.
      var next = end
      while next < bytes.count, bytes[next] == UInt8(ascii: "\"") { next += 1 }
      while next < bytes.count, bytes[next] == UInt8(ascii: " ") { next += 1 }
      if next < bytes.count, bytes[next] == UInt8(ascii: "=") || bytes[next] == UInt8(ascii: ":") {
        next += 1
        while next < bytes.count, bytes[next] == UInt8(ascii: " ") || bytes[next] == UInt8(ascii: "\"") { next += 1 }
        result += bytes[end..<next]
        end = next
        while next < bytes.count, !" \",;)}".utf8.contains(bytes[next]) { next += 1 }
        if next > end { result += "(redacted)".utf8 }
        end = next
      }
      position = end
    }
    return String(decoding: result, as: UTF8.self)
  }

  /// Numbers with something behind a colon, on lines about networks; files (`7:@FILE`) stay.
  private static func withoutNetworkTokens(_ line: String) -> String {
    line.split(separator: " ", omittingEmptySubsequences: false).map { word -> String in
      guard let colon = word.firstIndex(of: ":"), let first = word.first(where: \.isNumber) else { return String(word) }
      let number = word[..<colon].drop { !$0.isNumber }
      let rest = word[word.index(after: colon)...]
      guard first.isASCII, UInt16(number) != nil, PilotAddress(word) == nil, !rest.isEmpty, !rest.hasPrefix("@"),
        !rest.contains(":"),
        !rest.allSatisfy({ $0.isNumber || $0 == "." || $0 == "\"" || $0 == "," }), !rest.hasPrefix("(")
      else { return String(word) }
      return word[...colon] + "(redacted)"
    }.joined(separator: " ")
  }

  // MARK: Addresses

  private func hidingAddresses(_ text: String) -> String {
    var result: [UInt8] = []
    var word: [UInt8] = []
    func finish() {
      result += replacement(word)
      word = []
    }
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"),
        UInt8(ascii: "A")...UInt8(ascii: "F"), UInt8(ascii: ":"), UInt8(ascii: "."):
        word.append(byte)
      default:
        finish()
        result.append(byte)
      }
    }
    finish()
    return String(decoding: result, as: UTF8.self)
  }

  /// The word with the address at its beginning replaced; what is none stays.
  private func replacement(_ word: [UInt8]) -> [UInt8] {
    guard word.count >= 4, word.contains(where: { $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: ":") }) else {
      return word
    }
    let text = String(decoding: word, as: UTF8.self)
    // Whole, without a full stop at its end, without a port.
    var ends = [text.endIndex]
    if let last = text.last, last == "." || last == ":" { ends.append(text.index(before: text.endIndex)) }
    if let colon = text.lastIndex(of: ":") { ends.append(colon) }
    for end in ends {
      guard let address = IPv6Address(text[..<end]) else { continue }
      guard Self.isPublic(address) else { return word }
      return Array((mark(address) + text[end...]).utf8)
    }
    // An IPv4 address behind a word and a colon: `seen:192.0.2.1:4000`.
    let parts = text.split(separator: ":", omittingEmptySubsequences: false).map { part -> String in
      let stop = part.hasSuffix(".") ? "." : ""
      guard let address = IPv6Address(part.dropLast(stop.count)), Self.isPublic(address) else { return String(part) }
      return mark(address) + stop
    }
    return Array(parts.joined(separator: ":").utf8)
  }

  private func mark(_ address: IPv6Address) -> String {
    let bytes = (salt ?? []) + Array(address.description.utf8)
    var digest = [UInt8](repeating: 0, count: 32)
    pt_sha256(bytes, bytes.count, &digest)
    let digits = digest.prefix(4).map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
    return (address.mappedIPv4 == nil ? "ip6-" : "ip4-") + digits
  }

  /// What tells where someone is: neither private, nor of this machine, nor of the overlay.
  static func isPublic(_ address: IPv6Address) -> Bool {
    if let four = address.mappedIPv4 {
      let (a, b) = (four >> 24, four >> 16 & 0xFF)
      let isPrivate = a == 10 || (a == 172 && b & 0xF0 == 16) || (a == 192 && b == 168) || (a == 100 && b & 0xC0 == 64)
      return !isPrivate && a != 0 && a != 127 && a < 224 && !(a == 169 && b == 254)
    }
    // 2000::/3, the global unicast addresses.
    return address.high >> 61 == 1
  }
}
