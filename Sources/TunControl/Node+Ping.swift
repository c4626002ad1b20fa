// Control pings (wire/tunnel §6): `pilot-tun ping`, and the round trip that `status` shows.

import Directory
import Engine
import Session
import Traversal
import Wire

/// A ping that waits for its answer.
struct OutstandingPing: Sendable {
  var node: UInt32
  var payload: [UInt8]
  var sentAt: UInt64
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

  /// Sends a ping that nobody waits for; its answer updates the round trip and proves the path.
  func probe(_ peer: PeerState, path: EnginePath? = nil) {
    if pings.count > 4096 { pings = pings.filter { $0.value.waiter != nil } }
    _ = sendPing(to: peer, network: 0, path: path, waiter: nil)
  }

  private func sendPing(
    to peer: PeerState, network: UInt16, path: EnginePath? = nil, waiter: CheckedContinuation<PingOutcome, Never>?
  ) -> UInt32? {
    guard let own = ownAddress(in: network) else { return nil }
    let sequence = nextPingSequence
    nextPingSequence &+= 1
    // 16 bytes nobody can guess: an answer proves that this ping arrived.
    var payload = Array("ping".utf8)
    payload += withUnsafeBytes(of: (entropy.next() as UInt64, entropy.next() as UInt64)) { Array($0.prefix(12)) }
    let packet = PilotPacket.ping(
      from: own, to: PilotAddress(network: network, node: peer.node), sourcePort: Self.portBase,
      sequence: sequence, payload: payload)
    pings[sequence] = OutstandingPing(node: peer.node, payload: payload, sentAt: Clock.now(), waiter: waiter)
    sendControl(packet.encoded(), to: peer, path: path)
    return sequence
  }

  func receivePong(_ packet: PilotPacket, from peer: PeerState, by arrival: Arrival) {
    guard let ping = pings[packet.sequence], ping.node == peer.node, ping.payload == packet.payload else {
      return count("pong-unexpected")
    }
    pings[packet.sequence] = nil
    let milliseconds = Double(Clock.now() &- ping.sentAt) / 1e6
    peer.roundTrip = milliseconds
    if case .direct(let endpoint) = arrival { walk(peer, .probeAnswered(endpoint)) }
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
        continuation.resume(returning: .failed(ControlError("not_registered", "this node has no address yet")))
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
    guard let peer = peers[node] else { return ControlError("no_reply", "the peer is gone") }
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
      "no_reply", "no key exchange (\(tried)\(beacon == nil ? "; no beacon" : ", and the relay"))",
      hint: "pilot-tun explain \(peer.address)")
  }
}
