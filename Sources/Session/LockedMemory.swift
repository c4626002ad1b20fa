// Slots for keys in memory that is locked, left out of core dumps, and wiped when given back.
// AEADContext, LockedSecret and Identity take slots here, when sessions come and go: never on the packet path.

import Shim
import Synchronization

/// Whether the memory of keys is locked against swapping, and why not if it is not (`status` shows it).
package struct MemoryLock: Equatable, Sendable {
  package var isLocked: Bool
  /// "locked", or the failed call and its errno.
  package var reason: String
}

/// A pool of equal slots, 64-byte aligned, carved from locked chunks. Chunks are never unmapped: a handle that is
/// used after its release reads zeros or another key, never foreign memory.
///
/// A free slot is all zero but for its last word, which links to the next free one: what the C side reads first of a
/// context that was released is zero, and it refuses to work with it.
final class LockedArena: Sendable {
  private struct State: ~Copyable {
    var free: UInt = 0
    var used = 0
    var capacity = 0
    var lockError: Int32 = 0
  }

  private let slotSize: Int
  private var linkOffset: Int { slotSize - 8 }
  private let slotsPerChunk: Int
  private let state = Mutex(State())

  /// `slotSize`: a multiple of 64 bytes.
  init(slotSize: Int, slotsPerChunk: Int) {
    precondition(slotSize > 0 && slotSize % 64 == 0 && slotsPerChunk > 0)
    self.slotSize = slotSize
    self.slotsPerChunk = slotsPerChunk
  }

  /// A zeroed slot, or nil when the kernel gives no memory.
  func take() -> UnsafeMutableRawPointer? {
    state.withLock { state in
      if state.free == 0, !grow(&state) { return nil }
      // SAFETY: the free list holds only addresses of slots of our own chunks.
      guard let slot = UnsafeMutableRawPointer(bitPattern: state.free) else { return nil }
      state.free = slot.load(fromByteOffset: linkOffset, as: UInt.self)
      slot.storeBytes(of: 0, toByteOffset: linkOffset, as: UInt.self)
      state.used += 1
      return slot
    }
  }

  /// Wipes the slot and takes it back. Each slot is given back exactly once (INVARIANT of the owners).
  func give(_ slot: UnsafeMutableRawPointer) {
    pt_wipe(slot, slotSize)
    state.withLock { state in
      slot.storeBytes(of: state.free, toByteOffset: linkOffset, as: UInt.self)
      state.free = UInt(bitPattern: slot)
      state.used -= 1
    }
  }

  /// Slots in use: tests compare it before and after.
  var used: Int { state.withLock { $0.used } }

  var lock: MemoryLock {
    let error = state.withLock { $0.lockError }
    if error == 0 { return MemoryLock(isLocked: true, reason: "locked") }
    return MemoryLock(isLocked: false, reason: "mlock failed with errno \(-error); raise LimitMEMLOCK")
  }

  private func grow(_ state: inout State) -> Bool {
    let length = slotSize * slotsPerChunk
    guard let chunk = pt_map(length) else { return false }
    let error = pt_lock(chunk, length)
    if error != 0 { state.lockError = error }
    for index in (0..<slotsPerChunk).reversed() {
      let slot = chunk + index * slotSize
      slot.storeBytes(of: state.free, toByteOffset: linkOffset, as: UInt.self)
      state.free = UInt(bitPattern: slot)
    }
    state.capacity += slotsPerChunk
    return true
  }
}

/// Up to 64 secret bytes (X25519 private key, session key, Ed25519 key) in locked memory, wiped when the owner ends.
package struct LockedSecret: ~Copyable, @unchecked Sendable {
  static let arena = LockedArena(slotSize: 64, slotsPerChunk: 64)

  /// 64 bytes to read and write; valid as long as this value.
  let raw: UnsafeMutableRawPointer

  /// All zero. Nil when there is no memory.
  init?() {
    guard let slot = Self.arena.take() else { return nil }
    raw = slot
  }

  deinit { Self.arena.give(raw) }

  var bytes: UnsafeMutablePointer<UInt8> { raw.assumingMemoryBound(to: UInt8.self) }
}
