// The worker's tables against slow models.

import SeededRandom
import Testing
import Wire

@testable import Engine

@Suite struct TableTests {
  @Test(
    "the peer table agrees with a dictionary through insertions and removals",
    arguments: [1, 2, UInt64.random(in: 3..<99_999)])
  func peerTable(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    var table = try need(PeerTable(capacity: 512, seed: seed))
    var model: [UInt32: UInt32] = [:]
    for _ in 0..<20_000 {
      // Few distinct nodes, so that probes run into each other.
      let node = UInt32.random(in: 1...900, using: &random)
      if Bool.random(using: &random) {
        let isNew = model[node] == nil && model.count < 512
        let row = UInt32.random(in: 0..<100_000, using: &random)
        let isInserted = table.insert(node, row: row)
        #expect(isInserted == isNew)
        if isNew { model[node] = row }
      } else {
        table.remove(node)
        model[node] = nil
      }
      let probe = UInt32.random(in: 1...900, using: &random)
      let found = table.row(of: probe)
      let count = table.count
      #expect(found == model[probe], "seed \(seed)")
      #expect(count == model.count)
    }
  }

  @Test("100,000 peers are found, strangers are not")
  func manyPeers() throws {
    var table = try need(PeerTable(capacity: 100_000, seed: 7))
    for node in 0..<UInt32(100_000) {
      let isInserted = table.insert(node &* 40_503 &+ 1, row: node)
      #expect(isInserted)
    }
    let isOneMore = table.insert(0xFFFF_FFFF, row: 0)
    #expect(!isOneMore)
    for node in 0..<UInt32(100_000) where table.row(of: node &* 40_503 &+ 1) != node {
      Issue.record("node \(node) is lost")
    }
    let stranger = table.row(of: 0xFFFF_FFF0)
    #expect(stranger == nil)
  }

  @Test("the stage keeps order per node and holds to its bounds")
  func stage() throws {
    var stage = try need(Stage())
    for number in 0..<Stage.perNode {
      let bytes = [UInt8](repeating: UInt8(number), count: 100)
      let verdict = stage.stage(node: 5, bytes: bytes, length: 100, now: 1).verdict
      #expect(verdict == .staged)
    }
    let bytes = [UInt8](repeating: 0xEE, count: 3000)
    var verdicts = [stage.stage(node: 5, bytes: bytes, length: 100, now: 1).verdict]
    verdicts.append(stage.stage(node: 6, bytes: bytes, length: 3000, now: 1).verdict)
    verdicts.append(stage.stage(node: 6, bytes: bytes, length: 2048, now: 1).verdict)
    #expect(verdicts == [.full, .tooLarge, .staged])
    for number in 0..<Stage.perNode {
      let slot = stage.oldest(of: 5)
      try #require(slot >= 0)
      let first = stage.bytes(slot).base.load(as: UInt8.self)
      #expect(first == UInt8(number))
      stage.release(slot)
    }
    let none = stage.oldest(of: 5)
    #expect(none == -1)
    // An old packet makes room, and is counted.
    let expired = stage.stage(node: 7, bytes: bytes, length: 10, now: Stage.lifetime + 2).expired
    #expect(expired == 1)
  }

  @Test("a flow admits its answers, and only those, until it is old")
  func flows() {
    var table = FlowTable(seed: 3)
    let (a, b) = (IPv6Address(high: 1, low: 1), IPv6Address(high: 1, low: 2))
    let out = Model.udp(a, b, ports: (1111, 53), payload: [1])
    let back = Model.udp(b, a, ports: (53, 1111), payload: [2])
    let other = Model.udp(b, a, ports: (53, 1112), payload: [2])
    table.note(node: 2, packet: out, length: out.count, now: 1000, openingOnly: false)
    let verdicts = [
      table.answers(node: 2, packet: back, length: back.count, now: 2000),
      table.answers(node: 3, packet: back, length: back.count, now: 2000),
      table.answers(node: 2, packet: other, length: other.count, now: 2000),
      table.answers(node: 2, packet: back, length: back.count, now: 1000 + FlowTable.lifetime),
      table.answers(node: 2, packet: out, length: 44, now: 2000),
    ]
    #expect(verdicts == [true, false, false, false, false])
  }

  @Test("answers of a local server open no flow to a peer whose trust was withdrawn; a SYN of our own does")
  func openingOnly() {
    var table = FlowTable(seed: 3)
    let (a, b) = (IPv6Address(high: 1, low: 1), IPv6Address(high: 1, low: 2))
    let out = Model.tcp(a, b, ports: (80, 5000), sequence: 1, payload: [1])
    let back = Model.tcp(b, a, ports: (5000, 80), sequence: 1, payload: [2])
    var opening = out
    opening[53] = 0x02
    table.note(node: 2, packet: out, length: out.count, now: 1000, openingOnly: true)
    var verdicts = [table.answers(node: 2, packet: back, length: back.count, now: 2000)]
    table.note(node: 2, packet: opening, length: opening.count, now: 1000, openingOnly: true)
    verdicts.append(table.answers(node: 2, packet: back, length: back.count, now: 2000))
    // From then on every packet keeps it.
    table.note(node: 2, packet: out, length: out.count, now: FlowTable.lifetime, openingOnly: true)
    verdicts.append(table.answers(node: 2, packet: back, length: back.count, now: FlowTable.lifetime + 1000))
    #expect(verdicts == [false, true, true])
  }

  @Test("a token bucket gives its burst, then its rate")
  func bucket() {
    var bucket = TokenBucket(rate: 10, burst: 5)
    let start: UInt64 = 5_000_000_000
    var taken: [Bool] = []
    for time in [start, start, start, start, start, start, start + 100_000_000, start + 100_000_001] {
      taken.append(bucket.take(now: time))
    }
    #expect(taken == [true, true, true, true, true, false, true, false])
  }
}
