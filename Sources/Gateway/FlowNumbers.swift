// Numbers of translated connections, which are the phantom's ports: handed out in turn, and not again before the last
// packets of their connection have passed.

import Engine

struct FlowNumbers {
  /// How long a connection's row stays after its end: retransmitted FINs and their answers.
  static let lingers: UInt64 = 10_000_000_000

  private var isTaken = [Bool](repeating: false, count: TranslatedFlow.capacity + 1)
  private var last = 0
  private(set) var count = 0
  /// Ended ones, oldest first.
  private var ended: [(id: UInt16, until: UInt64)] = []
  private var head = 0

  /// Nil when all are in use.
  mutating func take() -> UInt16? {
    guard count < TranslatedFlow.capacity else { return nil }
    repeat { last = last % TranslatedFlow.capacity + 1 } while isTaken[last]
    isTaken[last] = true
    count += 1
    return UInt16(last)
  }

  /// The connection is over; `expire` frees its number.
  mutating func end(_ id: UInt16, now: UInt64) { ended.append((id, now + Self.lingers)) }

  /// Never used by a connection: free at once.
  mutating func giveBack(_ id: UInt16) {
    guard isTaken[Int(id)] else { return }
    isTaken[Int(id)] = false
    count -= 1
  }

  var nextExpiry: UInt64? { head < ended.count ? ended[head].until : nil }

  /// The next number whose time is over, freed.
  mutating func expire(_ now: UInt64) -> UInt16? {
    guard head < ended.count, ended[head].until <= now else { return nil }
    let id = ended[head].id
    head += 1
    if head >= 1024, head * 2 > ended.count {
      ended.removeFirst(head)
      head = 0
    }
    giveBack(id)
    return id
  }
}
