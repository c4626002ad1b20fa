// Reads JSON from strangers: bounded depth, checked UTF-8, no recursion beyond the bound. Used by RegistryConnection.

/// A strict JSON reader (RFC 8259) with a bound on nesting. Everything it refuses is one and the same failure.
struct JSONParser {
  private var bytes: ArraySlice<UInt8>
  private let maximumDepth: Int

  struct Malformed: Error {}

  /// Reads one value that fills `bytes` but for white space.
  static func parse(_ bytes: [UInt8], maximumDepth: Int) throws(Malformed) -> JSONValue {
    var parser = JSONParser(bytes: bytes[...], maximumDepth: maximumDepth)
    let value = try parser.value(depth: 0)
    parser.skipBlanks()
    guard parser.bytes.isEmpty else { throw Malformed() }
    return value
  }

  private mutating func skipBlanks() {
    bytes = bytes.drop { $0 == 0x20 || $0 == 0x09 || $0 == 0x0A || $0 == 0x0D }
  }

  private mutating func next() throws(Malformed) -> UInt8 {
    guard let byte = bytes.popFirst() else { throw Malformed() }
    return byte
  }

  private mutating func take(_ byte: UInt8) -> Bool {
    guard bytes.first == byte else { return false }
    bytes.removeFirst()
    return true
  }

  private mutating func literal(_ word: StaticString, _ value: JSONValue) throws(Malformed) -> JSONValue {
    let matches = word.withUTF8Buffer { bytes.starts(with: $0) }
    guard matches else { throw Malformed() }
    bytes.removeFirst(word.utf8CodeUnitCount)
    return value
  }

  private mutating func value(depth: Int) throws(Malformed) -> JSONValue {
    guard depth <= maximumDepth else { throw Malformed() }
    skipBlanks()
    switch bytes.first {
    case UInt8(ascii: "{"): return try object(depth: depth)
    case UInt8(ascii: "["): return try array(depth: depth)
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "t"): return try literal("true", .bool(true))
    case UInt8(ascii: "f"): return try literal("false", .bool(false))
    case UInt8(ascii: "n"): return try literal("null", .null)
    default: return try number()
    }
  }

  private mutating func object(depth: Int) throws(Malformed) -> JSONValue {
    bytes.removeFirst()
    var members: [JSONValue.Member] = []
    skipBlanks()
    if take(UInt8(ascii: "}")) { return .object(members) }
    while true {
      skipBlanks()
      guard bytes.first == UInt8(ascii: "\"") else { throw Malformed() }
      let name = try string()
      skipBlanks()
      guard take(UInt8(ascii: ":")) else { throw Malformed() }
      members.append(.init(name, try value(depth: depth + 1)))
      skipBlanks()
      if take(UInt8(ascii: "}")) { return .object(members) }
      guard take(UInt8(ascii: ",")) else { throw Malformed() }
    }
  }

  private mutating func array(depth: Int) throws(Malformed) -> JSONValue {
    bytes.removeFirst()
    var values: [JSONValue] = []
    skipBlanks()
    if take(UInt8(ascii: "]")) { return .array(values) }
    while true {
      values.append(try value(depth: depth + 1))
      skipBlanks()
      if take(UInt8(ascii: "]")) { return .array(values) }
      guard take(UInt8(ascii: ",")) else { throw Malformed() }
    }
  }

  private mutating func digits() -> Int {
    let rest = bytes.drop { (0x30...0x39).contains($0) }
    let count = bytes.count - rest.count
    bytes = rest
    return count
  }

  private mutating func number() throws(Malformed) -> JSONValue {
    let start = bytes
    _ = take(UInt8(ascii: "-"))
    let leadsWithZero = bytes.first == UInt8(ascii: "0")
    let whole = digits()
    guard whole == 1 || (whole > 1 && !leadsWithZero) else { throw Malformed() }
    var isInteger = true
    if take(UInt8(ascii: ".")) {
      isInteger = false
      guard digits() > 0 else { throw Malformed() }
    }
    if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
      isInteger = false
      if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
      guard digits() > 0 else { throw Malformed() }
    }
    let length = start.count - bytes.count
    // Longer numbers exist in no honest request, and their conversion is not linear.
    guard length <= 64 else { throw Malformed() }
    let text = String(decoding: start.prefix(length), as: UTF8.self)
    if isInteger, let value = Int64(text) { return .integer(value) }
    guard let value = Double(text) else { throw Malformed() }
    return .double(value)
  }

  private mutating func string() throws(Malformed) -> String {
    bytes.removeFirst()
    var out: [UInt8] = []
    while true {
      let byte = try next()
      switch byte {
      case UInt8(ascii: "\""):
        guard let text = String(validating: out, as: UTF8.self) else { throw Malformed() }
        return text
      case UInt8(ascii: "\\"): try escape(into: &out)
      case 0..<0x20: throw Malformed()
      default: out.append(byte)
      }
    }
  }

  private mutating func escape(into out: inout [UInt8]) throws(Malformed) {
    switch try next() {
    case UInt8(ascii: "\""): out.append(UInt8(ascii: "\""))
    case UInt8(ascii: "\\"): out.append(UInt8(ascii: "\\"))
    case UInt8(ascii: "/"): out.append(UInt8(ascii: "/"))
    case UInt8(ascii: "b"): out.append(0x08)
    case UInt8(ascii: "f"): out.append(0x0C)
    case UInt8(ascii: "n"): out.append(0x0A)
    case UInt8(ascii: "r"): out.append(0x0D)
    case UInt8(ascii: "t"): out.append(0x09)
    case UInt8(ascii: "u"):
      var scalar = UInt32(try hexUnit())
      if (0xD800..<0xDC00).contains(scalar), bytes.starts(with: [UInt8(ascii: "\\"), UInt8(ascii: "u")]) {
        let saved = bytes
        bytes.removeFirst(2)
        let low = UInt32(try hexUnit())
        if (0xDC00..<0xE000).contains(low) {
          scalar = 0x10000 + (scalar - 0xD800) << 10 + (low - 0xDC00)
        } else {
          bytes = saved
        }
      }
      // A surrogate without its other half becomes the replacement character.
      out += String(Unicode.Scalar(scalar) ?? "\u{FFFD}").utf8
    default: throw Malformed()
    }
  }

  private mutating func hexUnit() throws(Malformed) -> UInt16 {
    var unit: UInt16 = 0
    for _ in 0..<4 {
      let byte = try next()
      switch byte {
      case 0x30...0x39: unit = unit << 4 | UInt16(byte - 0x30)
      case 0x41...0x46: unit = unit << 4 | UInt16(byte - 0x37)
      case 0x61...0x66: unit = unit << 4 | UInt16(byte - 0x57)
      default: throw Malformed()
      }
    }
    return unit
  }
}
