// The node's life: services started in order, the interface configured when the address is known, readiness, the end.

import Directory
import Engine
import Gateway
import LinkIO
import Logging
import Naming
import Rendezvous
import ServiceManager
import Telemetry
import Wire

extension Node {
  /// Runs until `stop()` or until the worker ends. Returns the reason when it was not asked to end.
  package func run() async -> String? {
    let pump: EventPump
    do {
      pump = try startThreads()
    } catch {
      failure = error
      return error.message
    }
    if configuration.isRelay { tell(.setRelayLimit(configuration.relayLimit)) }
    let streams = Task { for await event in gateway.events { handle(event) } }
    let events = Task {
      for await batch in pump.batches {
        handle(batch)
        pump.next()
      }
    }
    lanAddresses = LocalAddresses.list(except: configuration.interface)
    let isResumed = await resumeAddress()
    await findBeaconsSoon()
    if isResumed {
      resumePeers()
      resumeRelays()
    }
    await discoverBeforeRegistration()
    await directory.announce(announcement)
    await connectTrustMessages()
    Task { await findMappingServers() }
    let service = Task { await directory.run() }
    let news = Task { for await event in directory.events { await handle(event) } }
    watchLink()
    nextSurvey = Clock.now() + Self.surveyInterval
    nextDiscover = Clock.now() + discoverInterval
    arm()
    if isResumed, let node { hostTold = Task { await tellHost(node) } }

    var reason: String?
    for await stop in stops {
      reason = stop
      break
    }
    isStopping = true
    notifier.stopping()
    timer?.cancel()
    natSurvey?.cancel()
    keepRecentPeers()
    endWaiting()
    await hostNames.end()
    await stub?.stop()
    await leaveMappingServers()
    await tls.detour?.close()
    await stopGateway(streams)
    service.cancel()
    await service.value
    news.cancel()
    // The last of all: until here packets pass, and with a restart they wait from here on.
    tell(.stop)
    do {
      try await DedicatedThread.run("pilot-join") { [engine] in engine.join() }
    } catch {
      // Nothing else runs any more that this could hold up.
      engine.join()
    }
    _ = await events.value
    await rendezvous?.shutdown()
    return reason
  }

  /// The worker, who hands its events on, and the gateway. Errors: those of `Engine.start`, `thread_unavailable`; then
  /// none of them runs.
  private func startThreads() throws(ControlError) -> EventPump {
    do {
      try engine.start()
    } catch {
      throw ControlError(error)
    }
    do throws(ControlError) {
      let pump = try EventPump(engine)
      try startGateway()
      return pump
    } catch {
      inbox?.stop()
      tell(.stop)
      engine.join()
      throw error
    }
  }

  /// Ends `run`.
  package nonisolated func stop() { requestStop.yield(nil) }

  /// Returns when the node is ready, or when it ends before.
  package nonisolated func waitUntilReady() async {
    for await _ in readiness { return }
  }

  /// Where UDP is blocked, so is the resolver, often: a name may take long not to be found. One will do to begin with.
  private func findBeaconsSoon() async {
    guard configuration.tls != nil || configuration.beacons.count > 1 else { return await findBeacons() }
    Task { await findBeacons() }
    for _ in 0..<80 where udpBeacon == nil && beaconProblem == nil { try? await Task.sleep(for: .milliseconds(25)) }
  }

  /// Gives the beacon a moment, so that the first registration already carries the endpoint it sees.
  private func discoverBeforeRegistration() async {
    discover()
    guard udpBeacon != nil, transport.carrier == .udp else { return }
    for _ in 0..<20 where observed == nil { try? await Task.sleep(for: .milliseconds(25)) }
  }

  // MARK: The directory's news

  private func handle(_ event: DirectoryEvent) async {
    switch event {
    case .registered(let node, _, let networks): await settle(node: node, networks: networks)
    case .stateChanged(let state):
      directoryState = state
      await hostTold?.value
      becomeReady()
      tellStatus()
      if case .connected = state {
        discover()
        Task { await learnBeacons() }
      }
    case .trustEnding(let peer): await endAdmission(of: peer)
    case .trustRefused(let refusal): count(refusal.rawValue)
    case .trustChanged(let peer):
      let trust = await directory.trust(of: peer)
      if let state = peers[peer] {
        state.trust = trust
        applyPolicy(to: state)
      }
      if configuration.isRelay, trust == .trusted { want(PilotAddress(network: 0, node: peer)) }
      // What it may see of us, and we of it, changed with it.
      if trust.isAdmitted || peers[peer] != nil { refreshRecord(of: peer, fresh: true) }
    case .handshakeRequested(let peer, let justification):
      let address = PilotAddress(network: 0, node: peer)
      var fields: Logger.Metadata = ["cause": "trust-request", "peer": "\(address)"]
      if !justification.isEmpty { fields["reason"] = "\(TextForms.plain(justification))" }
      logger.notice("asks for trust: approve with `pilot-tun trust approve \(address)`", metadata: fields)
    case .peerRecordChanged(let record):
      guard peers[record.node] != nil else { return }
      let trust = await directory.trust(of: record.node)
      learn(record.node, .found(record), trust)
    }
  }

  /// Own id and networks are known, or changed: interface, worker, stub follow.
  /// - tellsHost: whether programs of this machine are pointed to the stub before the node is ready, which may take
  ///   seconds.
  func settle(node: UInt32, networks: [UInt16], tellsHost: Bool = true) async {
    if self.node != node {
      // Another id is another node: sessions are bound to the old one.
      for peer in peers.values { removePeer(peer) }
      self.node = node
      discover()
    }
    self.networks = networks
    var addresses = networks.map { OverlayMapping.address(for: PilotAddress(network: $0, node: node)) }
    tell(.setLocal(node: node, addresses: addresses))
    gateway.submit(.setLocal(networks.map { PilotAddress(network: $0, node: node) }))
    if stub != nil { addresses.append(OverlayMapping.resolver) }
    addresses.append(OverlayMapping.gateway)
    let hadAddresses = !self.addresses.isEmpty
    // An interface that was kept may have those of a run that was another node.
    let standing = hadAddresses ? self.addresses : LocalAddresses.overlay(on: engine.interfaceName)
    let gone = standing.filter { !addresses.contains($0) }
    self.addresses = addresses
    do {
      try configureLink(removing: gone)
    } catch {
      guard hadAddresses else {
        requestStop.yield("\(error.message)\(error.hint.map { " (\($0))" } ?? "")")
        return
      }
      logOnce("link \(error.message)", level: .error, "interface", fields: Logger.Metadata(describing: error))
    }
    for peer in peers.values { refreshRecord(of: peer.node) }
    steer(.registered)
    await startStub()
    if tellsHost {
      await hostTold?.value
      await tellHost(node)
    }
    becomeReady()
  }

  /// Brings MTU, addresses and route to what they should be; what stands already stays.
  func configureLink(removing gone: [IPv6Address] = []) throws(LinkError) {
    let settings = LinkSettings(
      name: engine.interfaceName, index: engine.interfaceIndex, mtu: UInt32(configuration.mtu), addresses: addresses,
      routePrefix: IPv6Address(high: OverlayMapping.prefix << 16, low: 0))
    let apply = { @Sendable () throws(LinkError) -> [LinkError] in
      let configurator = try LinkConfigurator()
      for address in gone { try configurator.remove(address, index: settings.index, name: settings.name) }
      return try configurator.configure(settings)
    }
    let found = if let namespace { try namespace.inside(apply) } else { try apply() }
    for warning in found {
      let text = "\(warning.message)\(warning.hint.map { " (\($0))" } ?? "")"
      if !warnings.contains(text) { warnings.append(text) }
      logOnce("link \(text)", text)
    }
  }

  private func startStub() async {
    guard let stub, !isStubRunning else { return }
    do {
      try await stub.start()
      isStubRunning = true
      stubProblem = nil
    } catch {
      stubProblem = ControlError(error)
      logOnce(
        "stub \(error.message)", "names do not resolve on this machine", fields: Logger.Metadata(describing: error))
    }
  }

  /// The address stands and the stub answers: programs of this machine can be sent there.
  private func tellHost(_ node: UInt32) async {
    guard isStubRunning, !isStopping else { return }
    let hostname = await directory.hostname
    let own = OverlayMapping.address(for: PilotAddress(network: 0, node: node))
    do {
      try await hostNames.begin(
        name: hostname.map { "\($0).pilot" } ?? NamingZone.serverName,
        address: hostname == nil ? OverlayMapping.resolver : own)
    } catch {
      guard !isStopping else { return }
      failure = error
      requestStop.yield(error.message)
    }
  }
}

extension DirectoryState {
  /// The word for `status`.
  var word: String {
    switch self {
    case .connecting: "connecting"
    case .connected: "registered"
    case .unreachable: "unreachable"
    }
  }
}
