// Two stream tables that speak with each other: dials, ends, closed windows, restarts.

import Testing
import Wire

@testable import Streams

/// Two nodes on a line without loss that takes a millisecond.
private struct Pair {
  var tables: [StreamTable]
  var now: UInt64 = 0
  var line: [(at: UInt64, to: Int, packet: PilotPacket)] = []
  var arrived: [[StreamID]] = [[], []]
  var opened: [StreamID] = []
  var closed: [(node: Int, id: StreamID, end: StreamEnd)] = []
  /// Segments that a node may get: tests drop some.
  var passes: (Int, PilotPacket) -> Bool = { _, _ in true }

  static let nodes: [UInt32] = [1, 2]

  init(entropies: (UInt64, UInt64) = (0, 0)) {
    tables = [StreamTable(entropy: entropies.0), StreamTable(entropy: entropies.1)]
  }

  static func address(_ node: Int) -> PilotAddress { PilotAddress(network: 0, node: nodes[node]) }

  mutating func dial(_ port: UInt16) -> StreamID? {
    tables[0].dial(from: Self.address(0), to: Self.address(1), port: port, now: now)
  }

  mutating func settle(_ node: Int) {
    while true {
      let events = tables[node].takeEvents()
      for event in events {
        switch event {
        case .arrived(let id): arrived[node].append(id)
        case .opened(let id): opened.append(id)
        case .changed(let id): tables[node].look(id)
        case .closed(let id, let end): closed.append((node, id, end))
        }
      }
      tables[node].flush(now)
      for packet in tables[node].takePackets() where passes(1 - node, packet) {
        line.append((now + 1_000_000, 1 - node, packet))
      }
      if events.isEmpty, !tables[node].hasEvents { return }
    }
  }

  /// Lets everything happen that is due within `seconds`.
  mutating func run(_ seconds: Double) {
    let end = now + UInt64(seconds * 1e9)
    for node in 0..<2 { settle(node) }
    for turn in 0... {
      guard turn < 500_000 else {
        Issue.record("spins at \(now): line \(line.count), due \(tables.map(\.nextDeadline))")
        return
      }
      let times = line.map(\.at) + tables.compactMap(\.nextDeadline)
      guard let next = times.min(), next <= end else { break }
      now = max(now, next)
      while let index = line.firstIndex(where: { $0.at <= now }) {
        let passage = line.remove(at: index)
        tables[passage.to].receive(
          passage.packet, from: Self.nodes[1 - passage.to], mayOpen: true, now: now)
        settle(passage.to)
      }
      for node in 0..<2 where tables[node].nextDeadline.map({ $0 <= now }) == true {
        tables[node].tick(now)
        settle(node)
      }
    }
    now = end
  }
}

@Suite("Pairs of stream tables") struct StreamPairTests {
  @Test("a dial is accepted or refused, and nobody's answer ends it")
  func dials() throws {
    var pair = Pair(entropies: (7, 9))
    let firstDial = pair.dial(80)
    let first = try #require(firstDial)
    pair.run(0.1)
    let there = try #require(pair.arrived[1].first)
    #expect(pair.opened.isEmpty)
    pair.tables[1].accept(there, now: pair.now)
    pair.run(0.1)
    #expect(pair.opened == [first])
    let ends = try #require(pair.tables[1].ends(of: there))
    #expect(ends.localPort == 80 && ends.remote == Pair.address(0) && ends.remotePort >= PilotPort.firstEphemeral)

    let secondDial = pair.dial(81)
    let second = try #require(secondDial)
    pair.run(0.1)
    pair.tables[1].refuse(pair.arrived[1][1], now: pair.now)
    pair.run(0.1)
    #expect(pair.closed.contains { $0.node == 0 && $0.id == second && $0.end == .refused })
    pair.passes = { _, _ in false }
    let thirdDial = pair.dial(82)
    let third = try #require(thirdDial)
    pair.run(5)
    #expect(pair.closed.contains { $0.node == 0 && $0.id == third && $0.end == .unanswered })
  }

  @Test("what came before the peer's end is there for as long as nobody reads it, and then the stream is gone")
  func unreadEnd() throws {
    var pair = Pair()
    let idDial = pair.dial(80)
    let id = try #require(idDial)
    pair.run(0.1)
    let there = try #require(pair.arrived[1].first)
    pair.tables[1].accept(there, now: pair.now)
    pair.run(0.1)
    let text = pattern(100_000, seed: 1)
    let written = pair.tables[0].write(id, text, now: pair.now)
    pair.tables[0].close(id, now: pair.now)
    pair.run(120)
    #expect(written == text.count && !pair.closed.contains { $0.node == 1 })
    #expect(pair.tables[1].hasRemoteEnded(there))
    let read = pair.tables[1].read(there, .max, now: pair.now)
    pair.run(0.1)
    let isSame = read == text
    #expect(isSame)
    #expect(pair.closed.contains { $0.node == 1 && $0.end == .finished } && pair.tables[1].count == 0)
  }

  @Test("a receiver that never tells that its window has opened does not stop the stream", arguments: [0.05, 3, 60])
  func silentWindow(pause: Double) throws {
    var pair = Pair()
    // As official receivers: an acknowledgement says something new or is not sent.
    var last = UInt32.max
    pair.passes = { to, packet in
      guard to == 0, packet.payload.isEmpty, packet.flags == .ack else { return true }
      defer { last = packet.acknowledgement }
      return packet.acknowledgement != last
    }
    let idDial = pair.dial(80)
    let id = try #require(idDial)
    pair.run(0.1)
    let there = try #require(pair.arrived[1].first)
    pair.tables[1].accept(there, now: pair.now)
    pair.run(0.1)
    let text = pattern(1_000_000, seed: 2)
    var (sent, received) = (0, [UInt8]())
    func push() { sent += pair.tables[0].write(id, text[sent...].prefix(65_536), now: pair.now) }
    for _ in 0..<20 {
      push()
      pair.run(0.05)
    }
    #expect(pair.tables[1].readable(there) >= StreamLimits.receiveBuffer - 2 * StreamLimits.segmentSize)
    pair.run(pause)
    let begin = pair.now
    while received.count < text.count, pair.now < begin + 60_000_000_000 {
      received += pair.tables[1].read(there, .max, now: pair.now)
      push()
      pair.run(0.02)
    }
    // Compared here: a failed expectation would list the differences, for hours.
    let isSame = received == text
    #expect(isSame, "\(received.count) bytes after \((pair.now - begin) / 1_000_000) ms")
    #expect(pair.closed.isEmpty)
  }

  @Test("a node that started anew does not take an old stream's acceptance for its own")
  func restart() throws {
    var pair = Pair(entropies: (11, 0))
    let idDial = pair.dial(80)
    let id = try #require(idDial)
    pair.run(0.1)
    pair.tables[1].accept(try #require(pair.arrived[1].first), now: pair.now)
    pair.run(0.1)
    let port = try #require(pair.tables[0].ends(of: id)?.localPort)
    pair.tables[0] = StreamTable(entropy: 12)
    let before = pair.opened.count
    let anew = pair.tables[0].dial(
      from: Pair.address(0), to: Pair.address(1), port: 80, localPort: port, now: pair.now)
    #expect(anew != nil)
    pair.run(4)
    #expect(pair.opened.count == before, "the other end still holds the old stream")
    let other = pair.dial(80)
    #expect(other != nil)
  }
}
