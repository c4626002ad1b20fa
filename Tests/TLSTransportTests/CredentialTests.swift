// The command that prints a proxy's credentials, and who shares what it printed: real shells.

import Foundation
import Glibc
import Testing

@testable import TLSTransport

@Suite("Credentials of a proxy", .timeLimit(.minutes(1)))
struct CredentialTests {
  private static let environment = ["PATH": "/usr/bin:/bin", "WORD": "word"]

  private static func run(_ command: String, patience: Duration = .seconds(10)) throws(TransportError)
    -> ProxyCredentials
  {
    try CredentialCommand(command: command, environment: environment, patience: patience).run()
  }

  /// A folder for what commands leave behind.
  private static func with(_ body: (String) async throws -> Void) async throws {
    let folder = NSTemporaryDirectory() + "pilot-credentials-\(UInt64.random(in: 0...UInt64.max))"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    try await body(folder)
  }

  @Test("the first line counts, however the command ends its output")
  func prints() throws {
    let wanted = ProxyCredentials(user: "me", password: "word")
    #expect(try Self.run("echo me:$WORD; echo more") == wanted && wanted.authorization == "Basic bWU6d29yZA==")
    #expect(try Self.run("printf 'me:word\\nmore\\n'; exec 1>&-; sleep 0.1") == wanted)
    #expect(try Self.run("echo me:word; head -c 16000 /dev/zero") == wanted)
    // What it starts and leaves has its output, and is nobody's to wait for.
    let start = ContinuousClock.now
    #expect(try Self.run("echo me:word; sleep 5 &") == wanted)
    #expect(ContinuousClock.now - start < .seconds(3))
  }

  @Test(
    "a command that lives on is killed with what it started, in time, and the error says so",
    arguments: [
      "exec sleep 60", "exec 1>&-; exec sleep 60", "echo me:word; exec sleep 60", "trap '' TERM INT; sleep 60 & wait",
    ])
  func livesOn(command: String) async throws {
    try await Self.with { folder in
      let start = ContinuousClock.now
      let error = #expect(throws: TransportError.self) {
        try Self.run("echo $$ > \(folder)/pid; \(command)", patience: .milliseconds(400))
      }
      #expect(ContinuousClock.now - start < .seconds(3))
      #expect(error?.reason == .credentialsCommand && error?.message.contains("did not end") == true)
      let text = try String(contentsOfFile: folder + "/pid", encoding: .utf8)
      let group = try #require(pid_t(text.trimmingCharacters(in: .whitespacesAndNewlines)))
      // Orphans are reaped by the machine's first process, when that gets to it.
      for _ in 0..<200 where kill(-group, 0) == 0 { try await Task.sleep(for: .milliseconds(10)) }
      #expect(kill(-group, 0) != 0, "nothing of its group is left")
    }
  }

  @Test(
    "what is no answer is explained without repeating it",
    arguments: [
      ("echo secret:word; exit 3", "status 3"), ("kill -9 $$", "status 137"), ("echo secret-without-form", "neither"),
      ("true", "neither"),
      ("/nonexistent/helper 2>/dev/null", "status 127"), ("yes secret:word", "more than 16 KiB"),
    ])
  func fails(command: String, word: String) {
    let start = ContinuousClock.now
    let error = #expect(throws: TransportError.self) { try Self.run(command) }
    #expect(error?.reason == .credentialsCommand && error?.message.contains(word) == true, "\(error?.message ?? "")")
    #expect(error?.description.contains("secret") == false && error?.hint != nil)
    #expect(ContinuousClock.now - start < .seconds(5), "it is not waited for")
  }

  @Test("the command runs once for all who wait, and again only when what it printed was refused")
  func shared() async throws {
    try await Self.with { folder in
      let count = folder + "/count"
      let source = CredentialSource(
        CredentialCommand(
          command: "echo x >> \(count); sleep 0.2; echo user:$(wc -l < \(count))", environment: Self.environment))
      func runs() -> Int { (try? String(contentsOfFile: count, encoding: .utf8))?.split(separator: "\n").count ?? 0 }
      let first = try await withThrowingTaskGroup(of: ProxyCredentials.self) { group in
        for _ in 0..<8 { group.addTask { try await source.current().credentials } }
        return try await group.reduce(into: [ProxyCredentials]()) { $0.append($1) }
      }
      let one = ProxyCredentials(user: "user", password: "1")
      #expect(first == [ProxyCredentials](repeating: one, count: 8) && runs() == 1)
      #expect(try await source.current().isFresh == false && runs() == 1)
      // Two connections were refused with the same ones: one run serves both, also the one that comes later.
      let two = ProxyCredentials(user: "user", password: "2")
      async let a = source.renewed(after: one)
      async let b = source.renewed(after: one)
      #expect(try await [a, b] == [two, two] && runs() == 2)
      #expect(try await source.renewed(after: one) == two && runs() == 2)
      source.forget(two)
      #expect(try await source.current().isFresh && runs() == 3)
    }
  }
}
