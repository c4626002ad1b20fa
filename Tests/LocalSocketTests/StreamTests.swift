// Ports, streams and datagrams (wire/ipc §8), without back pressure.

import LocalSocket
import Testing
import Wire

@Suite("Local socket: streams") struct StreamTests {
  @Test("a dial opens, data passes both ways, and the peer's end comes behind its data")
  func life() {
    var bench = SocketBench()
    let id = bench.connect()
    // What is behind the port is no part of it.
    bench.send(id, frame(0x03, [0, 2, 0, 1, 0x18, 0x52, 0x03, 0xE9, 0xFF]))
    let dials = bench.actions()
    let stream = StreamID(1)
    #expect(dials == [.dial(stream, PilotAddress(network: 2, node: 71762), port: 1001)])
    bench.server.opened(stream, now: bench.now)
    let opened = bench.read(id)
    #expect(opened == [[0x04, 0, 0, 0, 1]])
    bench.server.canTake(stream, room: 1000, now: bench.now)
    bench.send(id, sendFrame(stream, [1, 2]), sendFrame(stream, []), sendFrame(stream, [3]))
    let sends = bench.actions()
    #expect(sends == [.send(stream, [1, 2]), .send(stream, [3])])
    bench.pass(second)
    bench.server.data(stream, [7, 8], now: bench.now)
    bench.server.data(stream, [], now: bench.now)
    bench.server.data(stream, [9], now: bench.now)
    bench.server.ended(stream, now: bench.now)
    bench.server.data(stream, [10], now: bench.now)
    let received = bench.read(id)
    #expect(received == [recv(stream, [7, 8]), recv(stream, [9]), closeOK(stream)])
    let later = bench.answer(id, sendFrame(stream, [5]), closeFrame(stream))
    #expect(later == [closeOK(stream)])
  }

  @Test("each failure of a dial has its text, and numbers are not used again")
  func failures() {
    var bench = SocketBench()
    let id = bench.connect()
    let failures: [(LocalDialFailure, String)] = [
      (.refused, "connection refused"), (.timedOut, "dial timeout"), (.canceled, "context canceled"),
      (.unreachable("resolve node 99: registry: not found"), "resolve node 99: registry: not found"),
    ]
    for (index, failure) in failures.enumerated() {
      bench.send(id, dial())
      let actions = bench.actions()
      let stream = StreamID(UInt32(index + 1))
      #expect(actions == [.dial(stream, peer, port: 80)])
      bench.server.failed(stream, failure.0, now: bench.now)
      bench.server.failed(stream, failure.0, now: bench.now)
      let replies = bench.read(id)
      #expect(replies == [error(failure.1)])
    }
    #expect(bench.server.nextDeadline == nil)
  }

  @Test("forty dials back to back are all answered, whatever the order of their success")
  func manyDials() {
    var bench = SocketBench()
    let id = bench.connect()
    bench.send(id, (0..<40).flatMap { _ in dial() })
    for number in UInt32(1)...40 { bench.server.opened(StreamID(41 - number), now: bench.now) }
    let replies = bench.read(id)
    #expect(Set(replies) == Set((UInt32(1)...40).map { [0x04] + big($0) }) && replies.count == 40)
  }

  @Test("Cancel ends the dials of its own connection and has no answer; one that opens too late is closed")
  func cancel() {
    var bench = SocketBench()
    let (id, other) = (bench.connect(), bench.connect())
    let open = bench.open(id)
    bench.send(id, dial(), dial())
    bench.send(other, dial())
    _ = bench.actions()
    bench.send(id, frame(0x2B))
    let actions = bench.actions()
    #expect(actions == [.cancelDial(StreamID(2)), .cancelDial(StreamID(3))])
    let replies = bench.read(id)
    #expect(replies == [error("context canceled"), error("context canceled")])
    bench.server.opened(StreamID(2), now: bench.now)
    bench.server.opened(StreamID(4), now: bench.now)
    bench.server.data(open, [1], now: bench.now)
    let late = bench.actions()
    #expect(late == [.close(StreamID(2))])
    let mine = bench.read(id)
    let others = bench.read(other)
    #expect(mine == [recv(open, [1])] && others == [[0x04, 0, 0, 0, 4]])
  }

  @Test("a dial that nobody answers ends after 32 s")
  func dialTimeout() {
    var bench = SocketBench()
    let id = bench.connect()
    bench.send(id, dial())
    bench.pass(second)
    bench.send(id, dial())
    _ = bench.actions()
    #expect(bench.server.nextDeadline == bench.now + 31 * second)
    bench.pass(31 * second - 1)
    let early = bench.read(id)
    #expect(early.isEmpty)
    bench.pass(1)
    let first = bench.read(id)
    let actions = bench.actions()
    #expect(first == [error("dial timeout")] && actions == [.cancelDial(StreamID(1))])
    bench.server.opened(StreamID(2), now: bench.now)
    #expect(bench.server.nextDeadline == nil)
  }

  @Test("a bound port announces what arrives, one client has it, and it is free once that one is gone")
  func ports() {
    var bench = SocketBench()
    let (id, other) = (bench.connect(), bench.connect())
    let bound = bench.server.arrived(port: 80, remote: peer, remotePort: 50_000, now: bench.now)
    #expect(bound == nil)
    bench.send(id, frame(0x01, [0, 80]), frame(0x01, [0, 80]), frame(0x01, [0, 0]))
    let replies = bench.read(id)
    #expect(replies == [[0x02, 0, 80], error("port 80 already bound"), [0x02, 0, 0]])
    let refused = bench.read(other)
    bench.send(other, frame(0x01, [0, 80]), frame(0x37, [0, 80]))
    let refusals = bench.read(other)
    #expect(refused.isEmpty)
    #expect(refusals == [error("port 80 already bound"), error("unbind: port is not owned by this client")])
    let binds = bench.actions()
    #expect(binds == [.bind(port: 80), .bind(port: 0)] && bench.server.boundPorts == [0, 80])

    let arrived = bench.server.arrived(port: 80, remote: peer, remotePort: 0xC001, now: bench.now)
    let accept = bench.read(id)
    #expect(arrived == StreamID(1) && accept == [[0x05, 0, 80, 0, 0, 0, 1] + peerBytes + [0xC0, 1]])
    bench.send(id, frame(0x37, [0, 80]))
    let unbound = bench.read(id)
    let unbinds = bench.actions()
    #expect(unbound == [[0x38, 0, 80]] && unbinds == [.unbind(port: 80)])
    bench.server.data(StreamID(1), [5], now: bench.now)
    let survived = bench.read(id)
    #expect(survived == [recv(StreamID(1), [5])], "streams survive their port")
    bench.send(other, frame(0x01, [0, 80]))
    bench.server.hungUp(other, now: bench.now)
    let gone = bench.actions()
    #expect(gone == [.bind(port: 80), .unbind(port: 80)])
    let none = bench.server.arrived(port: 80, remote: peer, remotePort: 0xC001, now: bench.now)
    #expect(none == nil)
  }

  @Test("a client closes any stream of any client; its owner is told, and nothing is told twice")
  func closeByAnother() {
    var bench = SocketBench()
    let (id, other) = (bench.connect(), bench.connect())
    let stream = bench.open(id, room: 100)
    bench.send(other, sendFrame(stream, [1]), closeFrame(stream), closeFrame(stream))
    let actions = bench.actions()
    #expect(actions == [.close(stream)], "another's Send is none")
    bench.server.ended(stream, now: bench.now)
    let replies = bench.read(other)
    let told = bench.read(id)
    #expect(replies == [closeOK(stream), closeOK(stream)] && told == [closeOK(stream)])
  }

  @Test("an end that comes at once is told 20 ms after the beginning, behind the data")
  func earlyEnd() {
    var bench = SocketBench()
    let id = bench.connect()
    bench.send(id, frame(0x01, [0, 80]))
    guard let first = bench.server.arrived(port: 80, remote: peer, remotePort: 1, now: bench.now),
      let second = bench.server.arrived(port: 80, remote: peer, remotePort: 2, now: bench.now)
    else {
      Issue.record("refused")
      return
    }
    _ = bench.read(id)
    _ = bench.actions()
    bench.pass(5 * millisecond)
    bench.server.data(first, [1], now: bench.now)
    bench.server.ended(first, now: bench.now)
    bench.server.ended(second, now: bench.now)
    let data = bench.read(id)
    #expect(data == [recv(first, [1])])
    #expect(bench.server.nextDeadline == bench.now + 15 * millisecond)
    // Who closes meanwhile is answered at once, and that is all it hears.
    let closed = bench.answer(id, closeFrame(second))
    #expect(closed == [closeOK(second)])
    bench.pass(15 * millisecond)
    let ends = bench.read(id)
    #expect(ends == [closeOK(first)] && bench.server.nextDeadline == nil)
  }

  @Test("no more than the quota of streams, dialed or accepted")
  func quota() {
    var limits = LocalSocketLimits()
    limits.streamsPerClient = 2
    limits.streams = 3
    var bench = SocketBench(limits: limits)
    let (id, other) = (bench.connect(), bench.connect())
    bench.send(id, frame(0x01, [0, 80]), dial())
    let arrived = bench.server.arrived(port: 80, remote: peer, remotePort: 1, now: bench.now)
    let over = bench.server.arrived(port: 80, remote: peer, remotePort: 2, now: bench.now)
    #expect(arrived == StreamID(2) && over == nil)
    bench.send(id, dial())
    let replies = bench.read(id)
    #expect(replies.last == error("dial: per-client connection quota (2) reached"))
    bench.send(other, dial(), dial())
    let refused = bench.read(other)
    #expect(refused == [error("dial: connection limit (3) reached")])
  }

  @Test("datagrams leave with and without confirmation, and come to every client")
  func datagrams() {
    var bench = SocketBench()
    let (id, other) = (bench.connect(), bench.connect())
    let most = [UInt8](repeating: 3, count: 65_535)
    bench.send(id, frame(0x0B, peerBytes + [0, 9] + most), frame(0x0B, peerBytes + [0, 9] + most + [1]))
    let actions = bench.actions()
    #expect(actions == [.sendDatagram(peer, port: 9, most, confirm: nil)])
    bench.server.datagram(from: peer, sourcePort: 0xC000, destinationPort: 7, [1, 2], now: bench.now)
    bench.server.datagram(from: peer, sourcePort: 0xC000, destinationPort: 7, [], now: bench.now)
    bench.server.datagram(from: peer, sourcePort: 0xC000, destinationPort: 7, most + [1], now: bench.now)
    for client in [id, other] {
      let frames = bench.read(client)
      #expect(frames == [[0x0C] + peerBytes + [0xC0, 0, 0, 7, 1, 2]])
    }
  }
}
