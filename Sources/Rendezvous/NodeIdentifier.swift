// How a node's id follows from its key. Used by RegistryState.

package import Wire

/// Node ids derive from the public key, so that a rendezvous that lost its database gives every node its old id back.
///
/// The first four bytes of SHA-256(key), big-endian, are mapped into `range`. It begins high above the ids that
/// official daemons trust by number (16437…243113, wire/registry §9.3) and those a later list may hold, and ends
/// before the broadcast id. An id that is taken gives way to the next free one, wrapping at the end of the range.
package enum NodeIdentifier {
  package static let range: ClosedRange<UInt32> = 0x4000_0000...0xFFFF_FFFE

  /// How far from its derived id a node may be placed. A client that remembers an id may ask for it within this
  /// distance and nowhere else.
  package static let reach: UInt32 = 16

  package static func derived(from key: Bytes32) -> UInt32 {
    let digest = Cryptography.sha256(key.bytes)
    let head = digest.prefix(4).reduce(0) { $0 << 8 | UInt32($1) }
    return range.lowerBound + head % (range.upperBound - range.lowerBound + 1)
  }

  static func following(_ id: UInt32) -> UInt32 { id == range.upperBound ? range.lowerBound : id + 1 }

  /// Steps from `start` to `id` in the order of the search.
  static func distance(from start: UInt32, to id: UInt32) -> UInt32? {
    guard range.contains(start), range.contains(id) else { return nil }
    return id >= start ? id - start : (range.upperBound - start) + (id - range.lowerBound) + 1
  }
}
