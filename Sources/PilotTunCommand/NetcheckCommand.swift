// `pilot-tun netcheck`: what the network in front of this machine does to UDP; needs no running node.

import ArgumentParser
import JSON
import TunControl

struct NetcheckCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "netcheck",
    abstract: "Say what NATs and firewalls do to this machine's UDP; needs no running node.",
    discussion: """
      Asks the configured beacon, or those named. Mapping and filtering take two beacons, or one that serves checks \
      (pilot-rendezvous does, on the port after its own). Exit status 1 when no beacon answers.
      """)

  @Option(help: ArgumentHelp("Registry and beacon on one host (ports 9000 and 9001).", valueName: "host[:port]"))
  var rendezvous: String?
  @Option(help: ArgumentHelp("Beacon to ask (UDP); repeatable.", valueName: "host[:port]"))
  var beacon: [String] = []
  @Option(help: "Configuration file that may name the beacon (environment PILOT_TUN_CONFIG).")
  var config: String?
  @Flag(help: "One JSON object on stdout; failures as JSON on stderr.")
  var json = false

  func run() async throws {
    let environment = ProcessEnvironment.all
    let file = try ConfigurationFile.load(named: config, environment: environment)
    let flags: [Setting: [String]] = rendezvous.map { [.rendezvous: [$0]] } ?? [:]
    let beacons = try Netcheck.beacons(
      named: beacon, ConfigurationLayers(flags: flags, environment: environment, file: file))
    let report = try await Netcheck.run(beacons)
    Output.show(report.json, isJSON: json, NetcheckReport.text)
  }
}
