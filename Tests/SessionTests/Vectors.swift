// Reads Tests/Vectors/*.json from the source tree. Test targets of the lower rooms have no Foundation, so the reader is
// this small one: well-formed JSON of our own only.

import Glibc
import Wire

struct Vectors: Sendable {
  enum Value: Sendable {
    case object([String: Value])
    case list([Value])
    case string(String)
    case number(String)
    case other(String)
  }

  var value: Value

  struct Missing: Error { var what: String }

  static func load(_ name: String, from file: String = #filePath) throws -> Vectors {
    let tests = file.split(separator: "/").dropLast(2).joined(separator: "/")
    let path = "/\(tests)/Vectors/\(name).json"
    guard let stream = fopen(path, "r") else { throw Missing(what: path) }
    defer { fclose(stream) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65536)
    while true {
      let count = fread(&chunk, 1, chunk.count, stream)
      if count == 0 { break }
      bytes += chunk[..<count]
    }
    var position = 0
    return Vectors(value: parse(bytes, &position))
  }

  private static func parse(_ text: [UInt8], _ at: inout Int) -> Value {
    skip(text, &at)
    switch text[at] {
    case UInt8(ascii: "{"):
      var members: [String: Value] = [:]
      at += 1
      skip(text, &at)
      while text[at] != UInt8(ascii: "}") {
        guard case .string(let key) = parse(text, &at) else { break }
        skip(text, &at)
        at += 1
        members[key] = parse(text, &at)
        skip(text, &at)
        if text[at] == UInt8(ascii: ",") { at += 1 }
        skip(text, &at)
      }
      at += 1
      return .object(members)
    case UInt8(ascii: "["):
      var items: [Value] = []
      at += 1
      skip(text, &at)
      while text[at] != UInt8(ascii: "]") {
        items.append(parse(text, &at))
        skip(text, &at)
        if text[at] == UInt8(ascii: ",") { at += 1 }
        skip(text, &at)
      }
      at += 1
      return .list(items)
    case UInt8(ascii: "\""):
      let start = at + 1
      at = start
      while text[at] != UInt8(ascii: "\"") { at += text[at] == UInt8(ascii: "\\") ? 2 : 1 }
      at += 1
      return .string(String(decoding: text[start..<(at - 1)], as: UTF8.self))
    default:
      let start = at
      while at < text.count, ![0x2C, 0x5D, 0x7D, 0x0A, 0x20].contains(text[at]) { at += 1 }
      let word = String(decoding: text[start..<at], as: UTF8.self)
      return word.first.map { $0.isNumber || $0 == "-" } == true ? .number(word) : .other(word)
    }
  }

  private static func skip(_ text: [UInt8], _ at: inout Int) {
    while at < text.count, [0x20, 0x0A, 0x0D, 0x09].contains(text[at]) { at += 1 }
  }

  subscript(_ key: String) -> Vectors {
    guard case .object(let members) = value, let member = members[key] else { return Vectors(value: .other("missing")) }
    return Vectors(value: member)
  }

  var array: [Vectors] {
    guard case .list(let items) = value else { return [] }
    return items.map { Vectors(value: $0) }
  }

  var text: String {
    switch value {
    case .string(let text), .number(let text), .other(let text): text
    default: ""
    }
  }

  var unsigned: UInt64 { UInt64(text) ?? 0 }
  var boolean: Bool { text == "true" }

  /// A hex string as bytes.
  var bytes: [UInt8] {
    let digits = text.utf8.compactMap { Character(UnicodeScalar($0)).hexDigitValue }
    return stride(from: 0, to: digits.count - digits.count % 2, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
  }

  var key: Bytes32 { Bytes32(bytes) ?? Bytes32() }

  /// A base64 string as bytes.
  var base64: [UInt8] {
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    var bytes: [UInt8] = []
    var word = 0
    var bits = 0
    for digit in text.utf8.compactMap({ alphabet.firstIndex(of: $0) }) {
      word = (word << 6 | digit) & 0xFFFF
      bits += 6
      if bits >= 8 {
        bits -= 8
        bytes.append(UInt8(word >> bits & 255))
      }
    }
    return bytes
  }

  /// JSON inside a string.
  var embedded: Vectors {
    var position = 0
    return Vectors(value: Self.parse(text.utf8.filter { $0 != UInt8(ascii: "\\") }, &position))
  }
}
