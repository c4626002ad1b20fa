// `pilot-tun`: parses the command line and runs one verb. Everything else is in TunControl.

import ArgumentParser
import Glibc
import TunControl

struct PilotTun: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pilot-tun",
    abstract: "The Pilot network for every program: a TUN interface, encrypted tunnels, names.",
    discussion: """
      A PEER is a hostname, a Pilot address (0:0000.0001.1852), an IPv6 overlay address or a node id.
      Exit status: 0 done, 1 failed, 2 wrong usage. With --json one object on stdout, failures on stderr.
      """,
    subcommands: [
      Up.self, Down.self, Status.self, Peers.self, Ping.self, Resolve.self, Address.self, Trust.self, Explain.self,
      NetcheckCommand.self, Config.self, LogLevel.self, BugreportCommand.self, Version.self,
    ])
}

@main
enum Main {
  static func main() async {
    // A reader that went away is an error of write(2), not the end of the process.
    signal(SIGPIPE, SIG_IGN)
    let arguments = Array(CommandLine.arguments.dropFirst())
    do {
      var command = try PilotTun.parseAsRoot(arguments)
      if var command = command as? any AsyncParsableCommand {
        try await command.run()
      } else {
        try command.run()
      }
    } catch {
      leave(error, isJSON: arguments.contains("--json"))
    }
  }

  /// Prints the error and ends with its status: 2 for wrong usage, 1 for failures, 0 for --help.
  private static func leave(_ error: any Error, isJSON: Bool) -> Never {
    if let code = error as? ExitCode { exit(code.rawValue) }
    if let error = error as? ControlError {
      Output.fail(error, isJSON: isJSON)
      exit(error.isUsage ? 2 : 1)
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
    exit(status == .validationFailure ? 2 : 1)
  }
}
