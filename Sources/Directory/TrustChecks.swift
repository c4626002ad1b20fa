// What a received trust message has to prove before anybody acts on it (wire/tunnel §7.1), and the memory against
// repetitions. Pure: Directory asks with the time; names of the refusals are explained in docs/drops.md.

import Session
package import Wire

/// Why a trust message goes no further. Counted under these names.
package enum TrustRefusal: String, Error, Sendable, CaseIterable {
  case malformed = "trust-message-malformed"
  /// A kind of a later version.
  case unknownKind = "trust-message-unknown-kind"
  /// It claims another sender than the peer whose tunnel it came by.
  case otherSender = "trust-message-other-sender"
  case keyMissing = "trust-message-key-missing"
  /// The key to compare with is not known, or this node has no id.
  case keyUnavailable = "trust-message-key-unavailable"
  /// Another key than the pinned one, or than the one that the directory names now.
  case otherKey = "trust-message-other-key"
  /// Missing, not by this key, or made for another receiver.
  case badSignature = "trust-message-bad-signature"
  case expired = "trust-message-expired"
  case fromFuture = "trust-message-from-future"
  case repeated = "trust-message-repeated"
  /// An answer without a question.
  case unasked = "trust-message-unasked"
  /// As many requests wait for the operator as are kept.
  case pendingFull = "trust-pending-full"
}

/// What the tunnel and the directory say about the peer that a message came from.
package struct TrustSender: Sendable, Equatable {
  package var node: UInt32
  /// The Ed25519 key of the tunnel: the pinned one.
  package var key: Bytes32?
  /// The directory names another key now: such a peer may withdraw trust, and nothing else.
  package var isKeyDoubted: Bool

  package init(node: UInt32, key: Bytes32?, isKeyDoubted: Bool = false) {
    self.node = node
    self.key = key
    self.isKeyDoubted = isKeyDoubted
  }
}

/// Checks messages one after the other and remembers them.
struct TrustChecks: Sendable {
  static let oldest: Int64 = 300
  static let farthestFuture: Int64 = 30
  /// Peers and messages of each that are remembered; the oldest are forgotten first. A peer can only repeat its own
  /// messages, as they come by its tunnel: what it gains by making us forget is its own message once more.
  private let mostPeers: Int
  static let mostOfPeer = 64

  private struct Seen: Sendable, Equatable {
    /// With the kind: a request and a withdrawal within the same second are two messages, and what was recorded as
    /// one kind is no proof that another was not said.
    var kind: TrustMessage.Kind
    var timestamp: Int64
  }

  private struct Memory: Sendable {
    var seen: [Seen] = []
    var last: Int64
  }

  private var memory: [UInt32: Memory] = [:]

  init(mostPeers: Int = 1024) { self.mostPeers = mostPeers }

  var remembered: Int { memory.values.reduce(0) { $0 + $1.seen.count } }

  /// The message, when it holds everything; then it is remembered. `now` in Unix seconds.
  mutating func admit(
    _ bytes: [UInt8], from sender: TrustSender, to me: UInt32, now: Int64
  ) throws(TrustRefusal) -> TrustMessage {
    let message: TrustMessage
    do {
      message = try TrustMessage(parsing: bytes)
    } catch {
      throw error == .unknownKind ? .unknownKind : .malformed
    }
    guard message.node == sender.node else { throw .otherSender }
    guard let claimed = message.publicKey else { throw .keyMissing }
    guard let key = sender.key else { throw .keyUnavailable }
    guard claimed == key, !sender.isKeyDoubted || message.kind == .revoke else { throw .otherKey }
    // No differences: the sender's number may be any.
    guard message.timestamp >= now - Self.oldest else { throw .expired }
    guard message.timestamp <= now + Self.farthestFuture else { throw .fromFuture }
    let seen = Seen(kind: message.kind, timestamp: message.timestamp)
    guard memory[sender.node]?.seen.contains(seen) != true else { throw .repeated }
    let text = TrustMessage.signedText(from: message.node, to: me)
    guard let signature = message.signature, Ed25519.verify(signature, of: text, by: key) else { throw .badSignature }
    remember(seen, of: sender.node, now)
    return message
  }

  private mutating func remember(_ seen: Seen, of node: UInt32, _ now: Int64) {
    if memory[node] == nil, memory.count >= mostPeers {
      memory = memory.filter { $0.value.last >= now - Self.oldest - Self.farthestFuture }
      if memory.count >= mostPeers, let oldest = memory.min(by: { $0.value.last < $1.value.last })?.key {
        memory[oldest] = nil
      }
    }
    var known = memory[node] ?? Memory(last: now)
    known.seen.removeAll { $0.timestamp < now - Self.oldest }
    if known.seen.count >= Self.mostOfPeer { known.seen.removeFirst() }
    known.seen.append(seen)
    known.last = now
    memory[node] = known
  }
}

/// Makes our own messages: no two of a kind to one peer carry the same second, or the second one would be taken for a
/// repetition.
struct TrustWriter: Sendable {
  static let mostPeers = 1024
  private var last: [UInt32: Int64] = [:]

  mutating func message(
    _ kind: TrustMessage.Kind, to peer: UInt32, as me: RegistrySigner, justification: String = "",
    reason: String = "", now: Int64
  ) -> TrustMessage {
    // Ahead of the clock by less than what receivers allow.
    let timestamp = min(max(now, (last[peer] ?? now - 1) + 1), now + TrustChecks.farthestFuture - 10)
    if last[peer] == nil, last.count >= Self.mostPeers { last = last.filter { $0.value >= now } }
    if last.count < Self.mostPeers || last[peer] != nil { last[peer] = timestamp }
    return TrustMessage(
      kind: kind, node: me.node, publicKey: me.identity.publicKey, justification: justification,
      signature: me.identity.sign(TrustMessage.signedText(from: me.node, to: peer)), reason: reason,
      timestamp: timestamp)
  }
}
