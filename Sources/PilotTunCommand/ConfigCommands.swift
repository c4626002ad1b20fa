// `pilot-tun config …`: what is wrong with a file, what holds and why, and what there is to set.

import ArgumentParser
import JSON
import Settings
import TunControl

extension ArgumentHelp {
  /// The help of a setting's flag, from its declaration.
  static func of(_ setting: Setting, _ valueName: String? = nil) -> ArgumentHelp {
    ArgumentHelp(setting.declaration.summary, valueName: valueName)
  }

  /// The same, with another default than the one that ends the declaration's summary.
  static func of(_ setting: Setting, standard: String) -> ArgumentHelp {
    let summary = setting.declaration.summary
    let start = summary.firstRange(of: " (default ")?.lowerBound ?? summary.endIndex
    return ArgumentHelp(stringLiteral: "\(summary[..<start]) (default \(standard)).")
  }
}

struct Config: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Check and show settings; needs no running node.",
    subcommands: [Check.self, Show.self, Schema.self])

  struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Say everything that is wrong with a configuration file, with line and column.",
      discussion: "Exit status 0 when the node would take it, 1 when not.")
    @Argument(help: "The file (default: PILOT_TUN_CONFIG, or /etc/pilot-tun/config.toml).") var file: String?
    @Flag(help: "One JSON object on stdout; problems as JSON on stderr.") var json = false

    func run() throws {
      let environment = ProcessEnvironment.all
      let path = file ?? environment[ConfigurationFile.environmentName] ?? ConfigurationFile.defaultPath
      guard let text = try ConfigurationFile.text(path: path, isExplicit: true) else { return }
      let problems = ConfigurationReport.problems(text, path: path, environment: environment)
      guard let first = problems.first else {
        let settings = ConfigurationFile.read(text, path: path).settings.count
        return Output.show(["file": .text(path), "settings": JSONValue(settings)], isJSON: json) { data in
          "\(path): good, \(data.int("settings")) setting\(data.int("settings") == 1 ? "" : "s")"
        }
      }
      if json {
        Output.standardError(first.json.adding(["data": ["problems": .list(problems.map(\.json))]]).line)
      } else {
        for problem in problems { Output.fail(problem, isJSON: false) }
      }
      throw ExitCode(1)
    }
  }

  struct Show: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Show each setting with its value and where it comes from; never a secret.",
      discussion:
        "What `pilot-tun up` would use here: environment, file, defaults. With --node what a running node uses.")
    @Flag(help: "Ask the running node.") var node = false
    @OptionGroup var common: CommonOptions

    func run() throws {
      if node { return try common.show(ControlRequest(.config), ConfigurationReport.text) }
      let environment = ProcessEnvironment.all
      let layers = ConfigurationLayers(
        flags: common.controlSocket.map { [.controlSocket: [$0]] } ?? [:], environment: environment,
        file: try ConfigurationFile.load(named: common.config, environment: environment))
      // A value that the node would refuse is refused here; its secrets are for `check`, and for who may read them.
      _ = try NodeConfiguration(layers.withoutSecrets)
      Output.show(ConfigurationReport.effective(layers), isJSON: common.json, ConfigurationReport.text)
    }
  }

  struct Schema: ParsableCommand {
    enum Form: String, ExpressibleByArgument, CaseIterable { case json, table, example, metrics }
    static let configuration = CommandConfiguration(
      abstract: "Print what can be set: as JSON, as the manual's table, or as an example file.")
    @Option(help: "json, table (Markdown), example (TOML); metrics: the manual's table of metrics.") var form = Form
      .json
    @Flag(help: "The same as --form json, inside the object that other commands print.") var json = false

    func run() {
      let declarations = Setting.declarations
      switch form {
      case _ where json:
        Output.show(ConfigurationReport.schema(declarations), isJSON: true) { _ in "" }
      case .json: Output.line(ConfigurationReport.schema(declarations).line)
      case .table: Output.write(SettingDocuments.table(declarations), to: 1)
      case .example:
        Output.write(SettingDocuments.example(declarations, heading: ConfigurationFile.exampleHeading), to: 1)
      case .metrics: Output.write(NodeMetrics.table, to: 1)
      }
    }
  }
}
