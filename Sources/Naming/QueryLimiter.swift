// How many queries one source may ask: a token bucket per address in a table of fixed size. Used by StubServer.
package import Wire

/// A program in a retry loop, or a resolver that forwards in a circle, is slowed to `rate` queries a second.
///
/// The table never grows. Two sources that meet in one slot share its bucket while the slot is in use; an idle slot
/// (its bucket has filled up again) belongs to whoever comes next.
package struct QueryLimiter: Sendable {
  private struct Slot {
    var source: IPv6Address
    /// Tokens in billionths, so that refilling is exact integer work: rate per second × nanoseconds.
    var tokens: UInt64
    var filledAt: UInt64
  }

  private var slots: [Slot?]
  private let rate: UInt64
  private let capacity: UInt64
  private let seed: UInt64
  private static let token: UInt64 = 1_000_000_000

  /// - Parameters:
  ///   - rate: queries a second that a source may keep up, 1…1,000,000.
  ///   - burst: queries it may ask at once, 1…1,000,000.
  ///   - slots: sources told apart.
  ///   - seed: keeps outsiders from choosing who shares a slot.
  package init(rate: UInt32, burst: UInt32, slots: Int = 1024, seed: UInt64) {
    self.rate = UInt64(min(max(rate, 1), 1_000_000))
    self.capacity = UInt64(min(max(burst, 1), 1_000_000)) * Self.token
    self.seed = seed
    self.slots = Array(repeating: nil, count: max(slots, 1))
  }

  /// Whether one more query from `source` is let through at `now` (nanoseconds of a monotonic clock).
  package mutating func admits(_ source: IPv6Address, now: UInt64) -> Bool {
    let index = position(of: source)
    var slot = slots[index] ?? Slot(source: source, tokens: capacity, filledAt: now)
    let elapsed = now > slot.filledAt ? now - slot.filledAt : 0
    let (added, overflow) = elapsed.multipliedReportingOverflow(by: rate)
    let missing = capacity - slot.tokens
    slot.tokens = overflow || added >= missing ? capacity : slot.tokens + added
    slot.filledAt = max(now, slot.filledAt)
    if slot.source != source, slot.tokens == capacity { slot.source = source }
    let isAdmitted = slot.tokens >= Self.token
    if isAdmitted { slot.tokens -= Self.token }
    slots[index] = slot
    return isAdmitted
  }

  private func position(of source: IPv6Address) -> Int {
    // SplitMix64's finaliser over both words: cheap, and unpredictable enough with a secret seed.
    var mixed = source.high ^ seed
    for word in [source.low, seed] {
      mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
      mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
      mixed ^= (mixed >> 31) ^ word
    }
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    return Int((mixed ^ (mixed >> 31)) % UInt64(slots.count))
  }
}
