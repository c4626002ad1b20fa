// `pilot-tun bugreport` and `pilot-tun log-level`: what operators use when something is wrong.

import ArgumentParser
import JSON
import TunControl

struct BugreportCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bugreport",
    abstract: "Write one archive from which others can see what is wrong; without secrets.",
    discussion: """
      State of the node and its peers, settings, metrics, the last lines of the log, netcheck, interfaces and routes, the \
      service. Works with less when no node runs. Tokens and private keys are never in it; read it before you send it.
      """)

  @Option(name: .shortAndLong, help: "The file (default pilot-tun-bugreport-TIME.tar.gz here).") var output: String?
  @Flag(help: "Put marks in the place of public IP addresses.") var hideAddresses = false
  @Flag(help: "Leave out netcheck, which sends a few packets to the beacon and the router.") var noNetcheck = false
  @OptionGroup var common: CommonOptions

  func run() async throws {
    let environment = ProcessEnvironment.all
    let configuration: Result<ConfigurationLayers, ControlError>
    do throws(ControlError) {
      let file = try ConfigurationFile.load(named: common.config, environment: environment)
      configuration = .success(ConfigurationLayers(environment: environment, file: file))
    } catch {
      configuration = .failure(error)
    }
    // A configuration that is wrong is a reason to report, none to refuse.
    let socket =
      common.controlSocket ?? (try? common.client().path) ?? NodeConfiguration().controlSocket
    var report = Bugreport(
      client: ControlClient(path: socket), configuration: configuration, hidesAddresses: hideAddresses)
    report.collect()
    if !noNetcheck { report.add(netcheck: await netcheck(configuration, socket)) }
    let time = Int64(Clock.wall() / 1_000_000_000)
    let path = output ?? "pilot-tun-bugreport-\(time).tar.gz"
    do {
      try SmallFile.write(report.archive(time: time), to: path, mode: 0o600)
    } catch {
      throw ControlError(
        "io_error", "the report cannot be written to \(path): \(error.reason)", hint: "another place: --output FILE")
    }
    let data: JSONValue = [
      "file": .text(path), "missing": .list(report.failures.map { .text($0) }),
      "contents": .list(report.contents.map { ["name": .text($0.name), "bytes": JSONValue($0.bytes)] }),
    ]
    Output.show(data, isJSON: common.json) { data in
      let missing = data.items("missing").compactMap(\.text).map { "  ! \($0)" }
      return (["wrote \(path): \(data.items("contents").count) files; read it before you send it"] + missing)
        .joined(separator: "\n")
    }
  }

  /// The beacons that the running node knows, or the configured ones, and the rendezvous by TLS.
  private func netcheck(
    _ configuration: Result<ConfigurationLayers, ControlError>, _ socket: String
  ) async -> Result<JSONValue, ControlError> {
    do throws(ControlError) {
      let status = try? ControlClient(path: socket).call(ControlRequest(.status))
      let named = (status?["rendezvous"]?.items("beacons") ?? []).map { $0.string("endpoint") }
      let layers = try configuration.get()
      let beacons = try Netcheck.beacons(named: named, layers)
      return .success(try await Netcheck.run(beacons, tls: Netcheck.tls(named: named, layers)).json)
    } catch {
      return .failure(error)
    }
  }
}

struct LogLevel: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "log-level", abstract: "Show what the running node logs, or change it until it ends.")
  @Argument(help: "trace, debug, info, notice, warning, error or critical.") var level: String?
  @OptionGroup var common: CommonOptions

  func run() throws {
    let request = ControlRequest(.logLevel, level.map { ["level": .text($0)] } ?? [:])
    try common.show(request) { data in
      let (now, before) = (data.string("level"), data.string("before"))
      return now == before ? now : "\(now) (before: \(before))"
    }
  }
}
