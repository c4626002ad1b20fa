// How peers get a row and lose it: lookups with a short memory for absent nodes, pinned keys, admission policy.

import Directory
import Engine
import Gateway
import Logging
import Session
import Traversal
import Wire

extension Node {
  /// Rows of the worker's table.
  static let peerCapacity = 1 << 17
  /// How long "no such node" holds.
  private static let absence: UInt64 = 5_000_000_000

  // MARK: Wanting

  /// A local program sends to a node without a row.
  func want(_ address: PilotAddress) {
    guard address.node != PilotAddress.broadcastNode else {
      failWaiting(address.node, .noRoute)
      return
    }
    if let peer = peers[address.node] { return need(peer) }
    if isAbsent(address.node) {
      failWaiting(address.node, .noRoute)
      return
    }
    startLookup(address.node) { $0.isWanted = true }
  }

  /// Packets wait for the peer.
  func need(_ peer: PeerState) {
    let isNew = peer.handshake.currentSession == nil && !peer.handshake.isAttempting
    feed(peer, .needed)
    if isNew { refreshRecord(of: peer.node) }
  }

  /// A frame of a node without a row: strangers cause a limited number of lookups.
  func meet(_ node: UInt32, _ frame: InboundFrame) {
    guard self.node != nil, node != self.node, node != 0, node != PilotAddress.broadcastNode else {
      return count("frame-without-peer")
    }
    if let peer = peers[node] { return deliver(frame, to: peer) }
    guard !isAbsent(node) else { return count("stranger-unknown") }
    guard lookups[node] != nil || strangers.admit(Clock.now()) else { return count("stranger-limited") }
    startLookup(node) { _ in }
    if case .keyExchange(let frame, let arrival) = frame, answerAhead(frame, arrival) { return }
    // Who was answered sends what waited for it: as much as is staged for one peer.
    guard let lookup = lookups[node], lookup.frames.count < (lookup.advance == nil ? 8 : 64) else { return }
    lookups[node]?.frames.append((frame, Clock.now()))
  }

  func deliver(_ frame: InboundFrame, to peer: PeerState) {
    switch frame {
    case .undecryptable(let bytes, let arrival) where Clock.now() < peer.adoptedAt + 100_000_000:
      // Sealed under a session that was answered ahead and that the worker knows only now.
      tell(receiving(EarlyFrame(bytes: bytes, arrival: arrival, receivedAt: 0), of: peer))
    case .keyExchange(let frame, let arrival): feed(peer, .keyExchange(frame, arrival))
    case .keyRequest(let frame, let arrival): feed(peer, .keyRequest(frame, arrival))
    case .undecryptable(let bytes, let arrival): feed(peer, .undecryptable(bytes, arrival))
    }
  }

  private func isAbsent(_ node: UInt32) -> Bool {
    guard let until = absent[node] else { return false }
    if until > Clock.now() { return true }
    absent[node] = nil
    return false
  }

  // MARK: Lookups

  /// Looks the node up once, however many ask meanwhile.
  func startLookup(_ node: UInt32, _ change: (inout PendingLookup) -> Void) {
    let isRunning = lookups[node] != nil
    change(&lookups[node, default: PendingLookup()])
    guard !isRunning else { return }
    Task {
      let result = await directory.lookUp(node)
      let trust = await directory.trust(of: node)
      finishLookup(node, result, trust)
    }
  }

  /// The peer's row, made when it has none.
  func peer(for node: UInt32) async -> Result<PeerState.ID, ControlError> {
    if peers[node] == nil {
      let result = await withCheckedContinuation { continuation in
        startLookup(node) { $0.waiters.append(continuation) }
      }
      switch result {
      case .found: break
      case .notFound:
        return .failure(
          ControlError("not_found", "the directory knows no node \(node)", hint: "check the address or the name"))
      case .unavailable:
        return .failure(
          ControlError(
            "rendezvous_unreachable", "node \(node) was never seen and the rendezvous does not answer",
            hint: "pilot-tun status shows what is wrong with the rendezvous"))
      }
    }
    return peers[node] == nil
      ? .failure(ControlError("internal", "no room for another peer", hint: "pilot-tun peers lists those there are"))
      : .success(node)
  }

  private func finishLookup(_ node: UInt32, _ result: RecordResult, _ trust: TrustState) {
    guard let pending = lookups.removeValue(forKey: node) else { return }
    defer { for waiter in pending.waiters { waiter.resume(returning: result) } }
    var advance = pending.advance
    defer { advance?.discard() }
    guard case .found(let record) = result else {
      let isUnknown = result == .notFound
      for _ in pending.frames { count("stranger-unknown") }
      if advance != nil { count("stranger-unknown") }
      if absent.count > 8192 { absent.removeAll() }
      absent[node] = Clock.now() + Self.absence / (isUnknown ? 1 : 5)
      if pending.isWanted {
        failWaiting(node, isUnknown ? .noRoute : .addressUnreachable)
      }
      return
    }
    let pinned = store.pinnedKey(node: node)
    // The pinned key goes first, as everywhere; our own id may have changed since the answer.
    let isRight =
      peers[node] == nil
      && advance.map { $0.frame.ed25519 == (pinned ?? record.publicKey) && $0.handshake.node == self.node } ?? false
    guard let peer = peers[node] ?? addPeer(record, trust, handshake: isRight ? advance?.handshake : nil) else {
      if pending.isWanted { failWaiting(node, .addressUnreachable) }
      return
    }
    if isRight, let adopted = advance.take() {
      adopt(adopted, frames: pending.frames, by: peer)
    } else {
      if let advance { deliver(.keyExchange(advance.frame, advance.arrival), to: peer) }
      for waiting in pending.frames { deliver(waiting.frame, to: peer) }
    }
    if pending.isWanted { need(peer) }
  }

  /// Asks the directory again and passes the news on.
  func refreshRecord(of node: UInt32, fresh: Bool = false) {
    Task {
      let result = await directory.lookUp(node, fresh: fresh)
      let trust = await directory.trust(of: node)
      learn(node, result, trust)
    }
  }

  func learn(_ node: UInt32, _ result: RecordResult, _ trust: TrustState) {
    guard let peer = peers[node] else { return }
    peer.trust = trust
    if case .found(let record) = result {
      let isNews = record.endpoints != peer.record.endpoints || record.isRelayOnly != peer.record.isRelayOnly
      peer.record = record
      if isNews { offerEndpoints(to: peer) }
      if let key = record.publicKey { feed(peer, .peerKey(key)) } else { feed(peer, .peerKeyUnavailable) }
      if peer.isKeyRefused, record.publicKey == peer.handshake.peerKey { trustKeyAgain(of: peer) }
    } else {
      feed(peer, .peerKeyUnavailable)
    }
    applyPolicy(to: peer)
  }

  // MARK: Rows

  private func addPeer(_ record: PeerRecord, _ trust: TrustState, handshake: HandshakeMachine?) -> PeerState? {
    guard let own = node, record.node != own else { return nil }
    let index: PeerIndex
    // The oldest, and late: events about the row's last peer may still be under way.
    if freeIndexes.count > 256 {
      index = freeIndexes.removeFirst()
    } else {
      guard Int(nextIndex) < Self.peerCapacity else {
        logOnce("peer-table-full", "no room for more than \(Self.peerCapacity) peers")
        return nil
      }
      index = nextIndex
      nextIndex += 1
    }
    let now = Clock.now()
    let verdict = PeerPolicy.verdict(
      isTrusted: trust.isAdmitted, isOwnPublic: isPublic, isPeerPublic: record.isPublic,
      hasPeerCome: false, wasTrusted: store.wasTrusted(record.node))
    let peer = PeerState(
      index: index, record: record, trust: trust, verdict: verdict,
      handshake: handshake ?? HandshakeMachine(identity: store.identity, node: own, peer: record.node),
      path: PathMachine(seed: entropy.next(), mtu: configuration.mtu), relays: RelayChoice(leads: own < record.node),
      now: now)
    peer.accounted = engine.statistics(of: index)
    peers[record.node] = peer
    nodesByIndex[index] = record.node
    // Before the worker: no segment of the peer comes earlier.
    gateway.submit(.peer(index, node: record.node, isAdmitted: verdict.admission == .all))
    tell(.addPeer(index, node: record.node))
    tell(.setAdmission(index, verdict.admission))
    tell(.setRefusal(index, verdict.refusal))
    refreshWays(to: peer)
    offerEndpoints(to: peer)
    // The pinned key goes first: what the directory says now may differ from it, and that is an alarm.
    if let pinned = store.pinnedKey(node: record.node) { feed(peer, .peerKey(pinned)) }
    if let key = record.publicKey { feed(peer, .peerKey(key)) }
    noteProhibition(of: peer)
    return peer
  }

  func removePeer(_ peer: PeerState) {
    account(peer)
    gateway.submit(.gone(node: peer.node))
    tell(.removePeer(peer.index))
    peers[peer.node] = nil
    nodesByIndex[peer.index] = nil
    freeIndexes.append(peer.index)
    deadlines.set(peer.node, to: nil)
    if peer.offersRelay { refreshRelayNodes() }
  }

  // MARK: Policy

  /// Trust, visibility or networks may have changed.
  func applyPolicy(to peer: PeerState) {
    let isWithdrawn = peer.wasAdmitted && !peer.trust.isAdmitted
    peer.wasAdmitted = peer.trust.isAdmitted
    if isWithdrawn, !isPublic, !store.wasTrusted(peer.node) { store.noteFormer(peer.node) }
    let verdict = PeerPolicy.verdict(
      isTrusted: peer.trust.isAdmitted, isOwnPublic: isPublic, isPeerPublic: peer.record.isPublic,
      hasPeerCome: peer.hasCome, wasTrusted: store.wasTrusted(peer.node))
    if verdict != peer.verdict {
      peer.verdict = verdict
      gateway.submit(.setAdmitted(node: peer.node, verdict.admission == .all))
      tell(.setAdmission(peer.index, verdict.admission))
      tell(.setRefusal(peer.index, verdict.refusal))
      if verdict.refusal != .none { failWaiting(peer.node, verdict.refusal) }
      noteProhibition(of: peer)
    }
    noteRelaying(for: peer)
    if peer.offersRelay { refreshRelayNodes() }
    // By either end: what is installed goes, too (wire/tunnel §7.4). A public node lets the peer come again.
    if isWithdrawn {
      noteProhibition(of: peer)
      gateway.submit(.setAdmitted(node: peer.node, verdict.admission == .all))
      gateway.submit(.forget(node: peer.node))
      feed(peer, .reset)
    }
  }

  func noteProhibition(of peer: PeerState) {
    guard !peer.isKeyRefused else { return }
    peer.problem = PeerPolicy.problem(peer.verdict, hasPeerCome: peer.hasCome, address: peer.address)
  }
}

extension PeerState {
  typealias ID = UInt32
}
