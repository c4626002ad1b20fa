// Pairs that a punch cannot connect: one NAT maps by destination, the other filters by port. Simulated over seeds, with
// the packets they cost; then the machines by themselves.

import Simulator
import Testing
import Traversal
import Wire

private let ms: UInt64 = 1_000_000
private let second: UInt64 = 1_000_000_000

@Suite("Hard pairs")
struct HardPairTests {
  private struct Result {
    var direct = 0
    var runs = 0
    var punches = 0
    var mostPunches = 0
  }

  /// `runs` pairs in one mesh, each pair behind NATs of its own.
  private func run(
    _ a: VirtualNAT.Behaviour, _ b: VirtualNAT.Behaviour, runs: Int = 40, seed: UInt64, for duration: UInt64,
    opensPorts: Bool = true
  ) -> (Result, VirtualMesh) {
    var habits = VirtualNode.Habits()
    habits.opensPorts = opensPorts
    let mesh = VirtualMesh(seed: seed, habits: habits)
    for _ in 0..<runs { mesh.connect(mesh.add(.behind(a)), mesh.add(.behind(b))) }
    mesh.start()
    mesh.traffic(every: 500 * ms, for: duration)
    mesh.run(for: duration + second)
    var result = Result(runs: runs)
    for pair in mesh.pairs {
      let ends = [pair.a.peer(pair.b.id), pair.b.peer(pair.a.id)].compactMap { $0 }
      if ends.allSatisfy({ if case .direct = $0.path.path { true } else { false } }) { result.direct += 1 }
      result.punches += ends.map(\.punches).reduce(0, +)
      result.mostPunches = max(result.mostPunches, ends.map(\.punches).max() ?? 0)
    }
    return (result, mesh)
  }

  @Test("random ports: nineteen of twenty pairs are direct within 12 s, for at most 1,300 small datagrams")
  func randomPorts() {
    let (result, mesh) = run(.symmetric, .portRestricted, runs: 60, seed: 1, for: 12 * second)
    #expect(result.direct >= result.runs * 95 / 100, "\(result) \(mesh.report(mesh.relayed()))")
    #expect(result.mostPunches <= PortSpray.most)
    #expect(result.punches <= result.runs * 1300, "\(result)")
    let silences = mesh.silences(over: 1500 * ms)
    #expect(silences.isEmpty, "\(mesh.report(silences))")
  }

  @Test("ports in order, or kept where they are free: every pair is direct within 12 s, for at most 150 datagrams")
  func predictedPorts() {
    let kept = VirtualNAT.Behaviour(mapping: .addressAndPortDependent, allocation: .preserving)
    for (seed, nat) in [(UInt64(2), VirtualNAT.Behaviour.symmetricSequential), (3, kept)] {
      let (result, mesh) = run(nat, .portRestricted, seed: seed, for: 12 * second)
      #expect(result.direct == result.runs, "\(result) \(mesh.report(mesh.relayed()))")
      #expect(result.punches <= result.runs * 150, "\(result)")
    }
  }

  @Test("both symmetric, or switched off: relayed at once, and not one datagram is spent on it")
  func neverTried() {
    for (opensPorts, other) in [(true, VirtualNAT.Behaviour.symmetric), (false, .portRestricted)] {
      let (result, _) = run(.symmetric, other, runs: 10, seed: 4, for: 130 * second, opensPorts: opensPorts)
      #expect(result.direct == 0 && result.punches == 0, "\(result)")
    }
  }

  @Test("a way through an opened port stays for as long as it is used, without a flap")
  func lasts() {
    let (result, mesh) = run(.symmetric, .portRestricted, runs: 20, seed: 5, for: 300 * second)
    #expect(result.direct >= 18, "\(result)")
    // The first direct path was a guess.
    let settled = VirtualNetwork.start + 20 * second
    let flaps = mesh.flaps(since: settled) + mesh.resets(since: 0) + mesh.silences(over: 2 * second)
    #expect(flaps.isEmpty, "\(mesh.report(flaps))")
  }

  @Test("outcomes are counted by cause, once for each attempt")
  func outcomes() {
    func outcomes(_ mesh: VirtualMesh) -> [PunchOutcome: Int] {
      mesh.pairs.flatMap { [$0.a.peer($0.b.id), $0.b.peer($0.a.id)] }.compactMap { $0?.outcomes }
        .reduce(into: [:]) { $0.merge($1, uniquingKeysWith: +) }
    }
    let (result, mesh) = run(.symmetric, .portRestricted, runs: 5, seed: 6, for: 30 * second)
    let hard = outcomes(mesh)
    #expect(result.direct >= 4, "\(result)")
    #expect(hard[.symmetric, default: 0] >= 5 && hard[.succeeded, default: 0] >= 8, "\(hard)")
    #expect(hard[.noAnswer] == nil && hard[.family] == nil, "\(hard)")
    let both = outcomes(run(.symmetric, .symmetric, runs: 5, seed: 7, for: 30 * second).1)
    #expect(both[.symmetric, default: 0] >= 10 && both[.succeeded] == nil, "\(both)")
    var only6 = VirtualMesh.Access()
    only6.hasVersion4 = false
    only6.version6 = .open
    let families = VirtualMesh(seed: 8)
    families.connect(families.add(only6), families.add(.behind(.portRestricted)))
    families.start()
    families.traffic(every: 500 * ms, for: 20 * second)
    families.run(for: 21 * second)
    let family = outcomes(families)
    #expect(family[.family, default: 0] >= 2 && family.count == 1, "\(family)")
  }

  // MARK: The machines

  private let target = Endpoint(address: IPv6Address(mappedIPv4: 0xC633_6401), port: 4000)
  private let beacon = Endpoint(address: IPv6Address(mappedIPv4: 0xC633_6402), port: 9001)

  /// Runs an opener whose beacon sees socket n at `port(n)`; nil: it does not answer.
  private func open(until end: UInt64 = 60 * second, _ port: (Int) -> UInt16?) -> (sockets: Int, PortOpener.News?) {
    var opener = PortOpener(target: target, beacon: beacon, entropy: 7)
    var pending: [SocketAction<PortOpener.News>] = []
    var (sockets, told, now) = (Set<Int>(), PortOpener.News?.none, UInt64(1))
    while let next = opener.nextDeadline, next <= end {
      now = max(now, next)
      pending += opener.tick(now)
      while let action = pending.first {
        pending.removeFirst()
        switch action {
        case .send(let socket, let bytes, let to):
          guard to == beacon else {
            sockets.insert(socket)
            continue
          }
          guard let port = port(socket), case .check(let transaction, _, let size)? = BeaconMessage(bytes) else {
            continue
          }
          let seen = Endpoint(address: IPv6Address(mappedIPv4: 0xC000_0201), port: port)
          let reply = BeaconMessage.checkReply(transaction: transaction, seen: seen, otherPort: 0, size: size)
          pending += opener.received(socket, from: beacon, reply.encoded(), now)
        case .tell(let news): if told == nil { told = news }
        }
      }
    }
    return (sockets.count, told)
  }

  @Test("ports in order: few sockets and a range; at random: many, anywhere; no answer: many, anywhere")
  func samples() {
    let inOrder = open { 20_000 + UInt16($0) }
    #expect(inOrder.sockets == PortOpener.fewSockets && inOrder.1 == .opened(first: 19_992, last: 20_047))
    let random = open { UInt16(truncatingIfNeeded: 1024 + $0 &* 7919 % 60_000) }
    #expect(random.sockets == PortOpener.manySockets && random.1 == .opened(first: 1024, last: 65_535))
    let silent = open { _ in nil }
    #expect(silent.sockets == PortOpener.manySockets && silent.1 == .opened(first: 1024, last: 65_535))
    let edge = open { UInt16($0 < 4 ? 65_530 : 65_535) }
    #expect(edge.1 == .opened(first: 65_522, last: 65_535))
    for low in [UInt16(0), 500, 1015] {
      let opened = open { low + UInt16($0 % 8) }
      #expect(opened.1 == .opened(first: 1024, last: 65_535), "a beacon that says \(low)")
    }
  }

  @Test("the first datagram of the peer at an opened socket wins; others, and elsewhere, do not")
  func wins() {
    var opener = PortOpener(target: target, beacon: beacon, entropy: 7)
    var now: UInt64 = 1
    let early = opener.received(9, from: target, [1], now)
    #expect(early.isEmpty, "nothing is open yet")
    for _ in 0..<24 {
      now = max(now, opener.nextDeadline ?? now)
      _ = opener.tick(now)
    }
    let stranger = opener.received(9, from: Endpoint(address: target.address, port: 4001), [1], now)
    let asking = opener.received(0, from: target, [1], now)
    #expect(stranger.isEmpty && asking.isEmpty)
    let won = opener.received(9, from: target, [1], now)
    guard case .tell(.won(9))? = won.first else {
      Issue.record("\(won)")
      return
    }
    #expect(opener.nextDeadline == nil)
    let again = opener.received(10, from: target, [1], now)
    #expect(again.isEmpty)
  }

  @Test("a spray tries each port of a range once, 1,024 at most, sixteen at a time")
  func sprays() {
    for (first, last, entropy) in [
      (UInt16(7), UInt16(7), UInt64(0)), (1000, 1039, .max), (1024, 65_535, 0x1234_5678_9ABC),
    ] {
      var spray = PortSpray(address: target.address, ports: first...last, entropy: entropy)
      var ports: [UInt16] = []
      while true {
        let batch = spray.next()
        if batch.isEmpty { break }
        #expect(batch.count <= PortSpray.burst)
        ports += batch.map(\.port)
      }
      #expect(ports.count == min(Int(last - first) + 1, PortSpray.most))
      #expect(Set(ports).count == ports.count && ports.allSatisfy { (first...last).contains($0) })
    }
  }
}
