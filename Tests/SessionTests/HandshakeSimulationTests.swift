// Two real handshake machines, path machines and the real AEAD on a virtual network: set-up, loss, restarts, rekeys.
//
// What "nothing is lost" claims here: every packet that a program handed over arrives, unless it was sealed into a
// frame that the network itself lost (`unexplainedLosses` is empty). Staged packets count from the moment they are
// staged.

import Session
import Simulator
import Testing
import Wire

private let ms: UInt64 = 1_000_000
private let second: UInt64 = 1_000_000_000

@Suite("Handshake on a virtual network")
struct HandshakeSimulationTests {
  @Test("one side starts: the packet arrives after three half round trips, by one session on each side")
  func oneSide() {
    let pair = VirtualPair(seed: 1)
    pair.start()
    pair.network.run(for: 100 * ms)
    pair.a.sendPacket()
    // Key from the directory 2 ms (overlapping), PILA 5 ms, PILA 5 ms + 2 ms of b's directory, packet 5 ms.
    pair.network.run(for: 18 * ms)
    #expect(pair.b.received == [1], "\(pair.network.report)")
    pair.network.run(for: 5 * second)
    #expect(pair.a.promotions == 1 && pair.b.promotions == 1, "\(pair.network.report)")
    #expect(pair.a.handshake.isConfirmed && pair.b.handshake.isConfirmed)
    pair.b.sendPacket()
    pair.network.run(for: 6 * ms)
    #expect(pair.a.received == [1])
  }

  @Test("simultaneous starts agree on one session whatever the delays, and all staged packets arrive")
  func simultaneous() {
    for delayA in stride(from: UInt64(1), through: 41, by: 5) {
      for offset in stride(from: UInt64(0), through: 60, by: 4) {
        let pair = VirtualPair(seed: delayA * 1000 + offset)
        pair.network.conditions.latency = delayA * ms...(delayA + 7) * ms
        pair.start()
        for _ in 0..<20 { pair.a.sendPacket() }
        pair.network.schedule(after: offset * ms) { for _ in 0..<20 { pair.b.sendPacket() } }
        pair.network.run(for: 4 * second)
        #expect(Set(pair.a.received) == Set(1...20), "\(pair.network.report)")
        #expect(Set(pair.b.received) == Set(1...20), "\(pair.network.report)")
        #expect(pair.a.promotions == 1 && pair.b.promotions == 1, "\(pair.network.report)")
        #expect(pair.a.undecryptable + pair.b.undecryptable <= 40)
      }
    }
  }

  @Test("with loss, duplication and reordering, every staged packet arrives but for frames the network lost")
  func hostileNetwork() {
    for loss in [0.0, 0.05, 0.1, 0.2, 0.3] {
      for seed in UInt64(1)...10 {
        let pair = VirtualPair(seed: seed * 100 + UInt64(loss * 100))
        pair.network.conditions.latency = 2 * ms...20 * ms
        pair.network.conditions.loss = loss
        pair.network.conditions.duplication = 0.2
        pair.network.conditions.reordering = 0.2
        pair.start()
        for _ in 0..<10 { pair.a.sendPacket() }
        pair.traffic(every: 50 * ms, for: 5 * second)
        pair.network.run(for: 60 * second)
        #expect(pair.unexplainedLosses(from: pair.a, to: pair.b).isEmpty, "\(pair.network.report)")
        #expect(pair.unexplainedLosses(from: pair.b, to: pair.a).isEmpty, "\(pair.network.report)")
        #expect(pair.a.received.count == Set(pair.a.received).count, "no packet arrives twice")
        #expect(pair.b.received.count == Set(pair.b.received).count, "no packet arrives twice")
        #expect(!pair.b.received.isEmpty, "\(pair.network.report)")
      }
    }
  }

  @Test("packets offered 4 s after a restart of one side or both arrive", arguments: [0.0, 0.2])
  func restarts(loss: Double) {
    for seed in UInt64(1)...6 {
      for who in 0..<3 {
        let pair = VirtualPair(seed: seed * 10 + UInt64(who))
        pair.network.conditions.latency = 2 * ms...15 * ms
        pair.network.conditions.loss = loss
        pair.start()
        pair.traffic(every: 20 * ms, for: 15 * second)
        pair.network.run(for: 3 * second)
        if who != 1 { pair.a.restart(after: 300 * ms) }
        if who != 0 { pair.b.restart(after: UInt64(seed) * 50 * ms) }
        pair.network.run(for: 4 * second)
        let marks = (a: pair.a.offered.count, b: pair.b.offered.count)
        pair.network.run(for: 20 * second)
        let lostA = pair.unexplainedLosses(from: pair.a, to: pair.b, after: UInt64(marks.a))
        let lostB = pair.unexplainedLosses(from: pair.b, to: pair.a, after: UInt64(marks.b))
        #expect(lostA.isEmpty && lostB.isEmpty, "who \(who) \(pair.network.report)")
        #expect(pair.a.offered.count - marks.a > 300, "there was traffic")
      }
    }
  }

  @Test("an idle healthy pair never resets in 10 minutes")
  func idle() {
    let pair = VirtualPair(seed: 3)
    pair.start()
    pair.a.sendPacket()
    pair.network.run(for: 60 * second)
    let datagrams = pair.network.sentDatagrams
    pair.network.run(for: 600 * second)
    #expect(pair.a.promotions == 1 && pair.b.promotions == 1 && pair.a.retirements + pair.b.retirements == 0)
    #expect(pair.network.sentDatagrams - datagrams <= 8, "an idle pair is silent")
    pair.b.sendPacket()
    pair.network.run(for: 10 * ms)
    #expect(pair.a.received == [1])
  }

  @Test("rekeys during traffic lose nothing, also when both sides begin one at the same time")
  func rekey() {
    for seed in UInt64(1)...8 {
      var configuration = HandshakeMachine.Configuration()
      configuration.rekeyInterval = 5 * second
      let pair = VirtualPair(seed: seed, configuration: configuration)
      pair.network.conditions.latency = 3 * ms...12 * ms
      pair.network.conditions.reordering = 0.1
      pair.start()
      pair.traffic(every: 5 * ms, for: 30 * second)
      pair.network.schedule(after: 2 * second) {
        pair.a.handle(.rekey)
        pair.b.handle(.rekey)
      }
      pair.network.run(for: 40 * second)
      #expect(pair.b.received.count == pair.a.offered.count, "\(pair.network.report)")
      #expect(pair.a.received.count == pair.b.offered.count, "\(pair.network.report)")
      let promotions = (pair.a.promotions, pair.b.promotions)
      #expect(promotions.0 >= 5 && promotions.1 >= 5, "\(pair.network.report)")
      #expect(pair.a.handshake.installedSessions.count <= 3)
    }
  }

  @Test("rekeys under 20 % loss lose only what the network loses")
  func rekeyWithLoss() {
    for seed in UInt64(1)...8 {
      var configuration = HandshakeMachine.Configuration()
      configuration.rekeyInterval = 4 * second
      let pair = VirtualPair(seed: seed, configuration: configuration)
      pair.network.conditions.latency = 3 * ms...12 * ms
      pair.network.conditions.loss = 0.2
      pair.network.conditions.duplication = 0.1
      pair.network.conditions.reordering = 0.2
      pair.start()
      pair.traffic(every: 10 * ms, for: 40 * second)
      pair.network.run(for: 60 * second)
      #expect(pair.unexplainedLosses(from: pair.a, to: pair.b).isEmpty, "\(pair.network.report)")
      #expect(pair.unexplainedLosses(from: pair.b, to: pair.a).isEmpty, "\(pair.network.report)")
    }
  }

  @Test("with an official daemon's manner (no announcement) sessions come up from either side and survive restarts")
  func withoutAnnouncement() {
    for seed in UInt64(1)...8 {
      let pair = VirtualPair(seed: seed, official: true)
      pair.network.conditions.latency = 2 * ms...10 * ms
      pair.start()
      if seed % 2 == 0 { pair.a.sendPacket() } else { pair.b.sendPacket() }
      pair.network.run(for: 2 * second)
      #expect(pair.a.received.count + pair.b.received.count == 1, "\(pair.network.report)")
      #expect(!pair.a.handshake.takesRawIPv6)
      pair.traffic(every: 20 * ms, for: 12 * second)
      pair.network.run(for: 2 * second)
      if seed % 3 == 0 { pair.a.restart() } else { pair.b.restart() }
      pair.network.run(for: 4 * second)
      let marks = (a: UInt64(pair.a.offered.count), b: UInt64(pair.b.offered.count))
      pair.network.run(for: 20 * second)
      #expect(pair.unexplainedLosses(from: pair.a, to: pair.b, after: marks.a).isEmpty, "\(pair.network.report)")
      #expect(pair.unexplainedLosses(from: pair.b, to: pair.a, after: marks.b).isEmpty, "\(pair.network.report)")
    }
  }

  @Test("a dead peer is given up after 5 s, asked on slowly, and found when it returns")
  func deadPeer() {
    let pair = VirtualPair(seed: 8)
    pair.start()
    pair.b.restart(after: 60 * second)
    pair.a.sendPacket()
    pair.network.run(for: 4900 * ms)
    #expect(pair.a.giveUps == 0)
    pair.network.run(for: 200 * ms)
    #expect(pair.a.giveUps >= 1)
    let datagrams = pair.network.sentDatagrams
    pair.network.run(for: 40 * second)
    // PILA and PILK, directly and through the relay, every 4 s and a bit.
    #expect(pair.network.sentDatagrams - datagrams <= 44)
    pair.network.run(for: 25 * second)
    #expect(pair.b.received == [1], "\(pair.network.report)")
  }
}
