// Whom the gateway may speak with: commands of the node, the way to and from the worker.

import Engine
import Streams
import Wire

struct GatewayPeer {
  var index: PeerIndex
  var isAdmitted: Bool
  var isReady = false
  /// The worker was told to let its segments in.
  var isStreaming = false
  /// How its last SYN came: the answer goes back that way.
  var arrival: EnginePath?
}

extension GatewayLoop {
  func obey(_ command: GatewayCommand) {
    switch command {
    case .setLocal(let addresses): self.addresses = addresses
    case .peer(let index, let node, let isAdmitted):
      nodes[index] = node
      peers[node] = GatewayPeer(index: index, isAdmitted: isAdmitted)
    case .setAdmitted(let node, let isAdmitted):
      // What it opened ends with its admission; what we dialed goes on.
      if !isAdmitted, peers[node]?.isAdmitted == true { streams.forget(node, onlyArrived: true) }
      peers[node]?.isAdmitted = isAdmitted
    case .setPathLimit(let node, let limit):
      if peers[node] != nil { streams.setPathLimit(of: node, limit > 0 ? limit : nil, now: now) }
    case .ready(let node):
      peers[node]?.isReady = true
      startMessages(to: node)
      startLocal(to: node)
    case .lost(let node): peers[node]?.isReady = false
    case .unreachable(let node):
      failMessages(to: node)
      failLocal(to: node)
    case .forget(let node):
      streams.forget(node)
      replies.close(node)
      if let peer = peers[node], peer.isStreaming {
        peers[node]?.isStreaming = false
        output.append(.setStreaming(peer.index, false))
      }
    case .gone(let node):
      streams.forget(node)
      streams.setPathLimit(of: node, nil, now: now)
      if let peer = peers.removeValue(forKey: node), nodes[peer.index] == node { nodes[peer.index] = nil }
    case .message(let peer, let port, let bytes, let done): queueMessage(bytes, to: peer, port: port, done)
    case .datagrams(let own, let peers, let port, let bytes):
      if let local { for peer in peers { send(bytes, from: own, to: peer, port, nil, local) } }
    case .serveLocal(let path): openLocal(path)
    case .kept(let job, let result): kept(job, result)
    case .answer(let request, let answer): answerLocal(request, answer)
    case .stop: isRunning = false
    }
  }

  var ownNode: UInt32? { addresses.first?.node }

  /// Our address in the peer's network, or on the backbone.
  func ownAddress(in network: UInt16) -> PilotAddress? {
    addresses.first { $0.network == network } ?? addresses.first
  }

  // MARK: From the worker

  func handle(_ event: StreamEvent) {
    switch event {
    case .segment(let index, let bytes, let from, let isRelayed):
      guard let node = nodes[index], let packet = try? PilotPacket(bytes), packet.protocolNumber == .stream else {
        return count(.segmentMalformed)
      }
      guard packet.source.node == node, packet.source.network != OverlayMapping.localNetwork else {
        return count(.segmentSpoofed)
      }
      guard packet.destination.node == ownNode else { return count(.wrongDestination) }
      receive(packet, from: node, by: isRelayed ? .relay(beacon: from) : .direct(from))
    case .opening(let bytes, let offset): open(bytes, packetAt: offset)
    case .datagram(_, let bytes): if let packet = try? PilotPacket(bytes) { receiveDatagram(packet) }
    }
  }

  private func receive(_ packet: PilotPacket, from node: UInt32, by arrival: EnginePath) {
    if packet.flags.contains(.syn) { peers[node]?.arrival = arrival }
    streams.receive(
      packet, from: node, mayOpen: mayOpen(node, port: packet.destinationPort), now: now)
    // Each segment is acknowledged for itself: a sender counts acknowledgements that repeat themselves.
    flush()
  }

  /// Everything of who is admitted; of others trust messages, and answers to what we dialed lately.
  private func mayOpen(_ node: UInt32, port: UInt16) -> Bool {
    guard let peer = peers[node] else { return node == ownNode }
    return peer.isAdmitted || replies.admits(node, port: port, now)
      || (port == PilotPort.handshake && hooks.takesTrustMessages(node))
  }

  // MARK: To the worker

  func send(_ packet: PilotPacket) {
    let node = packet.destination.node
    guard node != ownNode else {
      // A dial of our own node: the other end is in the same table.
      return streams.receive(packet, from: node, mayOpen: true, now: now)
    }
    guard let peer = peers[node] else { return }
    // What answers a SYN goes back the way that came: our own path may be dead.
    let path = packet.flags.contains([.syn, .ack]) ? peer.arrival : nil
    output.append(.sendInner(peer.index, packet.encoded(), path: path))
  }

  /// We dial the peer: its answers may come, and the worker lets its segments in at a stream's rate.
  func noteDial(of node: UInt32) {
    replies.note(node, now)
    guard let peer = peers[node], !peer.isStreaming else { return }
    peers[node]?.isStreaming = true
    output.append(.setStreaming(peer.index, true))
  }
}
