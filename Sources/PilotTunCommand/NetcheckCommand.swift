// `pilot-tun netcheck`: what the network in front of this machine does to UDP; needs no running node.

import ArgumentParser
import JSON
import TunControl

struct NetcheckCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "netcheck",
    abstract: "Say what NATs and firewalls do to this machine's UDP, and whether TLS works; needs no running node.",
    discussion: """
      Asks the configured beacon, or those named. Mapping and filtering take two beacons, or one that serves checks \
      (pilot-rendezvous does, on the port after its own). Exit status 1 when no beacon answers \
      and the rendezvous is not reached by TLS (TCP 443) either.
      """)

  @Option(help: ArgumentHelp("Registry and beacon on one host (ports 9000 and 9001).", valueName: "host[:port]"))
  var rendezvous: String?
  @Option(help: ArgumentHelp("Beacon to ask (UDP); repeatable.", valueName: "host[:port]"))
  var beacon: [String] = []
  @Option(help: "Configuration file that may name the beacon (environment PILOT_TUN_CONFIG).")
  var config: String?
  @Option(
    help: ArgumentHelp("Where the rendezvous listens for TLS (default: its host, port 443).", valueName: "host[:port]"))
  var rendezvousTls: String?
  @Option(help: ArgumentHelp("HTTP proxy for TLS, or none (default HTTPS_PROXY).", valueName: "url"))
  var proxy: String?
  @Option(help: ArgumentHelp("Authorities to trust instead of the system's (PEM).", valueName: "file"))
  var tlsCaFile: String?
  @Flag(help: "One JSON object on stdout; failures as JSON on stderr.")
  var json = false

  func run() async throws {
    let environment = ProcessEnvironment.all
    let file = try ConfigurationFile.load(named: config, environment: environment)
    let given: [Setting: String?] = [
      .rendezvous: rendezvous, .rendezvousTLS: rendezvousTls, .proxy: proxy, .tlsCAFile: tlsCaFile,
    ]
    let layers = ConfigurationLayers(
      flags: given.compactMapValues { $0.map { [$0] } }, environment: environment, file: file)
    let report = try await Netcheck.run(
      try Netcheck.beacons(named: beacon, layers), tls: try Netcheck.tls(named: beacon, layers))
    Output.show(report.json, isJSON: json, NetcheckReport.text)
  }
}
