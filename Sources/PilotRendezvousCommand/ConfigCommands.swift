// pilot-rendezvous config: what is wrong with a file, what holds and why, and what there is to set.

import ArgumentParser
import FoundationEssentials
import Glibc
import JSON
import Rendezvous
import Settings
import Telemetry
import Wire

extension ArgumentHelp {
  /// The help of a setting's flag, from its declaration.
  static func of(_ key: String, _ valueName: String? = nil) -> ArgumentHelp {
    ArgumentHelp(RendezvousSettings.declaration(key)?.summary ?? "", valueName: valueName)
  }
}

extension RendezvousSettings {
  /// The file that the flag or the environment names, or the default one when it is there.
  static func fromFile(named: String?, environment: [String: String]) throws -> RendezvousSettings {
    var settings = RendezvousSettings()
    let named = named ?? environment[fileEnvironmentName].flatMap { $0.isEmpty ? nil : $0 }
    let path = named ?? defaultPath
    if named == nil, access(path, F_OK) != 0 { return settings }
    try settings.readFile(try text(path), path: path)
    return settings
  }

  static func text(_ path: String) throws -> String {
    func unreadable(_ cause: String) -> RendezvousError {
      RendezvousError(
        .configurationUnreadable, "cannot read \(path): \(cause)", hint: "check the path and who may read it")
    }
    guard let file = fopen(path, "re") else { throw unreadable(String(cString: strerror(errno))) }
    defer { fclose(file) }
    var content = [UInt8](repeating: 0, count: sizeLimit + 1)
    let count = fread(&content, 1, content.count, file)
    guard ferror(file) == 0 else { throw unreadable(String(cString: strerror(errno))) }
    guard count <= sizeLimit else { throw unreadable("longer than \(sizeLimit) bytes") }
    guard let text = String(validating: content.prefix(count), as: UTF8.self) else {
      throw unreadable("it is no UTF-8")
    }
    return text
  }

  /// No configuration is longer; keeps a wrong path (a disk image, say) from being read whole.
  private static let sizeLimit = 256 * 1024
}

struct Config: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Checks and shows settings; needs no running server.",
    subcommands: [Check.self, Show.self, Schema.self])

  struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Says everything that is wrong with a configuration file, with line and column.",
      discussion: "Exit status 0 when the server would take it, 1 when not.")
    @Argument(help: "The file. Default: \(RendezvousSettings.defaultPath)") var file: String?
    @Flag(help: "Print one JSON object; problems as JSON on standard error.") var json = false

    func run() throws {
      let environment = ProcessInfo.processInfo.environment
      let path = file ?? environment[RendezvousSettings.fileEnvironmentName] ?? RendezvousSettings.defaultPath
      var settings = RendezvousSettings()
      var problems = settings.readWhole(try RendezvousSettings.text(path), path: path)
      // Only what the secrets need of the environment: its settings are no matter of the file.
      try settings.readEnvironment(environment.filter { $0.key == "CREDENTIALS_DIRECTORY" })
      do {
        _ = try settings.configuration()
      } catch {
        problems.append(error)
      }
      guard problems.isEmpty else {
        for problem in problems { Failure.report(problem) }
        throw ExitCode(1)
      }
      print(json ? #"{"status":"ok","data":{"file":"\#(path)"}}"# : "\(path): good")
    }
  }

  struct Show: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Shows each setting with its value and where it comes from; never a secret.")
    @Option(help: "The file. Default: \(RendezvousSettings.defaultPath)") var config: String?
    @Flag(help: "Print one JSON object.") var json = false

    func run() throws {
      let environment = ProcessInfo.processInfo.environment
      var settings = try RendezvousSettings.fromFile(named: config, environment: environment)
      try settings.readEnvironment(environment)
      _ = try settings.configuration()
      let rows = RendezvousSettings.declarations.map { declaration in
        let value = settings.shown(declaration)
        return [
          "key": declaration.key, "value": value?.texts.joined(separator: ", ") ?? "",
          "default": SettingDocuments.plain(declaration.standard), "source": value?.origin ?? "default",
        ]
      }
      guard !json else {
        let settings = rows.map { row in JSONValue.object(row.mapValues { .text($0) }) }
        return print(Output.json(["settings": .list(settings)]))
      }
      for row in rows {
        let isSet = row["source"] != "default"
        print("\(row["key"] ?? "") = \((isSet ? row["value"] : row["default"]) ?? "")  # \(row["source"] ?? "")")
      }
    }
  }

  struct Schema: ParsableCommand {
    enum Form: String, ExpressibleByArgument, CaseIterable { case table, example, metrics }
    static let configuration = CommandConfiguration(
      abstract: "Prints what can be set: as the manual's table or as an example file.")
    @Option(help: "table (Markdown), example (TOML), or metrics: the manual's table of metrics.") var form = Form.table

    func run() {
      switch form {
      case .table: print(SettingDocuments.table(RendezvousSettings.declarations), terminator: "")
      case .example:
        let heading = """
          \(RendezvousSettings.defaultPath): settings of `pilot-rendezvous serve`. All are optional; flags and
          PILOT_RENDEZVOUS_… variables win over this file. `pilot-rendezvous config check` tells what is wrong with it.
          Made by scripts/docs from the table of settings; docs/configuration.md has the same table.
          """
        print(SettingDocuments.example(RendezvousSettings.declarations, heading: heading), terminator: "")
      case .metrics: print(Exposition.table(RendezvousMetrics.declarations), terminator: "")
      }
    }
  }
}
