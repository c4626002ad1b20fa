// The README's first command does what it says, and cleans up after itself, also on Ctrl-C.

import Foundation
import Glibc
import Testing

extension KernelTests {
  @Suite("The demo")
  struct DemoTests {
    private static let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("scripts/demo").path

    private func traces() throws -> [String] {
      let namespaces = try Lab.host("ip", "netns", "list").orThrow().output.split(separator: "\n").map(String.init)
      let files = try FileManager.default.contentsOfDirectory(atPath: "/tmp")
      return (namespaces + files).filter { $0.hasPrefix("pt-demo") }
    }

    private func start() throws -> Program {
      try Program([Self.script, "--fast"], environment: ["BIN_DIR": Tools.folder, "NO_COLOR": "1"])
    }

    @Test("it shows names, refusal, trust, a transfer and the loss of the rendezvous, and leaves nothing")
    func wholeStory() throws {
      let outcome = try start().wait(within: 120)
      #expect(outcome.isSuccess, "\(outcome)")
      #expect(outcome.output.contains("Administratively prohibited"))
      for name in ["papers", "fx", "news"] {
        let greetings = outcome.output.split(separator: "\n").count { $0.contains("Hello from specialist-\(name)") }
        #expect(greetings == 2, "before and after the rendezvous dies: \(outcome)")
      }
      #expect(outcome.output.contains("Gbit/s"))
      #expect(!outcome.output.contains("\u{1B}"), "no colours into a pipe")
      #expect(try traces() == [])
    }

    @Test("Ctrl-C in the middle leaves nothing", arguments: [SIGINT, SIGTERM])
    func interrupted(signal: Int32) throws {
      let demo = try start()
      try demo.waitForLine(containing: "Private by default", within: 60)
      demo.send(signal)
      let outcome = try demo.wait(within: 30)
      #expect(outcome.status == 130, "\(outcome)")
      #expect(try traces() == [])
    }
  }
}
