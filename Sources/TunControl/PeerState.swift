// One row of the node: everything control knows about a peer it speaks with. Owned by the Node actor.

import Directory
import Engine
import Session
import Traversal
import Wire

final class PeerState {
  let index: PeerIndex
  let node: UInt32
  let createdAt: UInt64
  /// When sessions were taken over that had been answered before this row was there, else 0.
  var adoptedAt: UInt64 = 0
  var record: PeerRecord
  var trust: TrustState
  /// What `trust` was when the policy was applied last.
  var wasAdmitted: Bool
  var verdict: PeerPolicy.Verdict
  var handshake: HandshakeMachine
  var path: PathMachine
  /// Which relay stands behind the path's.
  var relays: RelayChoice
  /// What the peer said that it can be reached through; nil: nothing yet.
  var toldRelays: [TunnelControl.Relay]?
  /// `relaysVersion` when it was told of ours.
  var relaysTold: UInt64 = 0
  /// It relays for us.
  var offersRelay = false
  /// We relay for it.
  var isRelayedFor = false
  /// Monotonic nanoseconds: a relay of ours, whose path is kept as if packets were sent; 0: it is not.
  var leanedOnAt: UInt64 = 0
  /// When a session with it as a relay was last asked for.
  var relayTriedAt: UInt64 = 0
  /// Tries of the present handshake.
  var handshakeTries = 0
  /// As told to the worker.
  var enginePath = EnginePath.none
  /// The relay behind the path, as told to the worker.
  var engineFallback: Endpoint?
  /// The peer opened the tunnel.
  var hasCome = false
  /// What keeps the peer from working, for `status`; with the advice.
  var problem: String?
  var isKeyRefused = false
  /// Milliseconds of the last answered ping.
  var roundTrip: Double?
  /// Monotonic nanoseconds of the last packet of a program, in either direction.
  var lastUse: UInt64
  /// The same, but for relays, which are kept open whether or not they are used.
  var lastTraffic: UInt64
  var lastKeepalive: UInt64 = 0
  /// Where a socket of the peer's own leads, opened by Node+Ports; whether one is being sought; when its ports were tried.
  var openedEndpoint: Endpoint?
  var isOpeningPorts = false
  var sprayedAt: UInt64 = 0
  /// Counters at the last survey, and frames of control since: what remains is use.
  var surveyed = PeerStatistics()
  /// Counters as far as they were added to the traffic of path classes.
  var accounted = PeerStatistics()
  var controlFramesSent: UInt64 = 0
  var controlFramesReceived: UInt64 = 0

  init(
    index: PeerIndex, record: PeerRecord, trust: TrustState, verdict: PeerPolicy.Verdict, handshake: HandshakeMachine,
    path: PathMachine, relays: RelayChoice, now: UInt64
  ) {
    self.index = index
    node = record.node
    createdAt = now
    (lastUse, lastTraffic) = (now, now)
    self.record = record
    self.trust = trust
    wasAdmitted = trust.isAdmitted
    self.verdict = verdict
    self.handshake = handshake
    self.path = path
    self.relays = relays
  }

  /// The word for `status`.
  var sessionWord: String {
    if handshake.currentSession != nil { return handshake.isConfirmed ? "established" : "unconfirmed" }
    if isKeyRefused { return "refused" }
    return handshake.isAttempting ? "connecting" : "none"
  }

  var address: PilotAddress { record.address }
}
