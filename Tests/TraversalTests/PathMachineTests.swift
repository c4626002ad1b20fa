// The path choice alone: each rule with its reason, its time and what it must not do.

import Testing
import Traversal
import Wire

private let second: UInt64 = 1_000_000_000
private let start: UInt64 = 1000 * second

@Suite("Path choice")
struct PathMachineTests {
  let home = Endpoint(address: IPv6Address(mappedIPv4: 0x0A00_0001), port: 4000)
  let elsewhere = Endpoint(address: IPv6Address(mappedIPv4: 0x0A00_0002), port: 4001)

  private func machine(endpoint: Endpoint?, isRelayOnly: Bool = false, hasBeacon: Bool = true) -> PathMachine {
    var machine = PathMachine()
    _ = machine.handle(.beacon(isAvailable: hasBeacon), now: start)
    _ = machine.handle(.record(endpoint: endpoint, lan: [], isRelayOnly: isRelayOnly), now: start)
    return machine
  }

  /// Ticks at each deadline until `end`; returns what was done, with its time.
  private func run(_ machine: inout PathMachine, from begin: UInt64, to end: UInt64) -> [(UInt64, PathMachine.Action)] {
    var done: [(UInt64, PathMachine.Action)] = []
    var now = begin
    var steps = 0
    while let next = machine.nextDeadline, next <= end, steps < 10_000 {
      steps += 1
      now = max(now, next)
      for action in machine.handle(.tick, now: now) { done.append((now, action)) }
    }
    #expect(steps < 10_000, "the machine asks for ticks without end")
    return done
  }

  @Test("direct to the directory's endpoint first, the relay on the fourth try")
  func threeTries() {
    var machine = machine(endpoint: home)
    #expect(machine.path == .direct(home) && machine.reason == .directoryEndpoint)
    for number in 1...3 {
      _ = machine.handle(.handshakeTry(number), now: start + UInt64(number) * second)
      #expect(machine.path == .direct(home))
    }
    let actions = machine.handle(.handshakeTry(4), now: start + 4 * second)
    #expect(actions.contains(.setPath(.relay)))
    #expect(machine.reason == .unanswered)
    #expect(machine.explanation(now: start + 10 * second)[0] == "relay for 6 s: 3 direct handshakes without answer")
    #expect(machine.explanation(now: start + 10 * second).count == 3)
  }

  @Test("without a relay the direct endpoint is kept, without an endpoint the relay is taken at once")
  func onlyOneWay() {
    var alone = machine(endpoint: home, hasBeacon: false)
    for number in 1...9 { _ = alone.handle(.handshakeTry(number), now: start + UInt64(number) * second) }
    #expect(alone.path == .direct(home))
    #expect(machine(endpoint: nil).path == .relay)
    let nothing = machine(endpoint: nil, hasBeacon: false)
    #expect(nothing.path == .none && nothing.explanation(now: start) == ["no path: no endpoint and no relay is known"])
  }

  @Test("a relay-only peer is never probed and never made direct")
  func relayOnly() {
    var machine = machine(endpoint: home, isRelayOnly: true)
    #expect(machine.path == .relay && machine.reason == .relayOnly)
    _ = machine.handle(.activity(sentAt: start + 1, receivedAt: start + 1), now: start + 1)
    #expect(machine.handle(.moved(home), now: start + second).isEmpty)
    #expect(machine.handle(.probeAnswered(home), now: start + second).isEmpty)
    #expect(machine.handle(.handshakeHeard(home), now: start + second).isEmpty)
    let done = run(&machine, from: start, to: start + 60 * second)
    #expect(!done.contains { if case .probe = $0.1 { true } else { false } })
    #expect(machine.path == .relay)
  }

  @Test("relayed and in use: a punch and three probes every 15 s, until an answer makes it direct")
  func upgradeRounds() {
    var machine = machine(endpoint: home)
    _ = machine.handle(.handshakeTry(4), now: start)
    #expect(machine.path == .relay)
    var punches = 0
    var probes = 0
    for step in UInt64(0)..<60 {
      let now = start + step * second
      let first = machine.handle(.activity(sentAt: now, receivedAt: now), now: now).map { (now, $0) }
      for (_, action) in first + run(&machine, from: now, to: now + second - 1) {
        if action == .requestPunch { punches += 1 }
        if action == .probe(home) { probes += 1 }
      }
    }
    #expect(punches == 3 && probes == 9, "\(punches) \(probes)")
    #expect(machine.handle(.probeAnswered(home), now: start + 61 * second).contains(.setPath(.direct(home))))
    #expect(machine.reason == .probeAnswered)
    #expect(machine.nextDeadline.map { $0 > start + 62 * second } ?? true)
  }

  @Test("a peer that is not used costs no wake-ups: rounds end 2 minutes after the last packet and begin again")
  func unused() {
    var machine = machine(endpoint: home)
    _ = machine.handle(.handshakeTry(4), now: start)
    let done = run(&machine, from: start, to: start + 3600 * second)
    #expect(done.allSatisfy { $0.0 <= start + 136 * second })
    #expect(machine.nextDeadline == nil)
    let later = start + 4000 * second
    #expect(machine.handle(.activity(sentAt: later, receivedAt: 0), now: later).contains(.requestPunch))
    #expect(self.machine(endpoint: home).nextDeadline == nil, "a fresh peer needs no tick")
  }

  @Test("direct and silent for 15 s while sending: three probes, then the relay; an answered probe keeps it")
  func silence() {
    for isAnswered in [false, true] {
      var machine = machine(endpoint: home)
      var probes: [UInt64] = []
      var left: UInt64?
      for step in UInt64(0)..<20 {
        let now = start + step * second
        let first = machine.handle(.activity(sentAt: now, receivedAt: start - 1), now: now).map { (now, $0) }
        // A prompt answer: before the clock goes on.
        if isAnswered, first.contains(where: { $0.1 == .probe(home) }) {
          _ = machine.handle(.probeAnswered(home), now: now + 1000)
        }
        for (time, action) in first + run(&machine, from: now, to: now + second - 1) {
          if action == .probe(home) {
            probes.append(time)
          }
          if action == .setPath(.relay) { left = time }
        }
      }
      #expect(probes.first.map { $0 >= start + 15 * second && $0 <= start + 16 * second } == true)
      if isAnswered {
        #expect(probes.count == 1 && left == nil && machine.path == .direct(home))
      } else {
        #expect(probes.count == 3)
        #expect(left.map { $0 <= start + 19 * second } == true)
        #expect(machine.reason == .silent)
      }
    }
  }

  @Test("an idle direct path is not silent: nothing was sent, nothing is owed")
  func idle() {
    var machine = machine(endpoint: home)
    _ = machine.handle(.activity(sentAt: start, receivedAt: start + 1), now: start + 1)
    #expect(run(&machine, from: start, to: start + 3600 * second).isEmpty)
    // One unanswered packet, then nothing: no trial either.
    _ = machine.handle(.activity(sentAt: start + 100 * second, receivedAt: start + 1), now: start + 100 * second)
    #expect(run(&machine, from: start, to: start + 3600 * second).isEmpty)
    #expect(machine.path == .direct(home))
  }

  @Test("the address moves on an authenticated frame, not on a key exchange from an unknown place")
  func moving() {
    var machine = machine(endpoint: home)
    #expect(machine.handle(.handshakeHeard(elsewhere), now: start).isEmpty)
    #expect(machine.path == .direct(home))
    #expect(machine.handle(.moved(elsewhere), now: start + 1).contains(.setPath(.direct(elsewhere))))
    #expect(machine.reason == .peerMoved)
    // The directory's older endpoint does not undo it.
    #expect(machine.handle(.record(endpoint: home, lan: [], isRelayOnly: false), now: start + 2).isEmpty)
  }

  @Test("a frame that comes directly while relayed starts a round; only the answer makes it direct")
  func directFrameWhileRelayed() {
    var machine = machine(endpoint: nil)
    _ = machine.handle(.activity(sentAt: start, receivedAt: start), now: start)
    let actions = machine.handle(.moved(elsewhere), now: start + 2 * second)
    #expect(actions.contains(.probe(elsewhere)) && machine.path == .relay)
    #expect(machine.handle(.probeAnswered(elsewhere), now: start + 3 * second) == [.setPath(.direct(elsewhere))])
  }

  @Test("a handshake answered through the relay alone begins relayed, one answered directly stays direct")
  func handshakeWay() {
    var relayed = machine(endpoint: home)
    _ = relayed.handle(.handshakeTry(1), now: start)
    _ = relayed.handle(.handshakeHeard(nil), now: start + 1)
    #expect(relayed.path == .relay && relayed.reason == .handshakeRelayed)
    var direct = machine(endpoint: home)
    _ = direct.handle(.handshakeTry(1), now: start)
    _ = direct.handle(.handshakeHeard(home), now: start + 1)
    _ = direct.handle(.handshakeHeard(nil), now: start + 2)
    #expect(direct.path == .direct(home))
  }

  @Test("three send errors, or a peer that relays while probes fail, leave the direct path")
  func otherReasons() {
    var failing = machine(endpoint: home)
    for _ in 0..<2 { #expect(failing.handle(.sendFailed(home), now: start).isEmpty) }
    #expect(failing.handle(.sendFailed(elsewhere), now: start).isEmpty)
    #expect(failing.handle(.sendFailed(home), now: start).contains(.setPath(.relay)))
    #expect(failing.reason == .sendErrors)
    var relaying = machine(endpoint: home)
    #expect(relaying.handle(.relayedFrame, now: start) == [.probe(home)])
    _ = run(&relaying, from: start, to: start + 4 * second)
    #expect(relaying.path == .relay && relaying.reason == .peerRelays)
  }

  @Test("when the relay is lost the direct endpoint is tried again, and the history stays bounded")
  func relayLost() {
    var machine = machine(endpoint: home)
    for round in UInt64(0)..<20 {
      let now = start + round * 10 * second
      _ = machine.handle(.beacon(isAvailable: true), now: now)
      _ = machine.handle(.handshakeTry(4), now: now)
      #expect(machine.path == .relay)
      _ = machine.handle(.beacon(isAvailable: false), now: now + second)
      #expect(machine.path == .direct(home) && machine.reason == .relayLost)
    }
    #expect(machine.history.count == 8)
  }
}
