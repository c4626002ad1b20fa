// Carries out what the handshake machines want: frames, installs, key questions, alarms.

import Directory
import Engine
import Gateway
import Logging
import Session
import Traversal
import Wire

extension Node {
  /// Gives the peer's machine an event and carries its actions out.
  func feed(_ peer: PeerState, _ event: HandshakeMachine.Event) {
    let now = Clock.now()
    let lastReceive = engine.statistics(of: peer.index).lastReceive
    // Asked before: an answer ends the attempt.
    let hadSession = peer.handshake.currentSession != nil
    let isUnasked = !peer.handshake.isAttempting && !hadSession
    let actions = peer.handshake.handle(event, now: now, lastReceive: lastReceive, using: &entropy)
    for action in actions {
      if case .promote = action { tally(hadSession ? "rekeys" : "sessions-established") }
      perform(action, isUnasked: isUnasked, for: peer)
    }
    if hadSession, peer.handshake.currentSession == nil { gateway.submit(.lost(node: peer.node)) }
    walk(peer, .session(isUp: peer.handshake.currentSession != nil))
    if hadSession != (peer.handshake.currentSession != nil) { noteSession(of: peer) }
  }

  /// `isUnasked`: a frame that caused it is none of our asking.
  func perform(_ action: HandshakeMachine.Action, isUnasked: Bool, for peer: PeerState) {
    switch action {
    case .send(let frame, let route): send(frame, route, to: peer)
    case .attempted(let count):
      peer.handshakeTries = count
      walk(peer, .handshakeTry(count))
    case .heard(let arrival): heard(arrival, from: peer, isUnasked: isUnasked)
    case .requestPeerKey(let fresh): refreshRecord(of: peer.node, fresh: fresh)
    case .install(let id, let context, let sendPrefix):
      let isTaken = engine.submit(
        .install(peer.index, id, context: context, sendPrefix: sendPrefix, current: false))
      guard isTaken else {
        context.release()
        return count("command-queue-full")
      }
    case .promote(let id, let rawIPv6):
      // What is staged leaves with the promotion, so the worker must know before how the peer takes it.
      tell(.setSplitPackets(peer.index, rawIPv6 && peer.handshake.takesSplitPackets))
      tell(.setRawIPv6(peer.index, rawIPv6))
      tell(.promote(peer.index, id))
      gateway.submit(.ready(node: peer.node))
      if peer.isKeyRefused { trustKeyAgain(of: peer) }
      noteReturn(of: peer)
    case .retire(let id): tell(.retire(peer.index, id))
    case .confirm: sendControl(confirmation(for: peer), to: peer)
    case .replayEarly(let frames):
      for frame in frames { tell(receiving(frame, of: peer)) }
    case .punch: punch(peer)
    case .giveUp:
      tally("handshakes-given-up")
      failWaiting(peer.node, .addressUnreachable)
    case .count(.keyRequest): tally(HandshakeCount.keyRequest.rawValue)
    case .count(let reason): count(reason.rawValue)
    case .alarm(let alarm): raise(alarm, for: peer)
    }
  }

  /// A genuine PILA came: its key is pinned, and a stranger that came by itself may be answered.
  private func heard(_ arrival: Arrival, from peer: PeerState, isUnasked: Bool) {
    if let key = peer.handshake.peerKey { _ = store.pin(node: peer.node, key: key) }
    if isUnasked, !peer.hasCome {
      peer.hasCome = true
      applyPolicy(to: peer)
      noteProhibition(of: peer)
    }
    if case .direct(let endpoint) = arrival {
      walk(peer, .handshakeHeard(endpoint))
    } else {
      walk(peer, .handshakeHeard(nil))
    }
  }

  /// Something small under the current session: our capabilities for our own kind, a keepalive for official peers.
  private func confirmation(for peer: PeerState) -> [UInt8] {
    if peer.handshake.isAnnouncing { return TunnelControl.capabilities([.rawIPv6, .splitPackets]).encoded() }
    return PilotPacket.keepalive(from: PilotAddress(network: 0, node: node ?? 0)).encoded()
  }

  func receiving(_ frame: EarlyFrame, of peer: PeerState) -> EngineCommand {
    switch frame.arrival {
    case .direct(let endpoint): .receive(frame.bytes, from: endpoint, relayedFrom: nil)
    case .relayed:
      .receive(
        frame.bytes, from: relayEndpoint(to: peer) ?? Endpoint(address: IPv6Address(high: 0, low: 0), port: 0),
        relayedFrom: peer.node)
    }
  }

  /// Seals a frame of control's own and sends it on the peer's path or the given one.
  func sendControl(_ inner: [UInt8], to peer: PeerState, path: EnginePath? = nil) {
    guard peer.handshake.currentSession != nil else { return }
    peer.controlFramesSent += 1
    tell(.sendInner(peer.index, inner, path: path))
  }

  private func raise(_ alarm: KeyAlarm, for peer: PeerState) {
    count("peer-key-changed")
    let text =
      alarm.isRegistered
      ? "the directory names another key than the pinned one (\(alarm.pinned.description.prefix(16))… → "
        + "\(alarm.seen.description.prefix(16))…); refused until `pilot-tun trust accept-key \(peer.address)`"
      : "frames signed by another key than the pinned one (\(alarm.seen.description.prefix(16))…) are refused"
    // A key that only frames show is an attack or a leftover; the peer itself goes on working.
    if alarm.isRegistered {
      peer.isKeyRefused = true
      peer.problem = text
      // A session under the pinned key is beyond doubt; without one, programs are told at once.
      if peer.handshake.currentSession == nil {
        tell(.setRefusal(peer.index, .addressUnreachable))
        failWaiting(peer.node, .addressUnreachable)
      }
    } else if peer.problem == nil {
      peer.problem = text
    }
    logOnce(
      "key \(peer.node) \(alarm.seen)", text, fields: ["peer": "\(peer.address)", "code": "peer_key_changed"])
  }

  /// The pinned key was proven, or the directory names it again.
  func trustKeyAgain(of peer: PeerState) {
    peer.isKeyRefused = false
    peer.problem = nil
    tell(.setRefusal(peer.index, peer.verdict.refusal))
    noteProhibition(of: peer)
  }

  /// The operator accepts the key that the directory names now.
  func acceptKey(of node: UInt32) async throws -> PilotAddress {
    let result = await directory.lookUp(node, fresh: true)
    guard let record = result.record, let key = record.publicKey, !record.isFromStore else {
      throw ControlError(
        "rendezvous_unreachable", "the directory does not tell the key of node \(node) now",
        hint: "try again when `pilot-tun status` shows the rendezvous as registered")
    }
    store.acceptKey(node: node)
    _ = store.pin(node: node, key: key)
    logger.notice("operator accepted a key", metadata: ["peer": "\(record.address)", "key": "\(key)"])
    if let peer = peers[node] {
      peer.record = record
      feed(peer, .acceptKey(key))
      trustKeyAgain(of: peer)
      applyPolicy(to: peer)
    }
    return record.address
  }
}
