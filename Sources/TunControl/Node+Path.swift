// Carries out what the path machines want: the worker's path, probes, punches; and sends handshake frames along it.

import Directory
import Engine
import Logging
import Session
import Traversal
import Wire

extension Node {
  /// Gives the peer's path machine an event and carries its actions out.
  func walk(_ peer: PeerState, _ event: PathMachine.Event) {
    for action in peer.path.handle(event, now: Clock.now()) {
      switch action {
      case .setPath: publishPath(of: peer)
      case .probe(let endpoint): probe(peer, path: .direct(endpoint))
      case .requestPunch: punch(peer)
      case .suspectSession: feed(peer, .failing)
      }
    }
    rearm(peer)
  }

  /// Tells the worker when the path, or the beacon behind it, changed.
  private func publishPath(of peer: PeerState) {
    let path: EnginePath
    switch peer.path.path {
    case .none: path = .none
    case .direct(let endpoint): path = .direct(endpoint)
    case .relay: path = beacon.map { .relay(beacon: $0) } ?? .none
    }
    guard path != peer.enginePath else { return }
    peer.enginePath = path
    tell(.setPath(peer.index, path))
    logger.debug("path of \(peer.address): \(peer.path.path), \(peer.path.reason.rawValue)")
    // What worked is where the next start tries first.
    if case .direct(let endpoint) = path, peer.handshake.isConfirmed {
      store.noteEndpoint(endpoint, of: peer.node)
    }
  }

  /// What the directory, or the last run, says of the peer's endpoints.
  func offerEndpoints(to peer: PeerState) {
    walk(peer, .beacon(isAvailable: beacon != nil))
    let last = store.lastEndpoints(of: peer.node).filter { !peer.record.endpoints.contains($0) }
    walk(
      peer,
      .record(
        endpoint: peer.record.endpoints.first ?? last.first,
        lan: Array(peer.record.endpoints.dropFirst()) + last,
        isRelayOnly: peer.record.isRelayOnly || configuration.isRelayOnly))
  }

  /// The beacon's endpoint changed or became known.
  func beaconMoved() {
    for peer in peers.values {
      walk(peer, .beacon(isAvailable: beacon != nil))
      publishPath(of: peer)
    }
  }

  // MARK: Handshake frames

  func send(_ frame: [UInt8], _ route: HandshakeMachine.Route, to peer: PeerState) {
    switch route {
    case .reply(.direct(let endpoint)): tell(.sendDatagram(frame, to: endpoint))
    case .relay, .reply(.relayed): relay(frame, to: peer.node)
    case .path:
      switch peer.path.path {
      case .direct(let endpoint): tell(.sendDatagram(frame, to: endpoint))
      case .relay: relay(frame, to: peer.node)
      case .none: send(frame, .both, to: peer)
      }
    case .both:
      for endpoint in directTargets(of: peer) { tell(.sendDatagram(frame, to: endpoint)) }
      relay(frame, to: peer.node)
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
  private func isNear(_ address: IPv6Address) -> Bool {
    lanAddresses.contains { own in
      if let a = own.mappedIPv4, let b = address.mappedIPv4 { return a >> 8 == b >> 8 }
      return own.mappedIPv4 == nil && address.mappedIPv4 == nil && own.high == address.high
    }
  }
}
