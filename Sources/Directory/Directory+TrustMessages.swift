// Trust over the tunnel: messages on stream port 444 (wire/tunnel §7.1, §7.2). Node brings what arrived from an
// authenticated peer; what leaves goes to the messenger that it set, which carries bytes and knows nothing of trust.

import Logging
import Wire

/// Carries one trust message to stream port 444 of the node; false when it was not delivered.
package typealias TrustMessenger = @Sendable (_ node: UInt32, _ bytes: [UInt8]) async -> Bool

/// Peers to which messages are on their way; further ones go through the registry, or not at all.
private let mostUnderWay = 256

/// The message to a peer that goes last.
struct LastMessage: Sendable {
  var number: UInt64
  var isDelivered: Task<Bool, Never>
}

extension Directory {
  /// Before `run`: how messages leave. Without it everything goes through the registry.
  package func setTrustMessenger(_ messenger: @escaping TrustMessenger) { trustMessenger = messenger }

  // MARK: Receiving

  /// A message that came by the peer's tunnel. nil: it was taken; else why not, to be counted.
  package func receiveTrustMessage(_ bytes: [UInt8], from sender: TrustSender) async -> TrustRefusal? {
    guard let me = signer else { return .keyUnavailable }
    let message: TrustMessage
    do {
      message = try trustChecks.admit(bytes, from: sender, to: me.node, now: NodeStore.unixTime())
    } catch {
      return error
    }
    let peer = sender.node
    switch message.kind {
    case .request: return await receiveRequest(message)
    case .accept:
      // Nobody makes us trust a peer that we never asked. An answer that came the other way before is no refusal.
      guard store.trust({ $0.outgoing[peer] != nil }) else { return store.isTrusted(peer) ? nil : .unasked }
      settle(peer)
    case .reject:
      guard store.trust({ $0.outgoing[peer] != nil }) else { return .unasked }
      refused(by: peer, reason: message.reason)
    case .revoke:
      // Taken without any question to anybody: that the peer withdraws is up to the peer.
      guard store.changeTrust({ $0.revoked(by: peer, at: message.timestamp) }) else { return nil }
      records[peer] = nil
      chores.removeAll { $0.isAboutTrust(of: peer) }
      if store.trust({ $0.revoked.contains(peer) }) {
        // First of all: at the registry a withdrawal takes later requests with it.
        chores.insert(.revokeTrust(peer), at: 0)
        wake()
      }
      logger.info("trust withdrawn by the peer", metadata: ["peer": "\(peer)"])
      publish.yield(.trustChanged(peer: peer))
      // It says so once: what was delivered is not said again.
      await store.flushInBackground()
    }
    return nil
  }

  private func receiveRequest(_ message: TrustMessage) async -> TrustRefusal? {
    let peer = message.node
    let reason = String(
      decoding: Array(message.justification.utf8.prefix(RegistryClient.longestJustification)), as: UTF8.self)
    let entry = HandshakeEntry(time: NodeStore.unixTime(), justification: reason, isDirect: true)
    // The peer knows by itself that it has no trust.
    store.changeTrust { trust in _ = trust.untold.remove(peer) }
    if wantsToAccept(peer) {
      if !store.isTrusted(peer) { settle(peer) }
      answer(peer, isRelayed: false)
      return nil
    }
    // Kept before the registry is asked: what the peer or the operator says meanwhile takes it away again.
    let kept = store.changeTrust { $0.keepPending(peer, entry) }
    guard kept != .full else { return .pendingFull }
    if await isFellow(peer), store.trust({ $0.pending[peer] != nil }) {
      settle(peer)
      answer(peer, isRelayed: false)
    } else if kept == .new, store.trust({ $0.pending[peer] != nil }) {
      publish.yield(.handshakeRequested(peer: peer, justification: reason))
      publish.yield(.trustChanged(peer: peer))
    }
    return nil
  }

  /// Whether a message of this node is waited for or may matter, so that its stream to port 444 is let in although
  /// packets of it are not: it is trusted, or one end asked the other. Cheap; asked per SYN.
  package nonisolated func expectsTrustMessage(of node: UInt32) -> Bool {
    store.trust { $0.trusted[node] != nil || $0.outgoing[node] != nil || $0.pending[node] != nil }
  }

  // MARK: Sending

  /// Whether the peer lets a stream of ours to its port 444 in, as far as is known here.
  func mayReachDirectly(_ peer: UInt32) async -> Bool {
    guard trustMessenger != nil else { return false }
    if store.isTrusted(peer) { return true }
    guard let record = await record(of: peer) else { return false }
    return record.isPublic || sharedNetwork(with: record) != nil
  }

  /// Sends a message; false when it was not delivered within the limit. It may arrive later all the same.
  ///
  /// INVARIANT: messages to one peer leave one after the other. An acceptance that overtook the withdrawal behind it
  /// would leave the peer with a trust that is over.
  func deliver(
    _ kind: TrustMessage.Kind, to peer: UInt32, justification: String = "", reason: String = "",
    within limit: Duration
  ) async -> Bool {
    guard trustMessenger != nil, lastMessages[peer] != nil || lastMessages.count < mostUnderWay else { return false }
    let before = lastMessages[peer]
    let number = (before?.number ?? 0) + 1
    let task = Task {
      _ = await before?.isDelivered.value
      let isDelivered = await carry(kind, to: peer, justification: justification, reason: reason)
      if lastMessages[peer]?.number == number { lastMessages[peer] = nil }
      return isDelivered
    }
    lastMessages[peer] = LastMessage(number: number, isDelivered: task)
    return await Self.value(of: task, within: limit) ?? false
  }

  private func carry(
    _ kind: TrustMessage.Kind, to peer: UInt32, justification: String, reason: String
  ) async -> Bool {
    guard let messenger = trustMessenger, let me = signer else { return false }
    // It may have waited: what was decided meanwhile has its own message.
    switch kind {
    case .accept where !store.isTrusted(peer), .revoke where store.isTrusted(peer): return false
    default: break
    }
    let message = trustWriter.message(
      kind, to: peer, as: me, justification: justification, reason: reason, now: NodeStore.unixTime())
    let bytes = message.encoded
    return await Self.value(of: Task { await messenger(peer, bytes) }, within: timing.messenger) ?? false
  }

  /// Sends a message that nobody waits for, and that is of no consequence when it is lost.
  func mention(_ kind: TrustMessage.Kind, to peer: UInt32, reason: String = "") {
    guard trustMessenger != nil else { return }
    Task { _ = await deliver(kind, to: peer, reason: reason, within: timing.messenger) }
  }

  /// Tells the peer that its request is accepted, by a stream of our own: there is no answer on the one that the
  /// request came by. `isRelayed`: the registry tells it as well.
  func answer(_ peer: UInt32, isRelayed: Bool) {
    // Another one would say the same.
    guard answersUnderWay.insert(peer).inserted else { return }
    Task {
      let isTold = await deliver(.accept, to: peer, within: timing.messenger)
      answersUnderWay.remove(peer)
      if !isTold, !isRelayed { remind(peer) }
    }
  }

  /// A peer that asked over the tunnel and is not reached there: the registry knows of no request that could be
  /// accepted. A request of ours is as good: two that cross are agreement.
  private func remind(_ peer: UInt32) {
    guard store.isTrusted(peer), !chores.contains(.remindOfTrust(peer)) else { return }
    chores.append(.remindOfTrust(peer))
    wake()
  }

  // MARK: Withdrawals that the peer has not heard

  /// Whether the peer was away when trust in it was withdrawn. Cheap; the node asks it for every session.
  package nonisolated func owesWithdrawal(to peer: UInt32) -> Bool { store.trust { $0.untold.contains(peer) } }

  /// A tunnel with the peer is up again: it is told what it missed, so that both ends show the same.
  package func peerIsBack(_ peer: UInt32) async {
    guard owesWithdrawal(to: peer), withdrawalsUnderWay.insert(peer).inserted else { return }
    await tellWithdrawal(to: peer, within: timing.messenger)
    withdrawalsUnderWay.remove(peer)
  }

  func tellWithdrawal(to peer: UInt32, within limit: Duration) async {
    guard await deliver(.revoke, to: peer, within: limit) else { return }
    store.changeTrust { trust in _ = trust.untold.remove(peer) }
  }
}
