// The command pilot-rendezvous: its words and flags, its exit status (0 done, 1 failed, 2 wrong usage or settings).

import ArgumentParser
import Foundation
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
      Foundation.exit(code.rawValue)
    } catch let error as any ExplainedError {
      Failure.report(error)
      Foundation.exit((error as? RendezvousError)?.kind.isMistakeOfSettings == true ? 2 : 1)
    } catch {
      let code = exitCode(for: error)
      if code.isSuccess { exit(withError: error) }
      FileHandle.standardError.write(Data((fullMessage(for: error) + "\n").utf8))
      Foundation.exit(code == .validationFailure ? 2 : 1)
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

/// How a failure reaches the person or program that started the command: on stderr, with code, cause and advice.
enum Failure {
  static func report(_ error: any ExplainedError) {
    let text: String
    if CommandLine.arguments.contains("--json") {
      var object = ["status": "error", "code": error.code, "message": error.message]
      object["hint"] = error.hint
      let data = (try? JSONSerialization.data(withJSONObject: object, options: [.sortedKeys])) ?? Data()
      text = String(decoding: data, as: UTF8.self)
    } else {
      text = "error [\(error.code)]: \(error.message)" + (error.hint.map { "\n  hint: \($0)" } ?? "")
    }
    FileHandle.standardError.write(Data((text + "\n").utf8))
  }
}
