// From which hosts a node is connected right now. Written by ClientSession, asked by registrations and heartbeats.

import Synchronization
import Wire

/// Counts open connections by node and host. A node that is connected stays where it is: whoever repeats its
/// registration from another host has to wait until these connections are gone (wire/registry §9.1).
final class Presence: Sendable {
  private struct Place: Hashable {
    var node: UInt32
    var host: IPv6Address
  }

  private let counts = Mutex<[Place: Int]>([:])

  func enter(_ node: UInt32, _ host: IPv6Address) {
    counts.withLock { $0[Place(node: node, host: host), default: 0] += 1 }
  }

  func leave(_ node: UInt32, _ host: IPv6Address) {
    counts.withLock { counts in
      let place = Place(node: node, host: host)
      let left = (counts[place] ?? 1) - 1
      counts[place] = left > 0 ? left : nil
    }
  }

  func isConnected(_ node: UInt32, from host: IPv6Address) -> Bool {
    counts.withLock { $0[Place(node: node, host: host)] != nil }
  }
}
