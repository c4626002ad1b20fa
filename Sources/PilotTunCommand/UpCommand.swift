// `pilot-tun up`: collects the settings of all sources and runs the node in the foreground. Its options are those of
// `pilot-tun run`, too.

import ArgumentParser
import Telemetry
import TunControl

struct Up: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Run the node in the foreground.",
    discussion: """
      Without --rendezvous or --registry the node starts its own rendezvous and prints how others join it.
      Each option may also stand in the environment (PILOT_TUN_STATE_DIR for --state-dir) or in the configuration \
      file (state-dir = "…"); a flag beats the environment, the environment beats the file.
      """)

  @OptionGroup var options: NodeOptions<SystemPlaces>

  func run() async throws {
    let environment = ProcessEnvironment.all
    let read = { @Sendable [flags = options.flags, config = options.config] in
      let layers = ConfigurationLayers(
        flags: flags, environment: environment,
        file: try ConfigurationFile.load(named: config, environment: environment))
      var configuration = try NodeConfiguration(layers)
      configuration.report = ConfigurationReport.effective(layers)
      return configuration
    }
    let configuration = try read()
    LogOutput.bootstrap(
      level: configuration.logLevel, format: configuration.logFormat, identifier: "pilot-tun", environment: environment)
    try await NodeProgram.run(configuration, environment: environment, isJSON: options.json, reread: read)
  }
}

/// The settings whose defaults are others for a user's own node (`run`) than for the system's (`up`).
protocol NodePlaces: ParsableArguments {
  var config: String? { get }
  var stateDir: String? { get }
  var controlSocket: String? { get }
  var logLevel: String? { get }
}

struct SystemPlaces: NodePlaces {
  @Option(help: "Configuration file (default /etc/pilot-tun/config.toml, environment PILOT_TUN_CONFIG).")
  var config: String?
  @Option(help: .of(.stateDirectory))
  var stateDir: String?
  @Option(help: .of(.controlSocket))
  var controlSocket: String?
  @Option(help: .of(.logLevel))
  var logLevel: String?
}

/// Every setting of a node as a flag.
struct NodeOptions<Places: NodePlaces>: ParsableArguments {
  @OptionGroup var places: Places
  @Option(help: .of(.ipc, "path"))
  var ipc: String?
  @Option(help: .of(.inbox, "folder"))
  var inbox: String?
  @Option(help: .of(.adminTokenFile, "path"))
  var adminTokenFile: String?
  @Option(help: .of(.hostname))
  var hostname: String?
  @Option(help: .of(.rendezvous, "host[:port]"))
  var rendezvous: String?
  @Option(help: .of(.registry, "host:port"))
  var registry: String?
  @Option(help: .of(.beacon, "host[:port]"))
  var beacon: [String] = []
  @Option(help: .of(.interface))
  var interface: String?
  @Option(help: .of(.mtu))
  var mtu: String?
  @Option(help: .of(.listen, "[address:]port"))
  var listen: String?
  @Option(help: .of(.advertise, "host:port"))
  var advertise: String?
  @Option(help: .of(.portMapping))
  var portMapping: String?
  @Option(name: .customLong("hard-nat"), help: .of(.hardNAT))
  var hardNAT: String?
  @Flag(help: .of(.isPublic))
  var `public` = false
  @Flag(help: .of(.trustAutoApprove))
  var trustAutoApprove = false
  @Option(help: .of(.networks, "number[:@file]"))
  var network: [String] = []
  @Option(help: .of(.tags))
  var tag: [String] = []
  @Flag(help: .of(.relayOnly))
  var relayOnly = false
  @Flag(help: .of(.relay))
  var relay = false
  @Option(help: .of(.relayLimit, "bytes[:packets]"))
  var relayLimit: String?
  @Option(help: .of(.transport))
  var transport: String?
  @Option(name: .customLong("rendezvous-tls"), help: .of(.rendezvousTLS, "host[:port]"))
  var rendezvousTLS: String?
  @Option(help: .of(.proxy, "url"))
  var proxy: String?
  @Option(help: .of(.proxyCredentialsCommand, "command"))
  var proxyCredentialsCommand: String?
  @Option(name: .customLong("tls-ca-file"), help: .of(.tlsCAFile, "file"))
  var tlsCAFile: String?
  @Option(help: .of(.dns, "way"))
  var dns: String?
  @Flag(help: .of(.dnsSearch))
  var dnsSearch = false
  @Option(help: .of(.metrics, "[address:]port"))
  var metrics: String?
  @Option(help: .of(.logFormat))
  var logFormat: String?
  @Flag(help: "The line that says the node is ready, and failures, as JSON.")
  var json = false

  var config: String? { places.config }
  private var stateDir: String? { places.stateDir }
  private var controlSocket: String? { places.controlSocket }
  private var logLevel: String? { places.logLevel }

  var flags: [Setting: [String]] {
    let single: [Setting: String?] = [
      .stateDirectory: stateDir, .controlSocket: controlSocket, .ipc: ipc, .inbox: inbox,
      .adminTokenFile: adminTokenFile, .hostname: hostname, .rendezvous: rendezvous, .registry: registry,
      .interface: interface, .mtu: mtu, .listen: listen, .advertise: advertise, .relayLimit: relayLimit,
      .portMapping: portMapping, .hardNAT: hardNAT, .transport: transport, .rendezvousTLS: rendezvousTLS,
      .proxy: proxy, .proxyCredentialsCommand: proxyCredentialsCommand, .tlsCAFile: tlsCAFile,
      .dns: dns, .metrics: metrics, .logLevel: logLevel, .logFormat: logFormat,
    ]
    var flags = single.compactMapValues { $0.map { [$0] } }
    flags[.networks] = network
    flags[.tags] = tag
    flags[.beacon] = beacon
    if `public` { flags[.isPublic] = ["true"] }
    if trustAutoApprove { flags[.trustAutoApprove] = ["true"] }
    if relay { flags[.relay] = ["true"] }
    if relayOnly { flags[.relayOnly] = ["true"] }
    if dnsSearch { flags[.dnsSearch] = ["true"] }
    return flags
  }
}
