import SeededRandom
import Testing
import Wire

@testable import Streams

@Suite("Stream machine") struct StreamMachineTests {
  static let second: UInt64 = 1_000_000_000

  /// An open pair without faults.
  static func open(seed: UInt64 = 1) -> StreamLink {
    var link = StreamLink(seed: seed)
    let isOpen = link.run(seconds: 1) { $0.a.machine.phase == .open && $0.b?.machine.phase == .open }
    #expect(isOpen)
    return link
  }

  @Test("the opening is SYN, SYN+ACK, ACK, with the numbers of the deployed daemons")
  func opening() throws {
    var dialer = StreamMachine(dialing: 100, now: 0)
    let synSent = dialer.nextSegment(0)
    let syn = try #require(synSent)
    #expect(syn == StreamSegment(flags: .syn, sequence: 100, window: 512))
    let silence = dialer.nextSegment(0)
    #expect(silence == nil)
    var answerer = try #require(StreamMachine(answering: syn, first: 7, now: 0))
    let waiting = answerer.nextSegment(0)
    #expect(waiting == nil)
    answerer.accept(0)
    let answerSent = answerer.nextSegment(0)
    let answer = try #require(answerSent)
    #expect(answer == StreamSegment(flags: [.syn, .ack], sequence: 7, acknowledgement: 101, window: 512))
    dialer.receive(answer, now: 1)
    #expect(dialer.phase == .open)
    let lastSent = dialer.nextSegment(1)
    let last = try #require(lastSent)
    #expect(last == StreamSegment(flags: .ack, sequence: 101, acknowledgement: 8, window: 512))
    // The SYN again, with any number: the same answer.
    answerer.receive(StreamSegment(flags: .syn, sequence: 55, window: 512), now: 2)
    let again = answerer.nextSegment(2)
    #expect(again == answer)
  }

  @Test("a SYN is repeated on schedule, and the dial fails within five seconds")
  func unanswered() {
    var machine = StreamMachine(dialing: 0, now: 0)
    var times: [UInt64] = []
    var now: UInt64 = 0
    while machine.phase == .dialing {
      while machine.nextSegment(now) != nil { times.append(now / 1_000_000) }
      guard let due = machine.nextDeadline else { break }
      now = due
      machine.tick(now)
    }
    #expect(times == [0, 250, 750, 1750, 3250])
    #expect(machine.end == .unanswered && now < 5 * Self.second)
  }

  @Test("a refused stream ends on both sides, with RST 0/0 as deployed daemons send it")
  func refused() throws {
    var dialer = StreamMachine(dialing: 5, now: 0)
    let synSent = dialer.nextSegment(0)
    let syn = try #require(synSent)
    var answerer = try #require(StreamMachine(answering: syn, first: 9, now: 0))
    answerer.refuse()
    let resetSent = answerer.nextSegment(0)
    let reset = try #require(resetSent)
    #expect(reset == StreamSegment(flags: .rst, sequence: 0))
    let rest = answerer.nextSegment(0)
    #expect(rest == nil && answerer.phase == .closed)
    dialer.receive(reset, now: 1)
    #expect(dialer.end == .refused && dialer.phase == .closed)
    #expect(StreamMachine(answering: reset, first: 0, now: 0) == nil)
  }

  @Test("FIN waits for what was written, is answered by FIN+ACK, and that once more")
  func closing() throws {
    var link = Self.open()
    link.keepsSegments = true
    link.a.toSend = pattern(5000)
    link.a.closesWhenDone = true
    let isOver = link.run(seconds: 1) { $0.a.machine.phase == .lingering && $0.b?.machine.phase == .lingering }
    #expect(isOver && link.b?.received == pattern(5000))
    _ = link.run(seconds: 1)
    let fins = link.carried.filter { $0.flags.contains(.fin) }
    #expect(fins.map(\.flags) == [.fin, [.fin, .ack], [.fin, .ack]])
    let fin = try #require(fins.first)
    #expect(fin.sequence == 5001 && fin.acknowledgement == 0 && fin.window == 0)
    #expect(fins.dropFirst().first?.acknowledgement == 5002)
    let isGone = link.run(seconds: 11) { $0.a.machine.phase == .closed && $0.b?.machine.phase == .closed }
    #expect(isGone && link.a.machine.end == .finished && link.b?.machine.end == .finished)
  }

  @Test("a lost FIN, and a lost answer to it, do not keep the ends")
  func lostFin() {
    for lost in 0..<3 {
      var link = Self.open()
      var seen = 0
      link.lets = { segment, _ in
        guard segment.flags.contains(.fin) else { return true }
        seen += 1
        return seen - 1 != lost
      }
      link.a.closesWhenDone = true
      let isOver = link.run(seconds: 30) { $0.a.machine.phase == .closed && $0.b?.machine.phase == .closed }
      #expect(isOver, "FIN \(lost) lost")
      #expect(link.a.machine.end == .finished && link.b?.machine.end == .finished, "FIN \(lost) lost")
    }
  }

  @Test("a FIN ahead of missing data waits for it; the data is delivered")
  func earlyFin() throws {
    var machine = try #require(StreamMachine(answering: StreamSegment(flags: .syn, sequence: 0), first: 0, now: 0))
    machine.accept(0)
    machine.receive(StreamSegment(flags: .fin, sequence: 11), now: 1)
    #expect(!machine.hasRemoteEnded)
    machine.receive(StreamSegment(flags: .ack, sequence: 6, payload: [6, 7, 8, 9, 10]), now: 2)
    #expect(!machine.hasRemoteEnded)
    machine.receive(StreamSegment(flags: .ack, sequence: 1, payload: [1, 2, 3, 4, 5]), now: 3)
    let bytes = machine.read(100, now: 3)
    #expect(machine.hasRemoteEnded && bytes == Array(1...10))
    // When the gap never closes, the stream ends as broken.
    var other = try #require(StreamMachine(answering: StreamSegment(flags: .syn, sequence: 0), first: 0, now: 0))
    other.accept(0)
    other.receive(StreamSegment(flags: .fin, sequence: 11), now: 1)
    other.tick(16 * Self.second)
    #expect(other.end == .timedOut)
  }

  @Test("abort resets the other end, also with bytes under way")
  func abort() {
    var link = Self.open()
    link.a.toSend = pattern(100_000)
    _ = link.run(seconds: 0.02)
    link.a.machine.abort()
    let isOver = link.run(seconds: 1) { $0.b?.machine.phase == .closed }
    #expect(isOver && link.b?.machine.end == .reset)
  }

  @Test("a peer that vanishes ends the stream after eight transmissions, not before")
  func vanished() {
    var link = Self.open()
    link.a.toSend = pattern(1000)
    link.lets = { _, _ in false }
    let start = link.now
    let isOver = link.run(seconds: 200) { $0.a.machine.phase == .closed }
    #expect(isOver && link.a.machine.end == .timedOut)
    #expect(link.now - start > 10 * Self.second && link.now - start < 90 * Self.second)
    #expect(link.sent.a <= 2 + 8 + 3)
  }

  @Test("a quiet pair asks once a minute, stays, and never answers answers")
  func keepalive() {
    var link = Self.open()
    _ = link.run(seconds: 1)
    let before = link.sent
    _ = link.run(seconds: 600)
    #expect(link.a.machine.phase == .open && link.b?.machine.phase == .open)
    #expect(link.sent.a - before.a + link.sent.b - before.b <= 40, "\(link.sent) after \(before)")
    link.lets = { _, _ in false }
    let isOver = link.run(seconds: 300) { $0.a.machine.phase == .closed && $0.b?.machine.phase == .closed }
    #expect(isOver && link.a.machine.end == .timedOut)
  }

  @Test("what is missing is told in the form of the deployed daemons: the four highest runs, ascending")
  func selective() throws {
    var machine = try #require(StreamMachine(answering: StreamSegment(flags: .syn, sequence: 0), first: 0, now: 0))
    machine.accept(0)
    _ = machine.nextSegment(0)
    for start in [11, 21, 31, 41, 51] as [UInt32] {
      machine.receive(StreamSegment(flags: .ack, sequence: start, payload: [1, 2, 3]), now: 1)
    }
    let answerSent = machine.nextSegment(1)
    let answer = try #require(answerSent)
    let blocks = try #require(SelectiveAcknowledgement(answer.payload))
    #expect(answer.acknowledgement == 1)
    #expect(blocks.blocks.map(\.left) == [21, 31, 41, 51] && blocks.blocks.map(\.right) == [24, 34, 44, 54])
  }

  @Test("segments that lie about numbers, or lack ACK, change nothing")
  func liars() throws {
    var machine = try #require(
      StreamMachine(answering: StreamSegment(flags: .syn, sequence: 0, window: 512), first: 0, now: 0))
    machine.accept(0)
    _ = machine.nextSegment(0)
    let count = machine.write([1, 2, 3])
    #expect(count == 3)
    _ = machine.nextSegment(1)
    machine.receive(StreamSegment(flags: [], sequence: 1, payload: [9]), now: 2)
    machine.receive(StreamSegment(flags: .ack, sequence: 1, acknowledgement: 5000, window: 512), now: 2)
    machine.receive(StreamSegment(flags: .ack, sequence: 0x7000_0000, acknowledgement: 1, payload: [9]), now: 2)
    #expect(machine.readable == 0 && !machine.isFlushed && machine.phase == .open)
    machine.receive(StreamSegment(flags: .ack, sequence: 1, acknowledgement: 4, window: 512), now: 3)
    #expect(machine.isFlushed)
  }

  @Test("random segments never break a machine, and its deadline is always ahead once it is served", arguments: 1...40)
  func noise(_ seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    var machine = try #require(StreamMachine(answering: StreamSegment(flags: .syn, sequence: 0), first: 0, now: 0))
    machine.accept(0)
    var now: UInt64 = 0
    for _ in 0..<2000 where machine.phase != .closed {
      now += UInt64.random(in: 0...200_000_000, using: &random)
      if let due = machine.nextDeadline, due <= now { machine.tick(now) }
      let flags: [PilotFlags] = [.ack, .ack, .ack, .ack, .fin, [.fin, .ack], .syn, [.syn, .ack], []]
      var payload = pattern(Int.random(in: 0...1500, using: &random), seed: seed)
      if Int.random(in: 0...3, using: &random) == 0 {
        let left = UInt32.random(in: 0...4000, using: &random)
        payload = SelectiveAcknowledgement(
          blocks: [.init(left: left, right: UInt32.random(in: 0...4000, using: &random))])!.encoded()
      }
      machine.receive(
        StreamSegment(
          flags: flags.randomElement(using: &random)!, sequence: UInt32.random(in: 0...5000, using: &random),
          acknowledgement: UInt32.random(in: 0...5000, using: &random),
          window: UInt16.random(in: 0...600, using: &random), payload: payload), now: now)
      _ = machine.write(pattern(Int.random(in: 0...3000, using: &random), seed: seed))
      _ = machine.read(Int.random(in: 0...3000, using: &random), now: now)
      var count = 0
      while machine.nextSegment(now) != nil {
        count += 1
        try #require(count < 2000, "a machine that never stops to send, seed \(seed)")
      }
      // Served twice (the first time may set a probe's time), nothing is due any more: the owner's timer may rest.
      for _ in 0..<2 {
        if let due = machine.nextDeadline, due <= now { machine.tick(now) }
        while machine.nextSegment(now) != nil {}
      }
      if let due = machine.nextDeadline { try #require(due > now, "due \(now - due) ns ago, seed \(seed)") }
    }
  }

  @Test("a short tail that waits behind a closed window keeps no deadline in the past")
  func shortTailAndClosedWindow() throws {
    var machine = try #require(
      StreamMachine(answering: StreamSegment(flags: .syn, sequence: 0, window: 512), first: 0, now: 0))
    machine.accept(0)
    func drain(_ now: UInt64) { while machine.nextSegment(now) != nil {} }
    drain(0)
    _ = machine.write([1])
    drain(1)
    _ = machine.write([2])
    drain(2)
    machine.receive(StreamSegment(flags: .ack, sequence: 1, acknowledgement: 1, window: 0), now: 3)
    drain(3)
    var (now, turns): (UInt64, Int) = (3, 0)
    while machine.phase == .open, now < 10 * Self.second {
      turns += 1
      try #require(turns < 200, "the timer spins")
      now = max(now, try #require(machine.nextDeadline))
      machine.tick(now)
      drain(now)
    }
    // With room again, the tail leaves.
    machine.receive(StreamSegment(flags: .ack, sequence: 1, acknowledgement: 2, window: 512), now: now)
    let tail = machine.nextSegment(now)
    #expect(tail?.payload == [2])
  }

  @Test("at a round trip above the answer's gap, a question gets one answer")
  func slowKeepalive() {
    var link = StreamLink(seed: 1, faults: LineFaults(delay: 1_500_000_000))
    _ = link.run(seconds: 20) { $0.a.machine.phase == .open && $0.b?.machine.phase == .open }
    _ = link.run(seconds: 10)
    let before = link.sent
    _ = link.run(seconds: 300)
    #expect(link.a.machine.phase == .open && link.b?.machine.phase == .open)
    #expect(link.sent.a - before.a + link.sent.b - before.b <= 24, "\(link.sent) after \(before)")
  }
}
