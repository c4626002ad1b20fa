// Everything `pilot-tun up` can be told, read from its sources, checked and complete. Made once at start; Node reads it.

package import Directory
package import Engine
package import JSON
package import Logging
import Settings
package import Telemetry
package import TLSTransport
package import Wire

/// A host (name or address) and a port, as the user wrote it. Resolved when it is dialled.
package struct HostPort: Hashable, Sendable, CustomStringConvertible {
  package var host: String
  package var port: UInt16

  package init(host: String, port: UInt16) {
    self.host = host
    self.port = port
  }

  package var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// Which local address and port the tunnel socket takes.
package struct ListenAddress: Equatable, Sendable {
  /// The unspecified address: all of them, IPv4 and IPv6.
  package var address: IPv6Address
  package var port: UInt16
  /// Not asked for by anyone: when the port is taken, any free one does.
  package var isDefault: Bool
}

package enum PortMappingMode: String, CaseIterable, Sendable {
  /// The router is asked by PCP, NAT-PMP or UPnP.
  case auto
  case off
}

package enum HardNATMode: String, CaseIterable, Sendable {
  /// Many ports are opened, or tried, for a pair that a punch cannot connect.
  case auto
  case off
}

package struct NodeConfiguration: Sendable {
  package var stateDirectory = "/var/lib/pilot-tun"
  package var controlSocket = "/run/pilot-tun/control.sock"
  /// Where official clients (pilotctl, SDK) are served; nil: nowhere.
  package var ipcSocket: String?
  /// Where messages and files for official clients are kept; nil: where their pilotctl looks, or the state directory.
  package var inbox: String?
  package var hasInbox: Bool { ipcSocket != nil && inbox != "off" }
  /// Holds the administrator's token of the registry; nil: there is none.
  package var adminTokenFile: String?
  package var hostname: String?
  /// nil: the node runs its own rendezvous.
  package var registry: HostPort?
  /// In the operator's order; the first is where nodes meet.
  package var beacons: [HostPort] = []
  package var beacon: HostPort? { beacons.first }
  package var interface = "pilot0"
  /// Octets of an inner packet.
  package var mtu = 1400
  package var listen = ListenAddress(address: IPv6Address(high: 0, low: 0), port: 4000, isDefault: true)
  package var advertise: HostPort?
  package var portMapping = PortMappingMode.auto
  package var hardNAT = HardNATMode.auto
  package var isPublic = false
  package var trustAutoApprove = false
  package var networks: [NetworkMembership] = []
  package var tags: [String] = []
  package var isRelayOnly = false
  /// Relays for trusted peers, within `relayLimit` for each.
  package var isRelay = false
  package var relayLimit = RelayLimit(bytes: 4_000_000, packets: 8000)
  package var transport = TransportMode.auto
  /// The rendezvous by TLS; nil: never.
  package var tls: TLSSettings?
  package var dns = DNSMode.auto
  /// Short names are completed with `.pilot`, by systemd-resolved.
  package var isDNSSearched = false
  /// Where metrics are served; nil: nowhere.
  package var metrics: Endpoint?
  package var logLevel = Logger.Level.info
  package var logFormat = LogFormat.auto
  /// What `config show --node` tells: each setting and where it came from, without secrets.
  package var report: JSONValue = [:]

  package static let registryPort: UInt16 = 9000
  package static let beaconPort: UInt16 = 9001
  package static let tlsPort: UInt16 = 443
  package static let mostBeacons = 8

  /// Whether the node brings its own rendezvous along.
  package var isRendezvousEmbedded: Bool { registry == nil }

  package init() {}

  /// Reads and checks all settings. The first wrong value is thrown, with the source it came from.
  package init(_ layers: ConfigurationLayers) throws(ControlError) {
    let reader = SettingReader(layers: layers)
    try reader.path(.stateDirectory, into: &stateDirectory)
    try reader.path(.controlSocket, into: &controlSocket)
    ipcSocket = try reader.path(.ipc)
    inbox = try reader.path(.inbox)
    adminTokenFile =
      try reader.path(.adminTokenFile) ?? Credentials(environment: layers.environment).path(of: "admin-token")
    hostname = try reader.hostname()
    try readRendezvous(reader)
    interface = try reader.interface() ?? interface
    mtu = try reader.number(.mtu) ?? mtu
    listen = try reader.listen() ?? listen
    advertise = try reader.hostPort(.advertise)
    portMapping = try reader.choice(.portMapping) ?? portMapping
    hardNAT = try reader.choice(.hardNAT) ?? hardNAT
    isPublic = try reader.flag(.isPublic)
    trustAutoApprove = try reader.flag(.trustAutoApprove)
    isRelayOnly = try reader.flag(.relayOnly)
    isRelay = try reader.flag(.relay)
    relayLimit = try reader.relayLimit() ?? relayLimit
    if isRelay, isRelayOnly {
      throw ControlError(
        "configuration_invalid", "relay and relay-only contradict each other",
        hint: "a relay is reached directly: leave one of them out", isUsage: true,
        subject: ControlError.Subject(setting: .relay, place: reader.layers.value(of: .relay)?.place))
    }
    transport = try reader.choice(.transport) ?? transport
    tls = try reader.tls(registry: registry, transport: transport)
    networks = try reader.networks()
    tags = try reader.tags()
    dns = try reader.dns() ?? dns
    isDNSSearched = try reader.flag(.dnsSearch)
    metrics = try reader.metrics()
    logLevel = try reader.logLevel() ?? logLevel
    logFormat = try reader.choice(.logFormat) ?? logFormat
  }

  /// The folder of the inbox. `home`: of the node's user, where the official pilotctl of that user looks.
  package func inboxPath(home: String?) -> String {
    if let inbox { return inbox }
    if let home, home.hasPrefix("/"), home != "/" { return home + "/.pilot" }
    return stateDirectory
  }

  private mutating func readRendezvous(_ reader: SettingReader) throws(ControlError) {
    if let both = try reader.hostPort(.rendezvous, defaultPort: Self.registryPort) {
      registry = both
      // The beacon's port follows the registry's, as `pilot-rendezvous` lays them out.
      beacons = [HostPort(host: both.host, port: both.port == Self.registryPort ? Self.beaconPort : both.port &+ 1)]
    }
    if let own = try reader.hostPort(.registry, defaultPort: Self.registryPort) { registry = own }
    let own = try reader.hostPorts(.beacon, defaultPort: Self.beaconPort, most: Self.mostBeacons)
    if !own.isEmpty { beacons = own }
    if let registry, beacons.isEmpty { beacons = [HostPort(host: registry.host, port: Self.beaconPort)] }
    if registry == nil, !beacons.isEmpty {
      throw ControlError(
        "configuration_invalid", "a beacon is set but no registry",
        hint: "set --registry HOST:PORT as well, or --rendezvous HOST for both", isUsage: true,
        subject: ControlError.Subject(setting: .beacon, place: reader.layers.value(of: .beacon)?.place))
    }
  }
}
