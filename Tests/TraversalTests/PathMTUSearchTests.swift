// The search for the largest frame of a path, against paths that are known: every size, losses, changes, lies.

import SeededRandom
import Testing
import Traversal

@Suite("Path MTU search")
struct PathMTUSearchTests {
  private static let second: UInt64 = 1_000_000_000

  /// A path that carries frames up to `mtu` and loses a probe or its answer at `lossPercent`.
  private struct VirtualPath {
    var search: PathMTUSearch
    var mtu: Int
    var lossPercent = 0
    /// The sender's own kernel refuses what is too big, and says what passes.
    var isRefusing = false
    var random: SeededGenerator
    var now: UInt64 = 1
    var probes: [Int] = []

    init(ceiling: Int = 1400, mtu: Int, lossPercent: Int = 0, seed: UInt64 = 1) {
      search = PathMTUSearch(ceiling: ceiling)
      self.mtu = mtu
      self.lossPercent = lossPercent
      random = SeededGenerator(seed: seed)
    }

    /// One probe, if one is due: to its answer or its timeout.
    mutating func step() -> Bool {
      guard let size = search.nextProbe(now) else { return false }
      probes.append(size)
      if isRefusing, size > mtu {
        search.refused(size: size, limit: mtu, now: now)
      } else if size <= mtu, Int.random(in: 0..<100, using: &random) >= lossPercent {
        now += PathMTUSearchTests.second / 20
        search.answered(size: size, now: now)
      } else {
        now += PathMTUSearchTests.second
        search.lost(size: size, now: now)
      }
      return true
    }

    /// Probes until none is due. Number of probes.
    @discardableResult
    mutating func settle() -> Int {
      var count = 0
      while step(), count < 1000 { count += 1 }
      return count
    }

    /// Lets `rounds` raise timers run out.
    mutating func raise(_ rounds: Int) {
      for _ in 0..<rounds {
        guard let due = search.nextDeadline else { return }
        now = max(now, due)
        settle()
      }
    }
  }

  private func isFound(_ limit: Int, _ mtu: Int, ceiling: Int) -> Bool {
    let truth = min(mtu, ceiling)
    return limit <= truth && truth - limit < PathMTUSearch.resolution
  }

  @Test("a path that takes the ceiling is known after one probe and one round trip")
  func ceiling() {
    var path = VirtualPath(ceiling: 1400, mtu: 1500)
    #expect(path.search.limit == 1280 && path.search.phase == .base && path.search.nextDeadline == 0)
    let count = path.settle()
    #expect(count == 1 && path.probes == [1400])
    #expect(path.search.limit == 1400 && path.search.phase == .complete && path.search.nextDeadline == nil)
  }

  @Test("every path MTU is found to 8 bytes, within 27 probes and without a limit above it")
  func everySize() {
    var most = 0
    for mtu in PathMTUSearch.floor...1500 {
      for ceiling in [1280, 1400, 1500] {
        var path = VirtualPath(ceiling: ceiling, mtu: mtu)
        var count = 0
        var worst = 0
        while path.step() {
          count += 1
          // The base is assumed until three probes have failed.
          if count >= 3 { worst = max(worst, path.search.limit) }
        }
        most = max(most, count)
        guard isFound(path.search.limit, mtu, ceiling: ceiling), worst <= mtu, path.search.phase == .complete else {
          Issue.record("MTU \(mtu), ceiling \(ceiling): \(path.search.limit) after \(path.probes), worst \(worst)")
          return
        }
      }
    }
    #expect(most <= 27, "\(most) probes")
  }

  @Test("jumbo paths are found, too", arguments: [1281, 1500, 4352, 8191, 8999, 9000])
  func jumbo(mtu: Int) {
    var path = VirtualPath(ceiling: 9000, mtu: mtu)
    let count = path.settle()
    #expect(isFound(path.search.limit, mtu, ceiling: 9000), "\(path.probes)")
    #expect(count <= 40)
  }

  @Test("below the floor nothing passes: the error state, tried again at ever longer gaps, and left when it ends")
  func belowFloor() throws {
    var path = VirtualPath(mtu: PathMTUSearch.floor - 1)
    let first = path.settle()
    #expect(first == 8 && path.search.phase == .error && path.search.limit == PathMTUSearch.floor)
    var gaps: [UInt64] = []
    for _ in 0..<7 {
      let due = try #require(path.search.nextDeadline)
      gaps.append((due - path.now) / Self.second)
      path.raise(1)
    }
    #expect(gaps == [30, 60, 120, 240, 480, 600, 600])
    path.mtu = 1500
    path.raise(1)
    #expect(path.search.limit == 1400)
  }

  @Test(
    "under losses the limit is never above the truth, and what losses hid is found by the raise timer",
    arguments: [1, 2, UInt64.random(in: 3..<1_000_000)])
  func losses(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    var atOnce = 0
    var runs = 0
    var most = 0
    for mtu in PathMTUSearch.floor...1500 {
      let loss = Int.random(in: 0...20, using: &random)
      var path = VirtualPath(ceiling: 1400, mtu: mtu, lossPercent: loss, seed: random.next())
      var count = path.settle()
      most = max(most, count)
      runs += 1
      if isFound(path.search.limit, mtu, ceiling: 1400) { atOnce += 1 }
      var rounds = 0
      while !isFound(path.search.limit, mtu, ceiling: 1400), rounds < 12 {
        path.raise(1)
        rounds += 1
      }
      count = path.probes.count
      guard isFound(path.search.limit, mtu, ceiling: 1400) else {
        Issue.record("seed \(seed), MTU \(mtu), loss \(loss): \(path.search.limit) after \(path.probes)")
        return
      }
    }
    #expect(most <= 60, "seed \(seed): \(most) probes")
    #expect(atOnce * 100 >= runs * 95, "seed \(seed): \(atOnce) of \(runs) at once")
  }

  @Test("the kernel's refusals cost no timeouts: its limit is probed next and is the result")
  func refusals() {
    for mtu in PathMTUSearch.floor...1399 {
      var path = VirtualPath(mtu: mtu)
      path.isRefusing = true
      let count = path.settle()
      guard path.search.limit == mtu, count == 2 else {
        Issue.record("MTU \(mtu): \(path.search.limit) after \(path.probes)")
        return
      }
    }
  }

  @Test("a refusal without a limit counts as too big at once; one of a proven size takes the proof back")
  func plainRefusals() {
    var search = PathMTUSearch(ceiling: 1400)
    let probe1 = search.nextProbe(1)
    #expect(probe1 == 1400)
    search.refused(size: 1400, limit: nil, now: 1)
    let probe2 = search.nextProbe(2)
    #expect(probe2 == 1280)
    search.answered(size: 1280, now: 3)
    #expect(search.limit == 1280)
    let middle = search.nextProbe(4)
    #expect(middle == 1340)
    search.answered(size: 1340, now: 5)
    #expect(search.limit == 1340)
    // The link changed under us: data of a proven size is refused.
    search.refused(size: 1330, limit: nil, now: 6)
    #expect(search.limit == 1280 && search.isSearching)
    search.refused(size: 1280, limit: nil, now: 7)
    #expect(search.limit == PathMTUSearch.floor)
    // A limit below an answered size is no news.
    search.answered(size: 1000, now: 8)
    search.refused(size: 1400, limit: 700, now: 9)
    #expect(search.limit == 1000)
    // Sizes that were never asked for mean nothing.
    search.answered(size: 60_000, now: 10)
    search.refused(size: 0, limit: nil, now: 11)
    search.refused(size: 60_000, limit: 1, now: 12)
    #expect(search.limit == 1000)
  }

  @Test("until three probes failed the limit is the base; then the floor, until something passes")
  func fall() {
    var search = PathMTUSearch(ceiling: 1400)
    let probe3 = search.nextProbe(1)
    #expect(probe3 == 1400)
    let probe4 = search.nextProbe(1)
    #expect(probe4 == nil && search.nextDeadline == nil, "one at a time")
    search.lost(size: 1400, now: 2)
    #expect(search.limit == 1280 && !search.hasEvidence, "one loss is no news")
    let second = search.nextProbe(2)
    #expect(second == 1400)
    search.lost(size: 1400, now: 2)
    #expect(search.limit == 1280 && search.hasEvidence)
    let probe5 = search.nextProbe(2)
    #expect(probe5 == 1280)
    search.lost(size: 1280, now: 3)
    #expect(search.limit == PathMTUSearch.floor)
    let probe6 = search.nextProbe(3)
    #expect(probe6 == 1280)
    // The answer to the first one comes late, and counts.
    search.answered(size: 1280, now: 4)
    #expect(search.limit == 1280)
    let probe7 = search.nextProbe(4)
    #expect(probe7 == 1400)
    search.answered(size: 1400, now: 5)
    #expect(search.limit == 1400 && search.phase == .complete)
  }

  @Test("a black hole: back to the base at once, below when that was all, up again by probes; told twice it is one")
  func blackHole() {
    var path = VirtualPath(mtu: 1500)
    path.settle()
    path.mtu = 1300
    path.search.suspectBlackHole(now: path.now)
    #expect(path.search.limit == 1280 && path.search.phase == .base)
    let before = path.search
    path.search.suspectBlackHole(now: path.now)
    #expect(path.search == before)
    path.settle()
    #expect(isFound(path.search.limit, 1300, ceiling: 1400))

    path.mtu = 800
    path.search.suspectBlackHole(now: path.now)
    #expect(path.search.limit == 1280)
    let size = path.search.nextProbe(path.now)
    #expect(size == 1280, "the base first")
    path.search.lost(size: 1280, now: path.now)
    #expect(path.search.limit == PathMTUSearch.floor)
    path.settle()
    #expect(isFound(path.search.limit, 800, ceiling: 1400))

    path.mtu = 700
    path.search.suspectBlackHole(now: path.now)
    #expect(path.search.limit == PathMTUSearch.floor)
    path.settle()
    #expect(isFound(path.search.limit, 700, ceiling: 1400))

    // A false alarm.
    path.mtu = 1500
    path.search.suspectBlackHole(now: path.now)
    path.settle()
    #expect(path.search.limit == 1400)
  }

  @Test("a path that grows is noticed by the raise timer; one that does not costs 3 probes each time, 600 s apart")
  func raise() throws {
    var path = VirtualPath(mtu: 1300)
    path.settle()
    let found = path.search.limit
    path.raise(8)
    #expect(path.search.limit == found)
    let before = path.probes.count
    let due = try #require(path.search.nextDeadline)
    #expect(due - path.now == PathMTUSearch.raiseInterval)
    let early = path.search.nextProbe(due - 1)
    #expect(early == nil)
    path.raise(1)
    #expect(path.probes.count == before + 3)
    path.mtu = 1360
    path.raise(1)
    #expect(isFound(path.search.limit, 1360, ceiling: 1400))
    path.mtu = 1500
    path.raise(1)
    #expect(path.search.limit == 1400 && path.search.nextDeadline == nil)
  }

  @Test("an outage in the middle of a search is made good within two minutes of probes")
  func outage() {
    for step in 0..<8 {
      var path = VirtualPath(mtu: 1380)
      for _ in 0..<step { _ = path.step() }
      let mtu = path.mtu
      path.mtu = 0
      for _ in 0..<8 { _ = path.step() }
      path.mtu = mtu
      path.settle()
      let start = path.now
      while !isFound(path.search.limit, mtu, ceiling: 1400), path.now < start + 120 * Self.second { path.raise(1) }
      #expect(isFound(path.search.limit, mtu, ceiling: 1400), "step \(step): \(path.search.limit)")
    }
  }

  @Test(
    "whatever is told in whatever order, the limit stays between floor and ceiling and the search ends",
    arguments: [1, 2, 3, UInt64.random(in: 4..<1_000_000)])
  func anything(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    for _ in 0..<200 {
      let ceiling = [1280, 1400, 9000].randomElement(using: &random) ?? 1400
      var search = PathMTUSearch(ceiling: ceiling)
      var now: UInt64 = 1
      var sent = 0
      for _ in 0..<200 {
        now += UInt64.random(in: 0...Self.second, using: &random)
        let size = Int.random(in: -5...9100, using: &random)
        switch Int.random(in: 0..<6, using: &random) {
        case 0: search.answered(size: size, now: now)
        case 1: search.lost(size: size, now: now)
        case 2:
          search.refused(
            size: size, limit: Bool.random(using: &random) ? Int.random(in: -5...9100, using: &random) : nil, now: now)
        case 3: search.suspectBlackHole(now: now)
        default:
          guard let probe = search.nextProbe(now) else { break }
          guard (PathMTUSearch.floor...ceiling).contains(probe) else {
            Issue.record("seed \(seed): a probe of \(probe)")
            return
          }
          sent = probe
          if Bool.random(using: &random) { search.lost(size: probe, now: now) }
        }
        guard (PathMTUSearch.floor...ceiling).contains(search.limit) else {
          Issue.record("seed \(seed): a limit of \(search.limit)")
          return
        }
      }
      search.lost(size: sent, now: now)
      var count = 0
      while let probe = search.nextProbe(now), count < 100 {
        search.lost(size: probe, now: now)
        count += 1
      }
      guard count < 100 else {
        Issue.record("seed \(seed): a search without end")
        return
      }
    }
  }
}
