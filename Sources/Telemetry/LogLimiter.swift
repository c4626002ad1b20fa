// Keeps a log readable when something happens a thousand times: a few lines of each cause and peer, then one every half
// minute that tells how many were left out. Pure: LogOutput asks it for every line from `info` on.

package struct LogLimiter {
  /// Whose lines are counted together.
  package struct Key: Hashable, Sendable {
    /// The field `cause`, or the message where there is none.
    package var cause: String
    /// The field `peer` or `address`, when there is one.
    package var peer: String

    package init(cause: String, peer: String) {
      self.cause = cause
      self.peer = peer
    }
  }

  package enum Verdict: Equatable, Sendable {
    /// `suppressed`: lines of this key that were left out since the last one.
    case write(suppressed: Int)
    case leaveOut
  }

  package static let burst = 5.0
  /// Nanoseconds until a key may write another line.
  package static let interval: UInt64 = 30_000_000_000
  static let capacity = 512
  /// All keys together: a second.
  static let linesPerSecond = 50.0
  static let linesAtOnce = 400.0

  private struct Entry {
    var tokens: Double
    var at: UInt64
    var suppressed = 0

    mutating func fill(_ now: UInt64) {
      guard now > at else { return }
      tokens = min(LogLimiter.burst, tokens + Double(now - at) / Double(LogLimiter.interval))
      at = now
    }
  }

  private var entries: [Key: Entry] = [:]
  private var allTokens = linesAtOnce
  private var allAt: UInt64 = 0
  private var nextSweep: UInt64 = 0

  package init() {}

  package mutating func admit(_ key: Key, now: UInt64) -> Verdict {
    if now > allAt {
      allTokens = min(Self.linesAtOnce, allTokens + Double(now - allAt) / 1e9 * Self.linesPerSecond)
      allAt = now
    }
    var entry = entries[key] ?? Entry(tokens: Self.burst, at: now)
    entry.fill(now)
    guard entry.tokens >= 1, allTokens >= 1 else {
      entry.suppressed += 1
      if entries[key] != nil || makeRoom() { entries[key] = entry }
      return .leaveOut
    }
    entry.tokens -= 1
    allTokens -= 1
    let suppressed = entry.suppressed
    entry.suppressed = 0
    if entries[key] != nil || makeRoom() { entries[key] = entry }
    return .write(suppressed: suppressed)
  }

  /// Keys of which lines were left out and which may write again, so that a cause that went quiet is told of, too.
  /// Looks at the table every ten seconds at most.
  package mutating func due(now: UInt64) -> [(key: Key, suppressed: Int)] {
    guard now >= nextSweep else { return [] }
    nextSweep = now + 10_000_000_000
    var due: [(key: Key, suppressed: Int)] = []
    for (key, entry) in entries {
      var entry = entry
      entry.fill(now)
      if entry.suppressed > 0, entry.tokens >= 1 {
        due.append((key, entry.suppressed))
        entry.suppressed = 0
        entry.tokens -= 1
        entries[key] = entry
      } else if entry.tokens >= Self.burst {
        entries[key] = nil
      }
    }
    return due.sorted { ($0.key.cause, $0.key.peer) < ($1.key.cause, $1.key.peer) }
  }

  /// False when the table is full of keys that are still counted: strangers can make keys, so it must not grow.
  private mutating func makeRoom() -> Bool {
    guard entries.count >= Self.capacity else { return true }
    guard let oldest = entries.filter({ $0.value.suppressed == 0 }).min(by: { $0.value.at < $1.value.at }) else {
      return false
    }
    entries[oldest.key] = nil
    return true
  }
}
