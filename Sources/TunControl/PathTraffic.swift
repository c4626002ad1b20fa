// How many bytes and packets went by each kind of path. The worker counts by peer; control adds what is new to the kind
// of path that the peer had meanwhile: when that changes, every few seconds, and before anyone reads. Pure; Node owns one.

import Engine
import Wire

/// The kinds of paths, by the words of `status` and metrics.
enum PathClass: String, CaseIterable, Sendable {
  case direct4
  case direct6
  case relay
  /// The relay, by TLS.
  case tcp443
  case none

  init(_ path: EnginePath, relay: PathClass) {
    switch path {
    case .none: self = .none
    case .direct(let endpoint): self = endpoint.isIPv4 ? .direct4 : .direct6
    case .relay: self = relay
    }
  }
}

struct PathTraffic {
  struct Total: Equatable {
    var sentBytes: UInt64 = 0
    var receivedBytes: UInt64 = 0
    var sentPackets: UInt64 = 0
    var receivedPackets: UInt64 = 0
  }

  private var totals = [Total](repeating: Total(), count: PathClass.allCases.count)

  subscript(path: PathClass) -> Total { totals[PathClass.allCases.firstIndex(of: path) ?? 0] }

  /// Adds what came since `before`, which becomes `now`. A count that is lower than before began anew with the row.
  mutating func add(_ path: PathClass, from before: inout PeerStatistics, to now: PeerStatistics) {
    func new(_ word: KeyPath<PeerStatistics, UInt64>) -> UInt64 {
      let (old, new) = (before[keyPath: word], now[keyPath: word])
      return new >= old ? new - old : new
    }
    let index = PathClass.allCases.firstIndex(of: path) ?? 0
    totals[index].sentBytes &+= new(\.sentBytes)
    totals[index].receivedBytes &+= new(\.receivedBytes)
    totals[index].sentPackets &+= new(\.sentPackets)
    totals[index].receivedPackets &+= new(\.receivedPackets)
    before = now
  }
}
