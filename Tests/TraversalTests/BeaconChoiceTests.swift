// Which beacon is home, under a virtual clock: beacons that answer after a round trip, or do not.

import SeededRandom
import Testing
import Wire

@testable import Traversal

private let millisecond: UInt64 = 1_000_000
private let second: UInt64 = 1_000_000_000

/// Beacons with round trips, and what the machine asked and chose.
private struct BeaconBench {
  var machine = BeaconChoice()
  /// nil: it is dead.
  var roundTrips: [UInt64?]
  var now: UInt64 = 1000 * second
  private(set) var asked: [(time: UInt64, beacon: Int)] = []
  private(set) var homes: [(time: UInt64, beacon: Int?)] = []
  private var answers: [(time: UInt64, endpoint: Endpoint)] = []
  var generator = SeededGenerator(seed: 7)
  var jitter: UInt64 = 0
  private let own = Endpoint(address: IPv6Address(mappedIPv4: 0x0A00_0001), port: 4000)

  static func endpoint(_ index: Int) -> Endpoint {
    Endpoint(address: IPv6Address(mappedIPv4: 0xCB00_7100 + UInt32(index)), port: 9001)
  }

  init(_ roundTrips: UInt64?...) {
    self.roundTrips = roundTrips.map { $0.map { $0 * millisecond } }
    feed(.listed(roundTrips.indices.map(Self.endpoint)))
  }

  var home: Int? { machine.home.flatMap(index) }
  var known: [Int] { machine.known.compactMap(index) }

  private func index(_ endpoint: Endpoint) -> Int? { roundTrips.indices.first { Self.endpoint($0) == endpoint } }

  mutating func feed(_ event: BeaconChoice.Event) {
    for action in machine.handle(event, now: now) {
      switch action {
      case .ask(let endpoint):
        guard let beacon = index(endpoint) else { continue }
        asked.append((now, beacon))
        guard let time = roundTrips[beacon] else { continue }
        let extra = jitter == 0 ? 0 : UInt64.random(in: 0..<jitter, using: &generator)
        answers.append((now + time + extra, endpoint))
      case .home(let endpoint): homes.append((now, endpoint.flatMap(index)))
      case .known: break
      }
    }
  }

  mutating func run(for duration: UInt64) {
    let end = now + duration
    while true {
      let answer = answers.min { $0.time < $1.time }
      let next = min(answer?.time ?? .max, machine.nextDeadline)
      guard next <= end else { break }
      now = max(now, next)
      if let answer, answer.time <= now {
        answers.removeAll { $0.time == answer.time && $0.endpoint == answer.endpoint }
        // A beacon that died meanwhile does not answer.
        if index(answer.endpoint).flatMap({ roundTrips[$0] }) != nil {
          feed(.answered(answer.endpoint, seen: own))
        }
      } else {
        feed(.tick)
      }
    }
    now = end
  }

  func questions(since start: UInt64, to beacon: Int) -> Int {
    asked.count { $0.time >= start && $0.beacon == beacon }
  }
}

@Suite("Choice of beacons")
struct BeaconChoiceTests {
  @Test("the first that answers is home at once, the nearest when all had their chance")
  func nearest() {
    var bench = BeaconBench(80, 30, 10)
    bench.roundTrips[2] = nil
    bench.run(for: 35 * millisecond)
    #expect(bench.home == 1)
    bench.run(for: 2 * second)
    #expect(bench.home == 1)
    var slow = BeaconBench(50, 200, 400)
    slow.run(for: 3 * second)
    #expect(slow.home == 0 && slow.homes.count == 1)
  }

  @Test("a single beacon is home whatever it does, and is asked at the interval")
  func single() {
    var bench = BeaconBench(20)
    bench.run(for: second)
    #expect(bench.home == 0 && bench.known == [0])
    let start = bench.now
    bench.run(for: 250 * second)
    #expect((9...11).contains(bench.questions(since: start, to: 0)))
  }

  @Test("known are home, the second nearest and the first of the list; the others are asked every ten minutes")
  func idle() {
    var bench = BeaconBench(90, 40, 10, 60, 70)
    bench.run(for: 5 * second)
    #expect(bench.home == 2 && bench.known == [2, 0, 1])
    let start = bench.now
    bench.run(for: 1000 * second)
    for beacon in [0, 1, 2] { #expect((38...46).contains(bench.questions(since: start, to: beacon))) }
    for beacon in [3, 4] { #expect((1...2).contains(bench.questions(since: start, to: beacon))) }
    #expect(bench.homes.count <= 2)
    // Wake-ups: those that are due soon are asked together.
    let times = Set(bench.asked.filter { $0.time >= start }.map { $0.time / (5 * second) })
    #expect(times.count < 60)
  }

  @Test("a home that dies is left within 2.5 s of doubt, and at its next question without any")
  func death() {
    var bench = BeaconBench(60, 20, 30)
    bench.run(for: 10 * second)
    #expect(bench.home == 1)
    bench.roundTrips[1] = nil
    var died = bench.now
    bench.feed(.doubted)
    bench.run(for: 2500 * millisecond)
    #expect(bench.home == 2)
    #expect(bench.homes.last.map { $0.time - died <= 2500 * millisecond } == true)
    #expect(bench.known.first == 2 && !bench.known.contains(1))
    bench.roundTrips[2] = nil
    died = bench.now
    bench.run(for: 30 * second)
    #expect(bench.home == 0)
    // All are gone: the last one stays for want of a better one, everybody is asked now and then.
    bench.roundTrips[0] = nil
    bench.run(for: 40 * second)
    #expect(bench.home == 0 && bench.machine[BeaconBench.endpoint(0)]?.isHealthy == false)
    let start = bench.now
    bench.run(for: 600 * second)
    #expect((9...16).contains(bench.questions(since: start, to: 0)))
    bench.roundTrips[2] = 30 * millisecond
    bench.run(for: 61 * second)
    #expect(bench.home == 2)
  }

  @Test("a home that is asked more often is left within 10 s without any doubt")
  func watched() {
    var bench = BeaconBench(60, 20, 30)
    bench.machine.homeInterval = 7 * second
    bench.run(for: 100 * second)
    bench.roundTrips[1] = nil
    bench.run(for: 10 * second)
    #expect(bench.home == 2)
  }

  @Test("frames without answer: who was silent is asked as well, for it may be what they go through")
  func doubtAsksTheSilent() {
    var bench = BeaconBench(20, 10, 30)
    bench.run(for: 10 * second)
    bench.roundTrips[2] = nil
    bench.run(for: 120 * second)
    #expect(bench.home == 1 && !bench.known.contains(2))
    bench.roundTrips[2] = 30 * millisecond
    bench.feed(.doubted)
    bench.run(for: 100 * millisecond)
    #expect(bench.home == 1 && bench.known.contains(2))
  }

  @Test("one that comes back is home again after a minute, later each time: no flapping")
  func comesBack() {
    var bench = BeaconBench(10, 60)
    bench.run(for: 100 * second)
    #expect(bench.home == 0)
    let start = bench.now
    // Every two minutes it dies for ten seconds.
    for _ in 0..<15 {
      bench.roundTrips[0] = nil
      bench.feed(.doubted)
      bench.run(for: 10 * second)
      #expect(bench.home == 1)
      bench.roundTrips[0] = 10 * millisecond
      bench.run(for: 110 * second)
    }
    let changes = bench.homes.count { $0.time >= start }
    #expect(changes <= 10, "\(changes) changes in half an hour")
    bench.run(for: 1000 * second)
    #expect(bench.home == 0)
  }

  @Test("noise on round trips moves nobody", arguments: [1, 2, 3])
  func noise(seed: UInt64) {
    var bench = BeaconBench(40, 42, 44)
    bench.generator = SeededGenerator(seed: seed)
    bench.jitter = 12 * millisecond
    bench.run(for: 7200 * second)
    #expect(bench.homes.count <= 4, "\(bench.homes)")
  }

  @Test("another one that is nearer by a quarter takes over, not before a minute is over")
  func nearer() {
    var bench = BeaconBench(50, 60)
    bench.run(for: 10 * second)
    bench.roundTrips[1] = 20 * millisecond
    bench.run(for: 40 * second)
    #expect(bench.home == 0)
    bench.run(for: 600 * second)
    #expect(bench.home == 1)
    var close = BeaconBench(50, 45)
    close.run(for: 600 * second)
    #expect(close.homes.count <= 2)
  }

  @Test("a changed network asks everybody anew, and the nearest of now is home")
  func networkChanged() {
    var bench = BeaconBench(10, 50, 90)
    bench.run(for: 10 * second)
    bench.roundTrips = [200 * millisecond, 100 * millisecond, 20 * millisecond]
    let start = bench.now
    bench.feed(.networkChanged)
    bench.run(for: second)
    #expect(bench.home == 2)
    for beacon in 0...2 { #expect(bench.questions(since: start, to: beacon) == 1) }
  }

  @Test("a beacon that a peer is reached through is kept for as long as it is wanted")
  func wanted() {
    var bench = BeaconBench(10, 20, 30, 40)
    bench.run(for: 5 * second)
    #expect(!bench.known.contains(3))
    let start = bench.now
    bench.feed(.wanted(BeaconBench.endpoint(3)))
    #expect(bench.known.contains(3))
    bench.run(for: 60 * second)
    #expect(bench.questions(since: start, to: 3) >= 2)
    bench.run(for: 100 * second)
    #expect(!bench.known.contains(3))
  }

  @Test("an answer that nobody asked for, a second one and one of a stranger are none")
  func unexpected() {
    var bench = BeaconBench(10, 20)
    bench.run(for: 2 * second)
    let own = BeaconBench.endpoint(77)
    #expect(!bench.machine.expects(BeaconBench.endpoint(0), now: bench.now))
    let before = bench.machine[BeaconBench.endpoint(0)]
    bench.feed(.answered(BeaconBench.endpoint(0), seen: own))
    #expect(bench.machine[BeaconBench.endpoint(0)] == before)
    bench.feed(.answered(BeaconBench.endpoint(9), seen: own))
    #expect(bench.machine.beacons.count == 2)
  }

  @Test("a round trip longer than the patience is one, too")
  func satellite() {
    var bench = BeaconBench(700)
    bench.run(for: 200 * second)
    #expect(bench.home == 0)
    #expect(bench.machine[BeaconBench.endpoint(0)]?.roundTrip.map { $0 >= 600 * millisecond } == true)
    #expect(bench.homes.count == 1)
  }

  @Test("a list that changes keeps what stays")
  func listed() {
    var bench = BeaconBench(10, 20, 30)
    bench.run(for: 2 * second)
    bench.feed(.listed([1, 2].map(BeaconBench.endpoint)))
    #expect(bench.home == 1)
    bench.feed(.listed([]))
    #expect(bench.home == nil && bench.machine.nextDeadline == .max)
    bench.feed(.listed((0..<20).map { BeaconBench.endpoint($0) }))
    #expect(bench.machine.beacons.count == BeaconChoice.Limits.most)
  }
}
