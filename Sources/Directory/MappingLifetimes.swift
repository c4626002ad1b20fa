// How long NATs keep mappings, as measured, by the outer address that they show: a node that starts again on a network, or
// comes back to one, need not keep mappings open as often as behind a NAT it knows nothing of. Part of NodeStore.

import JSON
import Wire

/// In `peers.json`: `"nat": {"192.0.2.1": 95}`, in seconds.
struct MappingLifetimes: Equatable, Sendable {
  static let most = 64
  /// Nothing longer is measured.
  static let longest: UInt64 = 600

  private(set) var seconds: [IPv6Address: UInt64] = [:]

  /// nil forgets it. One too many: any other makes room, as all are measured anew where they matter.
  mutating func set(_ lifetime: UInt64?, behind outer: IPv6Address) {
    if lifetime != nil, seconds[outer] == nil, seconds.count >= Self.most { seconds.remove(at: seconds.startIndex) }
    seconds[outer] = lifetime
  }

  init() {}

  /// What is no address or no time is left out: it is measured again.
  init(_ value: JSONValue?) {
    for (text, value) in value?.object ?? [:] {
      guard seconds.count < Self.most, let outer = IPv6Address(text), let number = value.integer, number > 0,
        number <= Self.longest
      else { continue }
      seconds[outer] = UInt64(number)
    }
  }

  var encoded: JSONValue {
    .object(Dictionary(uniqueKeysWithValues: seconds.map { ($0.key.description, .integer(Int64($0.value))) }))
  }
}
