// What the control socket and the outputs add to Directory's JSON value: literals, readers with defaults, and the
// one-line form that `--json` prints.

package import JSON

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral,
  ExpressibleByDictionaryLiteral, ExpressibleByArrayLiteral, ExpressibleByNilLiteral
{
  package init(stringLiteral value: String) { self = .text(value) }
  package init(integerLiteral value: Int64) { self = .integer(value) }
  package init(booleanLiteral value: Bool) { self = .bool(value) }
  package init(arrayLiteral elements: JSONValue...) { self = .list(elements) }
  package init(nilLiteral: ()) { self = .null }
  package init(dictionaryLiteral elements: (String, JSONValue)...) {
    self = .object(Dictionary(elements, uniquingKeysWith: { $1 }))
  }

  package init(_ value: some BinaryInteger) { self = .integer(Int64(clamping: value)) }
  package init(_ value: String?) { self = value.map { .text($0) } ?? .null }
  package init(_ value: Bool) { self = .bool(value) }

  /// Three decimals at most; nil and what is no number become null.
  package init(rounded value: Double?) {
    guard let value, value.isFinite else {
      self = .null
      return
    }
    let rounded = (value * 1000).rounded() / 1000
    self = Int64(exactly: rounded).map { .integer($0) } ?? .number(rounded)
  }

  /// The text of a member; "" when it is missing or something else.
  package func string(_ member: String) -> String { self[member]?.text ?? "" }
  package func int(_ member: String) -> Int64 { self[member]?.integer ?? 0 }
  package func flag(_ member: String) -> Bool { self[member]?.isTrue ?? false }
  package func items(_ member: String) -> [JSONValue] { self[member]?.list ?? [] }

  package func double(_ member: String) -> Double? {
    switch self[member] {
    case .number(let value): value
    case .integer(let value): Double(value)
    default: nil
    }
  }

  /// The value with these members added or replaced; anything but an object is returned as it is.
  package func adding(_ more: [String: JSONValue]) -> JSONValue {
    guard case .object(let members) = self else { return self }
    return .object(members.merging(more) { $1 })
  }

  /// One line, members sorted by name; `<`, `>`, `&` escaped as users' scripts have seen it (wire/cli §2).
  package var line: String {
    var bytes: [UInt8] = []
    for byte in encoded {
      switch byte {
      case UInt8(ascii: "<"): bytes += "\\u003c".utf8
      case UInt8(ascii: ">"): bytes += "\\u003e".utf8
      case UInt8(ascii: "&"): bytes += "\\u0026".utf8
      default: bytes.append(byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
