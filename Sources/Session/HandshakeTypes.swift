// What goes into a HandshakeMachine and what comes out. Control translates between these and the engine's commands
// and events; the Simulator does the same for its virtual nodes.

package import Wire

/// How a frame reached us, and so how to answer it.
package enum Arrival: Hashable, Sendable {
  case direct(Endpoint)
  case relayed
}

/// A sealed frame that came before its key.
package struct EarlyFrame: Equatable, Sendable {
  package var bytes: [UInt8]
  package var arrival: Arrival
  package var receivedAt: UInt64

  package init(bytes: [UInt8], arrival: Arrival, receivedAt: UInt64) {
    self.bytes = bytes
    self.arrival = arrival
    self.receivedAt = receivedAt
  }
}

/// Somebody shows another Ed25519 key for a node than the pinned one.
package struct KeyAlarm: Equatable, Sendable {
  package var pinned: Bytes32
  package var seen: Bytes32
  /// The directory names the seen key, too: the node was probably set up anew. Otherwise only a frame shows it.
  package var isRegistered: Bool

  package init(pinned: Bytes32, seen: Bytes32, isRegistered: Bool) {
    self.pinned = pinned
    self.seen = seen
    self.isRegistered = isRegistered
  }
}

extension HandshakeMachine {
  /// Names a session of this peer; counts up from 1, never reused.
  package typealias SessionID = UInt32

  package enum Event: Sendable {
    /// Packets wait for the peer. At most once a second is enough.
    case needed
    /// The peer's Ed25519 key: the pinned one first (from the store), later whatever the directory says.
    case peerKey(Bytes32)
    /// The directory cannot tell the key now.
    case peerKeyUnavailable
    case keyExchange(KeyExchangeFrame, Arrival)
    case keyRequest(KeyRequestFrame, Arrival)
    /// A PILS of this peer that no installed session opens.
    case undecryptable([UInt8], Arrival)
    /// The first frame was opened under this session: proof that the peer holds its key.
    case confirmed(SessionID)
    /// Frames of the peer do not open, or nothing comes back on a path that is in use: ask whether the session holds.
    case failing
    /// The relay is reached another way: what was asked through it may be lost, so ask again now.
    case relayMoved
    /// Make a new session now, keeping the present one until the new one is proven (2^48 frames, an operator).
    case rekey
    /// The operator accepts this key for the node from now on.
    case acceptKey(Bytes32)
    /// Forget all sessions (trust revoked).
    case reset
    /// `nextDeadline` is reached.
    case tick
  }

  package enum Route: Equatable, Sendable {
    /// The peer's present path; as `.both` when there is none.
    case path
    /// Directly to the best known endpoint and a copy through the relay.
    case both
    case relay
    /// Back to where the frame came from.
    case reply(Arrival)
  }

  package enum Action: Sendable {
    case send([UInt8], Route)
    /// Number of this try of a connection attempt, from 1; follows its `send`s. The path choice counts them.
    case attempted(Int)
    /// A genuine PILA came this way: a hint for the path choice, not a proof (it may be a recording).
    case heard(Arrival)
    /// Ask the directory; `fresh`: past its cache.
    case requestPeerKey(fresh: Bool)
    /// Open under this session from now on; seal under it only after `promote`. Who carries this out owns the context.
    case install(SessionID, AEADContext, sendPrefix: UInt32)
    /// Seal under it; `rawIPv6`: whether the peer takes raw IPv6 inner frames.
    case promote(SessionID, rawIPv6: Bool)
    /// Forget the session and wipe its key.
    case retire(SessionID)
    /// Seal one small control message under the current session and send it: it proves to the peer that we hold the
    /// key, and its answer path.
    case confirm
    /// Handle these frames as if they came in now.
    case replayEarly([EarlyFrame])
    case punch
    /// No answer in time: what is staged is answered by unreachable. Tries go on while packets come.
    case giveUp
    case count(HandshakeCount)
    case alarm(KeyAlarm)
  }

  /// Times in nanoseconds.
  package struct Configuration: Sendable {
    package var announces = true
    package var takesRawIPv6 = true
    package var takesSplitPackets = true
    /// Gaps between tries; the last one repeats. Official peers take 5 frames a second from a source (wire §3.5).
    package var retryGaps: [UInt64] = [250, 500, 1000, 2000, 4000].map { $0 * millisecond }
    package var giveUpAfter: UInt64 = 5 * second
    /// Tries end this long after the last `needed`.
    package var needLasts: UInt64 = 15 * second
    package var rekeyInterval: UInt64 = 3600 * second
    /// How long a replaced session still receives, after its successor was proven.
    package var grace: UInt64 = 15 * second
    package init() {}
  }

  package static let millisecond: UInt64 = 1_000_000
  package static let second: UInt64 = 1_000_000_000
}

/// Why a handshake frame was refused or left unanswered; one counter each.
package enum HandshakeCount: String, Sendable, CaseIterable {
  case otherNode = "pila-other-node"
  case wrongKey = "pila-wrong-key"
  case keyUnavailable = "pila-key-unavailable"
  case zeroKey = "pila-zero-x25519"
  case retiredKey = "pila-retired-x25519"
  case badSignature = "pila-bad-signature"
  case otherReceiver = "pila-other-receiver"
  case badAnnouncement = "pila-bad-announcement"
  case missingAnnouncement = "pila-announcement-missing"
  case limited = "pila-limited"
  case candidateHeld = "pila-candidate-held"
  case keyRequest = "pilk-request"
  case keyRequestLimited = "pilk-limited"
  case earlyFrameDropped = "pils-early-dropped"
  /// A small-order X25519 key, or no memory.
  case unusableKey = "session-key-unusable"
}
