// pilot-rendezvous serve: reads settings, runs the server, stops on SIGTERM and SIGINT.

import ArgumentParser
import Foundation
import Logging
import Rendezvous
import Wire

struct Serve: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Runs registry and beacon in the foreground.",
    discussion: """
      Every flag is also a line of the configuration file (name = value, dashes as underscores) and an environment \
      variable (PILOT_RENDEZVOUS_STATE_DIR and so on). A flag wins over the environment, that over the file.
      """)

  @Option(help: "Read settings from this file.") var config: String?
  @Option(help: "Keep the database here. Default: \(RendezvousSettings.defaultStateDirectory)") var stateDir: String?
  @Option(help: "Registry, TCP: ADDRESS:PORT. Default: [::]:9000") var registryListen: String?
  @Option(help: "Beacon, UDP: ADDRESS:PORT. Default: [::]:9001") var beaconListen: String?
  @Option(help: "Status page, HTTP: ADDRESS:PORT. Default: none") var httpListen: String?
  @Option(help: "A network that exists from the start: NAME:open or NAME:token:SECRET. May be repeated.")
  var network: [String] = []
  @Option(help: "Beacon that nodes are told about: ADDRESS:PORT. Default: where they reached this one")
  var advertisedBeacon: String?
  @Option(help: "A beacon that runs by itself, for nodes of pilot-tun: ADDRESS:PORT. May be repeated.")
  var moreBeacon: [String] = []
  @Option(help: "PEM file: with it and --tls-key the registry port speaks TLS as well.") var tlsCertificate: String?
  @Option(help: "PEM file: the key of the certificate.") var tlsKey: String?
  @Option(help: "trace, debug, info, notice, warning, error or critical. Default: info") var logLevel: String?
  @Option(help: "text or json. Default: text") var logFormat: String?
  @Flag(help: "Print the ready line and failures as JSON.") var json = false

  func run() async throws {
    let settings = try settings()
    let configuration = try settings.configuration()
    let logger = try ServerLog.logger(level: settings["log_level"], format: settings["log_format"])
    raiseFileLimit()
    let signals = StopSignals()
    let server = RendezvousServer(configuration: configuration, logger: logger)
    let bound = try await server.start()
    announce(bound, configuration)
    ServiceManager.tell("READY=1")
    let signal = await signals.first()
    logger.info("stopping", metadata: ["signal": "\(signal)"])
    ServiceManager.tell("STOPPING=1")
    await server.shutdown()
  }

  private func settings() throws -> RendezvousSettings {
    let flags: [(String, String?)] = [
      ("state_dir", stateDir), ("registry_listen", registryListen), ("beacon_listen", beaconListen),
      ("http_listen", httpListen), ("advertised_beacon", advertisedBeacon), ("tls_certificate", tlsCertificate),
      ("tls_key", tlsKey), ("log_level", logLevel),
      ("log_format", logFormat),
    ]
    var settings = try RendezvousSettings.read(file: config, flags: flags)
    if !moreBeacon.isEmpty { try settings.set("more_beacons", moreBeacon) }
    if !network.isEmpty { try settings.set("networks", network) }
    return settings
  }

  /// The one line that says it works, on standard output.
  private func announce(_ bound: RendezvousServer.Bound, _ configuration: RendezvousConfiguration) {
    let line: String
    if json {
      var data: [String: Any] = [
        "registry": bound.registry.description, "beacon": bound.beacon.description,
        "state_dir": configuration.stateDirectory, "version": RendezvousServer.version,
      ]
      data["http"] = bound.http?.description
      data["certificate_pin"] = bound.certificatePin
      let object: [String: Any] = ["status": "ok", "data": data]
      let bytes = try? JSONSerialization.data(
        withJSONObject: object, options: [.sortedKeys, .withoutEscapingSlashes])
      line = String(decoding: bytes ?? Data(), as: UTF8.self)
    } else {
      let page = bound.http.map { ", status page \($0) (http)" } ?? ""
      line =
        "pilot-rendezvous ready: registry \(bound.registry) (tcp), beacon \(bound.beacon) (udp)\(page), "
        + "state \(configuration.stateDirectory)"
        // What --registry-fingerprint of an official daemon takes.
        + (bound.certificatePin.map { ", certificate pin \($0)" } ?? "")
    }
    FileHandle.standardOutput.write(Data((line + "\n").utf8))
  }

  /// Each connection is a descriptor; the usual soft limit is 1024.
  private func raiseFileLimit() {
    var limit = rlimit()
    guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0, limit.rlim_cur < limit.rlim_max else {
      return
    }
    limit.rlim_cur = limit.rlim_max
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  }
}
