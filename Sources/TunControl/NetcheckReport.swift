// What `pilot-tun netcheck` found out: as values for NetcheckMachine, as JSON for programs, as text for people.

package import JSON
package import PortMapping
package import Wire

package struct NetcheckReport: Equatable, Sendable {
  /// How a NAT maps or filters, as far as it could be told.
  package enum Behaviour: String, Sendable {
    case endpointIndependent = "endpoint-independent"
    case addressDependent = "address-dependent"
    case addressAndPortDependent = "address-and-port-dependent"
    /// There was only one address to ask.
    case notPortDependent = "not port-dependent"
    /// There was only one port at each address to ask.
    case dependent = "address- or port-dependent"
    case unknown
  }

  package struct Beacon: Equatable, Sendable {
    package var name: String
    package var endpoint: Endpoint
    package var hasRoute = true
    /// Nanoseconds, the shortest; nil: no answer.
    package var roundTrip: UInt64?
    /// The port that answers checks as well; 0: it serves none.
    package var otherPort: UInt16 = 0
    /// The largest IP packet that came there and back, of those tried.
    package var mtu: Int?

    package init(name: String, endpoint: Endpoint) {
      self.name = name
      self.endpoint = endpoint
    }

    var isReached: Bool { roundTrip != nil }
    var family: NetcheckMachine.Family { endpoint.isIPv4 ? .ipv4 : .ipv6 }
  }

  /// IPv4 or IPv6 as seen from outside.
  package struct Network: Equatable, Sendable {
    package var seen: Endpoint
    package var isTranslated: Bool
    package var mapping = Behaviour.unknown
    package var filtering = Behaviour.unknown
    /// nil without translation.
    package var hairpin: Bool?
  }

  /// What the default gateway answers; nil without one.
  package struct Router: Equatable, Sendable {
    package var gateway: IPv6Address
    package var services: Set<MappingProtocol> = []
  }

  /// The rendezvous by TLS; nil: not asked.
  package struct Secure: Equatable, Sendable {
    package var target: String
    /// Without credentials.
    package var proxy: String?
    /// Nanoseconds for connection, handshake and the first answer; nil: it was not reached.
    package var duration: UInt64?
    package var problem: ControlError?

    package init(target: String, proxy: String?) {
      self.target = target
      self.proxy = proxy
    }

    package var isReached: Bool { duration != nil }
  }

  package var router: Router?
  /// The gateway of IPv6, which is asked by PCP alone.
  package var firewall: Router?
  package var tls: Secure?
  package var beacons: [Beacon]
  package var networks: [NetcheckMachine.Family: Network] = [:]

  package var hasUDP: Bool { beacons.contains(where: \.isReached) }

  private var nearest: Beacon? { beacons.filter(\.isReached).min { $0.roundTrip ?? 0 < $1.roundTrip ?? 0 } }

  // MARK: Forms

  package var json: JSONValue {
    func network(_ family: NetcheckMachine.Family) -> JSONValue {
      guard let network = networks[family] else { return .null }
      return [
        "seen": .text(network.seen.description), "translated": JSONValue(network.isTranslated),
        "mapping": .text(network.mapping.rawValue), "filtering": .text(network.filtering.rawValue),
        "hairpin": network.hairpin.map { JSONValue($0) } ?? .null,
      ]
    }
    let list = beacons.map { beacon -> JSONValue in
      [
        "name": .text(beacon.name), "endpoint": .text(beacon.endpoint.description),
        "reached": JSONValue(beacon.isReached), "route": JSONValue(beacon.hasRoute),
        "rtt_ms": JSONValue(rounded: beacon.roundTrip.map { Double($0) / 1e6 }),
        "mtu": beacon.mtu.map { JSONValue($0) } ?? .null, "checks": JSONValue(beacon.otherPort != 0),
      ]
    }
    return [
      "udp": JSONValue(hasUDP), "ipv4": network(.ipv4), "ipv6": network(.ipv6), "beacons": .list(list),
      "nearest": JSONValue(nearest?.endpoint.description), "router": routerForm,
      "ipv6_router": firewallForm, "tls": secureForm,
    ]
  }

  private var secureForm: JSONValue {
    guard let tls else { return .null }
    let problem: JSONValue =
      tls.problem.map { ["code": .text($0.code), "message": .text($0.message), "hint": JSONValue($0.hint)] } ?? .null
    return [
      "target": .text(tls.target), "proxy": JSONValue(tls.proxy), "works": JSONValue(tls.isReached),
      "connect_ms": JSONValue(rounded: tls.duration.map { Double($0) / 1e6 }), "error": problem,
    ]
  }

  private var routerForm: JSONValue {
    guard let router else { return .null }
    return [
      "gateway": .text(router.gateway.description), "pcp": JSONValue(router.services.contains(.pcp)),
      "nat_pmp": JSONValue(router.services.contains(.natPMP)), "upnp": JSONValue(router.services.contains(.upnp)),
    ]
  }

  private var firewallForm: JSONValue {
    guard let firewall else { return .null }
    return [
      "gateway": .text(firewall.gateway.description), "pcp": JSONValue(firewall.services.contains(.pcp)),
    ]
  }

  /// From the JSON form, as all texts for people.
  package static func text(_ data: JSONValue) -> String {
    var rows = [["UDP", data.flag("udp") ? "works" : "no beacon answers"]]
    for (name, member) in [("IPv4", "ipv4"), ("IPv6", "ipv6")] {
      guard let network = data[member], network.object != nil else {
        rows.append([name, "no beacon reached"])
        continue
      }
      rows.append([name, "seen as \(network.string("seen"))" + (network.flag("translated") ? ", behind a NAT" : "")])
      if network.flag("translated") { rows.append(["", "mapping    " + network.string("mapping")]) }
      rows.append(["", "filtering  " + network.string("filtering")])
      if let hairpin = network["hairpin"], hairpin != .null {
        rows.append(["", "hairpin    " + (hairpin.isTrue ? "yes" : "no")])
      }
      rows.append(["", meaning(network)])
    }
    if let tls = data["tls"], tls.object != nil {
      let way = tls.string("target") + (tls.string("proxy").isEmpty ? "" : " through the proxy \(tls.string("proxy"))")
      let problem = TextForms.plain(tls["error"]?.string("message") ?? "")
      rows.append([
        "TLS",
        tls.flag("works")
          ? "works: \(way), \(TextForms.milliseconds(tls.double("connect_ms") ?? 0)) to connect"
            + (data.flag("udp") ? "" : "; a node uses it")
          : "does not: \(problem)",
      ])
    }
    if let router = data["router"], router.object != nil {
      let services = [("PCP", "pcp"), ("NAT-PMP", "nat_pmp"), ("UPnP", "upnp")].filter { router.flag($0.1) }.map(\.0)
      let text = services.isEmpty ? "opens no ports" : "opens ports by " + services.joined(separator: ", ")
      rows.append(["Router", "\(router.string("gateway")) \(text)"])
    }
    if let router = data["ipv6_router"], router.object != nil {
      let text = router.flag("pcp") ? "lets peers in by PCP" : "is not asked to let peers in: no PCP"
      rows.append(["IPv6 router", "\(router.string("gateway")) \(text)"])
    }
    var table = [["BEACON", "ENDPOINT", "ROUND TRIP", "MTU", ""]]
    for beacon in data.items("beacons") {
      let endpoint = beacon.string("endpoint")
      let note =
        !beacon.flag("route")
        ? "no route" : !beacon.flag("reached") ? "no answer" : endpoint == data.string("nearest") ? "nearest" : ""
      table.append([
        TextForms.plain(beacon.string("name")), endpoint,
        beacon.double("rtt_ms").map(TextForms.milliseconds) ?? "-",
        beacon["mtu"]?.integer.map { "\($0)" } ?? (beacon.flag("checks") ? "below 1280" : "-"), note,
      ])
    }
    return TextForms.table(rows) + "\n\n" + TextForms.table(table)
  }

  private static func meaning(_ network: JSONValue) -> String {
    let (mapping, filtering) = (network.string("mapping"), network.string("filtering"))
    let isOpen = filtering == Behaviour.endpointIndependent.rawValue
    if !network.flag("translated") {
      return isOpen ? "peers reach this machine directly" : "a firewall is in front: direct paths need a punch"
    }
    switch Behaviour(rawValue: mapping) {
    case .endpointIndependent?, .notPortDependent?:
      return isOpen ? "peers reach this machine directly" : "direct paths to most peers, after a punch"
    case .unknown?, nil: return "a second beacon, or one that serves checks, would tell what the NAT does"
    default: return "a symmetric NAT: direct paths to peers with an open NAT only, others through the relay"
    }
  }
}
