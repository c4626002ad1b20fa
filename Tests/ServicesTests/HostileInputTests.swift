// Bytes that no honest peer sends: nothing traps, and how they are cut changes nothing.

import SeededRandom
import Services
import Testing
import Wire

@Suite("Services and hostile bytes")
struct HostileInputTests {
  private static let seeds: [UInt64] = [1, 2, 3, .random(in: 4 ... .max)]

  /// Everything that one stream asks for and is told, whole or in pieces.
  private func exchange(_ bytes: [UInt8], pieces: inout SeededGenerator, isCut: Bool) -> [DataExchange.Step] {
    var machine = DataExchange()
    var steps: [DataExchange.Step] = []
    var rest = bytes[...]
    while !rest.isEmpty {
      let piece = rest.prefix(isCut ? Int.random(in: 1...7, using: &pieces) : rest.count)
      rest = rest.dropFirst(piece.count)
      machine.received(piece)
      loop: while true {
        let step = machine.next(wall: 1)
        switch step {
        case .wait: break loop
        case .keep:
          steps.append(step)
          steps.append(.send(machine.answered(.kept(isRepeated: false), wall: 2)))
        case .send: steps.append(step)
        case .close:
          steps.append(step)
          return steps
        }
      }
    }
    return steps
  }

  private func frames(_ random: inout SeededGenerator) -> [UInt8] {
    var bytes: [UInt8] = []
    for _ in 0..<Int.random(in: 1...6, using: &random) {
      var payload = (0..<Int.random(in: 0...60, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
      let header = Array(#"{"message_id":"a1","reply_to":"b2"}"#.utf8)
      let type = UInt32.random(in: 0...11, using: &random)
      if type == 10 { payload = [0, UInt8(header.count)] + header + [0, 0, 0, 1] + payload }
      if type == 4 { payload = [0, 2, 0x61, 0x62] + payload }
      bytes.appendBig(type)
      bytes.appendBig(UInt32(payload.count))
      bytes += payload
    }
    // Half of them damaged.
    if Bool.random(using: &random) {
      bytes[Int.random(in: 0..<bytes.count, using: &random)] ^= 1 << UInt8.random(in: 0...7, using: &random)
    }
    return bytes
  }

  @Test("the data exchange reads the same from pieces as from the whole, whatever it is", arguments: seeds)
  func exchange(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    for round in 0..<400 {
      let bytes = frames(&random)
      let whole = exchange(bytes, pieces: &random, isCut: false)
      let cut = exchange(bytes, pieces: &random, isCut: true)
      let isSame = whole == cut
      #expect(isSame, "seed \(seed), round \(round): \(bytes)")
    }
  }

  @Test("the broker passes on what it read, whole and in order, whatever it is", arguments: seeds)
  func broker(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    for round in 0..<400 {
      var bytes: [UInt8] = [0, 1, 0x78, 0, 0, 0, 0]
      for _ in 0..<Int.random(in: 1...5, using: &random) {
        let payload = (0..<Int.random(in: 0...40, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random)
        }
        bytes += [0, 1, 0x61]
        bytes.appendBig(UInt32(payload.count))
        bytes += payload
      }
      let subscribed = bytes.count
      if Bool.random(using: &random) {
        bytes[Int.random(in: 7..<subscribed, using: &random)] ^= 1 << UInt8.random(in: 0...7, using: &random)
      }
      var broker = EventBroker<Int>()
      broker.joined(1, now: 0)
      _ = broker.received(1, [0, 1, 0x2A, 0, 0, 0, 0], now: 0)
      broker.joined(2, now: 0)
      var rest = bytes[...]
      while !rest.isEmpty {
        let piece = rest.prefix(Int.random(in: 1...9, using: &random))
        rest = rest.dropFirst(piece.count)
        guard broker.received(2, piece, now: 0) else { break }
      }
      // All of it behind the subscription, up to an event that is not whole or malformed.
      let passed = broker.pending(of: 1)
      let isPrefix = bytes.dropFirst(7).starts(with: passed)
      #expect(isPrefix, "seed \(seed), round \(round): \(bytes)")
    }
  }
}
