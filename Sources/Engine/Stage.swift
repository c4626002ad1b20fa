// Packets that wait for a session: a bounded pool of slots, first in first out per node. Worker only.

internal import Shim

/// A pool of packet slots, each with the virtio-net header in front, as they came from the TUN.
///
/// Bounds: 1024 packets in all, 64 per node, 2038 bytes each. Larger ones (superpackets) are left to TCP.
struct Stage: ~Copyable {
  struct Slot {
    var node: UInt32
    var length: UInt32
    var time: UInt64
    var sequence: UInt64
  }
  static let slotSize = 2048
  static let slotCount = 1024
  static let perNode = 64
  /// A packet older than this serves no one: TCP and resolvers have asked again.
  static let lifetime: UInt64 = 10_000_000_000

  private let memory: UnsafeMutableRawPointer
  private let slots: UnsafeMutablePointer<Slot>
  private var sequence: UInt64 = 0
  private(set) var count = 0

  enum Verdict { case staged, full, tooLarge }

  init?() {
    guard let base = pt_map(Self.slotSize * Self.slotCount) else { return nil }
    memory = base
    slots = .allocate(capacity: Self.slotCount)
    slots.initialize(repeating: Slot(node: 0, length: 0, time: 0, sequence: 0), count: Self.slotCount)
  }

  deinit {
    pt_unmap(memory, Self.slotSize * Self.slotCount)
    slots.deallocate()
  }

  /// Copies `length` bytes (header and packet). Slots past their lifetime are taken again; their number is returned.
  mutating func stage(
    node: UInt32, bytes: UnsafeRawPointer, length: Int, now: UInt64
  ) -> (verdict: Verdict, expired: Int) {
    guard length <= Self.slotSize else { return (.tooLarge, 0) }
    var free = -1
    var waiting = 0
    var expired = 0
    for index in 0..<Self.slotCount {
      if slots[index].length != 0, now &- slots[index].time > Self.lifetime {
        release(index)
        expired += 1
      }
      if slots[index].length == 0 {
        if free < 0 { free = index }
      } else if slots[index].node == node {
        waiting += 1
      }
    }
    guard free >= 0, waiting < Self.perNode else { return (.full, expired) }
    sequence &+= 1
    count += 1
    slots[free] = Slot(node: node, length: UInt32(length), time: now, sequence: sequence)
    (memory + free * Self.slotSize).copyMemory(from: bytes, byteCount: length)
    return (.staged, expired)
  }

  /// The oldest packet of the node: its slot, or -1.
  func oldest(of node: UInt32) -> Int {
    guard count > 0 else { return -1 }
    var found = -1
    for index in 0..<Self.slotCount where slots[index].length != 0 && slots[index].node == node {
      if found < 0 || slots[index].sequence < slots[found].sequence { found = index }
    }
    return found
  }

  func bytes(_ slot: Int) -> (base: UnsafeMutableRawPointer, length: Int) {
    (memory + slot * Self.slotSize, Int(slots[slot].length))
  }

  mutating func release(_ slot: Int) {
    slots[slot].length = 0
    count -= 1
  }
}
