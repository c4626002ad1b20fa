// How much one source may do. Used by the registry (per source address) and the beacon (per node and per host).

import Synchronization

/// Token buckets by key, bounded in number. Time is milliseconds of any clock that does not jump back.
final class RateLimiter<Key: Hashable & Sendable>: Sendable {
  private struct Bucket {
    var tokens: Double
    var at: Int64
  }

  private struct Table {
    var buckets: [Key: Bucket] = [:]
    var sweptAt = Int64.min
  }

  private let table = Mutex(Table())
  private let burst: Double
  private let perSecond: Double
  private let capacity: Int

  init(perSecond: Double, burst: Double? = nil, capacity: Int = 65_536) {
    self.perSecond = perSecond
    self.burst = max(1, burst ?? perSecond)
    self.capacity = capacity
  }

  /// Takes one token of `key`'s bucket; false when there is none. A full table without an idle bucket lets unknown
  /// keys through: refusing them would let one flood of addresses shut everybody else out.
  func allows(_ key: Key, now: Int64) -> Bool {
    table.withLock { table in
      guard var bucket = table.buckets[key] else {
        if table.buckets.count >= capacity { sweep(&table, now: now) }
        if table.buckets.count < capacity { table.buckets[key] = Bucket(tokens: burst - 1, at: now) }
        return true
      }
      bucket.tokens = min(burst, bucket.tokens + Double(max(0, now - bucket.at)) / 1000 * perSecond)
      bucket.at = max(bucket.at, now)
      let isAllowed = bucket.tokens >= 1
      if isAllowed { bucket.tokens -= 1 }
      table.buckets[key] = bucket
      return isAllowed
    }
  }

  /// Forgets buckets that are full again, at most once a second.
  private func sweep(_ table: inout Table, now: Int64) {
    guard table.sweptAt == .min || now - table.sweptAt >= 1000 else { return }
    table.sweptAt = now
    table.buckets = table.buckets.filter { _, bucket in
      bucket.tokens + Double(max(0, now - bucket.at)) / 1000 * perSecond < burst
    }
  }
}
