// A node that relays between two of its trusted peers: what passes, what does not, how much.

import Glibc
import Testing
import Wire

@testable import Engine

@Suite("Relaying") struct RelayTests {
  /// `a` and `b` speak through `relay`, which knows both directly.
  private struct Line {
    let a: Station
    let b: Station
    let relay: Station

    init(limit: RelayLimit? = RelayLimit(bytes: 10_000_000, packets: 100_000)) throws {
      a = try Station(node: 0x4000_0001)
      b = try Station(node: 0x4000_0002)
      relay = try Station(node: 0x4000_0003)
      try a.meet(b)
      try b.meet(a)
      try relay.meet(a, row: 0)
      try relay.meet(b, row: 1)
      for station in [a, b] {
        station.order(
          .setRelays(beacons: [], nodes: [relay.endpoint]), .setPath(0, .relay(beacon: relay.endpoint)))
      }
      relay.order(.setRelayLimit(limit), .setRelaying(0, true), .setRelaying(1, true))
    }

    func packet(_ size: Int, _ number: Int = 0) -> [UInt8] {
      Model.udp(a.address, b.address, ports: (1000 + number, 9), payload: [UInt8](repeating: 7, count: size))
    }
  }

  @Test("frames of a trusted peer reach another one, sealed end to end, and the way back is the same")
  func relays() throws {
    let line = try Line()
    let packet = line.packet(900)
    line.a.fromKernel(packet)
    line.relay.fromWire()
    #expect(line.relay.toKernel().isEmpty)
    line.b.fromWire()
    expectSame(line.b.toKernel().map(\.packet), [packet])
    #expect(line.b.worker.store.rows[0].lastOnPath != 0)
    let answer = Model.udp(line.b.address, line.a.address, payload: [1, 2, 3])
    line.b.fromKernel(answer)
    line.relay.fromWire()
    line.a.fromWire()
    expectSame(line.a.toKernel().map(\.packet), [answer])
    #expect(line.relay.counters.value(.relayedPackets) == 2)
    // The sealed frames: 36 bytes around each packet.
    #expect(line.relay.counters.value(.relayedBytes) == UInt64(packet.count + answer.count + 72))
    #expect(line.relay.counters.value(.receivedFrames) == 0 && line.relay.counters.value(.sentFrames) == 0)
  }

  @Test("after a rest the first frames go directly and through the relay, and one of them arrives")
  func twice() throws {
    let line = try Line()
    let stations = [(line.a, line.b), (line.b, line.a)]
    for (station, other) in stations {
      station.order(.setPath(0, .direct(other.endpoint)), .setFallback(0, line.relay.endpoint))
    }
    func exchange(_ count: Int) -> UInt64 {
      let before = line.a.counters.value(.sentTwice)
      for number in 0..<count { line.a.queue(line.packet(600, number)) }
      line.a.readKernel()
      return line.a.counters.value(.sentTwice) - before
    }
    // Nothing came by the path yet: the handshake has just found it.
    #expect(exchange(1) == 0)
    line.b.fromWire()
    line.b.fromKernel(Model.udp(line.b.address, line.a.address, payload: [1]))
    line.a.fromWire()
    #expect(exchange(1) == 0)
    line.b.fromWire()
    #expect(line.b.toKernel().count == 2)

    // A rest, and the way is closed meanwhile: what was sent directly is taken from b's socket and lost.
    let past = line.a.worker.store.rows[0].lastOnPath - 30_000_000_000
    line.a.worker.store.rows[0].lastOnPath = past
    line.a.worker.store.rows[0].lastSend = past
    #expect(exchange(20) == 20, "more than there are trains")
    line.relay.fromWire(20)
    let refused = line.b.counters.value(.replayed)
    line.b.fromWire(40)
    let arrived = line.b.toKernel().map(\.packet)
    let sent = (0..<20).map { line.packet(600, $0) }
    expectSame(arrived.sorted { $0.lexicographicallyPrecedes($1) }, sent.sorted { $0.lexicographicallyPrecedes($1) })
    #expect(line.b.counters.value(.replayed) == refused + 20)
    #expect(line.relay.counters.value(.relayedPackets) == 20)

    // 32 in all, and none once the path answers.
    line.a.worker.store.rows[0].lastSend = past
    line.a.worker.store.rows[0].lastOnPath = past
    #expect(exchange(40) == 32)
    line.relay.fromWire(32)
    line.b.fromWire(72)
    _ = line.b.toKernel()
    line.a.worker.store.rows[0].lastSend = past
    line.a.worker.store.rows[0].lastOnPath = past
    #expect(exchange(1) == 1)
    line.b.fromKernel(Model.udp(line.b.address, line.a.address, payload: [1]))
    line.a.fromWire()
    #expect(exchange(1) == 0)

    // Nor without a direct path and a relay behind it, also when one of them went meanwhile.
    let changes: [EngineCommand] = [
      .setFallback(0, nil), .setPath(0, .relay(beacon: line.relay.endpoint)), .setPath(0, .none),
    ]
    for change in changes {
      line.a.order(.setPath(0, .direct(line.b.endpoint)), .setFallback(0, line.relay.endpoint))
      line.a.worker.store.rows[0].lastSend = past
      line.a.worker.store.rows[0].lastOnPath = past
      #expect(exchange(1) == 1)
      line.a.order(change)
      #expect(exchange(1) == 0, "\(change)")
    }
  }

  @Test("a superpacket goes through as one train")
  func trains() throws {
    let line = try Line()
    let whole = Model.superpacket(
      Model.tcp(
        line.a.address, line.b.address, sequence: 1, flags: 0x18, payload: [UInt8](repeating: 3, count: 30_000)),
      segmentSize: 1328)
    line.a.fromKernel(whole.packet, header: whole.header)
    line.relay.fromWire(23)
    line.b.fromWire(23)
    expectSame(line.b.toKernel().flatMap { Model.segments($0) }, Model.segments(whole))
    #expect(line.relay.counters.value(.relayedPackets) == 23)
    #expect(line.relay.counters.value(.sentTrains) < 23)
  }

  @Test("nothing is relayed for whom it was not allowed, nor by a node that does not relay")
  func notAllowed() throws {
    let line = try Line()
    func tried() throws -> UInt64 {
      line.a.fromKernel(line.packet(100))
      line.relay.fromWire()
      return line.relay.drops(.relayNotAllowed)
    }
    line.relay.order(.setRelaying(1, false))
    #expect(try tried() == 1, "the receiver is not trusted")
    line.relay.order(.setRelaying(1, true), .setRelaying(0, false))
    #expect(try tried() == 2, "the sender is not trusted")
    line.relay.order(.setRelaying(0, true), .removePeer(1))
    #expect(try tried() == 3, "the receiver is unknown")
    let off = try Line(limit: nil)
    off.a.fromKernel(off.packet(100))
    off.relay.fromWire()
    #expect(off.relay.drops(.relayNotAllowed) == 1 && off.relay.counters.value(.relayedPackets) == 0)
  }

  @Test("a frame is relayed only from where its sender's own frames come from, and only to a direct path")
  func places() throws {
    let line = try Line()
    let thief = try Station(node: 9)
    let frame = BeaconMessage.relay(source: line.a.node, destination: line.b.node, frame: Array("PILSxxxx".utf8))
    thief.order(.sendDatagram(frame.encoded(), to: line.relay.endpoint))
    line.relay.fromWire()
    #expect(line.relay.drops(.relaySourceElsewhere) == 1)
    line.relay.order(.setPath(1, .relay(beacon: thief.endpoint)))
    line.a.fromKernel(line.packet(100))
    line.relay.fromWire()
    #expect(line.relay.drops(.relayWithoutPath) == 1)
    line.relay.order(.setPath(1, .direct(line.b.endpoint)), .setPath(0, .relay(beacon: thief.endpoint)))
    line.a.fromKernel(line.packet(100))
    line.relay.fromWire()
    #expect(line.relay.drops(.relaySourceElsewhere) == 2)
    #expect(line.relay.counters.value(.relayedPackets) == 0)
  }

  @Test("wrapped wrappers, cut ones and frames to the sender itself go nowhere")
  func malformed() throws {
    let line = try Line()
    let (a, b) = (line.a.node, line.b.node)
    let good = BeaconMessage.relay(source: a, destination: b, frame: [0x50]).encoded()
    let nested = BeaconMessage.relay(source: a, destination: b, frame: good).encoded()
    let own = BeaconMessage.relay(source: a, destination: a, frame: [0x50]).encoded()
    for bytes in [nested, own, Array(good.prefix(9)), Array(good.prefix(1))] {
      line.a.order(.sendDatagram(bytes, to: line.relay.endpoint))
    }
    line.relay.fromWire(4)
    #expect(line.relay.drops(.relayNested) == 1)
    #expect(line.relay.drops(.relayNotAllowed) == 1)
    #expect(line.relay.drops(.frameShort) == 2)
    #expect(line.relay.counters.value(.relayedPackets) == 0)
  }

  @Test("a peer has its quota in packets and in bytes, and another one its own")
  func quotas() throws {
    let start: UInt64 = 1_000_000_000_000
    func passed(_ limit: RelayLimit, size: Int, count: Int) throws -> (first: UInt64, second: UInt64, other: UInt64) {
      let line = try Line(limit: limit)
      for number in 0..<count { line.a.fromKernel(line.packet(size, number)) }
      line.relay.fromWire(UInt64(count), at: start)
      let first = line.relay.counters.value(.relayedPackets)
      // Another sender's share is untouched.
      line.b.fromKernel(Model.udp(line.b.address, line.a.address, payload: [1]))
      line.relay.fromWire(1, at: start)
      let other = line.relay.counters.value(.relayedPackets) - first
      for number in 0..<count { line.a.fromKernel(line.packet(size, number)) }
      line.relay.fromWire(UInt64(count), at: start + 500_000_000)
      return (first, line.relay.counters.value(.relayedPackets) - first - other, other)
    }
    // A quarter of a second of each.
    let packets = try passed(RelayLimit(bytes: 1_000_000_000, packets: 40), size: 10, count: 30)
    #expect(packets == (10, 10, 1))
    let bytes = try passed(RelayLimit(bytes: 40_000, packets: 100_000), size: 916, count: 30)
    #expect(bytes.first == 10 && bytes.second == 10 && bytes.other == 1, "\(bytes)")
  }

  @Test("a node that relays is heard as a relay only: its other beacon messages are nothing")
  func relayIsNoBeacon() throws {
    let line = try Line()
    let seen = BeaconMessage.discoverReply(line.a.endpoint).encoded()
    let punch = BeaconMessage.punchCommand(line.a.endpoint).encoded()
    line.relay.order(.sendDatagram(seen, to: line.b.endpoint), .sendDatagram(punch, to: line.b.endpoint))
    line.b.fromWire(2)
    #expect(line.b.drops(.beaconMessageFromStranger) == 2)
    line.b.order(.setRelays(beacons: [line.relay.endpoint], nodes: []))
    line.relay.order(.sendDatagram(seen, to: line.b.endpoint))
    line.b.fromWire()
    let told = line.b.events.takeAll().count { if case .datagram(seen, _, nil) = $0 { true } else { false } }
    #expect(told == 1)
  }

  @Test("what comes through another relay is no sign of life of the one that is used")
  func signsOfLife() throws {
    let line = try Line()
    let other = try Station(node: 4)
    line.b.order(
      .setRelays(beacons: [other.endpoint], nodes: [line.relay.endpoint]), .setPath(0, .relay(beacon: other.endpoint)))
    line.a.fromKernel(line.packet(10))
    line.relay.fromWire()
    line.b.fromWire()
    #expect(line.b.toKernel().count == 1)
    #expect(line.b.worker.store.rows[0].lastReceive != 0 && line.b.worker.store.rows[0].lastOnPath == 0)
  }
}
