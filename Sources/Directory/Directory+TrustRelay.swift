// Trust through the registry's handshake relay (wire/registry §2.5): polls, what they bring, and the chores that tell
// the registry what was agreed.

import Logging
import Wire

extension Directory {
  // MARK: Polling

  /// Polls now, or as soon as the gap between polls allows: the beacon said that there is something.
  package func pollNow() {
    nextPoll = .now
    wake()
  }

  /// Answers are expected soon.
  func pollOften() {
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
    let kept = inbox.requests.map { keep($0) }
    for response in inbox.responses { receive(response) }
    var agreed: [UInt32] = []
    for (request, kept) in zip(inbox.requests, kept) where kept != .full {
      if wantsToAccept(request.from) {
        agreed.append(request.from)
      } else if await isFellow(request.from) {
        agreed.append(request.from)
      } else if kept == .new {
        publish.yield(.handshakeRequested(peer: request.from, justification: request.justification))
        publish.yield(.trustChanged(peer: request.from))
      }
    }
    for peer in agreed where store.trust({ $0.pending[peer] != nil }) {
      try await tolerating("respond_handshake") { () throws(DirectoryError) in try await accept(peer, as: me) }
    }
    lookAfterRequests()
  }

  private func keep(_ request: HandshakeInbox.Request) -> TrustBook.Kept {
    let entry = HandshakeEntry(time: NodeStore.unixTime(), justification: request.justification, isRelayed: true)
    let kept = store.changeTrust { trust in
      trust.untold.remove(request.from)
      return trust.keepPending(request.from, entry)
    }
    if kept == .full { publish.yield(.trustRefused(.pendingFull)) }
    return kept
  }

  private func receive(_ response: HandshakeInbox.Response) {
    let peer = response.from
    // Only an answer to a question counts: the registry cannot make us trust a peer that we never asked.
    guard store.trust({ $0.outgoing[peer] != nil }) else { return }
    if response.isAccepted { settle(peer) } else { refused(by: peer, reason: "") }
  }

  /// The peer said no to our request.
  func refused(by peer: UInt32, reason: String) {
    store.changeTrust { $0.outgoing[peer] = nil }
    logger.info(
      "handshake refused", metadata: reason.isEmpty ? ["peer": "\(peer)"] : ["peer": "\(peer)", "reason": "\(reason)"])
    publish.yield(.trustChanged(peer: peer))
  }

  /// What we asked half a minute ago and is not answered: the message, or the poll with the answer, may be lost.
  private func lookAfterRequests() {
    let old = NodeStore.unixTime() - 30
    for (peer, entry) in store.trust({ trust in trust.outgoing.filter { $0.value.time < old }.prefix(16) }) {
      if !entry.isRelayed { add(.requestHandshake(peer)) }
      if busyUntil <= .now { add(.checkTrust(peer)) }
    }
  }

  private func add(_ chore: Chore) {
    if !chores.contains(chore) { chores.append(chore) }
  }

  /// Leaves the request with the registry.
  func relayRequest(to peer: UInt32, justification: String, as me: RegistrySigner) async throws(DirectoryError) {
    do {
      try await client.requestHandshake(peer, justification: justification, as: me)
    } catch {
      guard error.message.contains("already") else { throw error }
    }
    store.changeTrust { $0.outgoing[peer]?.isRelayed = true }
  }

  // MARK: Chores

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
      guard store.trust({ $0.revoked.contains(peer) }) else { return }
      do {
        try await client.revokeTrust(peer, as: me)
      } catch {
        // The pair is gone already when the other end was first (wire/registry §2.5).
        if error.isTransient { throw error }
      }
      store.changeTrust { trust in _ = trust.revoked.remove(peer) }
    case .requestHandshake(let peer):
      guard let entry = store.trust({ $0.outgoing[peer] }) else { return }
      try await relayRequest(to: peer, justification: entry.justification, as: me)
      pollOften()
    case .acceptHandshake(let peer):
      guard store.isTrusted(peer) else { return }
      try await client.respondHandshake(peer, isAccepted: true, as: me)
    case .remindOfTrust(let peer):
      guard store.isTrusted(peer) else { return }
      try await client.requestHandshake(peer, justification: "", as: me)
    case .checkTrust(let peer):
      guard store.trust({ $0.outgoing[peer] != nil }) else { return }
      if let record = await record(of: peer), sharedNetwork(with: record) != nil { return }
      if try await client.checkTrust(me.node, peer) { settle(peer) }
    }
  }
}
