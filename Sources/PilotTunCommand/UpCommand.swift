// `pilot-tun up`: collects the settings of all sources and runs the node in the foreground.

import ArgumentParser
import TunControl

struct Up: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Run the node in the foreground.",
    discussion: """
      Without --rendezvous or --registry the node starts its own rendezvous and prints how others join it.
      Each option may also stand in the environment (PILOT_TUN_STATE_DIR for --state-dir) or in the configuration
      file (state-dir = "…"); a flag beats the environment, the environment beats the file.
      """)

  @Option(help: "Configuration file (default /etc/pilot-tun/config.toml, environment PILOT_TUN_CONFIG).")
  var config: String?
  @Option(help: "Identity, pinned keys, trust, last known peers (default /var/lib/pilot-tun).")
  var stateDir: String?
  @Option(help: "Control socket (default /run/pilot-tun/control.sock).")
  var controlSocket: String?
  @Option(
    help: ArgumentHelp("Also serve official clients (pilotctl, Python SDK) on this socket.", valueName: "path"))
  var ipc: String?
  @Option(
    help: ArgumentHelp(
      "Messages and files for official clients (default ~/.pilot, where pilotctl looks), or off.",
      valueName: "folder"))
  var inbox: String?
  @Option(
    help: ArgumentHelp(
      "File with the administrator's token of the registry, for `pilotctl broadcast`.", valueName: "path"))
  var adminTokenFile: String?
  @Option(help: "Name of this node; others reach it as NAME.pilot.")
  var hostname: String?
  @Option(help: ArgumentHelp("Registry and beacon on one host (ports 9000 and 9001).", valueName: "host[:port]"))
  var rendezvous: String?
  @Option(help: ArgumentHelp("Registry (TCP).", valueName: "host:port"))
  var registry: String?
  @Option(help: ArgumentHelp("Beacon (UDP); repeatable, the nearest healthy one is used.", valueName: "host[:port]"))
  var beacon: [String] = []
  @Option(help: "TUN interface (default pilot0).")
  var interface: String?
  @Option(help: "Largest inner packet in bytes, 1280 to 9000 (default 1400).")
  var mtu: String?
  @Option(
    help: ArgumentHelp("Tunnel socket (default port 4000, any free port when taken).", valueName: "[address:]port"))
  var listen: String?
  @Option(help: ArgumentHelp("Endpoint at which others reach this node.", valueName: "host:port"))
  var advertise: String?
  @Option(help: "Have the router open a port (PCP, NAT-PMP, UPnP): auto or off (default auto).")
  var portMapping: String?
  @Flag(help: "Accept packets of every node, not only of trusted ones.")
  var `public` = false
  @Flag(help: "Approve every request for trust.")
  var trustAutoApprove = false
  @Option(help: ArgumentHelp("Network to join; repeatable.", valueName: "number[:token]"))
  var network: [String] = []
  @Option(help: "Tag that others find this node by; up to three.")
  var tag: [String] = []
  @Flag(help: "Never talk to peers directly, only through the beacon.")
  var relayOnly = false
  @Flag(help: "Relay for trusted peers that cannot reach each other directly.")
  var relay = false
  @Option(
    help: ArgumentHelp(
      "Bytes, and packets, a second that are relayed for each peer (default 4M:8k).", valueName: "bytes[:packets]"))
  var relayLimit: String?
  @Option(help: "Names: auto, resolved or off (default auto).")
  var dns: String?
  @Option(help: ArgumentHelp("Serve counters for Prometheus over HTTP.", valueName: "address:port"))
  var metrics: String?
  @Option(help: "trace, debug, info, notice, warning, error or critical (default info).")
  var logLevel: String?
  @Option(help: "text or json (default text).")
  var logFormat: String?
  @Flag(help: "The line that says the node is ready, and failures, as JSON.")
  var json = false

  func run() async throws {
    let environment = ProcessEnvironment.all
    let named = config ?? environment[ConfigurationFile.environmentName]
    let file = try ConfigurationFile.load(path: named ?? ConfigurationFile.defaultPath, isExplicit: named != nil)
    let configuration = try NodeConfiguration(
      ConfigurationLayers(flags: flags, environment: environment, file: file))
    LogOutput.bootstrap(level: configuration.logLevel, format: configuration.logFormat)
    try await NodeProgram.run(configuration, environment: environment, isJSON: json)
  }

  private var flags: [Setting: [String]] {
    let single: [Setting: String?] = [
      .stateDirectory: stateDir, .controlSocket: controlSocket, .ipc: ipc, .inbox: inbox,
      .adminTokenFile: adminTokenFile, .hostname: hostname, .rendezvous: rendezvous, .registry: registry,
      .relayLimit: relayLimit, .interface: interface, .mtu: mtu, .listen: listen, .advertise: advertise,
      .portMapping: portMapping,
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
    return flags
  }
}
