// The command line of pilotctl.

import Testing
import TunControl

@Suite("pilotctl arguments")
struct PilotctlArgumentTests {
  @Test("global flags may stand anywhere")
  func globals() {
    let arguments = PilotctlArguments(["ping", "agent-b", "--json", "--count", "2"])
    #expect(arguments.isJSON)
    #expect(arguments.words == ["ping", "agent-b"])
    #expect(arguments.flags == ["count": "2"])
    #expect(PilotctlArguments(["--json", "ping", "agent-b", "--count", "2"]) == arguments)
  }

  @Test("flags take one or two hyphens, with or without an equals sign")
  func flagForms() {
    for line in [["--count", "2"], ["--count=2"], ["-count", "2"], ["-count=2"]] {
      #expect(PilotctlArguments(["ping"] + line + ["a"]).flags == ["count": "2"], "\(line)")
      #expect(PilotctlArguments(["ping"] + line + ["a"]).words == ["ping", "a"], "\(line)")
    }
  }

  @Test("a flag followed by a flag or by nothing is true; switches take no value")
  func booleans() {
    let arguments = PilotctlArguments(["daemon", "start", "--public", "--hostname", "x", "--wait"])
    #expect(arguments.has("public"))
    #expect(arguments.flags["wait"] == "true")
    #expect(PilotctlArguments(["peers", "--all", "more"]).words == ["peers", "more"])
    #expect(!PilotctlArguments(["daemon", "start", "--public=false"]).has("public"))
  }

  @Test("a value may begin with a hyphen only as a number or alone")
  func hyphenValues() {
    #expect(PilotctlArguments(["x", "--data", "-"]).flags["data"] == "-")
    #expect(PilotctlArguments(["x", "--offset", "-5"]).flags["offset"] == "-5")
    #expect(PilotctlArguments(["x", "--a", "--b"]).flags == ["a": "true", "b": "true"])
  }

  @Test("after -- everything is a word")
  func endOfFlags() {
    #expect(PilotctlArguments(["x", "--", "--count", "2"]).words == ["x", "--count", "2"])
  }

  @Test("durations are Go's or bare seconds")
  func durations() {
    #expect(PilotctlArguments.seconds(of: "500ms") == 0.5)
    #expect(PilotctlArguments.seconds(of: "1m30s") == 90)
    #expect(PilotctlArguments.seconds(of: "1.5h") == 5400)
    #expect(PilotctlArguments.seconds(of: "2") == 2)
    for wrong in ["", "s", "5x", "-3", "nan", "1m-3s", "inf"] {
      #expect(PilotctlArguments.seconds(of: wrong) == nil, "\(wrong)")
    }
  }

  @Test("an unknown flag is refused, and the known ones are listed")
  func unknownFlags() {
    let arguments = PilotctlArguments(["ping", "a", "--cuont", "3"])
    #expect(throws: ControlError.self) { try arguments.allow(["count"]) }
    #expect(throws: ControlError.self) { try PilotctlArguments(["x", "--count", "many"]).integer("count", in: 1...5) }
    #expect(throws: ControlError.self) { try PilotctlArguments(["x", "--count", "9"]).integer("count", in: 1...5) }
  }
}
