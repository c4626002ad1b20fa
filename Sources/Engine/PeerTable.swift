// Node id -> row of the peer, by open addressing. The worker alone reads and writes it.

internal import Shim

/// A hash table of 64-bit slots `node << 32 | row + 1`; zero is empty. Linear probing, load at most one half,
/// so its size is fixed at start and no packet ever waits for it to grow. Node ids come from a directory that
/// derives them from keys, which an attacker may choose: the hash is seeded.
struct PeerTable: ~Copyable {
  private let slots: UnsafeMutablePointer<UInt64>
  private let mask: UInt64
  private let shift: UInt64
  private let seed: UInt64
  private(set) var count = 0
  let capacity: Int

  /// `capacity` peers at most. Memory: 16 bytes per peer of capacity at the most, untouched pages cost nothing.
  init?(capacity: Int, seed: UInt64) {
    var size = 64
    while size < capacity * 2 { size *= 2 }
    guard let base = pt_map(size * 8) else { return nil }
    slots = base.bindMemory(to: UInt64.self, capacity: size)
    mask = UInt64(size - 1)
    shift = UInt64(64 - size.trailingZeroBitCount)
    self.seed = seed
    self.capacity = capacity
  }

  deinit { pt_unmap(slots, Int(mask + 1) * 8) }

  @inline(__always)
  private func home(_ node: UInt32) -> UInt64 {
    // Fibonacci hashing: the high bits of a product are the well mixed ones.
    ((UInt64(node) ^ seed) &* 0x9E37_79B9_7F4A_7C15) >> shift
  }

  /// Row of a node, or nil.
  @inline(__always)
  func row(of node: UInt32) -> PeerIndex? {
    var index = home(node)
    while true {
      let slot = slots[Int(index)]
      if slot == 0 { return nil }
      if UInt32(truncatingIfNeeded: slot >> 32) == node { return UInt32(truncatingIfNeeded: slot) &- 1 }
      index = (index &+ 1) & mask
    }
  }

  /// False when full or when the node is there already.
  mutating func insert(_ node: UInt32, row: PeerIndex) -> Bool {
    guard count < capacity, self.row(of: node) == nil else { return false }
    var index = home(node)
    while slots[Int(index)] != 0 { index = (index &+ 1) & mask }
    slots[Int(index)] = UInt64(node) << 32 | UInt64(row &+ 1)
    count += 1
    return true
  }

  /// Removes by shifting back what follows, so that no tombstones build up.
  mutating func remove(_ node: UInt32) {
    var hole = home(node)
    while true {
      let slot = slots[Int(hole)]
      if slot == 0 { return }
      if UInt32(truncatingIfNeeded: slot >> 32) == node { break }
      hole = (hole &+ 1) & mask
    }
    var next = (hole &+ 1) & mask
    while slots[Int(next)] != 0 {
      let origin = home(UInt32(truncatingIfNeeded: slots[Int(next)] >> 32))
      // An entry may move into the hole unless its home lies cyclically after the hole.
      if (next &- origin) & mask >= (next &- hole) & mask {
        slots[Int(hole)] = slots[Int(next)]
        hole = next
      }
      next = (next &+ 1) & mask
    }
    slots[Int(hole)] = 0
    count -= 1
  }
}
