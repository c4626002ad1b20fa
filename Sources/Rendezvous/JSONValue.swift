// JSON as the registry speaks it: a small value type and its text form. Used by every request and reply.

/// A JSON value. Objects keep the order of their members, so replies read as the protocol's examples do.
enum JSONValue: Equatable, Sendable {
  case null
  case bool(Bool)
  case integer(Int64)
  case double(Double)
  case string(String)
  case array([JSONValue])
  case object([Member])

  struct Member: Equatable, Sendable {
    var name: String
    var value: JSONValue

    init(_ name: String, _ value: JSONValue) {
      self.name = name
      self.value = value
    }
  }

  static func number(_ value: some BinaryInteger) -> JSONValue { .integer(Int64(clamping: value)) }

  static func strings(_ values: [String]) -> JSONValue { .array(values.map(JSONValue.string)) }

  /// The last member of that name, as reference servers read repeated names.
  subscript(name: String) -> JSONValue? {
    guard case .object(let members) = self else { return nil }
    return members.last { $0.name == name }?.value
  }

  /// The text form, without white space.
  var text: String { String(decoding: bytes, as: UTF8.self) }

  var bytes: [UInt8] {
    var out: [UInt8] = []
    write(to: &out)
    return out
  }

  private func write(to out: inout [UInt8]) {
    switch self {
    case .null: out += "null".utf8
    case .bool(let value): out += (value ? "true" : "false").utf8
    case .integer(let value): out += String(value).utf8
    case .double(let value): out += (value.isFinite ? String(value) : "null").utf8
    case .string(let value): Self.write(value, to: &out)
    case .array(let values):
      out.append(UInt8(ascii: "["))
      for (index, value) in values.enumerated() {
        if index > 0 { out.append(UInt8(ascii: ",")) }
        value.write(to: &out)
      }
      out.append(UInt8(ascii: "]"))
    case .object(let members):
      out.append(UInt8(ascii: "{"))
      for (index, member) in members.enumerated() {
        if index > 0 { out.append(UInt8(ascii: ",")) }
        Self.write(member.name, to: &out)
        out.append(UInt8(ascii: ":"))
        member.value.write(to: &out)
      }
      out.append(UInt8(ascii: "}"))
    }
  }

  private static func write(_ string: String, to out: inout [UInt8]) {
    out.append(UInt8(ascii: "\""))
    for byte in string.utf8 {
      switch byte {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"):
        out.append(UInt8(ascii: "\\"))
        out.append(byte)
      case 0..<0x20, 0x7F:
        let digits = String(byte, radix: 16)
        out += "\\u00".utf8
        if byte < 16 { out.append(UInt8(ascii: "0")) }
        out += digits.utf8
      default: out.append(byte)
      }
    }
    out.append(UInt8(ascii: "\""))
  }
}

// What a request's members read as. A missing member, a wrong type and a number out of range read as nothing,
// fractions are cut (wire/registry §1.2).
extension JSONValue {
  func text(_ name: String) -> String {
    guard case .string(let value)? = self[name] else { return "" }
    return value
  }

  func flag(_ name: String) -> Bool { self[name] == .bool(true) }

  func id(_ name: String) -> UInt32 { Self.integer(self[name]).flatMap(UInt32.init(exactly:)) ?? 0 }

  func network(_ name: String) -> UInt16 { Self.integer(self[name]).flatMap(UInt16.init(exactly:)) ?? 0 }

  /// Nil when there is no whole number of that name.
  func integer(_ name: String) -> Int64? { Self.integer(self[name]) }

  func texts(_ name: String) -> [String] {
    guard case .array(let values)? = self[name] else { return [] }
    return values.compactMap { if case .string(let value) = $0 { value } else { nil } }
  }

  static func integer(_ value: JSONValue?) -> Int64? {
    switch value {
    case .integer(let value): value
    case .double(let value): Int64(exactly: value.rounded(.towardZero))
    default: nil
    }
  }
}
