// JSON as a value: what registry frames (of both ends), clients and the state files hold. The parser is in JSONParser.swift.

/// A JSON value. Integers that fit keep their exact form; other numbers are doubles.
package enum JSONValue: Sendable, Equatable {
  case null
  case bool(Bool)
  case integer(Int64)
  case number(Double)
  case text(String)
  case list([JSONValue])
  case object([String: JSONValue])

  package subscript(_ member: String) -> JSONValue? {
    if case .object(let members) = self { members[member] } else { nil }
  }

  package var text: String? {
    if case .text(let text) = self { text } else { nil }
  }

  package var isTrue: Bool { self == .bool(true) }

  package var integer: Int64? {
    switch self {
    case .integer(let value): value
    case .number(let value): Int64(exactly: value)
    default: nil
    }
  }

  package var list: [JSONValue]? {
    if case .list(let list) = self { list } else { nil }
  }

  package var object: [String: JSONValue]? {
    if case .object(let members) = self { members } else { nil }
  }

  /// A node id: an unsigned 32-bit number that is neither 0 nor the broadcast id.
  package var node: UInt32? {
    guard let value = integer, let id = UInt32(exactly: value), id != 0, id != .max else { return nil }
    return id
  }

  package var port16: UInt16? { integer.flatMap { UInt16(exactly: $0) } }

  /// UTF-8 text without white space, members sorted by name.
  package var encoded: [UInt8] {
    var bytes: [UInt8] = []
    append(to: &bytes)
    return bytes
  }

  /// The same as text.
  package var written: String { String(decoding: encoded, as: UTF8.self) }

  private func append(to bytes: inout [UInt8]) {
    switch self {
    case .null: bytes += "null".utf8
    case .bool(let value): bytes += (value ? "true" : "false").utf8
    case .integer(let value): bytes += String(value).utf8
    case .number(let value): bytes += (value.isFinite ? "\(value)" : "null").utf8
    case .text(let text): Self.append(text, to: &bytes)
    case .list(let items):
      bytes.append(UInt8(ascii: "["))
      for (index, item) in items.enumerated() {
        if index > 0 { bytes.append(UInt8(ascii: ",")) }
        item.append(to: &bytes)
      }
      bytes.append(UInt8(ascii: "]"))
    case .object(let members):
      bytes.append(UInt8(ascii: "{"))
      for (index, member) in members.sorted(by: { $0.key < $1.key }).enumerated() {
        if index > 0 { bytes.append(UInt8(ascii: ",")) }
        Self.append(member.key, to: &bytes)
        bytes.append(UInt8(ascii: ":"))
        member.value.append(to: &bytes)
      }
      bytes.append(UInt8(ascii: "}"))
    }
  }

  private static func append(_ text: String, to bytes: inout [UInt8]) {
    bytes.append(UInt8(ascii: "\""))
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"):
        bytes.append(UInt8(ascii: "\\"))
        bytes.append(byte)
      case 0..<0x20:
        bytes += (byte < 16 ? "\\u000" : "\\u00").utf8
        bytes += String(byte, radix: 16).utf8
      default: bytes.append(byte)
      }
    }
    bytes.append(UInt8(ascii: "\""))
  }
}

extension JSONValue {
  /// An object; of members of one name the last counts, as when it is read.
  package static func object(of members: some Sequence<(String, JSONValue)>) -> JSONValue {
    .object(Dictionary(members) { _, last in last })
  }

  package static func list(of texts: [String]) -> JSONValue { .list(texts.map { .text($0) }) }
  package static func whole(_ value: some BinaryInteger) -> JSONValue { .integer(Int64(clamping: value)) }
}
