// Control pings (wire/tunnel §6): `pilot-tun ping`, and the round trip that `status` shows.

import Directory
import Engine
import Session
import Traversal
import Wire

/// A ping that waits for its answer.
struct OutstandingPing: Sendable {
  var node: UInt32
  /// What the payload begins with, 16 bytes nobody can guess, and its length.
  var mark: [UInt8]
  var count: Int
  var sentAt: UInt64
  /// A probe of the path machine.
  var probe: ProbeID?
  /// It asks about this relay.
  var relay: TunnelControl.Relay?
  /// nil: a probe of the node's own, only measured.
  var waiter: CheckedContinuation<PingOutcome, Never>?
}

enum PingOutcome: Sendable {
  case answered(milliseconds: Double, Arrival)
  case silent
  /// It could not even be sent.
  case failed(ControlError)
}

extension Node {
  private static let portBase: UInt16 = PilotPort.firstEphemeral

  /// Sends a ping that nobody waits for, whose inner frame has `size` bytes; its answer updates the round trip and goes
  /// to the path machine.
  func probe(_ peer: PeerState, _ id: ProbeID? = nil, path: EnginePath? = nil, size: Int = PathLimits.smallProbe) {
    if pings.count > 4096 {
      let old = Clock.now() - 6_000_000_000
      pings = pings.filter { $0.value.waiter != nil || $0.value.sentAt > old }
    }
    _ = sendPing(to: peer, network: 0, path: path, size: size, probe: id, waiter: nil)
  }

  /// Asks whether a relay carries frames to the peer and back.
  func probe(_ peer: PeerState, through relay: TunnelControl.Relay, at endpoint: Endpoint) {
    _ = sendPing(to: peer, network: 0, path: .relay(beacon: endpoint), relay: relay, waiter: nil)
  }

  private func sendPing(
    to peer: PeerState, network: UInt16, path: EnginePath? = nil, size: Int = PathLimits.smallProbe,
    probe: ProbeID? = nil, relay: TunnelControl.Relay? = nil, waiter: CheckedContinuation<PingOutcome, Never>?
  ) -> UInt32? {
    guard let own = ownAddress(in: network) else { return nil }
    let sequence = nextPingSequence
    nextPingSequence &+= 1
    // An answer proves that this ping arrived.
    let mark = withUnsafeBytes(of: (entropy.next() as UInt64, entropy.next() as UInt64)) { Array($0) }
    let count = max(size - PilotPacket.headerSize, mark.count)
    let payload = mark + [UInt8](repeating: 0, count: count - mark.count)
    let packet = PilotPacket.ping(
      from: own, to: PilotAddress(network: network, node: peer.node), sourcePort: Self.portBase,
      sequence: sequence, payload: payload)
    pings[sequence] = OutstandingPing(
      node: peer.node, mark: mark, count: count, sentAt: Clock.now(), probe: probe, relay: relay,
      waiter: waiter)
    let frame = packet.encoded()
    sendControl(frame, to: peer, path: path)
    // As packets of programs after a rest; the first answer counts.
    if waiter != nil, hasRested(peer), let relay = relayEndpoint(to: peer) {
      sendControl(frame, to: peer, path: .relay(beacon: relay))
    }
    return sequence
  }

  /// Nobody knows whether the direct path still leads anywhere.
  private func hasRested(_ peer: PeerState) -> Bool {
    guard case .direct = peer.enginePath, peer.handshake.isAnnouncing else { return false }
    let lastOnPath = engine.statistics(of: peer.index).lastOnPath
    return lastOnPath != 0 && Clock.now() > lastOnPath + RestedPath.rest
  }

  func receivePong(_ packet: PilotPacket, from peer: PeerState, by arrival: Arrival) {
    guard let ping = pings[packet.sequence], ping.node == peer.node, packet.payload.count == ping.count,
      packet.payload.starts(with: ping.mark)
    else {
      return count("pong-unexpected")
    }
    pings[packet.sequence] = nil
    let milliseconds = Double(Clock.now() &- ping.sentAt) / 1e6
    if let relay = ping.relay {
      choose(peer, .answered(relay, roundTrip: Clock.now() &- ping.sentAt))
    } else if let probe = ping.probe {
      // What other ways take is not the round trip of the pair.
      let way: Path = if case .direct(let from) = arrival { .direct(from) } else { .relay }
      walk(peer, .probeAnswered(probe, by: way))
    } else {
      peer.roundTrip = milliseconds
    }
    ping.waiter?.resume(returning: .answered(milliseconds: milliseconds, arrival))
  }

  /// One ping of an operator: waits for a session first, then for the answer.
  func ping(_ node: UInt32, network: UInt16, timeout: Duration) async -> PingOutcome {
    guard let session = await waitForSession(node, timeout: timeout) else {
      return .failed(explainSilence(node))
    }
    _ = session
    guard let peer = peers[node] else { return .silent }
    return await withCheckedContinuation { continuation in
      peer.lastUse = Clock.now()
      guard let sequence = sendPing(to: peer, network: network, waiter: continuation) else {
        continuation.resume(
          returning: .failed(
            ControlError("not_registered", "this node has no address yet", hint: "pilot-tun status")))
        return
      }
      Task {
        try? await Task.sleep(for: timeout)
        pings.removeValue(forKey: sequence)?.waiter?.resume(returning: .silent)
      }
    }
  }

  /// Waits until packets can be sealed for the peer.
  private func waitForSession(_ node: UInt32, timeout: Duration) async -> HandshakeMachine.SessionID? {
    let end = ContinuousClock.now + timeout
    while true {
      guard let peer = peers[node] else { return nil }
      if let session = peer.handshake.currentSession { return session }
      guard !peer.isKeyRefused else { return nil }
      need(peer)
      guard ContinuousClock.now < end else { return nil }
      try? await Task.sleep(for: .milliseconds(5))
      if Task.isCancelled { return nil }
    }
  }

  /// Why nothing comes back, as far as it is known here.
  private func explainSilence(_ node: UInt32) -> ControlError {
    guard let peer = peers[node] else {
      return ControlError("no_reply", "the peer is gone", hint: "try again: it is looked up anew")
    }
    if peer.isKeyRefused, let problem = peer.problem {
      return ControlError("key_changed", problem, hint: "pilot-tun trust accept-key \(peer.address)")
    }
    if peer.handshake.peerKey == nil {
      return ControlError(
        "peer_key_unknown", "the directory does not tell the peer's key", hint: "pilot-tun status")
    }
    let endpoints = peer.record.endpoints.map(\.description).joined(separator: ", ")
    let tried = endpoints.isEmpty ? "no endpoint is known" : "tried \(endpoints)"
    return ControlError(
      "no_reply", "no key exchange (\(tried)\(relayEndpoint(to: peer) == nil ? "; no beacon" : ", and the relay"))",
      hint: "pilot-tun explain \(peer.address)")
  }
}
