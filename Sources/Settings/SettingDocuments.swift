// The documents that are made from a table of settings: the table of the manual and the commented example file.
// Printed by `pilot-tun config schema` and `pilot-rendezvous config schema`, put into docs/ by scripts/docs.

package enum SettingDocuments {
  /// The Markdown table, one row for each setting.
  package static func table(_ settings: [SettingDeclaration]) -> String {
    var lines = ["| setting | value | default | reload | meaning |", "|---|---|---|---|---|"]
    for setting in settings {
      let list = setting.kind == .list ? " (list)" : ""
      lines.append(
        "| `\(setting.key)`\(list) | \(setting.value) | \(setting.standard) | \(setting.isReloadable ? "yes" : "restart") "
          + "| \(setting.meaning) |")
    }
    return lines.joined(separator: "\n") + "\n"
  }

  /// The example file: every key commented out, with what it means and what holds without it.
  package static func example(_ settings: [SettingDeclaration], heading: String) -> String {
    var text = heading.split(separator: "\n").map { "# \($0)\n" }.joined()
    for setting in settings {
      text += "\n"
      let effect = setting.isReloadable ? "" : " Needs a restart."
      for line in wrap(plain("\(sentence(setting.meaning)) Default: \(setting.standard).\(effect)"), width: 116) {
        text += "# \(line)\n"
      }
      text += "# \(setting.key) = \(setting.example)\n"
    }
    return text
  }

  private static func sentence(_ text: String) -> String {
    guard let first = text.first, text.last != "." else { return text }
    return (first == "`" ? String(first) : first.uppercased()) + text.dropFirst() + "."
  }

  /// Markdown without its marks: links by their words, code as it is.
  package static func plain(_ text: String) -> String {
    var result = ""
    var rest = Substring(text)
    while let character = rest.popFirst() {
      switch character {
      case "`": continue
      case "[":
        if let end = rest.firstIndex(of: "]"), rest[end...].hasPrefix("]("),
          let close = rest[end...].firstIndex(of: ")")
        {
          result += rest[..<end]
          rest = rest[rest.index(after: close)...]
        } else {
          result.append(character)
        }
      default: result.append(character)
      }
    }
    return result
  }

  static func wrap(_ text: String, width: Int) -> [String] {
    var lines: [String] = []
    var line = ""
    for word in text.split(separator: " ") {
      if !line.isEmpty, line.count + 1 + word.count > width {
        lines.append(line)
        line = ""
      }
      line += (line.isEmpty ? "" : " ") + word
    }
    return line.isEmpty ? lines : lines + [line]
  }
}
