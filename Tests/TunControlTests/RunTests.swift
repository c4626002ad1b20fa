// What `pilot-tun run` decides without a kernel: places, exit statuses, errors.

import Glibc
import Logging
import Testing

@testable import TunControl

@Suite("pilot-tun run")
struct RunTests {
  @Test("places are the user's own, by the base directory specification")
  func places() {
    #expect(UserPaths.state(["HOME": "/home/a"]) == "/home/a/.local/state/pilot-tun")
    #expect(UserPaths.state(["HOME": "/home/a", "XDG_STATE_HOME": "/s"]) == "/s/pilot-tun")
    #expect(UserPaths.state(["HOME": "/home/a", "XDG_STATE_HOME": "relative"]) == "/home/a/.local/state/pilot-tun")
    #expect(UserPaths.state(["HOME": ""]) == nil)
    #expect(UserPaths.configuration(["HOME": "/"]) == "/.config/pilot-tun/config.toml")
    #expect(UserPaths.controlSocket(["XDG_RUNTIME_DIR": "/run/user/7"]) == "/run/user/7/pilot-tun/control.sock")
    #expect(UserPaths.controlSocket(["HOME": "/home/a"]) == "/home/a/.local/state/pilot-tun/control.sock")
  }

  @Test("settings that were given win over the user's places")
  func settings() throws {
    let environment = ["HOME": "/home/a", "XDG_RUNTIME_DIR": "/run/user/7"]
    let plain = try NodeConfiguration(forUser: ConfigurationLayers(environment: environment))
    #expect(plain.stateDirectory == "/home/a/.local/state/pilot-tun")
    #expect(plain.controlSocket == "/run/user/7/pilot-tun/control.sock")
    #expect(plain.logLevel == .warning)
    let given = try NodeConfiguration(
      forUser: ConfigurationLayers(
        flags: [.stateDirectory: ["/s"], .logLevel: ["debug"]],
        environment: environment.merging(["PILOT_TUN_CONTROL_SOCKET": "/c"]) { $1 }))
    #expect(given.stateDirectory == "/s" && given.controlSocket == "/c" && given.logLevel == .debug)
  }

  @Test("without a home, or with too long a path, the missing setting is named")
  func missing() {
    func failure(_ environment: [String: String], _ flags: [Setting: [String]] = [:]) -> String? {
      do {
        _ = try NodeConfiguration(forUser: ConfigurationLayers(flags: flags, environment: environment))
        return nil
      } catch {
        return error.hint
      }
    }
    #expect(failure([:]) == "name one with --state-dir")
    #expect(failure(["HOME": "/" + String(repeating: "h", count: 80)]) == "name one with --control-socket")
    #expect(failure([:], [.stateDirectory: ["/s"]]) == nil)
  }

  @Test("the exit status is the command's, in the manner of shells")
  func statuses() {
    #expect(WrappedCommand.Outcome.exited(7).exitStatus == 7)
    #expect(WrappedCommand.Outcome.killed(signal: SIGTERM).exitStatus == 143)
    let missing = WrappedCommand.refusal("tool", number: ENOENT, stage: 3)
    #expect(missing.message.contains("tool") && missing.hint?.contains("PATH") == true)
    #expect(WrappedCommand.Outcome.refused(missing, number: ENOENT).exitStatus == 127)
    #expect(WrappedCommand.Outcome.refused(missing, number: EACCES).exitStatus == 126)
    #expect(WrappedCommand.refusal("tool", number: EPERM, stage: 2).hint?.contains("--dns off") == true)
  }

  @Test("its resolv.conf names the resolver and nothing else")
  func resolver() {
    let lines = CommandResolverFile.content.split(separator: "\n")
    #expect(lines.filter { $0.hasPrefix("nameserver") } == ["nameserver fd50:494c:4f54:ffff::53"])
    #expect(!CommandResolverFile.content.contains("search"))
  }
}
