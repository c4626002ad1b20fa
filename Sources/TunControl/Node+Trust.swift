// Trust messages between the streams and the directory: what arrived on port 444 goes up with what the tunnel proves
// about its sender, what the directory wants said goes down. What is agreed comes back as a DirectoryEvent.

import Directory
import Engine
import Gateway
import Session
import Wire

/// Messages of one peer that were not looked at yet.
struct TrustQueue {
  var count = 0
  var last: Task<Void, Never>?
}

extension Node {
  /// Before the directory runs.
  func connectTrustMessages() async {
    await directory.setTrustMessenger { [weak self] node, bytes in
      await self?.sendTrustMessage(to: node, bytes: bytes) ?? false
    }
  }

  /// Carries a message to port 444 of the peer; false when it was not delivered.
  func sendTrustMessage(to node: UInt32, bytes: [UInt8]) async -> Bool {
    guard !isStopping, node != self.node else { return false }
    // The streams speak to peers with a row.
    guard case .success = await peer(for: node), !isStopping else { return false }
    let isDelivered = await withCheckedContinuation { continuation in
      gateway.submit(
        .message(PilotAddress(network: 0, node: node), port: PilotPort.handshake, bytes) {
          continuation.resume(returning: $0)
        })
    }
    tally(isDelivered ? "trust-messages-sent" : "trust-messages-undelivered")
    return isDelivered
  }

  /// Messages of one peer are looked at one after another, those of others beside them: looking may need the registry.
  func queueTrustMessage(_ bytes: [UInt8], from node: UInt32) {
    let waiting = trustMessages[node] ?? TrustQueue()
    guard waiting.count < 8 else { return count("trust-message-over-limit") }
    let task = Task { [last = waiting.last] in
      await last?.value
      await receiveTrustMessage(bytes, from: node)
      trustMessages[node]?.count -= 1
      if trustMessages[node]?.count == 0 { trustMessages[node] = nil }
    }
    trustMessages[node] = TrustQueue(count: waiting.count + 1, last: task)
  }

  /// The first segment of a stream to port 444, from the peer whose tunnel it came by. The caller waits for the end
  /// before it brings the next message of this peer: their order counts.
  func receiveTrustMessage(_ bytes: [UInt8], from node: UInt32) async {
    guard let peer = peers[node] else { return count("frame-without-peer") }
    let sender = TrustSender(node: node, key: peer.handshake.peerKey, isKeyDoubted: peer.isKeyRefused)
    if let refusal = await directory.receiveTrustMessage(bytes, from: sender) {
      count(refusal.rawValue)
    } else {
      tally("trust-messages-received")
    }
  }

  /// Whether streams of this node to our port 444 are let in: of everybody on a public node, else of peers with whom
  /// trust is or may soon be agreed. What we dialled lately passes besides (ReplyWindow).
  nonisolated func takesTrustMessages(of node: UInt32) -> Bool {
    isPublic || directory.expectsTrustMessage(of: node)
  }

  /// Trust was withdrawn here. Packets stop at once; sessions stay until the peer was told by them.
  func endAdmission(of node: UInt32) async {
    guard !isPublic, !(await directory.trust(of: node)).isAdmitted, let peer = peers[node] else { return }
    peer.verdict.admission = .repliesToOpened
    tell(.setAdmission(peer.index, .repliesToOpened))
    gateway.submit(.setAdmitted(node: node, false))
  }

  /// A session with the peer stands: it may have missed that we withdrew trust.
  func noteReturn(of peer: PeerState) {
    guard directory.owesWithdrawal(to: peer.node) else { return }
    let node = peer.node
    Task { await directory.peerIsBack(node) }
  }
}
