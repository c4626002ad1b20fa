// pilot-rendezvous beacon: a beacon by itself, without a registry. Reads its settings again on SIGHUP, stops on SIGTERM and
// SIGINT.

import ArgumentParser
import FoundationEssentials
import Glibc
import JSON
import Logging
import Rendezvous
import ServiceManager
import Settings
import Wire

struct BeaconCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "beacon",
    abstract: "Runs a beacon alone: nodes name several with --beacon and use the nearest that works.",
    discussion: """
      Needs no registry and keeps nothing on disk: nodes of pilot-tun prove that they have the key that their id \
      follows from. Official daemons use the beacon of the registry only. Settings are those of serve that concern \
      the beacon: beacon-listen, relayed-per-second, log-level and log-format, from a file, the environment \
      (PILOT_RENDEZVOUS_…) or flags.
      """)

  @Option(help: "Settings (default /etc/pilot-rendezvous/config.toml, environment PILOT_RENDEZVOUS_CONFIG).")
  var config: String?
  @Option(help: .of("beacon-listen", "address:port")) var beaconListen: String?
  @Option(help: .of("log-level")) var logLevel: String?
  @Option(help: .of("log-format")) var logFormat: String?
  @Flag(help: "Print the ready line and failures as JSON.") var json = false

  func run() async throws {
    var settings = try settings()
    let configuration = try settings.configuration()
    try settings.startLog()
    let logger = Logger(label: "pilot-rendezvous")
    let signals = Signals()
    let server = BeaconServer(configuration: configuration, logger: logger)
    let bound = try await server.start()
    announce(bound)
    await settings.serve("beacon \(bound.beacon)", until: signals, logger, pulse: { await server.pulse() }) {
      try self.settings()
    }
    await server.shutdown()
  }

  private func settings() throws -> RendezvousSettings {
    try RendezvousSettings.read(
      config: config, flags: [("beacon_listen", beaconListen), ("log_level", logLevel), ("log_format", logFormat)])
  }

  /// The one line that says it works, on standard output.
  private func announce(_ bound: BeaconServer.Bound) {
    var line = "pilot-rendezvous beacon ready: \(bound.beacon) (udp)"
    if json {
      line = Output.json(["beacon": .text(bound.beacon.description), "version": .text(RendezvousServer.version)])
    }
    Output.write(line)
  }
}
