// Where the keys of a TOML file stand: TOMLReader tells places of syntax errors only. Reads texts that a TOML parser has
// accepted; from any other it gives what it makes of them, and ends. Pure; used by readers of configuration files.

/// Lines and columns of keys and values of the first level, counted from 1, columns in Unicode scalars.
package struct KeyPlaces: Sendable {
  package struct Place: Equatable, Sendable {
    package var line: Int
    package var column: Int

    package init(line: Int, column: Int) {
      self.line = line
      self.column = column
    }
  }

  package struct Entry: Equatable, Sendable {
    package var key: Place
    /// Nil for the header of a table.
    package var value: Place?
  }

  /// The first appearance of each key.
  package private(set) var entries: [String: Entry] = [:]

  private var scalars: [Unicode.Scalar]
  private var position = 0
  private var line = 1
  private var column = 1

  package init(_ text: String) {
    scalars = Array(text.unicodeScalars)
    read()
    scalars = []
  }

  package subscript(key: String) -> Entry? { entries[key] }

  private var place: Place { Place(line: line, column: column) }
  private var next: Unicode.Scalar? { position < scalars.count ? scalars[position] : nil }

  private mutating func advance() {
    guard let scalar = next else { return }
    position += 1
    if scalar == "\n" {
      line += 1
      column = 1
    } else {
      column += 1
    }
  }

  private mutating func read() {
    var isTopLevel = true
    while let scalar = next {
      switch scalar {
      case " ", "\t", "\r", "\n", "\u{FEFF}": advance()
      case "#": skipLine()
      case "[":
        while next == "[" { advance() }
        skipBlanks()
        note(at: place, value: nil)
        isTopLevel = false
        skipLine()
      default:
        let start = place
        let before = position
        guard let key = key() else {
          skipLine()
          continue
        }
        while let scalar = next, scalar != "=", scalar != "\n" { advance() }
        if next == "=" { advance() }
        skipBlanks()
        if isTopLevel, entries[key] == nil { entries[key] = Entry(key: start, value: place) }
        skipValue()
        if position == before { advance() }
      }
    }
  }

  private mutating func note(at start: Place, value: Place?) {
    guard let key = key(), entries[key] == nil else { return }
    entries[key] = Entry(key: start, value: value)
  }

  /// The first part of a key: bare, or in quotes.
  private mutating func key() -> String? {
    guard let first = next else { return nil }
    var text = String.UnicodeScalarView()
    if first == "\"" || first == "'" {
      advance()
      while let scalar = next, scalar != first, scalar != "\n" {
        advance()
        text.append(scalar == "\\" && first == "\"" ? escaped() : scalar)
      }
      if next == first { advance() }
      return String(text)
    } else {
      while let scalar = next, !" \t\r\n=.]#".unicodeScalars.contains(scalar) {
        text.append(scalar)
        advance()
      }
    }
    return text.isEmpty ? nil : String(text)
  }

  /// What stands behind a backslash (TOML 1.0, strings).
  private mutating func escaped() -> Unicode.Scalar {
    guard let scalar = next else { return "\\" }
    advance()
    switch scalar {
    case "b": return "\u{8}"
    case "t": return "\t"
    case "n": return "\n"
    case "f": return "\u{C}"
    case "r": return "\r"
    case "u", "U":
      var value: UInt32 = 0
      for _ in 0..<(scalar == "u" ? 4 : 8) {
        guard let digit = next.flatMap({ Character($0).hexDigitValue }) else { break }
        value = value << 4 | UInt32(digit)
        advance()
      }
      return Unicode.Scalar(value) ?? "\u{FFFD}"
    default: return scalar
    }
  }

  private mutating func skipBlanks() { while next == " " || next == "\t" { advance() } }

  private mutating func skipLine() { while let scalar = next, scalar != "\n" { advance() } }

  /// To the end of the value: of its line, or of the last bracket that it opens.
  private mutating func skipValue() {
    var depth = 0
    while let scalar = next {
      switch scalar {
      case "\"", "'": skipString(scalar)
      case "#": skipLine()
      case "[", "{":
        depth += 1
        advance()
      case "]", "}":
        depth -= 1
        advance()
      case "\n" where depth <= 0: return
      default: advance()
      }
    }
  }

  private mutating func skipString(_ quote: Unicode.Scalar) {
    let isLong = position + 2 < scalars.count && scalars[position + 1] == quote && scalars[position + 2] == quote
    for _ in 0..<(isLong ? 3 : 1) { advance() }
    while let scalar = next {
      if scalar == "\\", quote == "\"" {
        advance()
        advance()
      } else if scalar == quote {
        guard isLong else { return advance() }
        var count = 0
        while next == quote {
          advance()
          count += 1
        }
        if count >= 3 { return }
      } else if scalar == "\n", !isLong {
        return
      } else {
        advance()
      }
    }
  }
}
