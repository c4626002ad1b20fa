// The pages of `--help`, from the table of verbs.

import JSON
import TunControl

enum Help {
  static var usage: String {
    let rows = Manual.verbs.flatMap { verb in
      verb.verbs.isEmpty
        ? [(verb.line, verb.abstract)] : verb.verbs.map { ("\(verb.name) \($0.line)", $0.abstract) }
    }
    return """
      usage: pilotctl [--json] VERB [ARGUMENTS] [FLAGS]

      \(VerbDescription.columns(rows))

      \(Manual.discussion)
      `pilotctl VERB --help` says more.
      """
  }

  static func page(_ words: [String]) -> String? {
    guard let verb = Manual.find(words) else { return nil }
    return verb.page(words.first == verb.name ? "pilotctl" : "pilotctl \(words[0])")
  }

  /// What manual pages and completions are made of.
  static var dump: JSONValue {
    var tool = VerbDescription(
      "pilotctl", Manual.abstract, discussion: Manual.discussion,
      flags: [
        .switch("json", "One JSON object on one line; may stand anywhere."),
        .switch("version", "Show the version."), .switch("help", "Show help; after a verb, its page."),
      ], takesSocket: false)
    tool.verbs = Manual.verbs
    return ["command": tool.json(), "serializationVersion": 0]
  }
}
