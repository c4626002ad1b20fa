// The port that the router opens for us, and the hole in its firewall for IPv6 (Sources/PortMapping): sockets, time and
// UPnP for the machines, and what becomes of their mappings: candidates, lines of `status`.

import Directory
import Engine
import JSON
import Logging
import PortMapping
import Session
import Shim
import Wire

/// The machine of one family, the socket of its present network and what that brings.
struct MappingSeat {
  var mapper: PortMapper
  var socket: MappingSocket?
  var events: Task<Void, Never>?
}

extension Node {
  /// Nobody shall reach us directly with `relay-only`.
  private var wantsPortMapping: Bool { configuration.portMapping == .auto && !configuration.isRelayOnly }

  /// Where our port could be mapped: the gateway, if the way there begins where our socket is.
  func mappingNetwork(_ family: MappingFamily) -> MappingNetwork? {
    let bound = configuration.listen.address
    let isAny = bound == IPv6Address(high: 0, low: 0) || family == .ipv4 && bound.mappedIPv4 == 0
    guard let network = DefaultGateway.network(family, except: configuration.interface),
      isAny || bound == network.local
    else { return nil }
    return network
  }

  /// At the start, and when addresses of this machine changed.
  func findMappingServers() async {
    for family in MappingFamily.allCases { await findMappingServer(family) }
  }

  private func findMappingServer(_ family: MappingFamily) async {
    guard wantsPortMapping, !isStopping else { return }
    let network = mappingNetwork(family)
    if mappingSeats[family] == nil {
      let identity = store.identity
      mappingSeats[family] = MappingSeat(
        mapper: PortMapper(internalPort: engine.localEndpoint.port, family: family) { Self.nonce(identity, $0) })
    }
    guard network != mappingSeats[family]?.socket?.network else { return drive(.network(network), family) }
    await leaveMappingServer(family)
    guard let network, !isStopping else { return drive(.network(nil), family) }
    let (events, continuation) = AsyncStream<PortMapperEvent>.makeStream(bufferingPolicy: .bufferingNewest(16))
    do {
      let socket = try await MappingSocket.open(network, group) { continuation.yield($0) }
      // Another change, or the end, came in between: whose network is the newer one is seen anew.
      guard mappingSeats[family]?.socket == nil, !isStopping else {
        await socket.close()
        return await findMappingServer(family)
      }
      mappingSeats[family]?.socket = socket
      mappingSeats[family]?.events = Task { for await event in events { drive(event, family) } }
      drive(.network(network), family)
    } catch {
      logOnce("port mapping \(error)", level: .debug, "no socket for port mappings: \(error)")
      drive(.network(nil), family)
    }
  }

  /// From a signature, which only this node can make and makes again after a restart (RFC 8032 §5.1.6).
  static func nonce(_ identity: Identity, _ network: MappingNetwork) -> PCPNonce {
    let text = "pilot-tun port mapping of \(network.local) at \(network.server)"
    let start = identity.sign(Array(text.utf8)).bytes.withUnsafeBytes { IPv6Address($0.baseAddress!, at: 0) }
    return PCPNonce(high: start.high, low: UInt32(truncatingIfNeeded: start.low))
  }

  /// Gives the mappings back, at the end of the node. IPv4 last: UPnP takes seconds.
  func leaveMappingServers() async {
    for family in MappingFamily.allCases.reversed() { await leaveMappingServer(family) }
  }

  /// Gives the mapping back. Also before another network is asked.
  private func leaveMappingServer(_ family: MappingFamily) async {
    let isRouterOwed = mappingSeats[family]?.mapper.mapping?.service == .upnp
    drive(.leave, family)
    let socket = mappingSeats[family]?.socket
    mappingSeats[family]?.socket = nil
    mappingSeats[family]?.events?.cancel()
    mappingSeats[family]?.events = nil
    await socket?.close()
    if isRouterOwed, isStopping { await mappingCall?.value }
  }

  /// The machines may have something to do; also called with each survey, for their clock goes on while the machine
  /// sleeps.
  func armPortMapping() {
    let now = pt_boottime()
    let due = mappingSeats.values.compactMap(\.mapper.nextDeadline).min()
    nextMapping = due.map { Clock.now() + ($0 - min($0, now)) } ?? .max
    arm()
  }

  func drive(_ event: PortMapperEvent, _ family: MappingFamily) {
    guard var mapper = mappingSeats[family]?.mapper else { return }
    let before = mapper.mapping
    let actions = mapper.handle(event, now: pt_boottime(), entropy: entropy.next())
    mappingSeats[family]?.mapper = mapper
    for action in actions {
      switch action {
      case .send(let bytes): mappingSeats[family]?.socket?.send(bytes)
      case .upnp(let request): callRouter(request)
      case .changed: mappingChanged(family, from: before)
      }
    }
    armPortMapping()
  }

  private func callRouter(_ request: UPnPRequest) {
    guard let network = mappingSeats[.ipv4]?.socket?.network else { return }
    mappingCall = Task { [previous = mappingCall] in
      await previous?.value
      let answer = await RouterMapping.map(request, at: network)
      if case .map = request, network == mappingSeats[.ipv4]?.socket?.network { drive(.upnp(answer), .ipv4) }
    }
  }

  private func mappingChanged(_ family: MappingFamily, from before: PortMapping?) {
    let mapper = mappingSeats[family]?.mapper
    if let mapping = mapper?.mapping {
      tally("port-mappings")
      logger.info(
        "port mapped",
        metadata: ["external": "\(mapping.external)", "by": "\(mapping.service.rawValue)"])
    } else if let before {
      logger.info("port mapping ended", metadata: ["external": "\(before.external)"])
    } else if let problem = mapper?.problem {
      logOnce("port mapping \(problem)", level: .debug, "no port mapping: \(TextForms.plain(problem.description))")
    }
    guard !isStopping, mapper?.mapping != before else { return }
    announce()
    for peer in peers.values { tellCandidates(to: peer) }
  }

  // MARK: What others see of it

  /// Where routers let everybody reach us, by IPv4 first.
  var mappedEndpoints: [Endpoint] { MappingFamily.allCases.compactMap { mappingSeats[$0]?.mapper.mapping?.external } }

  /// Good enough to be the first that others try: at the address that the beacon sees, or at one of the open Internet.
  var leadingMappedEndpoint: Endpoint? {
    mappedEndpoints.first { mapped in observed.map { $0.address == mapped.address } ?? !mapped.address.isPrivate }
  }

  /// For `explain`: what lets peers in here, whatever filters in front.
  func openingLines() -> [String] {
    mappingSeats.values.compactMap(\.mapper.mapping).map {
      "the router lets everybody in at \($0.external) by \($0.service.rawValue)"
    }.sorted()
  }

  func portMappingStatus(_ family: MappingFamily) -> JSONValue {
    let mapper = mappingSeats[family]?.mapper
    guard wantsPortMapping else {
      let reason = configuration.isRelayOnly ? "relay-only" : "port-mapping = off"
      return [
        "state": "off", "protocol": nil, "external": nil, "lifetime_seconds": nil, "reason": .text(reason),
      ]
    }
    guard let mapping = mapper?.mapping else {
      let isSearching = mapper.map { $0.isSearching || $0.problem == nil } ?? true
      return [
        "state": isSearching ? "searching" : "none", "protocol": nil, "external": nil, "lifetime_seconds": nil,
        "reason": JSONValue(isSearching ? nil : mapper?.problem?.description),
      ]
    }
    return [
      "state": "mapped", "protocol": .text(mapping.service.rawValue), "external": .text(mapping.external.description),
      "lifetime_seconds": JSONValue(mapping.lifetime), "reason": nil,
    ]
  }
}
