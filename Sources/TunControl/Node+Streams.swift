// Streams of peers to this node's own services, between the tunnel and the StreamHost.

import Engine
import Streams
import Wire

extension Node {
  /// A stream packet from the peer, its source checked.
  func receiveStream(_ packet: PilotPacket, from peer: PeerState, by arrival: EnginePath?) {
    guard packet.destination.node == node else { return count("pilot-packet-wrong-destination") }
    let now = Clock.now()
    streams.wallOffset = Clock.wall() &- now
    let isAdmitted = peer.verdict.admission == .all
    let packets = streams.receive(packet, from: peer.node, isAdmitted: isAdmitted, now: now)
    if isAdmitted, !packets.isEmpty { peer.lastUse = now }
    // On the path as everything else; back the way it came while there is none, and what answers a SYN, which may
    // have come another way because ours is dead.
    let path = peer.enginePath == .none || packet.flags.contains(.syn) ? arrival : nil
    for packet in packets { sendControl(packet.encoded(), to: peer, path: path) }
    settleStreams()
  }

  /// Timers of streams that are due.
  func tickStreams(_ now: UInt64) {
    guard now >= nextStream else { return }
    streams.wallOffset = Clock.wall() &- now
    for (node, packet) in streams.tick(now) {
      if let peer = peers[node] { sendControl(packet.encoded(), to: peer) }
    }
    settleStreams()
  }

  /// The peer is gone, or lost our trust.
  func endStreams(of peer: PeerState) {
    streams.forget(peer.node)
    settleStreams()
  }

  private func settleStreams() {
    for (reason, number) in streams.takeCounts() { counts[reason.rawValue, default: 0] += UInt64(number) }
    let next = streams.nextDeadline ?? .max
    guard next != nextStream else { return }
    nextStream = next
    arm()
  }
}
