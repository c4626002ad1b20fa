// A strict JSON parser (RFC 8259) for bytes from outside: bounded depth, valid UTF-8, nothing after the value.

/// Why a text is not JSON; the offset is for logs.
package struct JSONFault: Error, Equatable {
  package var offset: Int
}

extension JSONValue {
  /// Nesting beyond this is refused before the stack feels it, where the caller names no lower bound.
  package static let deepest = 64

  /// Reads one value that fills `bytes` but for white space, with at most `deepest` lists and objects in one another.
  package init(parsing bytes: [UInt8], deepest: Int = Self.deepest) throws(JSONFault) {
    var parser = JSONParser(bytes: bytes, deepest: deepest)
    self = try parser.whole()
  }
}

private struct JSONParser {
  let bytes: [UInt8]
  let deepest: Int
  var index = 0
  var depth = 0

  init(bytes: [UInt8], deepest: Int) {
    self.bytes = bytes
    self.deepest = deepest
  }

  var fault: JSONFault { JSONFault(offset: index) }
  var next: UInt8? { index < bytes.count ? bytes[index] : nil }

  mutating func whole() throws(JSONFault) -> JSONValue {
    let value = try value()
    skipSpace()
    guard index == bytes.count else { throw fault }
    return value
  }

  mutating func skipSpace() {
    while let byte = next, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { index += 1 }
  }

  mutating func take(_ byte: UInt8) -> Bool {
    guard next == byte else { return false }
    index += 1
    return true
  }

  mutating func word(_ word: StaticString) throws(JSONFault) {
    guard bytes.count - index >= word.utf8CodeUnitCount else { throw fault }
    for offset in 0..<word.utf8CodeUnitCount where bytes[index + offset] != word.utf8Start[offset] { throw fault }
    index += word.utf8CodeUnitCount
  }

  mutating func value() throws(JSONFault) -> JSONValue {
    skipSpace()
    switch next {
    case UInt8(ascii: "{"): return try nested { parser throws(JSONFault) in try parser.object() }
    case UInt8(ascii: "["): return try nested { parser throws(JSONFault) in try parser.list() }
    case UInt8(ascii: "\""): return .text(try string())
    case UInt8(ascii: "t"):
      try word("true")
      return .bool(true)
    case UInt8(ascii: "f"):
      try word("false")
      return .bool(false)
    case UInt8(ascii: "n"):
      try word("null")
      return .null
    default: return try number()
    }
  }

  mutating func nested(_ body: (inout JSONParser) throws(JSONFault) -> JSONValue) throws(JSONFault) -> JSONValue {
    guard depth < deepest else { throw fault }
    depth += 1
    index += 1
    let value = try body(&self)
    depth -= 1
    return value
  }

  mutating func object() throws(JSONFault) -> JSONValue {
    var members: [String: JSONValue] = [:]
    skipSpace()
    if take(UInt8(ascii: "}")) { return .object(members) }
    repeat {
      skipSpace()
      let name = try string()
      skipSpace()
      guard take(UInt8(ascii: ":")) else { throw fault }
      members[name] = try value()
      skipSpace()
    } while take(UInt8(ascii: ","))
    guard take(UInt8(ascii: "}")) else { throw fault }
    return .object(members)
  }

  mutating func list() throws(JSONFault) -> JSONValue {
    var items: [JSONValue] = []
    skipSpace()
    if take(UInt8(ascii: "]")) { return .list(items) }
    repeat {
      items.append(try value())
      skipSpace()
    } while take(UInt8(ascii: ","))
    guard take(UInt8(ascii: "]")) else { throw fault }
    return .list(items)
  }

  mutating func string() throws(JSONFault) -> String {
    guard take(UInt8(ascii: "\"")) else { throw fault }
    var text: [UInt8] = []
    while let byte = next {
      index += 1
      switch byte {
      case UInt8(ascii: "\""):
        guard let string = String(validating: text, as: UTF8.self) else { throw fault }
        return string
      case UInt8(ascii: "\\"): try escape(into: &text)
      case 0..<0x20: throw fault
      default: text.append(byte)
      }
    }
    throw fault
  }

  mutating func escape(into text: inout [UInt8]) throws(JSONFault) {
    guard let byte = next else { throw fault }
    index += 1
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(byte)
    case UInt8(ascii: "b"): text.append(0x08)
    case UInt8(ascii: "f"): text.append(0x0C)
    case UInt8(ascii: "n"): text.append(0x0A)
    case UInt8(ascii: "r"): text.append(0x0D)
    case UInt8(ascii: "t"): text.append(0x09)
    case UInt8(ascii: "u"):
      var code = try hex4()
      if (0xD800..<0xDC00).contains(code) {
        let behind = index
        if take(UInt8(ascii: "\\")), take(UInt8(ascii: "u")), case let low = try hex4(), (0xDC00..<0xE000).contains(low)
        {
          code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
        } else {
          index = behind
        }
      }
      // A surrogate without its other half becomes the replacement character, as official agents and registries read it.
      text += String(Unicode.Scalar(code) ?? "\u{FFFD}").utf8
    default: throw fault
    }
  }

  mutating func hex4() throws(JSONFault) -> UInt32 {
    var code: UInt32 = 0
    for _ in 0..<4 {
      guard let byte = next, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else { throw fault }
      code = code << 4 | UInt32(digit)
      index += 1
    }
    return code
  }

  mutating func digits() throws(JSONFault) {
    let start = index
    while let byte = next, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { index += 1 }
    guard index > start else { throw fault }
  }

  mutating func number() throws(JSONFault) -> JSONValue {
    let start = index
    _ = take(UInt8(ascii: "-"))
    if !take(UInt8(ascii: "0")) { try digits() }
    var isWhole = true
    if take(UInt8(ascii: ".")) {
      isWhole = false
      try digits()
    }
    if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
      isWhole = false
      if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
      try digits()
    }
    // Longer numbers exist in no honest text, and their conversion is not linear.
    guard index - start <= 64 else { throw fault }
    let text = String(decoding: bytes[start..<index], as: UTF8.self)
    if isWhole, let value = Int64(text) { return .integer(value) }
    guard let value = Double(text), value.isFinite else { throw fault }
    return .number(value)
  }
}
