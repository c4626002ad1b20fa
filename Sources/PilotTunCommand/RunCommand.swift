// `pilot-tun run`: a command in a network namespace of its own with the overlay in it, without root. Main treats it
// apart from the other verbs, because its user namespace can only be entered before there is a second thread.

import ArgumentParser
import Glibc
import Telemetry
import TunControl

struct Run: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Run a command in a network of its own with the overlay in it, without root.",
    discussion: """
      The command, and what it starts, reaches other nodes by address and by NAME.pilot, and they reach its servers at \
      any port. It reaches nothing else: no internet, and not this machine's own services. The node runs for it and \
      ends with it.
      Options, environment and file are those of `pilot-tun up`; the defaults of the first four options are the user's \
      own: XDG_CONFIG_HOME, XDG_STATE_HOME and XDG_RUNTIME_DIR count. The interface exists inside the command's network \
      only.
      Exit status: the command's; 128 + N when signal N ended it; 125 when the node failed, 126 when the command cannot \
      be executed, 127 when it is not there.
      """)

  @OptionGroup var options: NodeOptions<UserPlaces>
  @Argument(parsing: .postTerminator, help: "The command and its arguments, after --.")
  var command: [String]

  /// What its own failures end with, apart from those of the command.
  static let failureStatus: Int32 = 125

  /// Everything up to the first thread.
  func prepare() throws -> RunSession {
    let environment = ProcessEnvironment.all
    let named = options.config ?? environment[ConfigurationFile.environmentName]
    let own = UserPaths.configuration(environment)
    let read = { @Sendable [flags = options.flags] in
      let file = try (named ?? own).map { try ConfigurationFile.load(path: $0, isExplicit: named != nil) }
      let layers = ConfigurationLayers(flags: flags, environment: environment, file: file ?? [:])
      var configuration = try NodeConfiguration(forUser: layers)
      configuration.report = ConfigurationReport.effective(layers)
      return configuration
    }
    return RunSession(
      configuration: try read(), environment: environment, command: try WrappedCommand(command), reread: read)
  }
}

/// The user's own places: UserPaths says where.
struct UserPlaces: NodePlaces {
  @Option(help: "Configuration file (default ~/.config/pilot-tun/config.toml, environment PILOT_TUN_CONFIG).")
  var config: String?
  @Option(help: .of(.stateDirectory, standard: "~/.local/state/pilot-tun"))
  var stateDir: String?
  @Option(help: .of(.controlSocket, standard: "$XDG_RUNTIME_DIR/pilot-tun/control.sock, else in the state directory"))
  var controlSocket: String?
  @Option(help: .of(.logLevel, standard: "warning"))
  var logLevel: String?
}

/// A command that is ready to run, with its node.
struct RunSession: Sendable {
  let configuration: NodeConfiguration
  let environment: [String: String]
  let command: WrappedCommand
  let reread: @Sendable () throws -> NodeConfiguration

  /// The exit status for the whole program.
  func run() async throws -> Int32 {
    LogOutput.bootstrap(
      level: configuration.logLevel, format: configuration.logFormat, identifier: "pilot-tun", environment: environment)
    try await NodeProgram.run(configuration, environment: environment, reread: reread, command: command)
    switch command.outcome {
    case nil:
      throw ControlError(
        "command_not_started", "told to end before the node was ready; the command was not started",
        hint: "run it again; --log-level info shows what the node waits for")
    case .refused(let error, _)?:
      Output.fail(error, isJSON: false)
      return command.outcome?.exitStatus ?? Run.failureStatus
    case .some(let outcome): return outcome.exitStatus
    }
  }
}
