// `pilot-tun`: parses the command line and runs one verb. Everything else is in TunControl.

import ArgumentParser
import Dispatch
import Glibc
import TunControl

struct PilotTun: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pilot-tun",
    abstract: "The Pilot network for every program: a TUN interface, encrypted tunnels, names.",
    discussion: """
      A PEER is a hostname, a Pilot address (0:0000.0001.1852), an IPv6 overlay address or a node id.
      Exit status: 0 done, 1 failed, 2 wrong usage; of `run` the command's. With --json one object on stdout, failures \
      on stderr.
      """,
    subcommands: [
      Up.self, Run.self, Down.self, Reload.self, WaitOnline.self, Status.self, Peers.self, Ping.self, Resolve.self,
      Address.self, Trust.self, Explain.self, NetcheckCommand.self, Config.self, LogLevel.self, BugreportCommand.self,
      Version.self,
    ])
}

@main
enum Main {
  /// Not asynchronous: `run` enters its namespace while the process has one thread.
  static func main() {
    // A reader that went away is an error of write(2), not the end of the process.
    signal(SIGPIPE, SIG_IGN)
    let arguments = Array(CommandLine.arguments.dropFirst())
    do {
      var command = try PilotTun.parseAsRoot(arguments)
      if let run = command as? Run {
        let session = try run.prepare()
        finish(arguments) { exit(try await session.run()) }
      }
      if command is any AsyncParsableCommand { finish(arguments) { try await perform(arguments) } }
      try command.run()
    } catch {
      leave(error, arguments)
    }
  }

  /// Runs the closure to its end, and the program with it.
  private static func finish(_ arguments: [String], _ body: @escaping @Sendable () async throws -> Void) -> Never {
    Task {
      do {
        try await body()
        exit(0)
      } catch {
        leave(error, arguments)
      }
    }
    dispatchMain()
  }

  /// Commands are not Sendable: the task parses its own.
  private static func perform(_ arguments: [String]) async throws {
    guard var command = try PilotTun.parseAsRoot(arguments) as? any AsyncParsableCommand else { return }
    try await command.run()
  }

  /// Prints the error and ends with its status: 2 for wrong usage, 1 for failures, 0 for --help; for `run` 125.
  private static func leave(_ error: any Error, _ arguments: [String]) -> Never {
    let isRun = arguments.first == "run"
    let isJSON = arguments.prefix { $0 != "--" }.contains("--json")
    if let code = error as? ExitCode { exit(code.rawValue) }
    if let error = error as? ControlError {
      Output.fail(error, isJSON: isJSON)
      exit(isRun ? Run.failureStatus : error.isUsage ? 2 : 1)
    }
    let status = PilotTun.exitCode(for: error)
    guard status != .success else {
      print(PilotTun.fullMessage(for: error))
      exit(0)
    }
    if isJSON {
      Output.fail(
        ControlError("usage", PilotTun.message(for: error), hint: "pilot-tun --help"), isJSON: true)
    } else {
      Output.standardError(PilotTun.fullMessage(for: error))
    }
    exit(isRun ? Run.failureStatus : status == .validationFailure ? 2 : 1)
  }
}
