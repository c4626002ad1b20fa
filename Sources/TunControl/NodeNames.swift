// The resolver stub's view of the directory: names of the zone and back (Naming's NameSource).

import Directory
import Naming
import Wire

struct NodeNames: NameSource {
  let directory: Directory

  func address(of name: String) async -> NameAnswer {
    switch await directory.node(named: name) {
    case .found(_, let address, let lastSeen, let fromCache):
      return .found(
        OverlayMapping.address(for: address),
        ttl: Self.timeToLive(lastSeen: lastSeen, fromCache: fromCache, now: NodeStore.unixTime()))
    case .notFound: return .notFound
    case .unavailable: return .unavailable
    }
  }

  func name(of address: IPv6Address) async -> PointerAnswer {
    guard let pilot = OverlayMapping.pilotAddress(from: address) else { return .notFound }
    if let name = await directory.name(of: pilot.node) { return .found(name, ttl: NamingLimits.maximumTTL) }
    return await directory.state.isConnected ? .notFound : .unavailable
  }

  /// Bound to liveness: nodes are heard of every 60 s. The longer one is silent, the sooner its address is asked
  /// again; what comes from memory is asked again at once when the directory is back.
  static func timeToLive(lastSeen: Int64?, fromCache: Bool, now: Int64) -> UInt32 {
    guard !fromCache else { return NamingLimits.staleTTL }
    guard let lastSeen else { return 30 }
    switch now - lastSeen {
    case ..<75: return NamingLimits.maximumTTL
    case ..<180: return 15
    default: return NamingLimits.staleTTL
    }
  }
}
