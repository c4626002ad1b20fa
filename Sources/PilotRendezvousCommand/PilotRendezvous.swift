// The command pilot-rendezvous: its words and flags, its exit status (0 done, 1 failed, 2 wrong usage or settings).

import ArgumentParser
import Glibc
import JSON
import Rendezvous
import Wire

@main
struct PilotRendezvous: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pilot-rendezvous",
    abstract: "Directory and relay for Pilot nodes: registry on TCP, beacon on UDP.",
    subcommands: [Serve.self, BeaconCommand.self, Config.self, Version.self])

  static func main() async {
    do {
      var command = try parseAsRoot()
      if var command = command as? any AsyncParsableCommand {
        try await command.run()
      } else {
        try command.run()
      }
    } catch let code as ExitCode {
      Glibc.exit(code.rawValue)
    } catch let error as any ExplainedError {
      Failure.report(error)
      Glibc.exit((error as? RendezvousError)?.kind.isMistakeOfSettings == true ? 2 : 1)
    } catch {
      let code = exitCode(for: error)
      if code.isSuccess { exit(withError: error) }
      if CommandLine.arguments.contains("--json") {
        Failure.report(WrongUsage(message: message(for: error)))
      } else {
        Output.write(fullMessage(for: error), to: STDERR_FILENO)
      }
      Glibc.exit(code == .validationFailure ? 2 : 1)
    }
  }
}

struct Version: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Prints the version.")

  @Flag(help: "Print one JSON object.") var json = false

  func run() {
    print(
      json
        ? #"{"status":"ok","data":{"version":"\#(RendezvousServer.version)"}}"#
        : "pilot-rendezvous \(RendezvousServer.version)")
  }
}

/// What the parser of the command line has against it.
private struct WrongUsage: ExplainedError {
  let code = "usage"
  let message: String
  let hint: String? = "pilot-rendezvous --help"
}

/// How a failure reaches the person or program that started the command: on stderr, with code, cause and advice.
enum Failure {
  static func report(_ error: any ExplainedError) {
    let text: String
    if CommandLine.arguments.contains("--json") {
      var object: [String: JSONValue] = [
        "status": .text("error"), "code": .text(error.code), "message": .text(error.message),
      ]
      object["hint"] = error.hint.map { .text($0) }
      text = String(decoding: JSONValue.object(object).encoded, as: UTF8.self)
    } else {
      text = "error: \(error.message) [\(error.code)]" + (error.hint.map { "\nhint:  \($0)" } ?? "")
    }
    Output.write(text, to: STDERR_FILENO)
  }
}
