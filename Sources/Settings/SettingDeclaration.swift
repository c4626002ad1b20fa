// What a program knows of one setting. The tables of declarations (TunControl's `Setting`, Rendezvous' settings) are
// the only place where settings are described: flags' help, error texts, docs/configuration.md and the example files
// are made from them. Pure.

/// One setting of a program.
package struct SettingDeclaration: Sendable {
  /// What values have in common, for checks and for the schema.
  package enum Kind: Sendable, Equatable {
    case text
    case path
    case flag
    /// Whole numbers with their unit, `bytes` for example.
    case number(ClosedRange<Int>, unit: String)
    case choice([String])
    case list
  }

  /// The file's key and, with `--`, the flag.
  package var key: String
  package var kind: Kind
  /// The form of its values, Markdown.
  package var value: String
  /// Markdown; what holds when nothing is said.
  package var standard: String
  /// Takes effect when the configuration is read again; the others need a restart.
  package var isReloadable: Bool
  /// The value, or a part of it, is not for the eyes of others: never printed.
  package var isSecret: Bool
  /// One line for `--help`.
  package var summary: String
  /// One or a few sentences for the manual, Markdown.
  package var meaning: String
  /// A value as it could stand in the file, TOML.
  package var example: String

  package init(
    _ key: String, _ kind: Kind, value: String? = nil, standard: String, isReloadable: Bool = false,
    isSecret: Bool = false, summary: String, meaning: String, example: String
  ) {
    self.key = key
    self.kind = kind
    self.value = value ?? kind.form
    self.standard = standard
    self.isReloadable = isReloadable
    self.isSecret = isSecret
    self.summary = summary
    self.meaning = meaning
    self.example = example
  }
}

extension SettingDeclaration.Kind {
  /// The form in a manual.
  package var form: String {
    switch self {
    case .text: "text"
    case .path: "path"
    case .flag: "true, false"
    case .number(let range, let unit): "\(range.lowerBound) to \(range.upperBound)\(unit.isEmpty ? "" : " \(unit)")"
    case .choice(let words): words.map { "`\($0)`" }.joined(separator: ", ")
    case .list: "list"
    }
  }

  /// The form in an error: what would have been right.
  package var expected: String {
    switch self {
    case .flag: "true or false"
    case .choice(let words): words.joined(separator: ", ")
    default: form
    }
  }

  /// The word in the schema.
  package var word: String {
    switch self {
    case .text: "text"
    case .path: "path"
    case .flag: "boolean"
    case .number: "number"
    case .choice: "choice"
    case .list: "list"
    }
  }
}
