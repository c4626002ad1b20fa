// Handshake and path choice together: blackholes, the relay, roaming, and the small limits of the machine itself.

import SeededRandom
import Session
import Simulator
import Testing
import Wire

private let ms: UInt64 = 1_000_000
private let second: UInt64 = 1_000_000_000

@Suite("Handshake and path together")
struct HandshakePathTests {
  @Test("with the direct way blackholed the relay carries the first packet, and direct returns when it heals")
  func blackholeAndHeal() {
    for seed in UInt64(1)...6 {
      let pair = VirtualPair(seed: seed)
      pair.network.blackholes = [[1, 2], [2, 1]]
      pair.start()
      pair.a.sendPacket()
      pair.network.run(for: second)
      #expect(pair.b.received == [1], "\(pair.network.report)")
      #expect(pair.a.directEndpoint == nil)
      pair.traffic(every: 50 * ms, for: 60 * second)
      pair.network.run(for: 20 * second)
      #expect(pair.a.directEndpoint == nil && pair.b.directEndpoint == nil)
      pair.network.blackholes = []
      pair.network.run(for: 17 * second)
      #expect(pair.a.directEndpoint == pair.b.endpoint, "\(pair.network.report)")
      #expect(pair.b.directEndpoint == pair.a.endpoint, "\(pair.network.report)")
      pair.network.run(for: 40 * second)
      #expect(pair.a.received.count == pair.b.offered.count && pair.b.received.count == pair.a.offered.count)
    }
  }

  @Test(
    "a direct path that goes dark under traffic is left for the relay within 5 s, and taken again a minute after it healed"
  )
  func goesDark() {
    let pair = VirtualPair(seed: 21)
    pair.start()
    pair.traffic(every: 50 * ms, for: 140 * second)
    pair.network.run(for: 5 * second)
    pair.network.blackholes = [[1, 2], [2, 1]]
    pair.network.run(for: 5 * second)
    #expect(pair.a.directEndpoint == nil && pair.b.directEndpoint == nil, "\(pair.network.report)")
    let marks = (a: pair.a.received.count, b: pair.b.received.count)
    pair.network.run(for: 5 * second)
    #expect(pair.a.received.count - marks.a >= 95 && pair.b.received.count - marks.b >= 95)
    pair.network.blackholes = []
    pair.network.run(for: 120 * second)
    #expect(pair.a.directEndpoint != nil && pair.b.directEndpoint != nil, "\(pair.network.report)")
  }

  @Test("a way that is dark in one direction only ends up relayed there, and nine of ten packets arrive from then on")
  func halfDark() {
    let pair = VirtualPair(seed: 22)
    pair.start()
    pair.traffic(every: 50 * ms, for: 120 * second)
    pair.network.run(for: 5 * second)
    pair.network.blackholes = [[1, 2]]
    pair.network.run(for: 45 * second)
    let first = UInt64(pair.a.offered.count)
    pair.network.run(for: 80 * second)
    let late = Set(pair.b.received.filter { $0 > first })
    #expect(late.count >= (pair.a.offered.count - Int(first)) * 9 / 10, "\(pair.network.report)")
  }

  @Test("a peer that roams is followed by its first sealed frame, not by a recorded one")
  func roaming() {
    let pair = VirtualPair(seed: 23)
    pair.start()
    pair.a.sendPacket()
    pair.network.run(for: second)
    pair.b.endpoint = Endpoint(address: IPv6Address(mappedIPv4: 0x0A00_0063), port: 5000)
    pair.b.sendPacket()
    // Three round trips: the probe there, and none on the old path.
    pair.network.run(for: 31 * ms)
    #expect(pair.a.directEndpoint == pair.b.endpoint, "\(pair.network.report)")
    pair.a.sendPacket()
    pair.network.run(for: 20 * ms)
    #expect(pair.b.received == [1, 2])
  }

  @Test("frames that overtake their key exchange are kept and handed back, at most 8 and for a second")
  func earlyFrames() {
    var generator = SeededGenerator(seed: 1)
    let identity = Identity(seed: VirtualPair.seed(1))
    let peer = Identity(seed: VirtualPair.seed(2))
    var machine = HandshakeMachine(identity: identity, node: 1, peer: 2, peerKey: peer.publicKey)
    let arrival = Arrival.relayed
    let start: UInt64 = 100 * second
    func handed(_ actions: [HandshakeMachine.Action]) -> Int? {
      for action in actions {
        if case .install(_, let context, _) = action { context.release() }
      }
      for action in actions { if case .replayEarly(let frames) = action { return frames.count } }
      return nil
    }
    for number in 0..<12 {
      _ = machine.handle(.undecryptable([UInt8(number)], arrival), now: start, using: &generator)
    }
    let frame = KeyExchangeFrame.signed(node: 2, x25519: VirtualPair.seed(5), by: peer, announcing: nil)
    let soon = machine.handle(.keyExchange(frame, arrival), now: start + 900 * ms, using: &generator)
    #expect(handed(soon) == 8)
    _ = machine.handle(.undecryptable([1], arrival), now: start + 2 * second, using: &generator)
    #expect(machine.nextDeadline.map { $0 <= start + 3 * second } == true)
    let another = KeyExchangeFrame.signed(node: 2, x25519: VirtualPair.seed(6), by: peer, announcing: nil)
    let late = machine.handle(.keyExchange(another, arrival), now: start + 3_100 * ms, using: &generator)
    #expect(handed(late) == nil)
  }

  @Test("no pair of keys is installed twice, whatever is recorded, lost and restarted")
  func pairsAreUsedOnce() {
    // A context that comes back would restart its nonces. Install actions are seen through the nonce prefixes and
    // counters: no frame name is ever sealed twice with different text.
    for seed in UInt64(1)...5 {
      let pair = VirtualPair(seed: seed)
      pair.network.conditions.loss = 0.2
      pair.network.conditions.latency = 1 * ms...20 * ms
      pair.start()
      pair.traffic(every: 20 * ms, for: 30 * second)
      for round in UInt64(1)..<10 {
        pair.network.schedule(after: round * 3 * second) {
          if round % 3 == 0 { pair.a.restart() } else { pair.b.handle(.rekey) }
          for recording in pair.network.recordedExchanges.suffix(10) {
            let target: UInt32 = recording.from == 1 ? 2 : 1
            pair.network.inject(recording.bytes, to: target, from: pair.a.endpoint)
          }
        }
      }
      pair.network.run(for: 40 * second)
      let names = pair.a.carriedBy.values.map { $0 } + pair.b.carriedBy.values.map { $0 }
      #expect(names.count == Set(names).count, "\(pair.network.report)")
      #expect(pair.b.handshake.installedSessions.count <= 3)
    }
  }

  @Test("a machine without sessions is small")
  func memory() {
    #expect(MemoryLayout<HandshakeMachine>.size <= 512, "\(MemoryLayout<HandshakeMachine>.size)")
    #expect(HandshakeMachine.sessionSize <= 136, "\(HandshakeMachine.sessionSize)")
  }

  @Test("every installed session is retired by a reset, and the nodes of a pair end with it")
  func contexts() {
    weak var ended: VirtualNode?
    do {
      let pair = VirtualPair(seed: 31)
      pair.start()
      pair.traffic(every: 50 * ms, for: 20 * second)
      for round in UInt64(1)...3 {
        pair.network.schedule(after: round * 4 * second) { pair.a.handle(.rekey) }
      }
      pair.network.run(for: 30 * second)
      ended = pair.b
      #expect(pair.a.installations >= 4)
      pair.a.handle(.reset)
      #expect(pair.a.handshake.installedSessions.isEmpty)
      #expect(pair.a.installations == pair.a.retirements)
    }
    // Its end releases what it still had installed.
    #expect(ended == nil)
  }
}
