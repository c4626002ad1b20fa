// Where VirtualPeer meets the PathMachine: its events, its actions, and the way frames take by its word. The whole of
// what has to change when the machine's interface does.

import Session
import Traversal
import Wire

extension VirtualPeer {
  /// The directory's answer, first or anew.
  func offer(_ record: VirtualDirectory.Record?) {
    self.record = record
    walk(.beacon(isAvailable: node.beacon != nil))
    walk(.ownNetwork(node.ownNetwork, mayOpenPorts: node.habits.opensPorts))
    var known: [PathMachine.Known] = []
    for (position, endpoint) in (record?.endpoints ?? []).enumerated() {
      if position == 0 {
        known.append(.init(endpoint, .directory))
      } else if isWorthTrying(endpoint) {
        known.append(.init(endpoint, node.isNear(endpoint.address) ? .lan : .told))
      }
    }
    walk(.record(known, isRelayOnly: record?.isRelayOnly ?? false))
  }

  /// Private addresses mean something on networks that we are on, or behind the same NAT.
  private func isWorthTrying(_ endpoint: Endpoint) -> Bool {
    if node.isNear(endpoint.address) { return true }
    if let v4 = endpoint.address.mappedIPv4, v4 >> 24 == 10 || v4 >> 16 == 0xC0A8 || v4 >> 22 == 0x191 {
      return node.observed.map { $0.address == record?.endpoints.first?.address } ?? false
    }
    return true
  }

  /// Where this node may be reached; the peer tries its ways to us at once.
  func tellCandidates() {
    let own = [node.observed].compactMap { $0 } + node.host.endpoints
    let message = TunnelControl.candidates(own).encoded()
    sendControl(message)
    // The path may be what died.
    if case .direct = path.path, !isPathAlive { sendControl(message, by: .relay) }
  }

  private var isPathAlive: Bool { node.now < lastOnPath + 1_000_000_000 }

  func tellTranslation() { sendControl(TunnelControl.translation(node.translation.rawValue).encoded()) }

  func walk(_ event: PathMachine.Event) {
    let activity = PathActivity(sentAt: lastOffered, receivedAt: lastReceive, onPathAt: lastOnPath)
    for action in path.handle(event, activity: activity, now: node.now) {
      switch action {
      case .setPath(let path):
        node.network.log("\(node.id) path \(path)")
        note(.path(path), nil)
        paths.append(path)
        pathChanges.append((node.network.now, path))
        if let opening, opening.won != nil, path != .direct(opening.target) { closeOpening() }
        flush()
      case .probe(let id, let way, let size):
        let bytes = InnerKind.probeBytes(id, size: size)
        sendControl(bytes, padding: size - bytes.count, by: way)
      case .setPathLimit(let limit): pathLimit = limit
      case .callPeer:
        requestPunch()
        tellTranslation()
        tellCandidates()
      case .renewRelay:
        node.steer(.doubted)
        if session?.isReady == true { choose(.doubted) }
      case .openPorts(let target): openPorts(towards: target)
      case .count(let outcome): outcomes[outcome, default: 0] += 1
      case .suspectSession:
        note(.suspects, nil)
        suspicions.append(node.network.now)
        session?.failing()
      }
    }
    arm()
  }

  // MARK: Which relay

  /// Frames of programs go through the relay.
  var isRelayUsed: Bool {
    path.path == .relay && lastOffered != 0 && node.now < lastOffered + VirtualNode.useLasts
  }

  /// Where wrapped frames go.
  private var relayEndpoint: Endpoint? {
    if case .beacon(let endpoint)? = relays.present { return endpoint }
    return node.beacon
  }

  func choose(_ event: RelayChoice.Event) {
    for action in relays.handle(event, isUsed: isRelayUsed, now: node.now) {
      switch action {
      case .probe(.beacon(let endpoint)):
        let id = nextRelayProbe
        nextRelayProbe += 1
        relayProbes[id] = (.beacon(endpoint), node.now)
        let bytes = InnerKind.probeBytes(id, size: PathLimits.smallProbe)
        sendControl(bytes, padding: PathLimits.smallProbe - bytes.count, by: .relay, via: endpoint)
      case .probe(.node): break
      case .use: walk(.relayMoved)
      case .tell:
        sendControl(TunnelControl.relays([relays.present].compactMap { $0 }).encoded())
      }
    }
  }

  private func relayAnswered(_ id: UInt32) {
    guard let probe = relayProbes.removeValue(forKey: id) else { return }
    choose(.answered(probe.relay, roundTrip: node.now - probe.at))
  }

  // MARK: Events

  /// The handshake was tried that often in a row.
  func tried(_ number: Int) { walk(.handshakeTry(number)) }

  /// A genuine answer of the peer's handshake came directly, or through the relay (nil).
  func heard(_ from: Endpoint?) {
    if let from { node.contacts.prove(from) }
    // Who is answered ahead of the directory is reached through the relay at once.
    if record == nil { walk(.beacon(isAvailable: node.beacon != nil)) }
    walk(.handshakeHeard(from))
  }

  /// What an opened frame says of the path.
  func follow(_ inner: [UInt8], _ arrival: Arrival, isNewest: Bool) {
    let way: Path
    switch arrival {
    case .direct(let from):
      way = .direct(from)
      if isNewest, path.path != way { walk(.moved(from)) }
    case .relayed: way = .relay
    }
    let isSameRelay = way != .relay || node.cameBy == relayEndpoint
    if isNewest, path.path == way, isSameRelay { lastOnPath = node.now }
    let kind = InnerKind(inner)
    if way == .relay, kind == .probe || kind == .candidates { walk(.calledThroughRelay) }
    switch kind {
    case .probe:
      guard let probe = InnerKind.probe(inner) else { return }
      let answer = InnerKind.probeBytes(probe.id, size: probe.size, isAnswer: true)
      sendControl(answer, padding: probe.size - answer.count, by: way, via: node.cameBy)
    case .probeAnswer:
      guard let probe = InnerKind.probe(inner) else { return }
      if probe.id >= 0x8000_0000 { relayAnswered(probe.id) } else { walk(.probeAnswered(probe.id, by: way)) }
    case .candidates:
      if case .candidates(let endpoints) = TunnelControl(inner) { walk(.told(endpoints.filter(isWorthTrying))) }
    case .other:
      switch TunnelControl(inner) {
      case .translation(let how): walk(.peerTranslation(PortTranslation(rawValue: how) ?? .unknown))
      case .portsOpened(let ports): spray(ports)
      case .relays(let list): if let first = list.first { choose(.told(first)) }
      default: break
      }
    case .confirm, .data: break
    }
  }

  /// A keepalive; its answer is a sign of life on the path.
  func sendProbeOnPath() {
    let bytes = InnerKind.probeBytes(0, size: PathLimits.smallProbe)
    sendControl(bytes, padding: PathLimits.smallProbe - bytes.count)
  }

  func refused(to endpoint: Endpoint, mtu: Int?) {
    // No route, a closed port: the worker counts it, and silence tells the machine.
    guard let mtu else { return }
    // With IPv6, UDP and the sealed frame's own.
    let limit = mtu - (endpoint.isIPv4 ? 28 : 48) - SealedFrame.overhead
    walk(.tooBig(.direct(endpoint), size: limit + 1, limit: limit))
  }

  /// Addresses of this node changed, or it slept.
  func networkChanged() {
    guard session?.isReady == true else { return }
    walk(.networkChanged)
    tellCandidates()
  }

  func requestPunch() {
    guard let beacon = node.beaconChoice.meetingPoint, record?.isRelayOnly != true else { return }
    note(.punchRequest, nil)
    node.send(.beacon(.punchRequest(requester: node.id, target: id, grant: nil)), to: beacon, about: id)
  }

  // MARK: Sending

  func transmit(_ payload: VirtualPayload, _ route: HandshakeMachine.Route) {
    switch route {
    case .reply(.direct(let endpoint)): sendDirect(payload, to: endpoint)
    case .reply(.relayed), .relay: sendRelayed(payload)
    case .path where path.path != .none: transmitOnPath(payload)
    case .path, .both:
      for endpoint in directTargets { sendDirect(payload, to: endpoint) }
      sendRelayed(payload)
    }
  }

  func transmitOnPath(_ payload: VirtualPayload) {
    switch path.path {
    case .none: note(.unsent, nil)
    case .direct(let endpoint): sendDirect(payload, to: endpoint)
    case .relay: sendRelayed(payload)
    }
  }

  func sendDirect(_ payload: VirtualPayload, to endpoint: Endpoint) {
    note(.sent(isRelayed: false), endpoint)
    node.contacts.count(endpoint, at: node.network.now)
    let port = opening?.target == endpoint ? opening?.won : nil
    node.send(payload, to: endpoint, about: id, from: port)
  }

  func sendRelayed(_ payload: VirtualPayload, via: Endpoint? = nil) {
    var targets = [via ?? relayEndpoint].compactMap { $0 }
    // Handshakes go through all beacons until one carried something.
    if via == nil, session?.isReady != true { targets = node.beacons }
    guard !targets.isEmpty else { return note(.unsent, nil) }
    note(.sent(isRelayed: true), nil)
    for beacon in targets {
      node.send(.relay(source: node.id, destination: id, payload), to: beacon, about: id)
    }
  }

  /// The present or likeliest endpoint, and those on a network that we are on, too: three at most.
  private var directTargets: [Endpoint] {
    guard record?.isRelayOnly != true else { return [] }
    var targets: [Endpoint] = []
    if case .direct(let endpoint) = path.path { targets.append(endpoint) }
    let known = record?.endpoints ?? []
    if targets.isEmpty, let first = known.first { targets.append(first) }
    for endpoint in known where targets.count < 3 && !targets.contains(endpoint) && node.isNear(endpoint.address) {
      targets.append(endpoint)
    }
    return targets
  }

  // MARK: The directory

  func resolveIfNeeded() { if record == nil, !isResolving { resolve() } }

  func resolve() {
    guard lastResolveAt == 0 || node.now >= lastResolveAt + 1_000_000_000 else { return }
    lastResolveAt = node.now
    if let known = node.directoryRecord { return offer(known) }
    isResolving = true
    let directory = node.network.directory
    node.schedule(after: directory.latency) { [weak self] in
      guard let self else { return }
      isResolving = false
      if let found = directory.record(of: id) { offer(found) }
    }
  }
}
