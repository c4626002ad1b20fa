// Trust between nodes, as the operator and the node see it. A peer is trusted when both ends agreed: it accepted our
// request, or we accepted its. Requests and answers travel over port 444 (Directory+TrustMessages.swift) and through
// the registry's relay (Directory+TrustRelay.swift); what came by both ways counts once.

import Logging
import Wire

extension Directory {
  // MARK: What the operator does

  /// Asks the peer for trust. When it has asked us already, that is agreement.
  ///
  /// The request goes over the tunnel where the peer lets strangers in. A private node does not: it is asked through
  /// the registry, as is a peer that was not reached. Not both at once: a request that waits at the registry outlives
  /// its answer, and would come up again after a refusal or a withdrawal.
  package func requestTrust(_ peer: UInt32, justification: String = "") async throws(DirectoryError) {
    guard justification.utf8.count <= RegistryClient.longestJustification else {
      throw DirectoryError(
        .badRequest, "the reason is \(justification.utf8.count) bytes long",
        hint: "at most \(RegistryClient.longestJustification) bytes")
    }
    let me = try requireSigner()
    guard peer != me.node else { throw DirectoryError(.badRequest, "a node needs no trust of its own") }
    if store.trust({ $0.pending[peer] != nil }) { return try await approve(peer) }
    // An earlier withdrawal goes first: at the registry it takes requests with it.
    if store.trust({ $0.revoked.contains(peer) }) { try? await perform(.revokeTrust(peer), as: me) }
    // Kept before it leaves: the answer may be back before the sending ends. A trusted peer is asked as well: it may
    // have withdrawn its trust, or lost it.
    let entry = HandshakeEntry(time: NodeStore.unixTime(), justification: justification)
    let (before, isTrusted) = store.changeTrust { trust in
      let (before, isTrusted) = (trust.outgoing[peer], trust.trusted[peer] != nil)
      if !isTrusted { trust.keepOutgoing(peer, entry) }
      return (before, isTrusted)
    }
    if await mayReachDirectly(peer),
      await deliver(.request, to: peer, justification: justification, within: timing.directAttempt)
    {
      store.changeTrust { $0.outgoing[peer]?.isDirect = true }
    } else {
      do {
        try await relayRequest(to: peer, justification: justification, as: me)
      } catch {
        // An answer to a message that was believed lost.
        if !isTrusted, store.isTrusted(peer) { return }
        if !isTrusted { store.changeTrust { trust in trust.outgoing[peer] = before } }
        throw error
      }
    }
    if store.isTrusted(peer) { return }
    publish.yield(.trustChanged(peer: peer))
    pollOften()
  }

  /// Accepts a pending request.
  package func approve(_ peer: UInt32) async throws(DirectoryError) {
    let me = try requireSigner()
    guard store.trust({ $0.pending[peer] != nil }) else { throw Self.noRequest(of: peer) }
    try await accept(peer, as: me)
  }

  /// Refuses a pending request. The peer is told if it can be, by the ways that it used.
  package func reject(_ peer: UInt32, reason: String = "") async throws(DirectoryError) {
    let me = try requireSigner()
    guard let entry = store.changeTrust({ $0.pending.removeValue(forKey: peer) }) else {
      throw Self.noRequest(of: peer)
    }
    publish.yield(.trustChanged(peer: peer))
    if entry.isDirect { mention(.reject, to: peer, reason: reason) }
    if entry.isRelayed { try? await client.respondHandshake(peer, isAccepted: false, as: me) }
  }

  /// Withdraws trust: that is on disk at once, and no packet of the peer comes in any more. The tunnel is cut when the
  /// peer was told over it, which takes a second at most. The registry is told now, or when it is back; so is the peer.
  /// Returns whether there was anything to withdraw.
  @discardableResult
  package func revoke(_ peer: UInt32) async -> Bool {
    let (before, wasThere) = store.changeTrust { trust in
      let before = trust
      return (before, trust.revoke(peer, now: NodeStore.unixTime()))
    }
    chores.removeAll { $0.isAboutTrust(of: peer) }
    records[peer] = nil
    if store.trust({ $0.revoked.contains(peer) }) {
      chores.append(.revokeTrust(peer))
      wake()
    }
    guard wasThere else { return false }
    if before.trusted[peer] != nil {
      publish.yield(.trustEnding(peer: peer))
      await store.flushInBackground()
      await tellWithdrawal(to: peer, within: timing.farewell)
    } else if let asked = before.pending[peer] {
      if asked.isDirect { mention(.reject, to: peer) }
    } else if before.outgoing[peer]?.isDirect == true {
      mention(.revoke, to: peer)
    }
    publish.yield(.trustChanged(peer: peer))
    return true
  }

  /// Requests of peers that wait for an answer, oldest first.
  package nonisolated func pendingHandshakes() -> [TrustEntry] {
    trustList().filter { $0.kind == .pending }.sorted { ($0.since, $0.node) < ($1.since, $1.node) }
  }

  /// Everything: trusted, pending, outgoing, by node.
  package nonisolated func trustList() -> [TrustEntry] {
    store.trust { $0.list }.sorted { ($0.node, $0.kind.rawValue) < ($1.node, $1.kind.rawValue) }
  }

  /// What the peer may expect, by what is known now. A shared network counts when the cached or stored record of the
  /// peer names it; call `record(of:)` before for a stranger.
  package func trust(of peer: UInt32) -> TrustState {
    let (isTrusted, isPending, isRequested) = store.trust {
      ($0.trusted[peer] != nil, $0.pending[peer] != nil, $0.outgoing[peer] != nil)
    }
    if isTrusted { return .trusted }
    if let record = records[peer]?.value.record ?? store.record(of: peer), let shared = sharedNetwork(with: record) {
      return .sharedNetwork(shared)
    }
    return isPending ? .pending : isRequested ? .requested : .none
  }

  /// A network other than the backbone that both are in.
  package func sharedNetwork(with record: PeerRecord) -> UInt16? {
    record.networks.first { $0 != 0 && networks.contains($0) }
  }

  static func noRequest(of peer: UInt32) -> DirectoryError {
    DirectoryError(
      .noSuchRequest, "node \(peer) has not asked for trust",
      hint: "pilot-tun trust pending lists those who have; pilot-tun trust request asks")
  }

  // MARK: Agreement

  /// Requests that need no operator: those of peers we trust (they lost their state), of peers we asked ourselves, and
  /// all of them where the configuration says so. `isFellow` is the fourth reason.
  func wantsToAccept(_ peer: UInt32) -> Bool {
    approvesAutomatically || store.trust { $0.trusted[peer] != nil || $0.outgoing[peer] != nil }
  }

  /// Both are in a network other than the backbone, as the registry says now: upstream that alone is agreement.
  /// What was said earlier is not enough, for membership ends.
  func isFellow(_ peer: UInt32) async -> Bool {
    guard networks.contains(where: { $0 != 0 }), let record = await record(of: peer, fresh: true) else { return false }
    return !record.isFromStore && sharedNetwork(with: record) != nil
  }

  /// Agrees to a request that is kept as pending.
  func accept(_ peer: UInt32, as me: RegistrySigner) async throws(DirectoryError) {
    let entry = store.trust { $0.pending[peer] }
    if entry?.isDirect == true {
      // It came under the peer's own key: nobody needs to be asked, and the registry may be away.
      settle(peer)
      if entry?.isRelayed == true { chores.append(.acceptHandshake(peer)) }
      return answer(peer, isRelayed: entry?.isRelayed == true)
    }
    do {
      try await client.respondHandshake(peer, isAccepted: true, as: me)
    } catch {
      // The registry remembers no such request (any more): the peer has to ask again.
      if error.reason == .notFound, store.changeTrust({ $0.pending.removeValue(forKey: peer) != nil }) {
        publish.yield(.trustChanged(peer: peer))
      }
      throw error
    }
    settle(peer)
    answer(peer, isRelayed: true)
  }

  /// Both agreed.
  func settle(_ peer: UInt32) {
    let isNews = store.changeTrust { $0.settle(peer, now: NodeStore.unixTime()) }
    records[peer] = nil
    chores.removeAll { $0.isAboutTrust(of: peer) }
    chores.append(.reportTrust(peer))
    wake()
    guard isNews else { return }
    logger.info("trust agreed", metadata: ["peer": "\(peer)"])
    publish.yield(.trustChanged(peer: peer))
    tellOfTrust(with: peer)
  }

  // MARK: Waiting

  /// Something each time that the peer may have become trusted; ends with the time.
  package func trustNews(of peer: UInt32, for duration: Duration) -> AsyncStream<Void> {
    let (news, teller) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    lastTeller += 1
    let number = lastTeller
    trustTellers[number] = (peer, teller)
    let timer = Task {
      try? await Task.sleep(for: duration)
      teller.finish()
    }
    teller.onTermination = { [weak self] _ in
      timer.cancel()
      Task { await self?.forgetTeller(number) }
    }
    return news
  }

  private func forgetTeller(_ number: UInt64) { trustTellers[number] = nil }

  /// nil: with any peer, for our networks changed.
  func tellOfTrust(with peer: UInt32?) {
    for waiting in trustTellers.values where peer == nil || waiting.peer == peer { waiting.teller.yield() }
  }
}
