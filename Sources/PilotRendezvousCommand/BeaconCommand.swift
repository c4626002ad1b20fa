// pilot-rendezvous beacon: a beacon by itself, without a registry. Stops on SIGTERM and SIGINT.

import ArgumentParser
import Foundation
import Logging
import Rendezvous
import Wire

struct BeaconCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "beacon",
    abstract: "Runs a beacon alone: nodes name several with --beacon and use the nearest that works.",
    discussion: """
      Needs no registry and keeps nothing on disk: nodes of pilot-tun prove that they have the key that their id \
      follows from. Official daemons use the beacon of the registry only. Settings are those of serve that concern \
      the beacon: beacon_listen, relayed_per_second, log_level and log_format, from a file, the environment \
      (PILOT_RENDEZVOUS_…) or flags.
      """)

  @Option(help: "Read settings from this file.") var config: String?
  @Option(help: "UDP: ADDRESS:PORT; the port after it answers checks. Default: [::]:9001") var beaconListen: String?
  @Option(help: "trace, debug, info, notice, warning, error or critical. Default: info") var logLevel: String?
  @Option(help: "text or json. Default: text") var logFormat: String?
  @Flag(help: "Print the ready line and failures as JSON.") var json = false

  func run() async throws {
    let settings = try RendezvousSettings.read(
      file: config,
      flags: [("beacon_listen", beaconListen), ("log_level", logLevel), ("log_format", logFormat)])
    let logger = try ServerLog.logger(level: settings["log_level"], format: settings["log_format"])
    let signals = StopSignals()
    let server = BeaconServer(configuration: try settings.configuration(), logger: logger)
    let bound = try await server.start()
    announce(bound)
    ServiceManager.tell("READY=1")
    let signal = await signals.first()
    logger.info("stopping", metadata: ["signal": "\(signal)"])
    ServiceManager.tell("STOPPING=1")
    await server.shutdown()
  }

  /// The one line that says it works, on standard output.
  private func announce(_ bound: BeaconServer.Bound) {
    var line = "pilot-rendezvous beacon ready: \(bound.beacon) (udp)"
    if json {
      let data = ["beacon": bound.beacon.description, "version": RendezvousServer.version]
      let bytes = try? JSONSerialization.data(
        withJSONObject: ["status": "ok", "data": data], options: [.sortedKeys, .withoutEscapingSlashes])
      line = String(decoding: bytes ?? Data(), as: UTF8.self)
    }
    FileHandle.standardOutput.write(Data((line + "\n").utf8))
  }
}

extension RendezvousSettings {
  /// File, then environment, then flags.
  static func read(file: String?, flags: [(String, String?)]) throws -> RendezvousSettings {
    var settings = RendezvousSettings()
    if let file {
      let text: String
      do {
        text = try String(contentsOfFile: file, encoding: .utf8)
      } catch {
        throw RendezvousError(
          .configurationUnreadable, "cannot read \(file): \(error.localizedDescription)",
          hint: "check the path and who may read it")
      }
      try settings.readFile(text, path: file)
    }
    try settings.readEnvironment(ProcessInfo.processInfo.environment)
    for case (let name, let value?) in flags { try settings.set(name, [value]) }
    return settings
  }
}
