// What a worker takes of each peer and each stranger: frames for control, key exchanges, errors about its own packets.
// The tests choose the worker's time.

import Session
import Shim
import Testing
import Wire

@testable import Engine

@Suite struct LimitTests {
  private let millisecond: UInt64 = 1_000_000

  @Test("a peer may send 200 frames for control at once and 200 a second; its packets and other peers are not affected")
  func framesForControl() throws {
    let a = try Station(node: 0x4000_0001)
    let b = try Station(node: 0x4000_0002)
    let c = try Station(node: 0x4000_0003)
    try a.meet(b)
    try c.meet(b)
    try b.meet(a)
    try b.meet(c, row: 1)
    let start = pt_monotonic()
    /// How many of the frames of a station reach control.
    func taken(_ count: UInt64, from station: Station, at time: UInt64) -> Int {
      for _ in 0..<count { station.order(.sendInner(0, [0x00, 1, 2, 3], path: nil)) }
      b.fromWire(count, at: time)
      return b.events.takeAll().count { if case .innerFrame = $0 { true } else { false } }
    }
    #expect(taken(250, from: a, at: start) == 200)
    #expect(b.drops(.innerOverLimit) == 50)
    #expect(taken(5, from: c, at: start) == 5)
    let packet = Model.udp(a.address, b.address, payload: [1])
    a.fromKernel(packet)
    b.fromWire(at: start)
    expectSame(b.toKernel().map(\.packet), [packet])
    // One more every 5 ms, and the whole burst again after a second without any.
    #expect(taken(20, from: a, at: start + 50 * millisecond) == 10)
    #expect(b.drops(.innerOverLimit) == 60)
    #expect(taken(250, from: a, at: start + 2000 * millisecond) == 200)
    #expect(b.drops(.innerOverLimit) == 110)
  }

  @Test("each source may send 20 key exchanges at once and 10 a second, and takes nothing of another's share")
  func keyExchanges() throws {
    let b = try Station(node: 0x4000_0002)
    let exchange = Array("PILA".utf8) + [UInt8](repeating: 1, count: 132)
    let request = Array("PILK".utf8) + [UInt8](repeating: 1, count: 36)
    let start = pt_monotonic()
    var refused: UInt64 = 0
    /// How many of 30 frames reach control.
    func taken(_ frame: [UInt8], from: String, relayed: UInt32? = nil, after milliseconds: UInt64 = 0) throws -> Int {
      let endpoint = try #require(Endpoint(from))
      for _ in 0..<30 {
        b.order(.receive(frame, from: endpoint, relayedFrom: relayed), at: start + milliseconds * millisecond)
      }
      let count = b.events.takeAll().count { if case .datagram = $0 { true } else { false } }
      refused += UInt64(30 - count)
      #expect(b.drops(.keyExchangeOverLimit) == refused)
      return count
    }
    #expect(try taken(exchange, from: "198.51.100.1:4000") == 20)
    #expect(try taken(exchange, from: "198.51.100.1:4001") == 0, "another port is the same source")
    #expect(try taken(request, from: "198.51.100.1:4000") == 0, "PILK counts as PILA does")
    #expect(try taken(exchange, from: "198.51.100.2:4000") == 20, "another source")
    #expect(try taken(request, from: "198.51.100.3:4000") == 20)
    #expect(try taken(exchange, from: "[2001:db8::1]:4000") == 20)
    #expect(try taken(exchange, from: "[2001:db8::ffff:0:0:2]:4000") == 0, "the same /64")
    #expect(try taken(exchange, from: "[2001:db8:0:1::1]:4000") == 20, "another /64")
    // Through the relay the node that the beacon names is the source, not the beacon.
    #expect(try taken(exchange, from: "198.51.100.9:9001", relayed: 5) == 20)
    #expect(try taken(exchange, from: "198.51.100.9:9001", relayed: 5) == 0)
    #expect(try taken(exchange, from: "198.51.100.9:9001", relayed: 6) == 20)
    #expect(try taken(exchange, from: "198.51.100.9:9001") == 20)
    // What went over the limit has not put the next one off.
    #expect(try taken(exchange, from: "198.51.100.1:4000", after: 100) == 1)
    #expect(try taken(exchange, from: "198.51.100.1:4000", after: 100) == 0)
    #expect(try taken(exchange, from: "198.51.100.1:4000", after: 1100) == 10)
    #expect(try taken(exchange, from: "198.51.100.1:4000", after: 10_000) == 20)
  }

  @Test("sealed frames of unknown senders reach control 64 at once and 32 a second from each source, whoever they name")
  func unknownSenders() throws {
    let b = try Station(node: 0x4000_0002)
    let start = pt_monotonic()
    var sender: UInt32 = 5000
    func taken(_ count: Int, from: String, after milliseconds: UInt64 = 0) throws -> Int {
      let endpoint = try #require(Endpoint(from))
      for _ in 0..<count {
        sender += 1
        let frame = Array("PILS".utf8) + withUnsafeBytes(of: sender.bigEndian) { Array($0) }
        b.order(
          .receive(frame + [UInt8](repeating: 1, count: 40), from: endpoint, relayedFrom: nil),
          at: start + milliseconds * millisecond)
      }
      return b.events.takeAll().count { if case .undecryptable = $0 { true } else { false } }
    }
    #expect(try taken(100, from: "198.51.100.1:4000") == 64)
    #expect(try taken(100, from: "198.51.100.1:4001") == 0, "another port is the same source")
    #expect(try taken(10, from: "198.51.100.2:4000") == 10, "another source has a share of its own")
    #expect(try taken(100, from: "198.51.100.1:4000", after: 500) == 16)
    #expect(b.drops(.senderUnknown) == 310)
  }

  @Test("an ICMPv6 error of a peer without trust comes in only when it quotes a packet of ours to that very peer")
  func quotedPacket() throws {
    let a = try Station(node: 0x4000_0001)
    let b = try Station(node: 0x4000_0002)
    try a.meet(b)
    try b.meet(a, admission: .repliesOnly)
    let other = OverlayMapping.address(for: PilotAddress(network: 0, node: 77))
    let ours = Model.udp(b.address, a.address, ports: (1000, 53), payload: [1, 2, 3])
    b.fromKernel(ours)
    let sent = b.worker.now
    func error(type: UInt8 = 1, quoting quoted: [UInt8]) -> [UInt8] {
      Model.icmpError(a.address, b.address, type: type, quoting: quoted)
    }
    /// What of one packet of the peer gets through.
    func through(_ packet: [UInt8], after milliseconds: UInt64 = 0) -> [[UInt8]] {
      a.order(.sendInner(0, packet, path: nil))
      b.fromWire(at: sent + milliseconds * millisecond)
      return b.toKernel().map(\.packet)
    }
    for genuine in [error(quoting: ours), error(type: 2, quoting: ours), error(quoting: Array(ours.prefix(40)))] {
      expectSame(through(genuine), [genuine])
    }
    #expect(b.drops(.notTrusted) == 0)

    let outside = IPv6Address(high: 0x2001 << 48, low: UInt64(a.node))
    let lies = [
      ("a packet of its own", Model.udp(a.address, b.address, payload: [1])),
      ("a packet of another node to it", Model.udp(other, a.address, payload: [1])),
      ("ours to another node", Model.udp(b.address, other, payload: [1])),
      ("ours to an address outside the overlay", Model.udp(b.address, outside, payload: [1])),
      ("a quote that is cut", Array(ours.prefix(39))),
      ("no quote", []),
    ]
    for (name, quoted) in lies {
      let before = b.drops(.notTrusted)
      expectSame(through(error(quoting: quoted)), [], "\(name):")
      #expect(b.drops(.notTrusted) == before + 1, "\(name)")
    }
    // No error is answered by an error (RFC 4443 §2.4 e): the peer hears the first packet and nothing else.
    a.fromWire()
    #expect(a.toKernel().count == 1)
    #expect(b.counters.value(.icmpAnswers) == 0)

    // A minute after the last packet to the peer nothing of it can still cause an error.
    expectSame(through(error(quoting: ours), after: 59_999), [error(quoting: ours)])
    expectSame(through(error(quoting: ours), after: 60_000), [])
  }
}

@Suite("Commands")
struct CommandTests {
  @Test("a worker that is far behind loses frames, never what it has to know of a peer")
  func fullQueue() {
    let box = Mailbox<EngineCommand>(limit: 2)
    let endpoint = Endpoint(address: IPv6Address(mappedIPv4: 0x0A00_0001), port: 4000)
    func post(_ command: EngineCommand) -> Bool { box.post(command, always: command.isToldOnce) }
    #expect(post(.sendDatagram([1], to: endpoint)) && post(.sendInner(0, [1], path: nil)))
    #expect(!post(.sendDatagram([1], to: endpoint)) && !post(.sendInner(0, [1], path: nil)))
    #expect(post(.setPath(0, .direct(endpoint))) && post(.setPathLimit(0, 1280)) && post(.promote(0, 1)))
    #expect(box.takeAll().count == 5)
  }

  @Test("who has much to say is told when a quarter of the queue waits")
  func backlog() {
    let box = Mailbox<Int>(limit: 8)
    #expect(box.post(1) && !box.isBehind && box.post(2) && box.isBehind)
    _ = box.takeAll()
    #expect(!box.isBehind)
  }
}
