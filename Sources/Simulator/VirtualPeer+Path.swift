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
    walk(
      .record(
        endpoint: record?.endpoints.first, lan: Array(record?.endpoints.dropFirst() ?? []),
        isRelayOnly: record?.isRelayOnly ?? false))
  }

  func walk(_ event: PathMachine.Event) {
    for action in path.handle(event, now: node.now) {
      switch action {
      case .setPath(let path):
        node.network.log("\(node.id) path \(path)")
        note(.path(path), nil)
        paths.append(path)
        pathChanges.append((node.network.now, path))
        flush()
      case .probe(let endpoint): sendControl(InnerKind.probeBytes, directlyTo: endpoint)
      case .requestPunch: requestPunch()
      case .suspectSession:
        note(.suspects, nil)
        suspicions.append(node.network.now)
        session?.failing()
      }
    }
    arm()
  }

  /// The handshake was tried that often in a row.
  func tried(_ number: Int) { walk(.handshakeTry(number)) }

  /// A genuine answer of the peer's handshake came directly, or through the relay (nil).
  func heard(_ from: Endpoint?) {
    if let from { node.contacts.prove(from) }
    walk(.handshakeHeard(from))
  }

  /// What an opened frame says of the path.
  func follow(_ inner: [UInt8], _ arrival: Arrival, isNewest: Bool) {
    switch arrival {
    case .direct(let from):
      if isNewest, path.path != .direct(from) { walk(.moved(from)) }
      if inner == InnerKind.probeBytes { sendControl(InnerKind.probeAnswerBytes, directlyTo: from) }
      if inner == InnerKind.probeAnswerBytes { walk(.probeAnswered(from)) }
    case .relayed:
      if case .direct = path.path { walk(.relayedFrame) }
      if inner == InnerKind.probeBytes { sendControl(InnerKind.probeAnswerBytes) }
    }
  }

  func sendProbeOnPath() { sendControl(InnerKind.probeBytes) }

  func refused(to endpoint: Endpoint, mtu: Int?) { if mtu == nil { walk(.sendFailed(endpoint)) } }

  /// Addresses of this node changed, or it slept: a frame from the new place moves us in the peer's table.
  func networkChanged() { if session?.isReady == true { sendProbeOnPath() } }

  func requestPunch() {
    guard let beacon = node.beacon, record?.isRelayOnly != true else { return }
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
    node.send(payload, to: endpoint, about: id)
  }

  func sendRelayed(_ payload: VirtualPayload) {
    guard let beacon = node.beacon else { return note(.unsent, nil) }
    note(.sent(isRelayed: true), nil)
    node.send(.relay(source: node.id, destination: id, payload), to: beacon, about: id)
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
