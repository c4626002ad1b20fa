// The replay window against the recorded vectors, its edges, and a model that remembers everything.

import SeededRandom
import Session
import Simulator
import Testing

@Suite("Replay window")
struct ReplayWindowTests {
  private func take(_ window: inout ReplayWindow, _ counter: UInt64) -> Bool {
    guard window.accepts(counter) else { return false }
    window.record(counter)
    return true
  }

  @Test("all recorded sequences hold, but for counters that only the wider window still takes")
  func recordedSequences() throws {
    let sequences = try Vectors.load("replay")["sequences"].array
    #expect(sequences.count >= 7)
    for sequence in sequences {
      var window = ReplayWindow()
      var seen: Set<UInt64> = []
      for step in sequence["steps"].array {
        let counter = step.array[0].unsigned
        let official = step.array[1].boolean
        // The official window is 256 wide: a new counter 256 to 4031 below the highest is refused there, taken here.
        let isOnlyTooOldThere =
          !official && !seen.contains(counter) && window.highest > counter
          && window.highest - counter < ReplayWindow.width
        let accepted = take(&window, counter)
        seen.insert(counter)
        #expect(accepted == (official || isOnlyTooOldThere), "\(sequence["name"].text): \(counter)")
      }
    }
  }

  @Test("the window is at least 2048 wide and refuses exactly what is older than its width")
  func edges() {
    #expect(ReplayWindow.width >= 2048)
    for highest in [10_000, 10_047, 10_048, UInt64.max] {
      var window = ReplayWindow()
      window.record(highest)
      #expect(window.accepts(highest - (ReplayWindow.width - 1)))
      #expect(!window.accepts(highest - ReplayWindow.width))
      #expect(!window.accepts(highest))
      #expect(window.accepts(highest - 2047))
    }
  }

  @Test("zero bytes are a fresh window: counter 0 is taken once")
  func zeroBytes() {
    #expect(MemoryLayout<ReplayWindow>.size == 520)
    withUnsafeTemporaryAllocation(byteCount: MemoryLayout<ReplayWindow>.size, alignment: 8) { memory in
      memory.initializeMemory(as: UInt8.self, repeating: 0)
      let window = memory.baseAddress!.assumingMemoryBound(to: ReplayWindow.self)
      #expect(window.pointee.accepts(0))
      window.pointee.record(0)
      #expect(!window.pointee.accepts(0))
      #expect(window.pointee.accepts(1))
      #expect(window.pointee.accepts(.max))
    }
  }

  @Test("a check changes nothing, and recording a counter that is too old changes nothing")
  func checkIsPure() {
    var window = ReplayWindow()
    window.record(50_000)
    #expect(window.accepts(49_999))
    #expect(window.accepts(49_999))
    window.record(3)
    #expect(window.highest == 50_000)
    // 3 falls on the ring bit of this counter and would block it if age were not looked at.
    #expect(window.accepts(3 + 4096 * 12))
  }

  @Test(
    "any order of counters gives what a set of all seen counters gives",
    arguments: [1, 2, 3, UInt64.random(in: 0...(.max))])
  func againstModel(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    var window = ReplayWindow()
    var seen: Set<UInt64> = []
    var highest: UInt64 = 0
    for step in 0..<60_000 {
      let counter: UInt64
      switch UInt8.random(in: 0..<20, using: &generator) {
      case 0: counter = highest &+ UInt64.random(in: 0...6000, using: &generator)
      case 1: counter = highest &- min(highest, UInt64.random(in: 3900...4200, using: &generator))
      case 2...12: counter = highest &+ 1
      case 13 where step % 5000 == 0: counter = highest &+ UInt64.random(in: 0...(1 << 40), using: &generator)
      default: counter = highest &- min(highest, UInt64.random(in: 0...4100, using: &generator))
      }
      let isNew = !seen.contains(counter)
      let isYoung = counter > highest || highest - counter < ReplayWindow.width
      let accepted = take(&window, counter)
      #expect(accepted == (isNew && isYoung), "seed \(seed) step \(step) counter \(counter) highest \(highest)")
      if accepted {
        seen.insert(counter)
        highest = max(highest, counter)
      }
    }
  }
}
