// Through which relay frames to a peer go: two ends, relays between them, a virtual clock.

import Testing
import Wire

@testable import Traversal

private let millisecond: UInt64 = 1_000_000
private let second: UInt64 = 1_000_000_000

/// Both ends of a pair that is relayed; a ping through a relay comes back after its round trip.
private final class RelayBench {
  var ends = [RelayChoice(leads: true), RelayChoice(leads: false)]
  /// nil: dead.
  var roundTrips: [RelayChoice.Relay: UInt64]
  var isUsed: Bool
  var now: UInt64 = 1000 * second
  private(set) var changes: [(time: UInt64, end: Int, relay: RelayChoice.Relay?)] = []
  private(set) var probes = 0
  private var events: [(time: UInt64, end: Int, event: RelayChoice.Event)] = []

  static func beacon(_ number: UInt32) -> RelayChoice.Relay {
    .beacon(Endpoint(address: IPv6Address(mappedIPv4: 0xCB00_7100 + number), port: 9001))
  }
  static let node = RelayChoice.Relay.node(7)

  init(_ ways: [(RelayChoice.Relay, UInt64)], isUsed: Bool = true) {
    self.isUsed = isUsed
    roundTrips = Dictionary(uniqueKeysWithValues: ways.map { ($0.0, $0.1 * millisecond) })
    for end in 0...1 { feed(end, .ways(ways.map(\.0))) }
  }

  func feed(_ end: Int, _ event: RelayChoice.Event) {
    for action in ends[end].handle(event, isUsed: isUsed, now: now) {
      switch action {
      case .probe(let relay):
        probes += 1
        if let time = roundTrips[relay] {
          events.append((now + time, end, .answered(relay, roundTrip: time)))
        }
      case .use(let relay): changes.append((now, end, relay))
      case .tell:
        // It goes through the relay that the end sends through.
        if let relay = ends[end].present, let time = roundTrips[relay] {
          events.append((now + time / 2, 1 - end, .told(relay)))
        }
      }
    }
  }

  func run(for duration: UInt64) {
    let limit = now + duration
    while true {
      let event = events.indices.min { events[$0].time < events[$1].time }
      let deadlines = ends.map { $0.nextDeadline(isUsed: isUsed, now: now) ?? .max }
      let next = min(event.map { events[$0].time } ?? .max, deadlines.min() ?? .max)
      guard next <= limit else { break }
      now = max(now, next)
      if let event, events[event].time <= now {
        let due = events.remove(at: event)
        feed(due.end, due.event)
      } else {
        for end in 0...1 where deadlines[end] <= now { feed(end, .tick) }
      }
    }
    now = limit
  }

  var present: [RelayChoice.Relay?] { ends.map(\.present) }
}

@Suite("Choice of relays")
struct RelayChoiceTests {
  private let x = RelayBench.beacon(1)
  private let y = RelayBench.beacon(2)
  private let z = RelayBench.beacon(3)

  @Test("the nearest is taken by both ends, a node that relays as well as a beacon")
  func nearest() {
    let bench = RelayBench([(x, 80), (y, 40), (RelayBench.node, 15)])
    #expect(bench.present == [x, x])
    bench.run(for: 3 * second)
    #expect(bench.present == [RelayBench.node, RelayBench.node])
  }

  @Test(
    "a dead relay is left within a second of doubt, by whichever end notices, and the other follows", arguments: [0, 1])
  func death(end: Int) {
    let bench = RelayBench([(x, 20), (y, 60), (z, 90)])
    bench.run(for: 10 * second)
    #expect(bench.present == [x, x])
    bench.roundTrips[x] = nil
    let died = bench.now
    bench.feed(end, .doubted)
    bench.run(for: 2 * second)
    #expect(bench.present == [y, y])
    #expect(bench.changes.filter { $0.time >= died }.allSatisfy { $0.time <= died + second })
  }

  @Test("a relay that dies after it answered in a round of doubt is left within a second of the next doubt")
  func deathWhileAsked() {
    let bench = RelayBench([(x, 20), (y, 60), (z, 90)])
    bench.run(for: 10 * second)
    bench.feed(1, .doubted)
    bench.run(for: 300 * millisecond)
    bench.roundTrips[x] = nil
    bench.feed(1, .doubted)
    bench.run(for: second)
    #expect(bench.present == [y, y])
  }

  @Test("a doubt without reason changes nothing")
  func doubt() {
    let bench = RelayBench([(x, 20), (y, 60)])
    bench.run(for: 10 * second)
    let count = bench.changes.count
    for _ in 0..<20 {
      bench.feed(0, .doubted)
      bench.run(for: 3 * second)
    }
    #expect(bench.changes.count == count)
  }

  @Test("the one that was dead is left alone for a minute after it is back, longer each time")
  func comesBack() {
    let bench = RelayBench([(x, 10), (y, 60)])
    bench.run(for: 100 * second)
    let start = bench.now
    for _ in 0..<15 {
      bench.roundTrips[x] = nil
      bench.feed(0, .doubted)
      bench.run(for: 10 * second)
      #expect(bench.present == [y, y])
      bench.roundTrips[x] = 10 * millisecond
      bench.run(for: 110 * second)
    }
    let changes = bench.changes.count { $0.time >= start && $0.end == 0 }
    #expect(changes <= 10, "\(changes)")
  }

  @Test("round trips that are alike change nothing, whoever is a little nearer")
  func alike() {
    let bench = RelayBench([(x, 20), (y, 21), (RelayBench.node, 19)])
    bench.run(for: 10 * second)
    let count = bench.changes.count
    for step in 0..<40 {
      bench.roundTrips[y] = UInt64(17 + step % 5) * millisecond
      bench.run(for: 60 * second)
    }
    #expect(bench.changes.count == count)
  }

  @Test("without use nothing is measured, and a single relay never is")
  func quiet() {
    let bench = RelayBench([(x, 20), (y, 60)], isUsed: false)
    bench.run(for: 600 * second)
    #expect(bench.probes == 0)
    let single = RelayBench([(x, 20)])
    single.run(for: 600 * second)
    single.feed(0, .doubted)
    #expect(single.probes == 0 && single.present == [x, x])
  }

  @Test("in use each end sends a few pings a minute")
  func cheap() {
    let bench = RelayBench([(x, 20), (y, 60), (z, 90)])
    bench.run(for: 10 * second)
    let before = bench.probes
    bench.run(for: 600 * second)
    #expect(bench.probes - before <= 2 * 3 * 11)
  }

  @Test("before anything is proven, the relay that something came by is taken")
  func heard() {
    var end = RelayChoice(leads: true)
    _ = end.handle(.ways([x, y]), isUsed: false, now: second)
    #expect(end.handle(.heard(y), isUsed: false, now: second) == [.use(y), .tell])
    #expect(end.handle(.heard(x), isUsed: false, now: second).isEmpty)
    #expect(end.handle(.heard(z), isUsed: false, now: second).isEmpty, "no way of ours")
  }

  @Test("a relay that is none of ours is not followed; one that goes away gives place to the next")
  func ways() {
    let bench = RelayBench([(x, 20), (y, 60)])
    bench.feed(1, .told(z))
    #expect(bench.present[1] == x)
    bench.feed(1, .told(y))
    #expect(bench.present[1] == y)
    bench.feed(1, .ways([x]))
    #expect(bench.present[1] == x)
    bench.feed(1, .ways([]))
    #expect(bench.present[1] == nil)
    bench.feed(1, .doubted)
    bench.feed(1, .ways([y, x]))
    #expect(bench.present[1] == y)
  }
}
