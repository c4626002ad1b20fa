// Back pressure both ways, and how clients leave (wire/ipc §6.1, §8.2, §8.3).

import LocalSocket
import Testing
import Wire

@Suite("Local socket: back pressure and leaving") struct PressureTests {
  private static func pattern(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) } }

  @Test("a Send without room holds up its own connection only, and goes on as there is room")
  func blockedSend() {
    var bench = SocketBench()
    let (id, other) = (bench.connect(), bench.connect())
    let stream = bench.open(id, room: 10)
    let text = Self.pattern(300)
    bench.send(id, sendFrame(stream, text), frame(0x40), sendFrame(stream, [1, 2]), closeFrame(stream))
    var actions = bench.actions()
    #expect(actions == [.send(stream, Array(text[..<10]))] && !bench.server.wantsInput(id))
    let replies = bench.read(id)
    #expect(replies.isEmpty && bench.server.wantsInput(other))
    let others = bench.answer(other, frame(0x41))
    #expect(others.count == 1)
    bench.server.canTake(stream, room: 0, now: bench.now)
    bench.server.canTake(stream, room: -5, now: bench.now)
    bench.server.canTake(stream, room: 200, now: bench.now)
    // Announced again before the actions were taken: the bytes on their way count.
    bench.server.canTake(stream, room: 200, now: bench.now)
    actions = bench.actions()
    #expect(actions == [.send(stream, Array(text[10..<210]))])
    bench.server.canTake(stream, room: 91, now: bench.now)
    actions = bench.actions()
    #expect(actions == [.send(stream, Array(text[210...])), .send(stream, [1])] && !bench.server.wantsInput(id))
    bench.server.canTake(stream, room: 5, now: bench.now)
    actions = bench.actions()
    #expect(actions == [.send(stream, [2]), .close(stream)] && bench.server.wantsInput(id))
    let last = bench.read(id)
    #expect(last == [error("unknown command: 0x40"), closeOK(stream)])
  }

  @Test("a stream that dies lets its client go on")
  func deadStream() {
    var bench = SocketBench()
    let id = bench.connect()
    let stream = bench.open(id)
    bench.send(id, sendFrame(stream, [1, 2, 3]), frame(0x40))
    #expect(!bench.server.wantsInput(id))
    bench.server.ended(stream, now: bench.now)
    let replies = bench.read(id)
    #expect(replies == [closeOK(stream), error("unknown command: 0x40")] && bench.server.wantsInput(id))
  }

  @Test("a stream that another client closes takes the rest of the Send that waits, and nothing after it")
  func closedWhileBlocked() {
    var bench = SocketBench()
    let (id, other) = (bench.connect(), bench.connect())
    let stream = bench.open(id, room: 1)
    bench.send(id, sendFrame(stream, [1, 2, 3]), sendFrame(stream, [4]), frame(0x40))
    let first = bench.actions()
    #expect(first == [.send(stream, [1])])
    bench.send(other, closeFrame(stream))
    bench.server.data(stream, [9], now: bench.now)
    bench.server.canTake(stream, room: 1, now: bench.now)
    bench.server.canTake(stream, room: 2, now: bench.now)
    let actions = bench.actions()
    #expect(actions == [.send(stream, [2]), .send(stream, [3]), .close(stream)])
    let told = bench.read(id)
    let answered = bench.read(other)
    #expect(told == [closeOK(stream), error("unknown command: 0x40")] && answered == [closeOK(stream)])
  }

  @Test("a client that does not read closes the windows of its streams, loses datagrams, and nothing else")
  func fullQueue() {
    var bench = SocketBench()
    let (id, other) = (bench.connect(), bench.connect())
    let (stream, others) = (bench.open(id), bench.open(other))
    _ = bench.actions()
    var sent = 0
    while bench.server.wantsData(stream), sent < 1000 {
      bench.server.data(stream, [UInt8(truncatingIfNeeded: sent)], now: bench.now)
      sent += 1
    }
    #expect(sent == 256 && bench.server.wantsData(others))
    bench.server.datagram(from: peer, sourcePort: 1, destinationPort: 2, [3], now: bench.now)
    #expect(bench.server.takeCounts() == [.clientQueueFull: 1])
    let datagrams = bench.read(other)
    #expect(datagrams.count == 1)
    // Half of it has to be read before the window opens again.
    bench.server.wrote(id, 127 * 10, now: bench.now)
    #expect(!bench.server.wantsData(stream))
    var actions = bench.actions()
    #expect(actions.isEmpty)
    bench.server.wrote(id, 10, now: bench.now)
    actions = bench.actions()
    #expect(bench.server.wantsData(stream) && actions == [.resume(id)])
    let rest = bench.read(id)
    #expect(rest == (128..<256).map { recv(stream, [UInt8($0)]) })
  }

  @Test("a megabyte fills the queue whatever its frames are, and comes as frames below the limit")
  func fullOfBytes() {
    var bench = SocketBench()
    let id = bench.connect()
    let stream = bench.open(id)
    let text = Self.pattern(1_500_000)
    bench.server.data(stream, text, now: bench.now)
    #expect(!bench.server.wantsData(stream))
    let frames = bench.read(id)
    #expect(frames.map(\.count) == [5 + 1_048_512, 5 + 451_488])
    #expect(frames.flatMap { $0.dropFirst(5) } == text && bench.server.wantsData(stream))
  }

  @Test("who takes nothing for 10 s with a full queue is disconnected, its streams are closed, its ports free")
  func stalled() {
    var bench = SocketBench()
    let id = bench.connect()
    bench.send(id, frame(0x01, [0, 80]))
    let stream = bench.open(id)
    _ = bench.actions()
    bench.pass(3600 * second)
    for _ in 0..<256 { bench.server.data(stream, [1], now: bench.now) }
    #expect(bench.server.nextDeadline == bench.now + 10 * second)
    bench.pass(9 * second)
    bench.server.wrote(id, 1, now: bench.now)
    bench.pass(10 * second - 1)
    var actions = bench.actions()
    #expect(actions.isEmpty)
    bench.pass(1)
    actions = bench.actions()
    #expect(actions == [.disconnect(id), .close(stream), .unbind(port: 80)])
    #expect(bench.server.takeCounts() == [.clientStalled: 1] && bench.server.nextDeadline == nil)
    #expect(bench.server.clientCount == 0 && bench.server.pendingOutput(of: id).isEmpty)
  }

  @Test("one who reads slowly, or does not read what is little, stays")
  func slow() {
    var bench = SocketBench()
    let (slow, sleeper) = (bench.connect(), bench.connect())
    let (stream, other) = (bench.open(slow), bench.open(sleeper))
    for _ in 0..<256 { bench.server.data(stream, [1], now: bench.now) }
    for _ in 0..<255 { bench.server.data(other, [1], now: bench.now) }
    for _ in 0..<20 {
      bench.pass(9 * second)
      bench.server.wrote(slow, 3, now: bench.now)
    }
    #expect(bench.server.clientCount == 2)
  }

  @Test("unread replies beyond every measure end the connection")
  func mountain() {
    var bench = SocketBench()
    let id = bench.connect()
    for _ in 0..<80 { bench.send(id, frame(0x0D)) }
    let reply = [UInt8](repeating: 0x20, count: LocalSocketLimits.replyBody)
    let asked = asked(bench.actions())
    for request in asked.prefix(5) { bench.server.answered(request.id, .success(reply), now: bench.now) }
    #expect(!bench.server.wantsInput(id), "5 MB of it wait")
    for request in asked.dropFirst(5) { bench.server.answered(request.id, .success(reply), now: bench.now) }
    #expect(bench.server.nextDeadline ?? .max <= bench.now)
    bench.pass(0)
    let actions = bench.actions()
    #expect(actions == [.disconnect(id)])
  }

  @Test("300 000 bytes, Close and the end of the program: all of it is delivered, then the stream ends")
  func publishAndExit() {
    var bench = SocketBench()
    let id = bench.connect()
    let (stream, quiet) = (bench.open(id, room: 50_000), bench.open(id, room: 10))
    let text = Self.pattern(300_000)
    for start in stride(from: 0, to: text.count, by: 60_000) {
      bench.send(id, sendFrame(stream, Array(text[start..<(start + 60_000)])))
    }
    bench.send(id, sendFrame(quiet, [1]), frame(0x13, [0x61]), dial())
    bench.server.hungUp(id, now: bench.now)
    #expect(bench.server.clientCount == 0)
    var delivered: [UInt8] = []
    var rest: [Action] = []
    for _ in 0..<20 {
      for action in bench.actions() {
        if case .send(stream, let bytes) = action { delivered += bytes } else { rest.append(action) }
      }
      bench.server.data(stream, [7], now: bench.now)
      #expect(bench.server.wantsData(stream))
      bench.server.canTake(stream, room: 33_000, now: bench.now)
    }
    #expect(delivered == text)
    guard rest.count == 6, case .ask(let request, .setHostname("a")) = rest[1] else {
      Issue.record("\(rest)")
      return
    }
    let third = StreamID(3)
    #expect(rest[0] == .send(quiet, [1]) && rest[2] == .dial(third, peer, port: 80))
    #expect(Array(rest[3...]) == [.close(stream), .close(quiet), .cancelDial(third)])
    bench.server.answered(request, .success([]), now: bench.now)
    #expect(bench.server.nextDeadline == nil)
  }

  @Test("a client that only stops sending is answered, then disconnected")
  func halfClosed() {
    var bench = SocketBench()
    let id = bench.connect()
    let stream = bench.open(id, room: 10)
    bench.send(id, frame(0x0D), sendFrame(stream, [1]), dial(), frame(0x40), [0, 0])
    let request = asked(bench.actions())[0].id
    bench.server.finishedSending(id, now: bench.now)
    var actions = bench.actions()
    #expect(actions == [.close(stream), .cancelDial(StreamID(2))])
    var replies = bench.read(id)
    #expect(replies == [error("unknown command: 0x40"), error("context canceled")])
    // An answer may take its time; the client is not the one to be waited for.
    bench.pass(25 * second)
    actions = bench.actions()
    #expect(actions.isEmpty && bench.server.clientCount == 1 && !bench.server.wantsInput(id))
    bench.server.answered(request, .success([0x7B, 0x7D]), now: bench.now)
    replies = bench.read(id)
    actions = bench.actions()
    #expect(replies == [[0x0E, 0x7B, 0x7D]] && actions == [.disconnect(id)])
  }

  @Test("what a program wrote before it went is carried out, although nothing can be written to it any more")
  func brokenPipe() {
    var bench = SocketBench()
    let id = bench.connect()
    let stream = bench.open(id, room: 100)
    for _ in 0..<256 { bench.server.data(stream, [1], now: bench.now) }
    #expect(!bench.server.wantsData(stream) && bench.server.streams(of: id) == [stream])
    bench.server.stoppedReading(id, now: bench.now)
    #expect(bench.server.wantsData(stream) && bench.server.wantsInput(id) && bench.server.nextDeadline == nil)
    bench.send(id, sendFrame(stream, [1, 2]), frame(0x0D), closeFrame(stream))
    let actions = bench.actions()
    #expect(actions.count == 4 && actions[1] == .send(stream, [1, 2]) && actions[3] == .close(stream))
    #expect(bench.server.pendingOutput(of: id).isEmpty)
    bench.server.finishedSending(id, now: bench.now)
    let last = bench.actions()
    #expect(last == [.disconnect(id)], "nobody waits for the answer")
  }

  @Test("one that stops sending and reading is disconnected after 10 s")
  func halfClosedStalled() {
    var bench = SocketBench()
    let id = bench.connect()
    bench.send(id, frame(0x40))
    bench.pass(60 * second)
    bench.server.finishedSending(id, now: bench.now)
    bench.pass(10 * second - 1)
    #expect(bench.server.clientCount == 1)
    bench.pass(1)
    let actions = bench.actions()
    #expect(actions == [.disconnect(id)])
  }

  @Test("ended clients are not answered, and what is said about them is ignored")
  func late() {
    var bench = SocketBench()
    let id = bench.connect()
    let stream = bench.open(id)
    bench.send(id, frame(0x0D))
    let request = asked(bench.actions())[0].id
    bench.server.hungUp(id, now: bench.now)
    bench.server.hungUp(id, now: bench.now)
    bench.server.finishedSending(id, now: bench.now)
    let actions = bench.actions()
    #expect(actions == [.close(stream)])
    bench.server.answered(request, .success([]), now: bench.now)
    bench.send(id, frame(0x0D))
    bench.server.wrote(id, 5, now: bench.now)
    bench.server.data(stream, [1], now: bench.now)
    bench.server.canTake(stream, room: 5, now: bench.now)
    bench.server.ended(stream, now: bench.now)
    bench.pass(60 * second)
    let none = bench.actions()
    #expect(none.isEmpty && bench.server.takeChangedClients().isEmpty)
  }
}
