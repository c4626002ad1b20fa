// The resolver stub's view of the directory: names of the zone and back (Naming's NameSource). Groups are those that this
// node is a member of; others have no addresses that it could reach.

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
    case .notFound:
      // "No such name" also says that there is nothing below it (RFC 8020).
      if case .found = await directory.ownGroup(named: name) { return .between }
      return .notFound
    case .unavailable: return .unavailable
    }
  }

  func address(of name: String, in group: String) async -> NameAnswer {
    let network: UInt16
    switch await directory.ownGroup(named: group) {
    case .found(let id): network = id
    case .notFound: return .notFound
    case .unavailable: return .unavailable
    }
    guard case .found(let node, _, let lastSeen, let fromCache) = await directory.node(named: name) else {
      return await address(of: name)
    }
    switch await directory.isMember(node, of: network) {
    case .some(true): break
    case .some(false): return .notFound
    case .none: return .unavailable
    }
    return .found(
      OverlayMapping.address(for: PilotAddress(network: network, node: node)),
      ttl: Self.timeToLive(lastSeen: lastSeen, fromCache: fromCache, now: NodeStore.unixTime()))
  }

  func name(of address: IPv6Address) async -> PointerAnswer {
    guard let pilot = OverlayMapping.pilotAddress(from: address) else { return .notFound }
    if let name = await directory.name(of: pilot.node) {
      guard pilot.network != 0 else { return .found(name, group: nil, ttl: NamingLimits.maximumTTL) }
      // Such an address is nobody's when the node is no member there, or we are none.
      guard let group = await directory.nameOfOwnGroup(pilot.network),
        await directory.isMember(pilot.node, of: pilot.network) == true
      else { return await directory.state.isConnected ? .notFound : .unavailable }
      return .found(name, group: group, ttl: NamingLimits.maximumTTL)
    }
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
