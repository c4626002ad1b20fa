// The built programs: exit statuses and streams, as scripts rely on them.

import Directory
import Glibc
import JSON
import Testing
import TunControl

@Suite("Programs")
struct ProgramTests {
  struct Result: Sendable {
    var status: Int32
    var output: String
    var errors: String
  }

  /// The products lie next to the test program.
  static let directory: String = {
    var buffer = [CChar](repeating: 0, count: 4096)
    let length = readlink("/proc/self/exe", &buffer, buffer.count - 1)
    return SmallFile.directory(
      of: String(decoding: buffer[..<max(0, length)].map(UInt8.init(bitPattern:)), as: UTF8.self))
  }()

  static func run(_ program: String, _ arguments: [String], environment: [String] = []) throws -> Result {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    var out: [Int32] = [0, 0]
    var err: [Int32] = [0, 0]
    try #require(pipe(&out) == 0 && pipe(&err) == 0)
    posix_spawn_file_actions_adddup2(&actions, out[1], 1)
    posix_spawn_file_actions_adddup2(&actions, err[1], 2)
    for descriptor in out + err { posix_spawn_file_actions_addclose(&actions, descriptor) }
    var words: [UnsafeMutablePointer<CChar>?] = ([directory + "/" + program] + arguments).map { strdup($0) } + [nil]
    var variables: [UnsafeMutablePointer<CChar>?] =
      (["PATH=/usr/bin:/bin", "HOME=/nonexistent", "PILOT_TUN_CONTROL_SOCKET=/nonexistent/c.sock"] + environment).map {
        strdup($0)
      } + [nil]
    defer { (words + variables).forEach { free($0) } }
    var pid: pid_t = 0
    let spawned = posix_spawn(&pid, directory + "/" + program, &actions, nil, &words, &variables)
    close(out[1])
    close(err[1])
    defer {
      close(out[0])
      close(err[0])
    }
    try #require(spawned == 0, "cannot run \(program)")
    // Outputs are far below a pipe's 64 KiB: reading one after the other cannot block.
    let output = drain(out[0])
    let errors = drain(err[0])
    var status: Int32 = 0
    waitpid(pid, &status, 0)
    return Result(status: status & 0x7F == 0 ? status >> 8 & 0xFF : -1, output: output, errors: errors)
  }

  private static func drain(_ descriptor: Int32) -> String {
    var all: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 8192)
    while true {
      let count = read(descriptor, &chunk, chunk.count)
      guard count > 0 else { return String(decoding: all, as: UTF8.self) }
      all += chunk[..<count]
    }
  }

  @Test(
    "wrong usage ends with status 2 and says so on stderr",
    arguments: [
      ["fly"], ["up", "--mtu", "12"], ["up", "--no-such-flag"], ["ping"], ["ping", "a", "--count", "0"],
      ["up", "--hostname", "a b"], ["trust", "approve"], ["address", "nonsense"], ["resolve"],
      ["up", "--config", "/nonexistent/file.toml"], ["status", "extra"],
    ])
  func usage(arguments: [String]) throws {
    let plain = try Self.run("pilot-tun", arguments)
    #expect(plain.status == 2)
    #expect(plain.output.isEmpty)
    #expect(!plain.errors.isEmpty)
    let json = try Self.run("pilot-tun", arguments + ["--json"])
    #expect(json.status == 2)
    #expect(json.output.isEmpty)
    let object = try JSONValue(parsing: Array(json.errors.utf8))
    #expect(object.string("status") == "error")
    #expect(!object.string("code").isEmpty && !object.string("message").isEmpty)
  }

  @Test(
    "a rendezvous whose settings are wrong ends with status 2, and is not restarted: trying again changes nothing",
    arguments: [
      (["--beacon-listen", "nonsense"], "invalid_setting"),
      (["--config", "/nonexistent/file.toml"], "configuration_unreadable"),
      (["--admin-token-file", "/nonexistent/token"], "secret_unusable"),
      (["--network", "ops:token:@/nonexistent/token"], "secret_unusable"),
      (["--tls-certificate", "/nonexistent/c.pem", "--tls-key", "/nonexistent/k.pem"], "certificate_unusable"),
    ])
  func rendezvousUsage(arguments: [String], code: String) throws {
    // Nothing is made before the settings are read: this is no place for a state directory.
    let result = try Self.run("pilot-rendezvous", ["serve", "--json", "--state-dir", "/dev/null/state"] + arguments)
    #expect(result.status == 2)
    let object = try JSONValue(parsing: Array(result.errors.utf8))
    #expect(object.string("code") == code)
    #expect(!object.string("hint").isEmpty)
  }

  @Test(
    "without a node the verbs fail with status 1 and the code not_running",
    arguments: [
      ["status"], ["peers"], ["down"], ["ping", "a"], ["resolve", "a"], ["trust", "list"], ["explain", "a"],
    ])
  func notRunning(arguments: [String]) throws {
    let result = try Self.run("pilot-tun", arguments + ["--json"])
    #expect(result.status == 1)
    #expect(result.output.isEmpty)
    #expect(try JSONValue(parsing: Array(result.errors.utf8)).string("code") == "not_running")
  }

  @Test("help and version need nothing and end with status 0")
  func help() throws {
    for arguments in [["--help"], ["up", "--help"], ["trust", "--help"], ["version"]] {
      let result = try Self.run("pilot-tun", arguments)
      #expect(result.status == 0, "\(arguments)")
      #expect(!result.output.isEmpty, "\(arguments)")
    }
    let version = try Self.run("pilot-tun", ["version", "--json"])
    #expect(version.output == "{\"data\":{\"version\":\"\(PilotTunVersion.text)\"},\"status\":\"ok\"}\n")
  }

  @Test("address works without a node")
  func address() throws {
    let result = try Self.run("pilot-tun", ["address", "0:0000.0001.1852", "--json"])
    #expect(result.status == 0)
    #expect(
      result.output
        == #"{"data":{"address":"0:0000.0001.1852","ipv6":"fd50:494c:4f54::1:1852","network":0,"node_id":71762},"status":"ok"}"#
        + "\n")
  }

  @Test("pilotctl keeps the exit statuses and streams of the official tool")
  func pilotctl() throws {
    let nothing = try Self.run("pilotctl", [])
    #expect(nothing.status == 2 && nothing.output.isEmpty && nothing.errors.contains("usage:"))
    let help = try Self.run("pilotctl", ["--help"])
    #expect(help.status == 0 && help.output.contains("daemon start"))
    let page = try Self.run("pilotctl", ["daemon", "start", "--help"])
    #expect(page.status == 0 && page.output.isEmpty && page.errors.contains("--hostname"))
    let unknown = try Self.run("pilotctl", ["fly"])
    #expect(unknown.status == 2 && unknown.errors.contains("unknown command: fly"))
    let unknownJSON = try Self.run("pilotctl", ["fly", "--json"])
    #expect(unknownJSON.status == 1)
    #expect(try JSONValue(parsing: Array(unknownJSON.errors.utf8)).string("code") == "invalid_argument")
    let version = try Self.run("pilotctl", ["version", "--json"])
    #expect(version.status == 0 && version.output == PilotTunVersion.text + "\n")
    let missing = try Self.run("pilotctl", ["info", "--json"])
    #expect(missing.status == 1)
    #expect(try JSONValue(parsing: Array(missing.errors.utf8)).string("code") == "not_running")
    let stopped = try Self.run("pilotctl", ["daemon", "status"])
    #expect(stopped.status == 0 && stopped.output.hasPrefix("○ pilot-daemon stopped"))
    let check = try Self.run("pilotctl", ["daemon", "status", "--check"])
    #expect(check.status == 1 && check.output.isEmpty && check.errors.isEmpty)
  }
}
