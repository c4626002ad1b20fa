// What the worker reports, turned into events of the machines.

import Directory
import Engine
import Logging
import Session
import Traversal
import Wire

extension Node {
  func handle(_ events: [EngineEvent]) {
    for event in events { handle(event) }
  }

  private func peer(at index: PeerIndex) -> PeerState? { nodesByIndex[index].flatMap { peers[$0] } }

  private func handle(_ event: EngineEvent) {
    switch event {
    case .peerWanted(let address): want(address)
    case .sessionWanted(let index):
      if let peer = peer(at: index) { need(peer) }
    case .datagram(let bytes, let from, let relayedFrom): receive(bytes, from: from, relayedFrom: relayedFrom)
    case .undecryptable(let bytes, let from, let relayedFrom):
      guard bytes.count >= 8 else { return }
      meet(Self.sender(of: bytes), .undecryptable(bytes, Self.arrival(from, relayedFrom)))
    case .confirmed(let index, let session):
      guard let peer = peer(at: index) else { return }
      feed(peer, .confirmed(session))
      if case .direct(let endpoint) = peer.enginePath { store.noteEndpoint(endpoint, of: peer.node) }
      tellTranslation(to: peer)
      tellCandidates(to: peer)
      introduceRelays(to: peer)
    case .innerFrame(let index, let bytes, let from, let isRelayed):
      guard let peer = peer(at: index) else { return }
      peer.controlFramesReceived += 1
      if isRelayed { noteRelay(from, of: peer) }
      receiveInner(
        bytes, from: peer, by: isRelayed ? .relayed : .direct(from),
        back: isRelayed ? .relay(beacon: from) : .direct(from))
    case .moved(let index, let endpoint):
      if let peer = peer(at: index) { walk(peer, .moved(endpoint)) }
    case .resumed(let index):
      guard let peer = peer(at: index) else { return }
      walk(peer, .tick)
      choose(peer, .tick)
      if peer.relaysTold != relaysVersion { tellRelays(to: peer) }
    case .socketRefused(let index, let target): refusePort(of: index, to: target)
    case .failing(let index):
      if let peer = peer(at: index) { feed(peer, .failing) }
    case .tooBig(let index, let size, let limit, let path):
      guard let peer = peer(at: index) else { return }
      switch path {
      case .none: break
      case .direct(let endpoint): walk(peer, .tooBig(.direct(endpoint), size: size, limit: limit))
      case .relay: walk(peer, .tooBig(.relay, size: size, limit: limit))
      }
    case .offloadDisabled(let name, let reason):
      logOnce(
        "offload \(name)", "offload switched off", fields: ["offload": "\(name)", "reason": "\(reason)"])
    case .stopped(let reason):
      requestStop.yield(reason ?? (isStopping ? nil : "the worker ended"))
    }
  }

  private static func sender(of bytes: [UInt8]) -> UInt32 {
    bytes[4..<8].reduce(0) { $0 << 8 | UInt32($1) }
  }

  private static func arrival(_ from: Endpoint, _ relayedFrom: UInt32?) -> Arrival {
    relayedFrom == nil ? .direct(from) : .relayed
  }

  private func receive(_ bytes: [UInt8], from: Endpoint, relayedFrom: UInt32?) {
    guard let first = bytes.first else { return }
    if first < 0x10 {
      // The worker lets beacon codes through only from the beacon; wrapped ones mean nothing.
      guard relayedFrom == nil, let message = BeaconMessage(bytes) else { return count("beacon-malformed") }
      return receive(message, from: from)
    }
    if let relayedFrom, let peer = peers[relayedFrom] { noteRelay(from, of: peer) }
    let arrival = Self.arrival(from, relayedFrom)
    switch FrameKind(bytes) {
    case .pila:
      guard let frame = KeyExchangeFrame(bytes) else { return count("pila-malformed") }
      meet(frame.node, .keyExchange(frame, arrival))
    case .pilk:
      guard let frame = KeyRequestFrame(bytes) else { return count("pilk-malformed") }
      meet(frame.node, .keyRequest(frame, arrival))
    case .pilp: break
    default: count("frame-unexpected")
    }
  }

  // MARK: Inner frames

  /// `back`: the way that it came.
  private func receiveInner(_ bytes: [UInt8], from peer: PeerState, by arrival: Arrival, back: EnginePath) {
    switch InnerKind(bytes) {
    case .pilot:
      let packet: PilotPacket
      do {
        packet = try PilotPacket(bytes)
      } catch {
        return count("pilot-packet-malformed")
      }
      guard packet.source.node == peer.node || packet.isKeepalive else { return count("pilot-packet-spoofed") }
      receive(packet, from: peer, by: arrival, back: back)
    case .control:
      guard let message = TunnelControl(bytes) else { return count("tunnel-control-unknown") }
      switch message {
      case .capabilities: break
      case .translation(let how): walk(peer, .peerTranslation(PortTranslation(rawValue: how) ?? .unknown))
      case .portsOpened(let ports): spray(ports, of: peer, by: arrival)
      case .candidates(let endpoints):
        if case .relayed = arrival { walk(peer, .calledThroughRelay) }
        walk(peer, .told(endpoints.filter { isWorthTrying($0, of: peer) }))
      case .relays(let relays): learnRelays(relays, of: peer)
      case .relayOffer(let isOffered): noteOffer(isOffered, of: peer)
      }
    default: count("inner-frame-unexpected")
    }
  }

  private func receive(_ packet: PilotPacket, from peer: PeerState, by arrival: Arrival, back: EnginePath) {
    if case .relayed = arrival, packet.isPing { walk(peer, .calledThroughRelay) }
    if let pong = packet.pong(own: PilotAddress(network: 0, node: node ?? 0)) {
      guard packet.destination.node == node || packet.destination.node == 0 else {
        return count("pilot-packet-wrong-destination")
      }
      return sendControl(pong.encoded(), to: peer, path: back)
    }
    if packet.isPong { return receivePong(packet, from: peer, by: arrival) }
    if packet.isKeepalive || packet.isUpgradeProbe { return }
    // Streams and datagrams are the gateway's and the worker's.
    count("pilot-packet-unexpected")
  }
}
