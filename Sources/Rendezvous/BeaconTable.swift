// Which UDP endpoint belongs to which node, as the beacon saw it. Shared by Beacon (which writes) and the registry.

import Synchronization
import Wire

final class BeaconTable: Sendable {
  private struct Binding {
    var endpoint: Endpoint
    var at: Int64
    var changedAt: Int64
    var mayChange: Bool
  }

  private let bindings = Mutex<[UInt32: Binding]>([:])
  /// A node that sent nothing for ten minutes is forgotten (wire/tunnel §4.3).
  private static let lifetime: Int64 = 600_000
  /// A port may change this often without a new registration: a NAT that rebinds, not two nodes fighting for one id.
  private static let changeInterval: Int64 = 5000

  func endpoint(of node: UInt32, now: Int64) -> Endpoint? {
    bindings.withLock { bindings in
      guard let binding = bindings[node], now - binding.at <= Self.lifetime else { return nil }
      return binding.endpoint
    }
  }

  /// The caller has checked that the endpoint's host is the node's. False when the port changed too soon.
  func bind(_ node: UInt32, to endpoint: Endpoint, now: Int64) -> Bool {
    bindings.withLock { bindings in
      guard var binding = bindings[node], now - binding.at <= Self.lifetime else {
        bindings[node] = Binding(endpoint: endpoint, at: now, changedAt: now, mayChange: false)
        return true
      }
      if binding.endpoint != endpoint {
        guard binding.mayChange || now - binding.changedAt >= Self.changeInterval else { return false }
        binding.endpoint = endpoint
        binding.changedAt = now
      }
      binding.at = now
      binding.mayChange = false
      bindings[node] = binding
      return true
    }
  }

  /// The node registered anew: its program may have a new socket.
  func allowRebinding(_ node: UInt32) { bindings.withLock { $0[node]?.mayChange = true } }

  func forget(_ node: UInt32) { bindings.withLock { $0[node] = nil } }

  /// Whether `source` is where `node` was last seen; keeps it alive.
  func confirms(_ node: UInt32, at source: Endpoint, now: Int64) -> Bool {
    bindings.withLock { bindings in
      guard let binding = bindings[node], binding.endpoint == source, now - binding.at <= Self.lifetime else {
        return false
      }
      // Written seldom: relayed datagrams come by the thousand.
      if now - binding.at > 1000 { bindings[node]?.at = now }
      return true
    }
  }

  func sweep(now: Int64) {
    bindings.withLock { bindings in bindings = bindings.filter { now - $0.value.at <= Self.lifetime } }
  }

  func count(now: Int64) -> Int {
    bindings.withLock { $0.values.reduce(0) { $0 + (now - $1.at <= Self.lifetime ? 1 : 0) } }
  }
}
