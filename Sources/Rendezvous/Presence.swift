// Over which connections a node is connected right now, by host. Written by ClientSession, asked by registrations and
// heartbeats.

import Synchronization
import Wire

/// A node that is connected stays where it is: whoever repeats its registration from another host has to wait until
/// these connections are gone (wire/registry §9.1).
final class Presence: Sendable {
  private struct Place: Hashable {
    var node: UInt32
    var host: IPv6Address
  }

  private let sessions = Mutex<[Place: [ObjectIdentifier: ClientSession]]>([:])

  func enter(_ node: UInt32, _ session: ClientSession) {
    sessions.withLock {
      $0[Place(node: node, host: session.host), default: [:]][ObjectIdentifier(session)] = session
    }
  }

  func leave(_ node: UInt32, _ session: ClientSession) {
    sessions.withLock { sessions in
      let place = Place(node: node, host: session.host)
      sessions[place]?[ObjectIdentifier(session)] = nil
      if sessions[place]?.isEmpty == true { sessions[place] = nil }
    }
  }

  func isConnected(_ node: UInt32, from host: IPv6Address) -> Bool {
    sessions.withLock { $0[Place(node: node, host: host)] != nil }
  }

  /// Finds out soon whether the other ends are still there.
  func probe(_ node: UInt32, at host: IPv6Address) {
    let found = sessions.withLock { Array(($0[Place(node: node, host: host)] ?? [:]).values) }
    for session in found { session.probe() }
  }
}
