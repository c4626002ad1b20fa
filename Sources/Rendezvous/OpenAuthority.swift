// Who may be where at a beacon without a registry: whoever proves to have the key that the id follows from. Used by
// BeaconServer.

import Synchronization
import Wire

/// Ids of `pilot-rendezvous` follow from keys (NodeIdentifier), so such a beacon needs to ask nobody. Ids that other
/// registries give belong to the key that proved itself first, for a day after it was last seen.
final class OpenAuthority: BeaconAuthority {
  private struct Owner {
    var key: Bytes32
    var at: Int64
  }

  /// None ever: who they are takes a registry.
  let compat = CompatClients()
  private let owners = Mutex<[UInt32: Owner]>([:])
  private let clock: @Sendable () -> Int64
  private static let lifetime: Int64 = 86_400_000
  /// A million nodes; more find no place until others were away for a day.
  private static let capacity = 1_000_000

  init(clock: @escaping @Sendable () -> Int64) { self.clock = clock }

  var now: Int64 { clock() }

  func mayBind(_ node: UInt32, _ key: Bytes32?, at source: Endpoint) -> Bool? { nil }

  func owns(_ node: UInt32, _ key: Bytes32) -> Bool {
    if NodeIdentifier.range.contains(node) {
      // The id that follows from the key, or one after it that was free.
      guard let distance = NodeIdentifier.distance(from: NodeIdentifier.derived(from: key), to: node),
        distance <= NodeIdentifier.reach
      else { return false }
    }
    let now = now
    return owners.withLock { owners in
      guard let owner = owners[node], now - owner.at <= Self.lifetime else { return owners.count < Self.capacity }
      return owner.key == key
    }
  }

  func stillOwns(_ node: UInt32, _ key: Bytes32) -> Bool { owns(node, key) }

  func noteOwner(of node: UInt32, _ key: Bytes32) {
    let now = now
    owners.withLock { $0[node] = Owner(key: key, at: now) }
  }

  /// Where a node is, is nobody's business: our own tell each other through the tunnel.
  func mayPunch(_ requester: UInt32, _ target: UInt32) -> Bool { false }

  func registeredEndpoint(of node: UInt32, now: Int64) -> Endpoint? { nil }

  func sweep() {
    let now = now
    owners.withLock { owners in owners = owners.filter { now - $0.value.at <= Self.lifetime } }
  }
}
