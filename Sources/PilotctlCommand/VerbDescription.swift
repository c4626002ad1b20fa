// One verb as the table of verbs describes it, and its forms: a page of `--help`, and the JSON of
// `--experimental-dump-help`, which has the layout of swift-argument-parser's ToolInfo, so that manual pages are made of
// it as of the other programs.

import JSON
import TunControl

struct VerbDescription: Sendable {
  struct Operand: Sendable {
    var name: String
    var help: String
    var isOptional = false

    static let peer = Operand(name: "peer", help: "Hostname, address or node id.")
    static func reason(_ help: String) -> Operand { Operand(name: "reason", help: help, isOptional: true) }
  }

  struct Flag: Sendable {
    var name: String
    /// What stands for its value in help texts; nil for a switch.
    var value: String?
    var help: String

    static func option(_ name: String, _ value: String, _ help: String) -> Flag {
      Flag(name: name, value: value, help: help)
    }
    static func `switch`(_ name: String, _ help: String) -> Flag { Flag(name: name, value: nil, help: help) }
  }

  var name: String
  var abstract: String
  var discussion: String
  var operands: [Operand]
  var flags: [Flag]
  /// Flags of the official client and daemon that are taken without a meaning; help texts do not show them.
  var ignored: Set<String>
  var verbs: [VerbDescription]

  init(
    _ name: String, _ abstract: String, discussion: String = "", operands: [Operand] = [], flags: [Flag] = [],
    ignored: Set<String> = [], takesSocket: Bool = true, verbs: [VerbDescription] = []
  ) {
    self.name = name
    self.abstract = abstract
    self.discussion = discussion
    self.operands = operands
    self.flags =
      flags
      + (takesSocket && verbs.isEmpty
        ? [.option("socket", "path", "Control socket of the node (PILOT_SOCKET).")] : [])
    self.ignored = ignored
    self.verbs = verbs
  }

  /// `ping PEER`.
  var line: String {
    ([name] + operands.map { $0.isOptional ? "[\($0.name.uppercased())]" : $0.name.uppercased() })
      .joined(separator: " ")
  }

  /// The page of `pilotctl VERB --help`; `path` is what stands before the verb.
  func page(_ path: String = "pilotctl") -> String {
    guard verbs.isEmpty else {
      return "usage: \(path) \(name) VERB\n\n\(abstract)\n\n"
        + Self.columns(verbs.map { ("\(name) \($0.line)", $0.abstract) })
    }
    let flags = self.flags.map { flag in ("--\(flag.name)" + (flag.value.map { " <\($0)>" } ?? ""), flag.help) }
    return "usage: \(path) \(line)\(flags.isEmpty ? "" : " [FLAGS]")\n\n\(abstract)"
      + (discussion.isEmpty ? "" : "\n\n\(discussion)")
      + (operands.isEmpty ? "" : "\n\n" + Self.columns(operands.map { ($0.name.uppercased(), $0.help) }))
      + (flags.isEmpty ? "" : "\n\n" + Self.columns(flags))
  }

  static func columns(_ rows: [(String, String)]) -> String {
    let width = rows.map(\.0.count).max() ?? 0
    return rows.map { left, right in
      "  " + left + String(repeating: " ", count: width + 2 - left.count) + right
    }.joined(separator: "\n")
  }

  func json(under path: [String] = []) -> JSONValue {
    let operands = self.operands.map { operand in
      Self.argument(
        "positional", operand.help,
        ["isOptional": JSONValue(operand.isOptional), "valueName": .text(operand.name)])
    }
    let flags = self.flags.map { flag in
      Self.argument(
        flag.value == nil ? "flag" : "option", flag.help,
        ["valueName": .text(flag.value ?? flag.name), "names": [["kind": "long", "name": .text(flag.name)]]])
    }
    var members: [String: JSONValue] = [
      "abstract": .text(abstract), "arguments": .list(operands + flags), "commandName": .text(name),
      "shouldDisplay": true, "superCommands": .list(path.map { .text($0) }),
    ]
    if !discussion.isEmpty { members["discussion"] = .text(discussion) }
    if !verbs.isEmpty { members["subcommands"] = .list(verbs.map { $0.json(under: path + [name]) }) }
    return .object(members)
  }

  private static func argument(_ kind: String, _ help: String, _ own: [String: JSONValue]) -> JSONValue {
    let common: [String: JSONValue] = [
      "abstract": .text(help), "isOptional": true, "isRepeating": false, "kind": .text(kind), "shouldDisplay": true,
    ]
    return .object(common.merging(own) { $1 })
  }
}
