// The command line of `pilotctl`: flags may stand anywhere, with one or two hyphens, with `=` or a blank
// (wire/cli §1). Pure; used by PilotctlCommand and the tests.

/// What stood on the line.
package struct PilotctlArguments: Equatable, Sendable {
  package var isJSON = false
  package var isVerbose = false
  package var wantsHelp = false
  /// Verb and positional arguments in order.
  package var words: [String] = []
  package var flags: [String: String] = [:]

  /// Flags that take no value: `--public NAME` leaves NAME where it is.
  static let switches: Set<String> = [
    "public", "trust-auto-approve", "foreground", "check", "all", "reuse-conn", "trace", "no-auto-handshake",
    "no-encrypt", "relay-only", "no-echo",
  ]

  package init(_ line: [String]) {
    var index = 0
    while index < line.count {
      let word = line[index]
      index += 1
      switch word {
      case "--json": isJSON = true
      case "-v", "--verbose": isVerbose = true
      case "-h", "--help": wantsHelp = true
      case "--":
        words += line[index...]
        return
      default:
        guard Self.isFlag(word) else {
          words.append(word)
          continue
        }
        let bare = word.drop { $0 == "-" }
        if let equals = bare.firstIndex(of: "=") {
          flags[String(bare[..<equals])] = String(bare[bare.index(after: equals)...])
        } else if !Self.switches.contains(String(bare)), index < line.count, !Self.isFlag(line[index]) {
          flags[String(bare)] = line[index]
          index += 1
        } else {
          flags[String(bare)] = "true"
        }
      }
    }
  }

  /// A value may start with a hyphen only if it is `-` alone or a number.
  private static func isFlag(_ word: String) -> Bool {
    word.hasPrefix("-") && word != "-" && Double(word) == nil
  }

  /// Whether a switch is set; `--public=false` is not.
  package func has(_ name: String) -> Bool { flags[name].map { $0 != "false" && $0 != "0" } ?? false }

  /// Refuses flags that the verb does not know: a misspelt one must not be ignored silently.
  package func allow(_ known: Set<String>) throws(ControlError) {
    guard let unknown = flags.keys.filter({ !known.contains($0) }).min() else { return }
    throw ControlError(
      "invalid_argument", "unknown flag --\(unknown)",
      hint: known.isEmpty
        ? "this verb takes no flags but --json"
        : "known: "
          + known.sorted().map { "--" + $0 }.joined(separator: ", "))
  }

  package func integer(_ name: String, in range: ClosedRange<Int>) throws(ControlError) -> Int? {
    guard let text = flags[name] else { return nil }
    guard let value = Int(text), range.contains(value) else {
      throw ControlError(
        "invalid_argument", "--\(name) \(text): a number from \(range.lowerBound) to \(range.upperBound) is expected",
        hint: "for example --\(name) \(range.lowerBound)")
    }
    return value
  }

  /// A duration in seconds.
  package func duration(_ name: String) throws(ControlError) -> Double? {
    guard let text = flags[name] else { return nil }
    guard let value = Self.seconds(of: text) else {
      throw ControlError(
        "invalid_argument", "--\(name) \(text): a duration is expected", hint: "for example 500ms, 2s, 1m30s or 5")
    }
    return value
  }

  /// `500ms`, `2s`, `1m30s`, `1.5h`, or a bare number of seconds. nil for anything else and for negative ones.
  package static func seconds(of text: String) -> Double? {
    if let plain = Double(text) { return plain.isFinite && plain >= 0 ? plain : nil }
    var total = 0.0
    var rest = Substring(text)
    guard !rest.isEmpty else { return nil }
    let units: [(String, Double)] = [
      ("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1), ("m", 60), ("h", 3600),
    ]
    while !rest.isEmpty {
      let number = rest.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
      guard let value = Double(number) else { return nil }
      rest = rest.dropFirst(number.count)
      let name = rest.prefix { $0.isLetter }
      guard let unit = units.first(where: { $0.0 == name }) else { return nil }
      total += value * unit.1
      rest = rest.dropFirst(name.count)
    }
    return total
  }
}
