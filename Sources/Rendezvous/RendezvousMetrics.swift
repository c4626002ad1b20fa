// The metrics of the rendezvous: names and meanings, and their values now. The one source of /metrics and of the table
// in docs/metrics.md. Numbers only: no ids, names or addresses.

package import Telemetry

package enum RendezvousMetrics {
  static let buildInfo = MetricDeclaration(
    "pilot_rendezvous_build_info", .gauge, ["version"], help: "Always 1; the version that runs.")
  static let nodesLive = gauge("nodes_live", "Nodes with a heartbeat of late.")
  static let nodesKnown = gauge("nodes_known", "Nodes that have an id.")
  static let connections = gauge("connections", "Connections to the registry and the status page.")
  static let bindings = gauge("beacon_bindings", "Nodes whose endpoint the beacon knows.")
  static let uptime = gauge("uptime_seconds", "Since the server started.")

  static let logLost = MetricDeclaration(
    "pilot_rendezvous_log_lines_lost", .counter, help: "Lines that neither journald nor stderr took.")

  package static let declarations: [MetricDeclaration] =
    [buildInfo, nodesLive, nodesKnown, connections, bindings, uptime, logLost] + Counter.allCases.map(counter)

  static func counter(_ counter: Counter) -> MetricDeclaration {
    // The raw values carry the suffix that the declaration adds.
    MetricDeclaration("pilot_rendezvous_" + counter.rawValue.dropLast("_total".count), .counter, help: counter.meaning)
  }

  private static func gauge(_ name: String, _ help: String) -> MetricDeclaration {
    MetricDeclaration("pilot_rendezvous_" + name, .gauge, help: help)
  }
}

extension RegistryService {
  var metrics: [MetricFamily] {
    func family(_ declaration: MetricDeclaration, _ value: some BinaryInteger) -> MetricFamily {
      MetricFamily(declaration, [([], Double(value))])
    }
    let nodes = liveNodes
    return [
      MetricFamily(RendezvousMetrics.buildInfo, [([RendezvousServer.version], 1)]),
      family(RendezvousMetrics.nodesLive, nodes.live), family(RendezvousMetrics.nodesKnown, nodes.known),
      family(RendezvousMetrics.connections, admission.connections),
      family(RendezvousMetrics.bindings, table.count(now: now)),
      family(RendezvousMetrics.uptime, (now - startedAt) / 1000),
      family(RendezvousMetrics.logLost, LogOutput.lostCount),
    ] + counters.snapshot.map { family(RendezvousMetrics.counter($0), $1) }
  }
}

extension Counter {
  /// For docs/metrics.md and the page.
  var meaning: String {
    switch self {
    case .connectionsAccepted: "Connections taken."
    case .connectionsRefused: "Connections refused: too many of all or of one source."
    case .framesMalformed: "Frames that are none, or none of this protocol."
    case .framesUnfinished: "Frames that did not end in time."
    case .clientsNotReading: "Clients cut off because they read nothing."
    case .requests: "Requests."
    case .requestsRefused: "Requests that were answered with an error."
    case .requestsUnknown: "Requests of a kind that is not known."
    case .requestsLimited: "Requests beyond the rate of their source."
    case .signaturesBad: "Signatures that do not fit."
    case .signaturesStale:
      "Good signatures, on connections without proof, of nodes that prove their key on each connection: recordings."
    case .registrations: "Registrations."
    case .registrationsNew: "Registrations of keys never seen before."
    case .registrationsDelayed: "Registrations of new keys that had to wait."
    case .heartbeats: "Heartbeats."
    case .commits: "Changes written to the database."
    case .commitsFailed: "Changes that could not be written."
    case .datagramsLimited: "Datagrams beyond the rate of their source or node."
    case .datagramsMalformed: "Datagrams that are no message of the beacon."
    case .discovers: "Discovers answered."
    case .discoversUnbound: "Discovers of nodes that are not registered, answered without being remembered."
    case .discoversSpoofed: "Discovers in the name of a node that is elsewhere."
    case .checks: "Checks of NATs answered."
    case .punches: "Commands to two nodes to open the way to each other."
    case .punchesRefused: "Punches asked for that were not carried out."
    case .relayed: "Datagrams relayed: taken by the kernel, or by the connection of a node without UDP."
    case .relayedBytes: "Bytes relayed."
    case .relayUnknownTarget: "Datagrams to relay to a node whose endpoint is not known."
    case .relaySpoofed: "Datagrams to relay in the name of a node that is elsewhere."
    case .relayNotWritten: "Datagrams to relay that the kernel did not take."
    case .compatAccepted: "Connections of nodes without UDP, by WebSocket."
    case .compatRefused: "Such connections that did not prove in time which node they are."
    case .compatNotWritten:
      "Datagrams for nodes on a WebSocket that do not read fast enough, or whose connection ended first."
    case .compatMalformed: "Connections of nodes without UDP ended for a message that breaks the rules of WebSockets."
    case .compatLost: "Such connections that broke: reset, timed out, or cut without a close."
    case .compatSilent: "Such connections ended because nothing came for 90 s."
    case .compatReplaced: "Such connections ended by another one of the same node."
    case .compatRevoked: "Such connections ended because the node deregistered or has another key by now."
    case .notifications: "Messages that tell a node of requests for trust."
    }
  }
}
