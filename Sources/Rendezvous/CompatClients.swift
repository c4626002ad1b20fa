// Which nodes the beacon reaches through a WebSocket (wire/tunnel §4.7). CompatConnection enters them, Beacon asks for
// each datagram it relays.

import Synchronization
import TLSTransport

/// A node that is connected may be reachable by UDP as well: its last discover says which way it wants to be reached.
final class CompatClients: Sendable {
  private struct Client {
    var outlet: WebSocketOutlet
    var isPreferred = true
  }

  private let clients = Mutex<[UInt32: Client]>([:])
  /// Most rendezvous have none: then nothing is looked up.
  private let number = Atomic<Int>(0)

  var count: Int { number.load(ordering: .relaxed) }

  /// The node's connection from now on; returns the one before.
  func enter(_ node: UInt32, _ outlet: WebSocketOutlet) -> WebSocketOutlet? {
    clients.withLock { clients in
      let before = clients.updateValue(Client(outlet: outlet), forKey: node)
      number.store(clients.count, ordering: .relaxed)
      return before?.outlet
    }
  }

  /// Does nothing when the node has another connection by now.
  func leave(_ node: UInt32, _ outlet: WebSocketOutlet) {
    clients.withLock { clients in
      if clients[node]?.outlet === outlet { clients[node] = nil }
      number.store(clients.count, ordering: .relaxed)
    }
  }

  /// The way to the node, unless it prefers UDP.
  func outlet(of node: UInt32) -> WebSocketOutlet? {
    guard count > 0 else { return nil }
    return clients.withLock { clients in
      guard let client = clients[node], client.isPreferred else { return nil }
      return client.outlet
    }
  }

  func setPreferred(_ node: UInt32, _ isPreferred: Bool) {
    guard count > 0 else { return }
    clients.withLock { $0[node]?.isPreferred = isPreferred }
  }
}
