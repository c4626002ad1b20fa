// What the programs say of themselves is what they take: documents, manual pages and completions are made of it.

import JSON
import Testing
import TunControl

@Suite("Descriptions of the programs")
struct ManualTests {
  static func describe(_ program: String) throws -> JSONValue {
    let result = try ProgramTests.run(program, ["--experimental-dump-help"])
    try #require(result.status == 0, "\(result.errors)")
    return try #require(try JSONValue(parsing: Array(result.output.utf8))["command"])
  }

  /// Verbs that have no verbs of their own, with the words that lead to them.
  static func leaves(_ command: JSONValue, _ path: [String] = []) -> [(words: [String], command: JSONValue)] {
    let verbs = command["subcommands"]?.list ?? []
    guard !verbs.isEmpty else { return [(path, command)] }
    return verbs.flatMap { leaves($0, path + [$0.string("commandName")]) }
  }

  @Test("each flag of pilotctl that is described is taken, and a switch leaves the next word alone")
  func flags() throws {
    let verbs = Self.leaves(try Self.describe("pilotctl"))
    #expect(verbs.contains { $0.words == ["daemon", "start"] })
    for verb in verbs where verb.words != ["version"] {
      for argument in verb.command.items("arguments") where argument.string("kind") != "positional" {
        let name = try #require(argument.items("names").first).string("name")
        let line = PilotctlArguments(verb.words + ["--" + name, "word"])
        let isSwitch = argument.string("kind") == "flag"
        #expect(line.words == verb.words + (isSwitch ? ["word"] : []), "\(verb.words) --\(name)")
        #expect(line.flags[name] == (isSwitch ? "true" : "word"), "\(verb.words) --\(name)")
      }
      let wrong = try ProgramTests.run("pilotctl", verb.words + ["--no-such-flag"])
      #expect(wrong.status == 1 && wrong.errors.contains("unknown flag --no-such-flag"), "\(verb.words)")
    }
  }

  @Test("each verb of pilotctl has a page")
  func pages() throws {
    for verb in Self.leaves(try Self.describe("pilotctl")) where verb.words != ["version"] {
      let page = try ProgramTests.run("pilotctl", verb.words + ["--help"])
      #expect(page.status == 0 && page.errors.hasPrefix("usage: pilotctl \(verb.words.joined(separator: " "))"))
    }
  }
}
