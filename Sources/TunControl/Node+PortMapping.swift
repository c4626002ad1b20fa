// The port that the router opens for us (Sources/PortMapping): sockets, time and UPnP for the machine, and what becomes
// of its mapping: one of our candidates, a line of `status`.

import Engine
import JSON
import Logging
import PortMapping
import Shim
import Wire

extension Node {
  /// Nobody shall reach us directly with `relay-only`.
  private var wantsPortMapping: Bool { configuration.portMapping == .auto && !configuration.isRelayOnly }

  /// Where our port could be mapped: the gateway, if the way there begins where our socket is.
  var mappingNetwork: MappingNetwork? {
    let bound = configuration.listen.address
    guard let network = DefaultGateway.network(except: configuration.interface),
      bound == IPv6Address(high: 0, low: 0) || bound.mappedIPv4 == 0 || bound == network.local
    else { return nil }
    return network
  }

  /// At the start, and when addresses of this machine changed.
  func findMappingServer() async {
    guard wantsPortMapping, !isStopping else { return }
    let network = mappingNetwork
    if portMapper == nil { portMapper = PortMapper(internalPort: engine.localEndpoint.port, entropy: entropy.next()) }
    guard network != mappingSocket?.network else { return drive(.network(network)) }
    await leaveMappingServer()
    guard let network, !isStopping else { return drive(.network(nil)) }
    let (events, continuation) = AsyncStream<PortMapperEvent>.makeStream(bufferingPolicy: .bufferingNewest(16))
    do {
      let socket = try await MappingSocket.open(network, group) { continuation.yield($0) }
      // Another change, or the end, came in between.
      guard mappingSocket == nil, !isStopping else { return await socket.close() }
      mappingSocket = socket
      mappingEvents = Task { for await event in events { drive(event) } }
      drive(.network(network))
    } catch {
      logOnce("port mapping \(error)", level: .debug, "no socket for port mappings: \(error)")
      drive(.network(nil))
    }
  }

  /// Gives the mapping back. At the end of the node, and before another network is asked.
  func leaveMappingServer() async {
    let isRouterOwed = portMapper?.mapping?.service == .upnp
    drive(.leave)
    let socket = mappingSocket
    mappingSocket = nil
    mappingEvents?.cancel()
    mappingEvents = nil
    await socket?.close()
    if isRouterOwed, isStopping { await mappingCall?.value }
  }

  /// The machine may have something to do; also called with each survey, for its clock goes on while the machine sleeps.
  func armPortMapping() {
    let now = pt_boottime()
    nextMapping = portMapper?.nextDeadline.map { Clock.now() + ($0 - min($0, now)) } ?? .max
    arm()
  }

  func drive(_ event: PortMapperEvent) {
    guard var mapper = portMapper else { return }
    let before = mapper.mapping
    let actions = mapper.handle(event, now: pt_boottime(), entropy: entropy.next())
    portMapper = mapper
    for action in actions {
      switch action {
      case .send(let bytes): mappingSocket?.send(bytes)
      case .upnp(let request): callRouter(request)
      case .changed: mappingChanged(from: before)
      }
    }
    armPortMapping()
  }

  private func callRouter(_ request: UPnPRequest) {
    guard let network = mappingSocket?.network else { return }
    mappingCall = Task { [previous = mappingCall] in
      await previous?.value
      let answer = await RouterMapping.map(request, at: network)
      if case .map = request, network == mappingSocket?.network { drive(.upnp(answer)) }
    }
  }

  private func mappingChanged(from before: PortMapping?) {
    if let mapping = portMapper?.mapping {
      tally("port-mappings")
      logger.info(
        "port mapped",
        metadata: ["external": "\(mapping.external)", "by": "\(mapping.service.rawValue)"])
    } else if let before {
      logger.info("port mapping ended", metadata: ["external": "\(before.external)"])
    } else if let problem = portMapper?.problem {
      logOnce("port mapping \(problem)", level: .debug, "no port mapping: \(TextForms.plain(problem.description))")
    }
    guard !isStopping, portMapper?.mapping != before else { return }
    announce()
    for peer in peers.values { tellCandidates(to: peer) }
  }

  // MARK: What others see of it

  /// Where the router lets everybody reach us.
  var mappedEndpoint: Endpoint? { portMapper?.mapping?.external }

  /// Good enough to be the first that others try: at the address that the beacon sees, or at one of the open Internet.
  var leadingMappedEndpoint: Endpoint? {
    guard let mapped = mappedEndpoint else { return nil }
    if let observed { return observed.address == mapped.address ? mapped : nil }
    return mapped.address.isPrivate ? nil : mapped
  }

  func portMappingStatus() -> JSONValue {
    guard wantsPortMapping else {
      let reason = configuration.isRelayOnly ? "relay-only" : "port-mapping = off"
      return [
        "state": "off", "protocol": nil, "external": nil, "lifetime_seconds": nil, "reason": .text(reason),
      ]
    }
    guard let mapping = portMapper?.mapping else {
      let isSearching = portMapper.map { $0.isSearching || $0.problem == nil } ?? true
      return [
        "state": isSearching ? "searching" : "none", "protocol": nil, "external": nil, "lifetime_seconds": nil,
        "reason": JSONValue(isSearching ? nil : portMapper?.problem?.description),
      ]
    }
    return [
      "state": "mapped", "protocol": .text(mapping.service.rawValue), "external": .text(mapping.external.description),
      "lifetime_seconds": JSONValue(mapping.lifetime), "reason": nil,
    ]
  }
}
