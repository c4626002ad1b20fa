// What PortMapper is told and what it wants. Driven by TunControl's Node+PortMapping.

package import Wire

package enum MappingProtocol: String, Sendable {
  case pcp = "PCP"
  case natPMP = "NAT-PMP"
  case upnp = "UPnP"
}

/// What is asked for: a port of the router's address, or a hole in its firewall for a port of our own address (RFC 6887
/// §11, a mapping of an address to itself, as far as no prefix is translated).
package enum MappingFamily: CaseIterable, Sendable {
  case ipv4
  case ipv6
}

/// What the router gave us.
package struct PortMapping: Equatable, Sendable {
  /// Where the outside world reaches our port.
  package var external: Endpoint
  package var service: MappingProtocol
  /// Seconds, as granted.
  package var lifetime: UInt32
}

/// The way out of this machine.
package struct MappingNetwork: Equatable, Sendable {
  /// The default gateway, with the port of its service.
  package var server: Endpoint
  /// Our own address towards it, which is what a mapping leads to.
  package var local: IPv6Address
  /// Of the interface towards a server whose address is link-local, else 0.
  package var scope: UInt32

  /// RFC 6887 §19.1, RFC 6886 §3.1.
  package static let port: UInt16 = 5351

  package init(server: Endpoint, local: IPv6Address, scope: UInt32 = 0) {
    self.server = server
    self.local = local
    self.scope = scope
  }
}

package enum PortMapperEvent: Sendable {
  /// The network is known, or is another one. nil: there is no default gateway.
  case network(MappingNetwork?)
  case received(from: Endpoint, [UInt8])
  /// The gateway has nobody at that port (ICMP).
  case refused
  case upnp(UPnPAnswer)
  case tick
  /// The node ends, or leaves this network.
  case leave
}

package enum PortMapperAction: Equatable, Sendable {
  /// To the server of the network.
  case send([UInt8])
  /// Takes seconds: answered by an event.
  case upnp(UPnPRequest)
  /// The mapping, or why there is none, is another one.
  case changed
}

package enum UPnPRequest: Equatable, Sendable {
  case map(internalPort: UInt16, externalPort: UInt16, client: IPv6Address, lifetime: UInt32)
  /// Not answered.
  case unmap(externalPort: UInt16)
}

package enum UPnPAnswer: Equatable, Sendable {
  case mapped(Endpoint)
  case failed(String)
}

/// Why there is no mapping.
package enum MappingProblem: Equatable, Sendable, CustomStringConvertible {
  case noGateway(MappingFamily)
  /// Nobody answered; with what UPnP said.
  case noService(String)
  /// The same by IPv6, where PCP is the only way.
  case noPCP
  case refused(MappingProtocol, String)
  /// Granted, but useless: no port, no address, or for a moment only.
  case useless(MappingProtocol, String)

  package var description: String {
    switch self {
    case .noGateway(let family):
      family == .ipv4
        ? "no default gateway for IPv4 at the address of the tunnel's socket"
        : "no default gateway for a global IPv6 address of the tunnel's socket"
    case .noService(let upnp): "no answer by PCP and NAT-PMP; UPnP: \(upnp)"
    case .noPCP: "no answer by PCP"
    case .refused(let service, let text): "\(service.rawValue) at the gateway: \(text)"
    case .useless(let service, let text): "\(service.rawValue) at the gateway: \(text)"
    }
  }
}
