// The events of a simulation in the order of their times. VirtualNetwork owns one; a mesh of 10,000 nodes keeps about
// as many waiting, so it is a heap, on plain memory, for tests run unoptimised.

/// A binary heap of (time, order), the closures beside it. Events of one time run in the order they came.
final class EventQueue {
  private struct Key {
    var time: UInt64
    var order: UInt64
    var slot: Int
  }

  private var heap = UnsafeMutablePointer<Key>.allocate(capacity: 1024)
  private var capacity = 1024
  private(set) var count = 0
  private var order: UInt64 = 0
  private var closures: [(() -> Void)?] = []
  private var free: [Int] = []

  deinit { heap.deallocate() }

  /// When the next event is due.
  var next: UInt64? { count == 0 ? nil : heap[0].time }

  func insert(at time: UInt64, _ run: @escaping () -> Void) {
    let slot: Int
    if let reused = free.popLast() {
      slot = reused
      closures[slot] = run
    } else {
      slot = closures.count
      closures.append(run)
    }
    if count == capacity { grow() }
    order += 1
    let key = Key(time: time, order: order, slot: slot)
    var hole = count
    count += 1
    while hole > 0 {
      let parent = (hole - 1) / 2
      let above = heap[parent]
      if above.time < time || (above.time == time && above.order < key.order) { break }
      heap[hole] = above
      hole = parent
    }
    heap[hole] = key
  }

  /// The earliest event, taken out.
  func removeFirst() -> (time: UInt64, run: () -> Void)? {
    guard count > 0 else { return nil }
    let first = heap[0]
    count -= 1
    sink(heap[count])
    let run = closures[first.slot]
    closures[first.slot] = nil
    free.append(first.slot)
    return run.map { (first.time, $0) }
  }

  func removeAll() {
    count = 0
    closures = []
    free = []
  }

  /// Puts `key` in at the top, and down to where it belongs.
  private func sink(_ key: Key) {
    let end = count
    var hole = 0
    while true {
      var child = 2 * hole + 1
      guard child < end else { break }
      var below = heap[child]
      if child + 1 < end {
        let other = heap[child + 1]
        if other.time < below.time || (other.time == below.time && other.order < below.order) {
          child += 1
          below = other
        }
      }
      if key.time < below.time || (key.time == below.time && key.order < below.order) { break }
      heap[hole] = below
      hole = child
    }
    heap[hole] = key
  }

  private func grow() {
    let larger = UnsafeMutablePointer<Key>.allocate(capacity: capacity * 2)
    larger.moveInitialize(from: heap, count: count)
    heap.deallocate()
    heap = larger
    capacity *= 2
  }
}
