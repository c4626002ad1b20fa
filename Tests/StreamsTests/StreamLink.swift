// Two stream machines and a bad line between them, under a virtual clock.

import SeededRandom
import Wire

@testable import Streams

/// What the line does to a segment.
struct LineFaults {
  var loss = 0.0
  var duplication = 0.0
  /// Share of segments that come later by up to twice the delay.
  var reordering = 0.0
  var delay: UInt64 = 5_000_000
}

/// One end with the program behind it.
struct StreamEndpoint {
  var machine: StreamMachine
  var toSend: [UInt8] = []
  var received: [UInt8] = []
  /// The program reads; otherwise the receive buffer fills.
  var reads = true
  var closesWhenDone = false
  var written = 0
}

struct StreamLink {
  struct Passage {
    var at: UInt64
    var order: Int
    var toB: Bool
    var segment: StreamSegment
  }

  var a: StreamEndpoint
  var b: StreamEndpoint?
  var now: UInt64 = 1_000_000_000
  var faults = LineFaults()
  /// Segments that left each end, and those of them with payload.
  var sent = (a: 0, b: 0)
  var carried: [StreamSegment] = []
  var keepsSegments = false
  /// A filter for single cases: false drops.
  var lets: (StreamSegment, _ toB: Bool) -> Bool = { _, _ in true }
  /// What the far end does with a SYN.
  var answers: (inout StreamMachine, UInt64) -> Void = { $0.accept($1) }
  var bToSend: [UInt8] = []
  var bFirst: UInt32
  private var line: [Passage] = []
  private var order = 0
  private var random: SeededGenerator

  init(seed: UInt64, first: UInt32 = 0, bFirst: UInt32 = 0, faults: LineFaults = LineFaults()) {
    random = SeededGenerator(seed: seed)
    self.faults = faults
    self.bFirst = bFirst
    a = StreamEndpoint(machine: StreamMachine(dialing: first, now: now))
  }

  private mutating func carry(_ segment: StreamSegment, toB: Bool) {
    if toB { sent.a += 1 } else { sent.b += 1 }
    if keepsSegments { carried.append(segment) }
    guard lets(segment, toB) else { return }
    let copies = Double.random(in: 0..<1, using: &random) < faults.duplication ? 2 : 1
    for _ in 0..<copies {
      if Double.random(in: 0..<1, using: &random) < faults.loss { continue }
      var at = now + faults.delay
      if Double.random(in: 0..<1, using: &random) < faults.reordering {
        at += UInt64.random(in: 0...(2 * faults.delay), using: &random)
      }
      order += 1
      let passage = Passage(at: at, order: order, toB: toB, segment: segment)
      let place = line.lastIndex { ($0.at, $0.order) < (at, order) }.map { $0 + 1 } ?? 0
      line.insert(passage, at: place)
    }
  }

  private mutating func work(_ end: inout StreamEndpoint, toB: Bool) {
    if end.reads { end.received += end.machine.read(1 << 20, now: now) }
    if end.written < end.toSend.count {
      end.written += end.machine.write(end.toSend[end.written..<min(end.written + 65_536, end.toSend.count)])
    }
    if end.closesWhenDone, end.written == end.toSend.count, end.machine.phase == .open { end.machine.close(now) }
    while let segment = end.machine.nextSegment(now) { carry(segment, toB: toB) }
  }

  /// One event. False when nothing will ever happen again.
  mutating func step(until limit: UInt64) -> Bool {
    var near = a
    work(&near, toB: true)
    a = near
    if var end = b {
      work(&end, toB: false)
      b = end
    }
    let times = [line.first?.at, a.machine.nextDeadline, b?.machine.nextDeadline].compactMap { $0 }
    guard let next = times.min(), max(next, now) <= limit else {
      now = max(now, limit)
      return false
    }
    now = max(now, next)
    if let first = line.first, first.at <= now {
      line.removeFirst()
      deliver(first)
    }
    if let due = a.machine.nextDeadline, due <= now { a.machine.tick(now) }
    if let due = b?.machine.nextDeadline, due <= now { b?.machine.tick(now) }
    return true
  }

  private mutating func deliver(_ passage: Passage) {
    guard passage.toB else { return a.machine.receive(passage.segment, now: now) }
    if b == nil, let machine = StreamMachine(answering: passage.segment, first: bFirst, now: now) {
      var end = StreamEndpoint(machine: machine, toSend: bToSend)
      answers(&end.machine, now)
      b = end
      return
    }
    b?.machine.receive(passage.segment, now: now)
  }

  /// Runs until the condition holds, for so many seconds at most; gives whether it held.
  mutating func run(seconds: Double, until condition: (borrowing StreamLink) -> Bool = { _ in false }) -> Bool {
    let limit = now + UInt64(seconds * 1e9)
    var steps = 0
    while !condition(self) {
      steps += 1
      guard steps < 3_000_000, step(until: limit) else { return condition(self) }
    }
    return true
  }
}

/// Bytes that repeat only after a long while, so that a shifted copy shows.
func pattern(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
  var random = SeededGenerator(seed: seed)
  var bytes: [UInt8] = []
  bytes.reserveCapacity(count + 8)
  while bytes.count < count { withUnsafeBytes(of: random.next()) { bytes.append(contentsOf: $0) } }
  return Array(bytes.prefix(count))
}
