// Answers to a node of our own kind whose record the directory is still asked for: the first packet then waits for
// the slower of two round trips instead of both.

import Directory
import Engine
import Session
import Traversal
import Wire

/// An answer given in advance. Nothing of it reaches the worker, the store or the path before the directory names the
/// same key for the node: until then the sessions are only held here, and packets sealed under them wait unopened.
struct AdvanceAnswer: Sendable {
  /// The frame that was answered; handled as if it came now when the directory says otherwise.
  let frame: KeyExchangeFrame
  let arrival: Arrival
  var handshake: HandshakeMachine
  /// What the machine wants done when the key proves right, in order.
  private(set) var held: [HandshakeMachine.Action] = []
  /// The frames that answer at once.
  private(set) var replies: [[UInt8]] = []

  /// Nil when the frame proves nothing by itself: official peers do not say for whom their frames are made, so theirs
  /// may be recordings and wait for the directory.
  init?(
    _ frame: KeyExchangeFrame, _ arrival: Arrival, identity: Identity, node: UInt32, now: UInt64,
    using entropy: inout SystemRandomNumberGenerator
  ) {
    guard frame.hasValidSignature, case .valid = PeerAnnouncement.read(frame, receiver: node) else { return nil }
    self.frame = frame
    self.arrival = arrival
    handshake = HandshakeMachine(identity: identity, node: node, peer: frame.node, peerKey: frame.ed25519)
    for action in handshake.handle(.keyExchange(frame, arrival), now: now, using: &entropy) {
      if case .send(let reply, .reply) = action { replies.append(reply) } else { held.append(action) }
    }
  }

  /// Gives the keys back.
  consuming func discard() {
    for case .install(_, let context, _) in held { context.release() }
  }
}

extension Node {
  private static let earlyLasts: UInt64 = 2_000_000_000

  /// Answers a stranger's key exchange while its record is looked up. False when it must wait.
  func answerAhead(_ frame: KeyExchangeFrame, _ arrival: Arrival) -> Bool {
    // Without the directory there is nothing to be ahead of: its stored word comes at once, or none does.
    guard let own = node, directoryState.isConnected, lookups[frame.node]?.isAnsweredAhead == false,
      store.pinnedKey(node: frame.node).map({ $0 == frame.ed25519 }) ?? true
    else { return false }
    // Once for each lookup, as it costs signatures: whoever spoils it makes the peer wait as it did anyway.
    lookups[frame.node]?.isAnsweredAhead = true
    guard
      let advance = AdvanceAnswer(
        frame, arrival, identity: store.identity, node: own, now: Clock.now(), using: &entropy)
    else { return false }
    for reply in advance.replies {
      switch arrival {
      case .direct(let endpoint): tell(.sendDatagram(reply, to: endpoint))
      case .relayed: relay(reply, to: frame.node, after: nil)
      }
    }
    lookups[frame.node]?.advance = advance
    return true
  }

  /// The record of the peer is there: takes the sessions over that were made in advance, and what came under them.
  func adopt(_ advance: AdvanceAnswer, frames: [(frame: InboundFrame, at: UInt64)], by peer: PeerState) {
    tally("handshakes-answered-ahead")
    let now = Clock.now()
    peer.adoptedAt = now
    // INVARIANT: nothing that these cause feeds the machine a `reset`: an `install` after it would outlive its session.
    for action in advance.held { perform(action, isUnasked: true, for: peer) }
    walk(peer, .session(isUp: peer.handshake.currentSession != nil))
    for waiting in frames {
      // What came under the session is as good as new for as long as early frames are elsewhere.
      if case .undecryptable = waiting.frame, now > waiting.at + Self.earlyLasts {
        count(HandshakeCount.earlyFrameDropped.rawValue)
      } else {
        deliver(waiting.frame, to: peer)
      }
    }
  }
}
