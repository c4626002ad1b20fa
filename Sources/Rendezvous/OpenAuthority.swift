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
  private struct State {
    var owners: [UInt32: Owner] = [:]
    var roomMadeAt = Int64.min / 2

    /// Nodes ask once a minute at least: who was not seen for ten is away. Once a minute, as it looks at all.
    mutating func makeRoom(now: Int64) {
      guard now - roomMadeAt >= 60_000 else { return }
      roomMadeAt = now
      owners = owners.filter { now - $0.value.at <= 600_000 }
    }
  }

  private let state = Mutex(State())
  private let clock: @Sendable () -> Int64
  private static let lifetime: Int64 = 86_400_000
  /// A million nodes. When there are as many, those that are away make room; a node beyond that is served all the same, and
  /// nobody remembers whose its id is.
  static let mostOwners = 1_000_000
  private let capacity: Int

  init(capacity: Int = OpenAuthority.mostOwners, clock: @escaping @Sendable () -> Int64) {
    self.capacity = capacity
    self.clock = clock
  }

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
    return state.withLock { state in
      guard let owner = state.owners[node], now - owner.at <= Self.lifetime else { return true }
      return owner.key == key
    }
  }

  func stillOwns(_ node: UInt32, _ key: Bytes32) -> Bool { owns(node, key) }

  func noteOwner(of node: UInt32, _ key: Bytes32) {
    let now = now
    state.withLock { state in
      if state.owners.count >= capacity, state.owners[node] == nil { state.makeRoom(now: now) }
      guard state.owners.count < capacity || state.owners[node] != nil else { return }
      state.owners[node] = Owner(key: key, at: now)
    }
  }

  func noteSeen(_ node: UInt32, _ key: Bytes32) {
    let now = now
    state.withLock { state in
      if state.owners[node]?.key == key { state.owners[node]?.at = now }
    }
  }

  /// Where a node is, is nobody's business: our own tell each other through the tunnel.
  func mayPunch(_ requester: UInt32, _ target: UInt32) -> Bool { false }

  func registeredEndpoint(of node: UInt32, now: Int64) -> Endpoint? { nil }

  func sweep() {
    let now = now
    state.withLock { state in state.owners = state.owners.filter { now - $0.value.at <= Self.lifetime } }
  }
}
