// Whom we dialled lately: answers to trust messages and to messages come as streams of the peer's own, so those pass
// for a while although it is not trusted (wire/tunnel §7.6). Pure; asked when a SYN of a stranger comes.

import Wire

package struct ReplyWindow: Sendable {
  /// After the last dial.
  package static let lasts: UInt64 = 300 * StreamLimits.second
  /// Peers that are remembered; the one dialled longest ago gives way.
  package static let mostPeers = 4096
  /// Where answers come: trust messages and data exchange. Nothing else of a stranger passes, the echo neither.
  package static let ports: [UInt16] = [PilotPort.handshake, PilotPort.dataExchange]

  private var dialled: [UInt32: UInt64] = [:]

  package init() {}

  package var count: Int { dialled.count }

  /// We dial the peer. Times are monotonic nanoseconds.
  package mutating func note(_ peer: UInt32, _ now: UInt64) {
    if dialled[peer] == nil, dialled.count >= Self.mostPeers {
      dialled = dialled.filter { now < $0.value &+ Self.lasts }
      if dialled.count >= Self.mostPeers, let oldest = dialled.min(by: { $0.value < $1.value })?.key {
        dialled[oldest] = nil
      }
    }
    dialled[peer] = now
  }

  package func isOpen(_ peer: UInt32, _ now: UInt64) -> Bool {
    guard let time = dialled[peer] else { return false }
    return now < time &+ Self.lasts
  }

  /// Whether a SYN of this peer to this port of ours passes for that reason.
  package func admits(_ peer: UInt32, port: UInt16, _ now: UInt64) -> Bool {
    Self.ports.contains(port) && isOpen(peer, now)
  }

  /// Trust was withdrawn: the peer's answers are not waited for any more.
  package mutating func close(_ peer: UInt32) { dialled[peer] = nil }
}
