// Which peer is due next. The node keeps one timer for all of them; with 100,000 idle peers the queue is empty.

/// A binary heap of (time, node). Entries that were overtaken by a newer time of their node are skipped when they come
/// up, so that moving a deadline costs no search.
struct DeadlineQueue {
  private var heap: [(time: UInt64, node: UInt32)] = []
  private var current: [UInt32: UInt64] = [:]

  /// Sets the node's deadline; nil takes it out.
  mutating func set(_ node: UInt32, to time: UInt64?) {
    guard current[node] != time else { return }
    current[node] = time
    guard let time else { return }
    heap.append((time, node))
    var child = heap.count - 1
    while child > 0, heap[child].time < heap[(child - 1) / 2].time {
      heap.swapAt(child, (child - 1) / 2)
      child = (child - 1) / 2
    }
  }

  /// The earliest deadline.
  mutating func next() -> UInt64? {
    while let top = heap.first {
      if current[top.node] == top.time { return top.time }
      removeTop()
    }
    return nil
  }

  /// Takes out and returns a node that is due.
  mutating func popDue(_ now: UInt64) -> UInt32? {
    guard let time = next(), time <= now, let node = heap.first?.node else { return nil }
    current[node] = nil
    removeTop()
    return node
  }

  private mutating func removeTop() {
    guard let last = heap.popLast(), !heap.isEmpty else { return }
    heap[0] = last
    var parent = 0
    while true {
      var least = parent
      for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count && heap[child].time < heap[least].time {
        least = child
      }
      guard least != parent else { return }
      heap.swapAt(parent, least)
      parent = least
    }
  }
}
