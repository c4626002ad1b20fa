// pilot-rendezvous serve: reads settings, runs the server, reads them again on SIGHUP, stops on SIGTERM and SIGINT.

import ArgumentParser
import FoundationEssentials
import Glibc
import JSON
import Logging
import Rendezvous
import ServiceManager
import Settings
import Telemetry
import Wire

struct Serve: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Runs registry and beacon in the foreground.",
    discussion: """
      Every flag is also a line of the configuration file (name = value, dashes as underscores) and an environment \
      variable (PILOT_RENDEZVOUS_STATE_DIR and so on). A flag wins over the environment, that over the file.
      """)

  @Option(help: "Settings (default /etc/pilot-rendezvous/config.toml, environment PILOT_RENDEZVOUS_CONFIG).")
  var config: String?
  @Option(help: .of("state-dir")) var stateDir: String?
  @Option(help: .of("registry-listen", "address:port")) var registryListen: String?
  @Option(help: .of("beacon-listen", "address:port")) var beaconListen: String?
  @Option(help: .of("http-listen", "address:port")) var httpListen: String?
  @Option(help: .of("networks", "name:open|name:token:@file")) var network: [String] = []
  @Option(help: .of("advertised-beacon", "address:port")) var advertisedBeacon: String?
  @Option(help: .of("more-beacons", "address:port")) var moreBeacon: [String] = []
  @Option(help: .of("admin-token-file", "path")) var adminTokenFile: String?
  @Option(help: .of("tls-certificate", "path")) var tlsCertificate: String?
  @Option(help: .of("tls-key", "path")) var tlsKey: String?
  @Option(help: .of("tls-listen", "address:port")) var tlsListen: String?
  @Option(help: .of("log-level")) var logLevel: String?
  @Option(help: .of("log-format")) var logFormat: String?
  @Flag(help: "Print the ready line and failures as JSON.") var json = false

  func run() async throws {
    var settings = try settings()
    let configuration = try settings.configuration()
    try settings.startLog()
    let logger = Logger(label: "pilot-rendezvous")
    raiseFileLimit()
    let signals = Signals()
    let server = RendezvousServer(configuration: configuration, logger: logger)
    let bound = try await server.start()
    announce(bound, configuration)
    let status = "registry \(bound.registry), beacon \(bound.beacon)"
    await settings.serve(status, until: signals, logger, pulse: { await server.pulse() }) { try self.settings() }
    await server.shutdown()
  }

  private func settings() throws -> RendezvousSettings {
    let flags: [(String, String?)] = [
      ("state_dir", stateDir), ("registry_listen", registryListen), ("beacon_listen", beaconListen),
      ("http_listen", httpListen), ("advertised_beacon", advertisedBeacon), ("admin_token_file", adminTokenFile),
      ("tls_certificate", tlsCertificate),
      ("tls_key", tlsKey), ("tls_listen", tlsListen), ("log_level", logLevel),
      ("log_format", logFormat),
    ]
    var settings = try RendezvousSettings.read(config: config, flags: flags)
    if !network.isEmpty { try settings.set("networks", network) }
    if !moreBeacon.isEmpty { try settings.set("more_beacons", moreBeacon) }
    return settings
  }

  /// The one line that says it works, on standard output.
  private func announce(_ bound: RendezvousServer.Bound, _ configuration: RendezvousConfiguration) {
    let line: String
    if json {
      var data = [
        "registry": bound.registry.description, "beacon": bound.beacon.description,
        "state_dir": configuration.stateDirectory, "version": RendezvousServer.version,
      ]
      data["http"] = bound.http?.description
      data["tls"] = bound.tls?.description
      data["certificate_pin"] = bound.certificatePin
      line = Output.json(data.mapValues { .text($0) })
    } else {
      let page =
        (bound.tls.map { ", nodes without UDP \($0) (tls)" } ?? "")
        + (bound.http.map { ", status page \($0) (http)" } ?? "")
      line =
        "pilot-rendezvous ready: registry \(bound.registry) (tcp), beacon \(bound.beacon) (udp)\(page), "
        + "state \(configuration.stateDirectory)"
        // What --registry-fingerprint of an official daemon takes.
        + (bound.certificatePin.map { ", certificate pin \($0)" } ?? "")
    }
    Output.write(line)
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
