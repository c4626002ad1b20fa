// What the resolver stub asks and what it may be told. Implemented by the node over its directory and cache.
package import Wire

/// The directory's word on one name of the zone.
package enum NameAnswer: Sendable, Equatable {
  /// The name exists. `ttl` in seconds is how long the address may be kept: as long as the node behind it counts
  /// as alive, `NamingLimits.staleTTL` when the answer comes from a cache that could not be checked. The stub clamps it.
  case found(IPv6Address, ttl: UInt32)
  /// Nothing has this name alone, but there may be names below it: it is a group.
  case between
  /// The directory was asked and knows no such name.
  case notFound
  /// Nobody could be asked and nothing is remembered.
  case unavailable
}

/// The directory's word on one overlay address.
package enum PointerAnswer: Sendable, Equatable {
  /// The address belongs to a node of this name, within this group when it is the node's address there: one label
  /// each, without the zone.
  case found(String, group: String?, ttl: UInt32)
  /// No node has this address, or the node has no name.
  case notFound
  /// Nobody could be asked and nothing is remembered.
  case unavailable
}

/// Where names come from. Called concurrently, at most `StubServer.Configuration.maximumLookups` times at once; a call
/// is cancelled when it takes longer than `lookupTimeout`.
package protocol NameSource: Sendable {
  /// - Parameter name: one label in lower case, already checked to be a possible hostname.
  func address(of name: String) async -> NameAnswer
  /// The node's address within a group. Both are as above.
  func address(of name: String, in group: String) async -> NameAnswer
  /// - Parameter address: a well-formed address of the overlay (`OverlayMapping.pilotAddress` accepts it).
  func name(of address: IPv6Address) async -> PointerAnswer
}

/// Lifetimes of answers, in seconds.
package enum NamingLimits {
  /// No answer lives shorter: a TTL of 0 makes some resolvers ask for every single connection.
  package static let minimumTTL: UInt32 = 1
  /// No answer lives longer: a node that moved or left is forgotten within a minute.
  package static let maximumTTL: UInt32 = 60
  /// For a `NameSource` that answers from memory while the rendezvous is away.
  package static let staleTTL: UInt32 = 5
  /// How long "no such name" is believed (RFC 2308 §5): a node that just started is found soon.
  package static let negativeTTL: UInt32 = 5

  package static func clamp(_ ttl: UInt32) -> UInt32 { min(max(ttl, minimumTTL), maximumTTL) }
}
