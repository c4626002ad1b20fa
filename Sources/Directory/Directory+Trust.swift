// Trust between nodes by the registry's handshake relay (wire/registry §2.5). A peer is trusted when both ends
// agreed: it accepted our request, or we accepted its.

import Logging
import Wire

extension Directory {
  // MARK: What the operator does

  /// Asks the peer for trust. When it has asked us already, that is agreement.
  package func requestTrust(_ peer: UInt32, justification: String = "") async throws(DirectoryError) {
    guard justification.utf8.count <= RegistryClient.longestJustification else {
      throw DirectoryError(
        .badRequest, "the reason is \(justification.utf8.count) bytes long",
        hint: "at most \(RegistryClient.longestJustification) bytes")
    }
    let me = try requireSigner()
    guard peer != me.node else { throw DirectoryError(.badRequest, "a node needs no trust of its own") }
    if store.trust({ $0.pending[peer] != nil }) { return try await approve(peer) }
    do {
      try await client.requestHandshake(peer, justification: justification, as: me)
    } catch {
      guard error.message.contains("already") else { throw error }
    }
    let entry = HandshakeEntry(time: NodeStore.unixTime(), justification: justification)
    // A trusted peer is asked as well: it may have withdrawn its trust, or lost it.
    if store.isTrusted(peer) { return }
    store.changeTrust { trust in
      trust.revoked.remove(peer)
      if trust.outgoing.count < TrustBook.mostOutgoing || trust.outgoing[peer] != nil { trust.outgoing[peer] = entry }
    }
    publish.yield(.trustChanged(peer: peer))
    pollOften()
  }

  /// Accepts a pending request.
  package func approve(_ peer: UInt32) async throws(DirectoryError) {
    let me = try requireSigner()
    guard store.trust({ $0.pending[peer] != nil }) else { throw Self.noRequest(of: peer) }
    try await accept(peer, as: me)
  }

  /// Refuses a pending request. The registry is told if it can be.
  package func reject(_ peer: UInt32) async throws(DirectoryError) {
    let me = try requireSigner()
    guard store.changeTrust({ $0.pending.removeValue(forKey: peer) != nil }) else { throw Self.noRequest(of: peer) }
    publish.yield(.trustChanged(peer: peer))
    try? await client.respondHandshake(peer, isAccepted: false, as: me)
  }

  /// Withdraws trust. It holds here at once; the registry is told now, or when it is back.
  /// Returns whether there was anything to withdraw.
  @discardableResult
  package func revoke(_ peer: UInt32) async -> Bool {
    let wasThere = store.changeTrust { $0.revoke(peer) }
    chores.removeAll { $0 == .reportTrust(peer) || $0 == .requestHandshake(peer) || $0 == .checkTrust(peer) }
    records[peer] = nil
    if wasThere { publish.yield(.trustChanged(peer: peer)) }
    if store.trust({ $0.revoked.contains(peer) }) {
      chores.append(.revokeTrust(peer))
      wake()
    }
    return wasThere
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

  // MARK: Polling

  /// Polls now, or as soon as the gap between polls allows: the beacon said that there is something.
  package func pollNow() {
    nextPoll = .now
    wake()
  }

  /// Answers are expected soon.
  private func pollOften() {
    busyUntil = .now + timing.busyPollPeriod
    nextPoll = min(nextPoll, .now + timing.busyPoll)
    wake()
  }

  func poll() async throws(DirectoryError) {
    lastPoll = .now
    nextPoll = .now + jittered(busyUntil > .now ? timing.busyPoll : timing.poll)
    let me = try requireSigner()
    var inbox = HandshakeInbox(requests: [], responses: [])
    try await tolerating("poll_handshakes") { () throws(DirectoryError) in
      inbox = try await client.pollHandshakes(as: me)
    }
    // The registry has cleared what it sent: everything is kept before anything is answered.
    for request in inbox.requests { receive(request) }
    for response in inbox.responses { receive(response) }
    for request in inbox.requests where wantsToAccept(request.from) {
      try await tolerating("respond_handshake") { () throws(DirectoryError) in try await accept(request.from, as: me) }
    }
    // The poll that carried an answer may have been lost: now and then ask for the result itself.
    let old = NodeStore.unixTime() - 30
    let waiting = store.trust { trust in trust.outgoing.filter { $0.value.time < old }.keys.prefix(16) }
    for peer in waiting where busyUntil <= .now && !chores.contains(.checkTrust(peer)) {
      chores.append(.checkTrust(peer))
    }
  }

  private func receive(_ request: HandshakeInbox.Request) {
    let entry = HandshakeEntry(time: NodeStore.unixTime(), justification: request.justification)
    guard store.changeTrust({ $0.keepPending(request.from, entry) }), !wantsToAccept(request.from) else { return }
    publish.yield(.handshakeRequested(peer: request.from, justification: request.justification))
    publish.yield(.trustChanged(peer: request.from))
  }

  private func receive(_ response: HandshakeInbox.Response) {
    let peer = response.from
    // Only an answer to a question counts: the registry cannot make us trust a peer that we never asked.
    guard store.trust({ $0.outgoing[peer] != nil }) else { return }
    if response.isAccepted {
      settle(peer)
    } else {
      store.changeTrust { $0.outgoing[peer] = nil }
      logger.info("handshake refused", metadata: ["peer": "\(peer)"])
      publish.yield(.trustChanged(peer: peer))
    }
  }

  /// Requests that need no operator: those of peers we asked ourselves, those of peers we trust (they lost their
  /// state), and all of them where the configuration says so.
  private func wantsToAccept(_ peer: UInt32) -> Bool {
    configuration.approvesAutomatically
      || store.trust { $0.trusted[peer] != nil || ($0.outgoing[peer] != nil && $0.pending[peer] != nil) }
  }

  private func accept(_ peer: UInt32, as me: RegistrySigner) async throws(DirectoryError) {
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
  }

  /// Both agreed.
  private func settle(_ peer: UInt32) {
    let isNews = store.changeTrust { $0.settle(peer, now: NodeStore.unixTime()) }
    records[peer] = nil
    chores.append(.reportTrust(peer))
    wake()
    guard isNews else { return }
    logger.info("trust agreed", metadata: ["peer": "\(peer)"])
    publish.yield(.trustChanged(peer: peer))
  }

  func perform(_ chore: Chore, as me: RegistrySigner) async throws(DirectoryError) {
    switch chore {
    case .reportTrust(let peer):
      guard store.isTrusted(peer) else { return }
      do {
        try await client.reportTrust(peer, as: me)
      } catch {
        guard error.reason == .notFound else { throw error }
        if unreported.isEmpty { nextReport = .now + reportWait }
        unreported.insert(peer)
      }
      records[peer] = nil
    case .revokeTrust(let peer):
      do {
        try await client.revokeTrust(peer, as: me)
      } catch {
        // The pair is gone already when the other end was first (wire/registry §2.5).
        if error.isTransient { throw error }
      }
      store.changeTrust { trust in _ = trust.revoked.remove(peer) }
    case .requestHandshake(let peer):
      guard let entry = store.trust({ $0.outgoing[peer] }) else { return }
      try await client.requestHandshake(peer, justification: entry.justification, as: me)
      pollOften()
    case .checkTrust(let peer):
      guard store.trust({ $0.outgoing[peer] != nil }) else { return }
      if let record = await record(of: peer), sharedNetwork(with: record) != nil { return }
      if try await client.checkTrust(me.node, peer) { settle(peer) }
    }
  }

  private static func noRequest(of peer: UInt32) -> DirectoryError {
    DirectoryError(
      .noSuchRequest, "node \(peer) has not asked for trust",
      hint: "pilot-tun trust pending lists those who have; pilot-tun trust request asks")
  }
}
