// What a machine says to a peer and how often: the first contact, repeated key exchanges, key requests, and frames
// that do not open (wire/tunnel §12, 4 to 7).

import SeededRandom
import Session
import Simulator
import Testing
import Wire

private let ms: UInt64 = 1_000_000
private let second: UInt64 = 1_000_000_000

@Suite("Answers of the handshake")
struct HandshakeAnswerTests {
  /// A machine with a clock in the test's hands, and an official peer that is a key and a signature.
  private struct Bench {
    let peer = Identity(seed: VirtualPair.seed(1))
    var machine: HandshakeMachine
    var generator = SeededGenerator(seed: 1)
    var now: UInt64 = 1000 * second
    var lastReceive: UInt64 = 0

    init() {
      machine = HandshakeMachine(
        identity: Identity(seed: VirtualPair.seed(2)), node: 2, peer: 1, peerKey: peer.publicKey)
    }

    /// What it sends, kind and way, in answer to the event.
    mutating func step(_ event: HandshakeMachine.Event) -> [(kind: FrameKind?, route: HandshakeMachine.Route)] {
      var sent: [(FrameKind?, HandshakeMachine.Route)] = []
      for action in machine.handle(event, now: now, lastReceive: lastReceive, using: &generator) {
        switch action {
        case .send(let bytes, let route): sent.append((FrameKind(bytes), route))
        case .punch: sent.append((.pilp, .path))
        case .install(_, let context, _): context.release()
        default: break
        }
      }
      return sent
    }

    func exchange(_ key: UInt64, _ arrival: Arrival) -> HandshakeMachine.Event {
      let pair = X25519KeyPair(privateKey: VirtualPair.seed(key))
      return .keyExchange(.signed(node: 1, x25519: pair.publicKey, by: peer, announcing: nil), arrival)
    }
  }

  private let there = Arrival.direct(Endpoint(address: IPv6Address(mappedIPv4: 0x0A00_0001), port: 4000))

  @Test("a relay that is reached another way is asked through at once, and only while an answer is awaited")
  func relayMoved() {
    var bench = Bench()
    #expect(bench.step(.relayMoved).isEmpty, "nothing is asked for")
    _ = bench.step(.needed)
    bench.now += 100 * ms
    #expect(bench.step(.tick).isEmpty, "the next try is not due")
    #expect(bench.step(.relayMoved).contains { $0.kind == .pila && $0.route == .both })
    #expect(bench.step(.tick).isEmpty, "once")
  }

  @Test("first contact is PILA both ways and a punch; tries after it bring PILK along, five frames a second at most")
  func firstContact() throws {
    var bench = Bench()
    let first = bench.step(.needed)
    #expect(first.map(\.kind) == [.pila, .pilp] && first[0].route == .both)
    var times: [UInt64] = []
    let begin = bench.now
    while let due = bench.machine.nextDeadline, due < begin + 14 * second {
      bench.now = max(due, bench.now)
      let sent = bench.step(.tick)
      guard !sent.isEmpty else { continue }
      #expect(sent.prefix(2).map(\.kind) == [.pila, .pilk] && sent.prefix(2).allSatisfy { $0.route == .both })
      times.append(bench.now - begin)
    }
    // 0.25, 0.5, 1, 2 and then every 4 s after one another, and up to an eighth more. The first has one frame.
    #expect(times.count == 6, "\(times)")
    for start in [0] + times { #expect(times.count { $0 > start && $0 <= start + second } <= 2, "\(times)") }
  }

  @Test("a key exchange that comes again is answered again the way it came, ever more slowly")
  func repeatedExchange() {
    for arrival in [there, .relayed] {
      var bench = Bench()
      let first = bench.step(bench.exchange(50, arrival))
      #expect(first.count == 1 && first[0].kind == .pila && first[0].route == .reply(arrival))
      var answers = 0
      for _ in 0..<60 {
        bench.now += 100 * ms
        bench.lastReceive = bench.now
        for frame in bench.step(bench.exchange(50, arrival)) where frame.route == .reply(arrival) {
          #expect(frame.kind == .pila)
          answers += 1
        }
      }
      #expect(answers >= 3 && answers <= 8, "\(answers) answers in 6 s")
    }
  }

  @Test("a key request of a known peer is answered by PILA the way it came, with a session or without")
  func keyRequest() {
    for arrival in [there, .relayed] {
      for hasSession in [false, true] {
        var bench = Bench()
        if hasSession { _ = bench.step(bench.exchange(50, arrival)) }
        bench.now += second
        let request = KeyRequestFrame(node: 1, x25519: VirtualPair.seed(77))
        let answer = bench.step(.keyRequest(request, arrival))
        #expect(answer.map(\.kind) == [.pila] && answer[0].route == .reply(arrival))
      }
    }
  }

  @Test("a frame that does not open is answered by PILA and PILK where it came from, once a second")
  func undecryptable() {
    var bench = Bench()
    var frames: [FrameKind?] = []
    for _ in 0..<100 {
      let sent = bench.step(.undecryptable([UInt8](repeating: 7, count: 60), there))
      #expect(sent.allSatisfy { $0.route == .reply(there) })
      frames += sent.map(\.kind)
      bench.now += 50 * ms
    }
    #expect(frames == (0..<5).flatMap { _ in [FrameKind.pila, .pilk] }, "5 s")
  }
}
