// The narrow bridge between the two worlds: what control tells a worker, and what a worker tells control.
// Nothing here is per packet. Commands and events cross in bounded rings with a wake-up descriptor each.

package import Session
package import Wire

/// Row of a peer in the worker's table. Control hands the numbers out, from 0, and reuses them after `removePeer`.
package typealias PeerIndex = UInt32

/// Names one installed session of one peer. Control counts up; never reused for a peer.
package typealias SessionID = UInt32

/// How sealed frames reach a peer.
package enum EnginePath: Equatable, Sendable {
  /// No way known: packets wait (bounded) until there is one.
  case none
  case direct(Endpoint)
  /// Through this beacon, or a node that relays, wrapped as `05 | own node | peer node | frame` (wire/tunnel §4.4).
  case relay(beacon: Endpoint)
}

/// Which inner packets of a peer come in. Everything refused is counted and, where the peer may know,
/// answered with ICMPv6 administratively prohibited.
package enum Admission: UInt8, Sendable {
  /// Only answers to flows that a program on this node opened less than 5 minutes ago.
  case repliesOnly = 0
  /// Everything: mutual trust, a shared network, or this node is public.
  case all = 1
  /// As `repliesOnly`, after trust was withdrawn: a TCP flow counts from a SYN of ours on, so that a server's answers on
  /// a connection from before do not hold it open.
  case repliesToOpened = 2
}

/// What to answer a local program that sends to a peer, instead of staging or sending.
package enum Refusal: UInt8, Sendable {
  case none = 0
  /// ICMPv6 1/0: the directory knows no such node.
  case noRoute = 1
  /// ICMPv6 1/1: a private node that does not trust us.
  case prohibited = 2
  /// ICMPv6 1/3: known, but no path or session could be made.
  case addressUnreachable = 3
}

/// From control to the worker.
package enum EngineCommand: Sendable {
  /// The node's own addresses (one per network); inner packets to anything else are dropped.
  case setLocal(node: UInt32, addresses: [IPv6Address])
  /// Datagrams with beacon codes count only from here, at most 16: all of them from beacons, relayed frames alone from
  /// nodes that relay.
  case setRelays(beacons: [Endpoint], nodes: [Endpoint])
  /// What this node relays for each trusted peer, bytes and packets a second; nil: it relays for nobody.
  case setRelayLimit(RelayLimit?)
  /// Whether frames of the peer to others of its kind are relayed (Worker+Relay).
  case setRelaying(PeerIndex, Bool)
  /// Makes a row. Packets staged for the node stay staged.
  case addPeer(PeerIndex, node: UInt32)
  /// Empties the row, wipes its sessions, drops what is staged for it.
  case removePeer(PeerIndex)
  case setPath(PeerIndex, EnginePath)
  case setAdmission(PeerIndex, Admission)
  case setRefusal(PeerIndex, Refusal)
  /// Whether raw IPv6 inner frames may be sent to the peer; without it its packets are translated (Worker+Translation).
  /// Packets wait until the worker was told.
  case setRawIPv6(PeerIndex, Bool)
  /// Whether the peer joins packets that come in two frames (Wire's `SplitFrame`). Comes before `setRawIPv6`.
  case setSplitPackets(PeerIndex, Bool)
  /// Largest inner frame that the peer's path takes, as its search found it; 0: as large as the interface's packets.
  /// From 1280 on, larger packets hear Packet Too Big with it; below, packets up to 1280 bytes travel as two frames.
  /// Superpackets are cut so that each segment fits. `setPath` forgets it: tell it again after that.
  case setPathLimit(PeerIndex, Int)
  /// The relay that frames to the peer could go through, nil: none. After a rest the first frames of a direct path go
  /// through it as well (`RestedPath`).
  case setFallback(PeerIndex, Endpoint?)
  /// Installs a session. `current`: send under it from now on (what is staged leaves at once); else receive only.
  /// At most 3 sessions per peer are held; the oldest non-current one gives way. The worker owns `context` from now on.
  case install(PeerIndex, SessionID, context: AEADContext, sendPrefix: UInt32, current: Bool)
  /// Send under this installed session from now on.
  case promote(PeerIndex, SessionID)
  /// Forget one session and wipe its key.
  case retire(PeerIndex, SessionID)
  /// Seals one inner frame (a Pilot packet, a control message) and sends it, by `path` or by the peer's own path.
  case sendInner(PeerIndex, [UInt8], path: EnginePath?)
  /// Sends one datagram as it is: PILA, PILK, discover, punch.
  case sendDatagram([UInt8], to: Endpoint)
  /// Frames of this peer to this endpoint leave by this UDP socket from now on, and what comes in there is handled as by
  /// the worker's own: a mapping of the NAT belongs to the socket it was made with. The worker owns the descriptor from
  /// now on, and closes the one that the peer had before. At most `Engine.extraSockets` peers.
  case adoptSocket(PeerIndex, Int32, to: Endpoint)
  /// The peer's frames leave by the worker's own socket again.
  case releaseSocket(PeerIndex)
  /// Handles one datagram as if it came in now (frames that arrived before their key).
  case receive([UInt8], from: Endpoint, relayedFrom: UInt32?)
  /// Whether segments of the peer come in at a stream's rate although it is not admitted: we dialed it.
  case setStreaming(PeerIndex, Bool)
  /// Makes or replaces the row of a translated TCP connection.
  case setFlow(TranslatedFlow)
  /// The connection is over; its last packets still pass, but a SYN with its addresses and ports is a new one's.
  case endFlow(UInt16)
  case removeFlow(UInt16)
  /// Handles a TUN packet (as `StreamEvent.opening` told it) as if it came in now.
  case retry([UInt8])
  /// Answers such a packet: nil by RST, else by ICMPv6.
  case refuse([UInt8], Refusal?)
  /// Whether datagrams of peers are told as events, too.
  case tapDatagrams(Bool)
  /// Answers what is staged for the peer by the refusal and empties the stage.
  case failStaged(node: UInt32, Refusal)
  /// Switches an offload off at run time ("tun-tso", "tun-uso", "udp-gso", "udp-gro"); tests and operators use it.
  case disableOffload(String, reason: String)
  /// Ends the thread after this batch.
  case stop
}

/// How much a node relays for one peer, each second.
package struct RelayLimit: Equatable, Sendable {
  package var bytes: UInt64
  package var packets: UInt64

  package init(bytes: UInt64, packets: UInt64) {
    self.bytes = bytes
    self.packets = packets
  }
}

extension EngineCommand {
  /// State of a row, or of the node, that nobody tells again: without it worker and control would differ for good. At
  /// most a few of each row.
  var isToldOnce: Bool {
    switch self {
    case .setLocal, .setRelays, .setRelayLimit, .setRelaying, .addPeer, .removePeer, .setPath, .setAdmission,
      .setRefusal, .setRawIPv6, .setSplitPackets, .setPathLimit, .setFallback, .promote, .retire, .setStreaming,
      .tapDatagrams,
      .disableOffload, .releaseSocket, .stop:
      true
    // Keys and sockets are given back when they are not taken, flows are told again, packets and frames may be lost.
    case .install, .adoptSocket, .setFlow, .endFlow, .removeFlow, .retry, .refuse, .sendInner, .sendDatagram, .receive,
      .failStaged:
      false
    }
  }
}

/// From the worker to control.
package enum EngineEvent: Sendable {
  /// A local packet to a node that has no row; it is staged. At most once per node and second.
  case peerWanted(PilotAddress)
  /// A local packet is staged for a peer without a current session or path. At most once per peer and second.
  case sessionWanted(PeerIndex)
  /// Anything but PILS: PILA, PILK, PILP, beacon messages 02, 04, 0A. `relayedFrom`: unwrapped from a beacon's 06.
  case datagram([UInt8], from: Endpoint, relayedFrom: UInt32?)
  /// A PILS that no session of its sender opens (or the sender has no row). Limited per sender.
  case undecryptable([UInt8], from: Endpoint, relayedFrom: UInt32?)
  /// First frame opened under this session: the peer has the key.
  case confirmed(PeerIndex, SessionID)
  /// An inner frame that is not IPv6 (first nibble 1: Pilot packet; others: control), already authenticated.
  case innerFrame(PeerIndex, [UInt8], from: Endpoint, isRelayed: Bool)
  /// An authenticated frame with a new highest counter came directly from an endpoint that is not the peer's path.
  case moved(PeerIndex, Endpoint)
  /// A packet was sent to the peer, the first in a second.
  case resumed(PeerIndex)
  /// 32 consecutive frames under this peer's id did not open. At most once per peer and second.
  case failing(PeerIndex)
  /// `adoptSocket` found no such row, or no room: the socket is closed. Never lost.
  case socketRefused(PeerIndex, to: Endpoint)
  /// Our kernel refused an inner frame of `size` bytes on this way for its size; `limit`: what it would have taken. The
  /// worker has lowered the path's limit already when it was data. At most 20 a second for each peer.
  case tooBig(PeerIndex, size: Int, limit: Int?, path: EnginePath)
  /// An offload went off, with the reason.
  case offloadDisabled(String, reason: String)
  /// The thread ended; the reason is nil after `stop`.
  case stopped(String?)
}

/// From the worker to the gateway.
package enum StreamEvent: Sendable {
  /// A segment of a stream (a whole Pilot packet), already authenticated.
  case segment(PeerIndex, [UInt8], from: Endpoint, isRelayed: Bool)
  /// The SYN of a local program to a peer that takes no raw IPv6: what the TUN gave, and where in it the packet begins.
  case opening([UInt8], packetAt: Int)
  /// A datagram of a peer (a whole Pilot packet), which went to the TUN as well.
  case datagram(PeerIndex, [UInt8])
}

/// One peer's counters, written by the worker alone.
package struct PeerStatistics: Equatable, Sendable {
  package var sentBytes: UInt64 = 0
  package var sentPackets: UInt64 = 0
  package var receivedBytes: UInt64 = 0
  package var receivedPackets: UInt64 = 0
  /// Monotonic nanoseconds of the last authenticated frame; 0: never.
  package var lastReceive: UInt64 = 0
  package var lastSend: UInt64 = 0
  /// The last frame with a new highest counter that came by the path that we use.
  package var lastOnPath: UInt64 = 0
  /// Largest inner frame that the path takes, in bytes; 0: as large as the interface's packets.
  package var innerMTU: UInt64 = 0
  package init() {}
}
