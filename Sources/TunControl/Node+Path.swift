// Carries out what the path machines want: the worker's path, probes, punches; and sends handshake frames along it.

import Directory
import Engine
import Gateway
import Logging
import Session
import Traversal
import Wire

extension Node {
  /// Gives the peer's path machine an event and carries its actions out.
  func walk(_ peer: PeerState, _ event: PathMachine.Event) {
    let statistics = engine.statistics(of: peer.index)
    let activity = PathActivity(
      sentAt: max(statistics.lastSend, peer.leanedOnAt), receivedAt: statistics.lastReceive,
      onPathAt: statistics.lastOnPath)
    for action in peer.path.handle(event, activity: activity, now: Clock.now()) {
      switch action {
      case .setPath: publishPath(of: peer)
      case .probe(let id, .direct(let endpoint), let size):
        tally("probes-direct")
        probe(peer, id, path: .direct(endpoint), size: size)
      case .probe(let id, _, let size):
        guard let relay = relayEndpoint(to: peer) else { break }
        tally("probes-relayed")
        probe(peer, id, path: .relay(beacon: relay), size: size)
      case .setPathLimit(let limit):
        tell(.setPathLimit(peer.index, limit))
        gateway.submit(.setPathLimit(node: peer.node, limit))
      case .callPeer:
        punch(peer)
        // Again: what was told with the session may have been lost.
        tellTranslation(to: peer)
        tellCandidates(to: peer)
      case .renewRelay:
        if transport.carrier == .tls { discover() } else { steerBeacons(.doubted) }
        // Relays are measured by sealed pings; handshakes go through all of them.
        if peer.handshake.currentSession != nil { choose(peer, .doubted) }
      case .openPorts(let target): openPorts(peer, towards: target)
      case .count(let outcome): tally(outcome.rawValue)
      case .suspectSession: feed(peer, .failing)
      }
    }
    rearm(peer)
  }

  /// Tells the worker when the path, or the relay behind it, changed.
  func publishPath(of peer: PeerState) {
    publishFallback(of: peer)
    let path: EnginePath
    switch peer.path.path {
    case .none: path = .none
    case .direct(let endpoint): path = .direct(endpoint)
    case .relay: path = relayEndpoint(to: peer).map { .relay(beacon: $0) } ?? .none
    }
    guard path != peer.enginePath else { return }
    defer { if peer.offersRelay { refreshRelayNodes() } }
    account(peer)
    let before = peer.enginePath
    peer.enginePath = path
    tell(.setPath(peer.index, path))
    releasePort(of: peer, before: before)
    tally("path-changes")
    let word = peer.path.path == .relay ? relayWord(of: peer) : "\(peer.path.path)"
    logger.info(
      "path",
      metadata: ["peer": "\(peer.address)", "path": "\(word)", "cause": "\(peer.path.reason.rawValue)"])
    if case .direct(let endpoint) = path {
      // What worked is where the next start tries first.
      if peer.handshake.isConfirmed { store.noteEndpoint(endpoint, of: peer.node) }
      if !isNear(endpoint.address) { steer(.peerReached) }
    }
  }

  /// Tells the worker which relay frames of a direct path may take as well.
  func publishFallback(of peer: PeerState) {
    let relay = configuration.isRelayOnly || peer.record.isRelayOnly ? nil : relayEndpoint(to: peer)
    guard relay != peer.engineFallback else { return }
    peer.engineFallback = relay
    tell(.setFallback(peer.index, relay))
  }

  // MARK: Candidates

  /// What the directory, or the last run, says of the peer's endpoints.
  func offerEndpoints(to peer: PeerState) {
    walk(peer, .beacon(isAvailable: relayEndpoint(to: peer) != nil))
    walk(peer, .ownNetwork(ownNetwork, mayOpenPorts: mayOpenPorts))
    var known: [PathMachine.Known] = []
    for (position, endpoint) in peer.record.endpoints.enumerated() {
      // The registry's own word comes first; the rest are addresses of the peer's interfaces.
      if position == 0 {
        known.append(.init(endpoint, .directory))
      } else if isWorthTrying(endpoint, of: peer) {
        known.append(.init(endpoint, isNear(endpoint.address) ? .lan : .told))
      }
    }
    for endpoint in store.lastEndpoints(of: peer.node) where !peer.record.endpoints.contains(endpoint) {
      known.append(.init(endpoint, .remembered))
    }
    walk(peer, .record(known, isRelayOnly: peer.record.isRelayOnly || configuration.isRelayOnly))
  }

  /// Tells a peer of our own kind where this node may be reached, which also has it try its ways to us.
  func tellCandidates(to peer: PeerState) {
    guard peer.handshake.isAnnouncing, peer.handshake.currentSession != nil, !configuration.isRelayOnly else { return }
    let port = engine.localEndpoint.port
    let advertised = configuration.advertise.flatMap { Endpoint($0.description) }
    var endpoints = ([advertised] + mappedEndpoints + [observed]).compactMap { $0 }
    for address in lanAddresses { endpoints.append(Endpoint(address: address, port: port)) }
    var distinct: [Endpoint] = []
    for endpoint in endpoints where !distinct.contains(endpoint) { distinct.append(endpoint) }
    let message = TunnelControl.candidates(distinct).encoded()
    sendControl(message, to: peer)
    // The path may be what is being left.
    let isQuiet = Clock.now() > engine.statistics(of: peer.index).lastOnPath + 1_000_000_000
    if case .direct = peer.enginePath, let relay = relayEndpoint(to: peer),
      isQuiet || Clock.now() < networkChangedAt + 3_000_000_000
    {
      sendControl(message, to: peer, path: .relay(beacon: relay))
    }
  }

  /// Packets were sent lately.
  func isUsed(_ peer: PeerState) -> Bool { Clock.now() < peer.lastUse + Keepalive.useLasts }

  /// Private addresses mean something on the peer's own networks only: on one that we are on, too, or behind the same
  /// NAT. Others are tried when this machine has an address of their family.
  func isWorthTrying(_ endpoint: Endpoint, of peer: PeerState) -> Bool {
    let address = endpoint.address
    let hasFamily = lanAddresses.contains { ($0.mappedIPv4 == nil) == (address.mappedIPv4 == nil) }
    guard hasFamily else { return false }
    if isNear(address) || !address.isPrivate { return true }
    return observed.map { own in peer.record.endpoints.first?.address == own.address } ?? false
  }

  // MARK: Handshake frames

  func send(_ frame: [UInt8], _ route: HandshakeMachine.Route, to peer: PeerState) {
    switch route {
    case .reply(.direct(let endpoint)): tell(.sendDatagram(frame, to: endpoint))
    case .relay, .reply(.relayed): relay(frame, to: peer.node, after: peer)
    case .path:
      switch peer.path.path {
      case .direct(let endpoint): tell(.sendDatagram(frame, to: endpoint))
      case .relay: relay(frame, to: peer.node, after: peer)
      case .none: send(frame, .both, to: peer)
      }
    case .both:
      for endpoint in directTargets(of: peer) { tell(.sendDatagram(frame, to: endpoint)) }
      relay(frame, to: peer.node, after: peer)
    }
  }

  /// The present or likeliest endpoint, and those on a network that we are on, too. Three at most: peers take five
  /// key exchanges a second from one source (wire/tunnel §3.5).
  private func directTargets(of peer: PeerState) -> [Endpoint] {
    guard !configuration.isRelayOnly, !peer.record.isRelayOnly else { return [] }
    var targets: [Endpoint] = []
    if case .direct(let endpoint) = peer.path.path { targets.append(endpoint) }
    let known = peer.record.endpoints + store.lastEndpoints(of: peer.node)
    if targets.isEmpty, let first = known.first { targets.append(first) }
    for endpoint in known where !targets.contains(endpoint) && targets.count < 3 && isNear(endpoint.address) {
      targets.append(endpoint)
    }
    return targets
  }

  /// In the same /24 or /64 as one of our own addresses.
  func isNear(_ address: IPv6Address) -> Bool {
    lanAddresses.contains { own in
      if let a = own.mappedIPv4, let b = address.mappedIPv4 { return a >> 8 == b >> 8 }
      return own.mappedIPv4 == nil && address.mappedIPv4 == nil && own.high == address.high
    }
  }
}
