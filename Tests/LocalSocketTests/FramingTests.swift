// How bytes become requests (wire/ipc §2, §6).

import LocalSocket
import Testing
import Wire

@Suite("Local socket: framing and order") struct FramingTests {
  @Test("frames come one byte at a time, or many at once, or empty")
  func pieces() {
    let requests = frame(0x01, [0x10, 0]) + [0, 0, 0, 0] + frame(0x40) + [0, 0, 0, 0] + frame(0x08, [0, 0, 0, 5])
    let wanted: [[UInt8]] = [[0x02, 0x10, 0], error("unknown command: 0x40"), [0x09, 0, 0, 0, 5]]
    var bench = SocketBench()
    let (slow, fast) = (bench.connect(), bench.connect())
    for byte in requests { bench.server.received(slow, [byte], now: bench.now) }
    let slowReplies = bench.read(slow)
    #expect(slowReplies == wanted)
    bench.server.received(fast, Array(repeating: requests, count: 100).flatMap { $0 }, now: bench.now)
    let fastReplies = bench.read(fast)
    #expect(fastReplies.count == 300 && fastReplies[0] == error("port 4096 already bound"))
    #expect(fastReplies.suffix(2) == wanted.suffix(2))
  }

  @Test("a frame of 1 MiB is carried out, one byte more ends the connection without an answer")
  func limit() {
    var bench = SocketBench()
    let id = bench.connect()
    let longest = LocalSocketLimits.framePayload - 1
    for chunk in stride(from: 0, to: longest + 5, by: 50_000) {
      let bytes = frame(0x40, [UInt8](repeating: 7, count: longest))
      bench.server.received(id, bytes[chunk..<min(chunk + 50_000, bytes.count)], now: bench.now)
    }
    let replies = bench.read(id)
    #expect(replies == [error("unknown command: 0x40")])

    bench.send(id, frame(0x41), [0, 0x10, 0, 1, 0x40])
    #expect(!bench.server.wantsInput(id))
    let before = bench.actions()
    #expect(before.isEmpty, "what was asked before is still answered")
    let last = bench.read(id)
    #expect(last == [error("unknown command: 0x41")])
    let actions = bench.actions()
    #expect(actions == [.disconnect(id)])
    #expect(bench.server.takeCounts() == [.frameTooLong: 1])
    bench.send(id, frame(0x42))
    let nothing = bench.read(id)
    #expect(nothing.isEmpty)
  }

  @Test("lengths beyond every memory end the connection, too")
  func hugeLength() {
    var bench = SocketBench()
    let id = bench.connect()
    bench.send(id, [0xFF, 0xFF, 0xFF, 0xFF])
    let actions = bench.actions()
    #expect(actions == [.disconnect(id)] && bench.server.clientCount == 0)
  }

  @Test("a slow request does not delay a later one")
  func concurrency() throws {
    var bench = SocketBench()
    let id = bench.connect()
    bench.send(id, frame(0x0F, [7, 0, 0, 0, 9, 0, 0, 5, 0xDC]), frame(0x0D), frame(0x21), frame(0x11, [0x61]), dial())
    let actions = bench.actions()
    let asked = asked(actions)
    guard case .dial(let stream, peer, 80)? = actions.last, asked.count == 4 else {
      Issue.record("\(actions)")
      return
    }
    for index in [2, 3, 1] { bench.server.answered(asked[index].id, .success([0x7B, 0x7D]), now: bench.now) }
    bench.server.opened(stream, now: bench.now)
    bench.server.answered(asked[0].id, .success([0x7B, 0x7D]), now: bench.now)
    let replies = bench.read(id)
    #expect(replies.map(\.first) == [0x22, 0x12, 0x0E, 0x04, 0x10])
  }

  @Test("Health and confirmed datagrams are answered in the order in which they came")
  func ordered() throws {
    var bench = SocketBench()
    let id = bench.connect()
    let datagram = frame(0x39, peerBytes + [0, 9, 1])
    bench.send(id, datagram, frame(0x21), frame(0x39), datagram, frame(0x0D))
    var requests: [RequestID] = []
    for action in bench.actions() {
      switch action {
      case .ask(let request, _), .sendDatagram(_, _, _, let request?): requests.append(request)
      default: Issue.record("\(action)")
      }
    }
    for index in [3, 2, 1] { bench.server.answered(requests[index], .success([]), now: bench.now) }
    let early = bench.read(id)
    #expect(early == [[0x0E]], "the bad one waits for those before it, too")
    bench.server.answered(requests[0], .success([1]), now: bench.now)
    let replies = bench.read(id)
    #expect(replies == [[0x3A], [0x22], error("sendto: missing header"), [0x3A]])
  }

  @Test("who asks without end and reads nothing is not read any more, others are")
  func flood() {
    var bench = SocketBench()
    let (flooder, other) = (bench.connect(), bench.connect())
    for _ in 0..<3000 where bench.server.wantsInput(flooder) { bench.send(flooder, frame(0x0D)) }
    let asked = asked(bench.actions())
    #expect(asked.count == 1024 && !bench.server.wantsInput(flooder) && bench.server.wantsInput(other))
    let replies = bench.answer(other, frame(0x40))
    #expect(replies.count == 1)
    for request in asked { bench.server.answered(request.id, .success([0x7B, 0x7D]), now: bench.now) }
    #expect(bench.server.wantsInput(flooder), "256 answers in the queue, 768 behind it")
    for _ in 0..<3000 where bench.server.wantsInput(flooder) { bench.send(flooder, frame(0x40)) }
    let read = bench.read(flooder)
    #expect(read.count == 1024 + 256 && bench.server.wantsInput(flooder))
  }

  @Test("1024 clients connect, the next one does not until one leaves")
  func clients() {
    var bench = SocketBench()
    let all = (0..<1024).map { _ in bench.connect() }
    let over = bench.server.connected()
    #expect(over == nil && bench.server.takeCounts() == [.clientLimit: 1])
    bench.server.hungUp(all[7], now: bench.now)
    let next = bench.server.connected()
    #expect(next != nil && bench.server.clientCount == 1024)
  }
}
