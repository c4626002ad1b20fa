// Packets through two workers: splitting, sealing, opening, coalescing, checksums.

import SeededRandom
import Glibc
import Session
import Testing
import Wire

@testable import Engine

@Suite struct PacketPathTests {
  private func pair(virtio: Bool = true, gso: Bool = true, uso: Bool = true) throws -> (a: Station, b: Station) {
    let a = try Station(node: 0x4000_0001, virtio: virtio, gso: gso, uso: uso)
    let b = try Station(node: 0x4000_0002, virtio: virtio, gso: gso, uso: uso)
    try a.meet(b)
    try b.meet(a)
    return (a, b)
  }

  private func bytes(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) } }

  @Test("a TCP superpacket arrives as one, byte for byte", arguments: [true, false])
  func tcpSuperpacket(gso: Bool) throws {
    let (a, b) = try pair(gso: gso)
    let options: [UInt8] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]
    let whole = Model.tcp(
      a.address, b.address, sequence: 0xFFFF_F000, flags: 0x18, options: options, payload: bytes(30_000))
    let given = Model.superpacket(whole, segmentSize: 1328)
    a.fromKernel(given.packet, header: given.header)
    #expect(a.counters.value(.sentFrames) == 23)
    #expect((a.counters.value(.sentPlainly) == 23) == !gso)
    b.fromWire()
    let written = b.toKernel()
    #expect(written.count == 1)
    let first = try #require(written.first)
    #expect(first.header.segmentation == 4 && first.header.segmentSize == 1328)
    expectSame(Model.segments(first), Model.segments(given))
    expectSame([Array(first.packet[72...])], [bytes(30_000)])
  }

  @Test("a UDP superpacket arrives as one with USO and as right datagrams without", arguments: [true, false])
  func udpSuperpacket(uso: Bool) throws {
    let (a, b) = try pair(uso: uso)
    let whole = Model.udp(a.address, b.address, payload: bytes(10_500))
    let given = Model.superpacket(whole, segmentSize: 1000)
    a.fromKernel(given.packet, header: given.header)
    b.fromWire()
    let written = b.toKernel()
    #expect(written.count == (uso ? 1 : 11))
    expectSame(written.flatMap { Model.segments($0) }, Model.segments(given))
  }

  @Test("a partial checksum is finished before the packet is sealed", arguments: [1, 2, 63, 64, 1000, 1340])
  func partialChecksum(size: Int) throws {
    let (a, b) = try pair()
    let whole = Model.tcp(a.address, b.address, flags: 0x18, payload: bytes(size))
    var given = Model.superpacket(whole, segmentSize: 0)
    given.header.segmentation = 0
    a.fromKernel(given.packet, header: given.header)
    b.fromWire()
    expectSame(b.toKernel().map(\.packet), [whole])
    let packet = Model.udp(a.address, b.address, payload: bytes(size))
    a.fromKernel(packet)
    b.fromWire()
    expectSame(b.toKernel().map(\.packet), [packet])
  }

  @Test("wrong checksums are not blessed: the packets stay apart and wrong")
  func wrongChecksum() throws {
    let (a, b) = try pair()
    var first = Model.tcp(a.address, b.address, sequence: 1, payload: bytes(500))
    let second = Model.tcp(a.address, b.address, sequence: 501, payload: bytes(500))
    first[100] ^= 1
    a.fromKernel(first)
    a.fromKernel(second)
    b.fromWire()
    let written = b.toKernel()
    expectSame(written.map(\.packet), [first, second])
    #expect(written.first?.header.flags == 0)
  }

  @Test("packets without the virtio-net header pass one by one")
  func withoutHeader() throws {
    let (a, b) = try pair(virtio: false)
    let packets = (0..<5).map { Model.tcp(a.address, b.address, sequence: UInt32(1 + $0 * 100), payload: bytes(100)) }
    for packet in packets { a.fromKernel(packet) }
    b.fromWire()
    expectSame(b.toKernel().map(\.packet), packets)
  }

  @Test("mixed flows keep the order of each flow and every byte", arguments: [11, 12, UInt64.random(in: 100..<99_999)])
  func mixedFlows(seed: UInt64) throws {
    let (a, b) = try pair()
    var random = SeededGenerator(seed: seed)
    var next: [Int: UInt32] = [:]
    var sent: [Int: [[UInt8]]] = [:]
    for _ in 0..<600 {
      let port = Int.random(in: 1...12, using: &random)
      let isUDP = port > 8
      let size = [0, 1, 100, 100, 100, 1200, 1200, 1336].randomElement(using: &random)!
      let flags: UInt8 = [0x10, 0x10, 0x10, 0x18, 0x11, 0x12, 0x50].randomElement(using: &random)!
      let gap: UInt32 = Int.random(in: 0..<10, using: &random) == 0 ? 77 : 0
      let sequence = next[port, default: 1] &+ gap
      let packet =
        isUDP
        ? Model.udp(a.address, b.address, ports: (port, 9), payload: bytes(size))
        : Model.tcp(
          a.address, b.address, ports: (port, 9), sequence: sequence, flags: flags,
          options: port == 3 ? [1, 1, 1, 1] : [], payload: bytes(size))
      next[port] = sequence &+ UInt32(size)
      sent[port, default: []].append(packet)
      a.fromKernel(packet)
      if Int.random(in: 0..<20, using: &random) == 0 { b.fromWire() }
    }
    b.fromWire()
    var received: [Int: [[UInt8]]] = [:]
    for written in b.toKernel() {
      for packet in Model.segments(written) {
        received[Int(packet[40]) << 8 | Int(packet[41]), default: []].append(packet)
      }
    }
    for port in 1...12 {
      // PSH may move to the last segment of a joined run; everything else is the same.
      func plain(_ packets: [[UInt8]]) -> [[UInt8]] {
        packets.map { packet in
          var packet = packet
          if packet[6] == 6 {
            packet[53] &= ~0x08
            packet.replaceSubrange(56..<58, with: [0, 0])
          }
          return packet
        }
      }
      expectSame(plain(received[port] ?? []), plain(sent[port] ?? []), "seed \(seed), flow \(port):")
    }
    #expect(b.counters.value(.tunWrites) < b.counters.value(.tunWrittenSegments))
  }

  @Test("a train that the kernel refuses is counted, and the trains behind it leave all the same")
  func refusedTrain() throws {
    let (a, b) = try pair()
    let nowhere: UInt32 = 0x4000_0009
    a.order(
      .addPeer(1, node: nowhere), .setRawIPv6(1, true),
      .setPath(1, .direct(Endpoint(address: b.endpoint.address, port: 0))),
      .install(1, 1, context: try #require(AEADContext(key: Station.key)), sendPrefix: 3, current: true))
    let lost = Model.superpacket(
      Model.tcp(
        a.address, OverlayMapping.address(for: PilotAddress(network: 0, node: nowhere)), payload: bytes(4000)),
      segmentSize: 1000)
    let first = Model.udp(a.address, b.address, ports: (1, 2), payload: bytes(100))
    let second = Model.udp(a.address, b.address, ports: (1, 2), payload: bytes(200))
    a.queue(lost.packet, header: lost.header)
    a.queue(first)
    a.queue(lost.packet, header: lost.header)
    a.queue(second)
    a.readKernel()
    b.fromWire()
    expectSame(b.toKernel().flatMap { Model.segments($0) }, [first, second])
    #expect(a.drops(.sendError) == 8)
    #expect(b.drops(.replayed) == 0)
    #expect(b.drops(.senderUnknown) + b.drops(.authenticationFailed) == 0)
  }

  @Test("when only segmented sends are refused, the batch arrives whole, later ones go plainly, and it is told once")
  func refusedSegmentation() throws {
    let (a, b) = try pair()
    try #require(a.worker.ports.hasGSO, "this kernel has no UDP_SEGMENT: nothing to refuse")
    /// Two trains to one peer in one batch.
    func sendBatch(_ sequence: UInt32) throws {
      let whole = [sequence, sequence &+ 20_000].map {
        Model.superpacket(
          Model.tcp(a.address, b.address, sequence: $0, flags: 0x18, payload: bytes(20_000)), segmentSize: 1328)
      }
      for packet in whole { a.queue(packet.packet, header: packet.header) }
      a.readKernel()
      b.fromWire(32)
      expectSame(b.toKernel().flatMap { Model.segments($0) }, whole.flatMap { Model.segments($0) })
    }
    func told() -> [String] {
      a.events.takeAll().compactMap {
        if case .offloadDisabled(let name, let reason) = $0 { "\(name): \(reason)" } else { nil }
      }
    }
    // A socket without checksums may not segment: the kernel answers EINVAL to UDP_SEGMENT and takes single frames.
    func refuseSegmentation(_ isRefused: Bool) throws {
      var value: Int32 = isRefused ? 1 : 0
      try #require(setsockopt(a.worker.ports.udp, SOL_SOCKET, SO_NO_CHECK, &value, 4) == 0)
    }
    try refuseSegmentation(true)
    try sendBatch(1)
    #expect(a.counters.value(.sentPlainly) == 32)
    #expect(told() == ["udp-gso to node \(b.node): errno 22, its frames go one by one"])
    // The kernel would take segments again, but this path is not asked any more.
    try refuseSegmentation(false)
    try sendBatch(50_000)
    #expect(a.counters.value(.sentPlainly) == 64)
    #expect(told() == [])
    // A new path may have another card behind it.
    a.order(.setPath(0, .direct(b.endpoint)))
    try sendBatch(100_000)
    #expect(a.counters.value(.sentPlainly) == 64)
    try refuseSegmentation(true)
    try sendBatch(150_000)
    #expect(a.counters.value(.sentPlainly) == 96)
    #expect(told().count == 1)
    #expect(a.drops(.sendError) + a.drops(.sendBufferFull) + a.drops(.pathTooSmall) == 0)
  }

  @Test("frames through a beacon are wrapped on the way out and unwrapped on the way in")
  func relay() throws {
    let (a, b) = try pair()
    let beacon = try Station(node: 1)
    a.order(.setPath(0, .relay(beacon: beacon.endpoint)))
    b.order(.setRelays(beacons: [beacon.endpoint], nodes: []))
    let packet = Model.udp(a.address, b.address, payload: bytes(900))
    a.fromKernel(packet)
    // The beacon of the test: 05 source destination frame -> 06 source frame.
    var buffer = [UInt8](repeating: 0, count: 2000)
    let count = recv(beacon.worker.ports.udp, &buffer, buffer.count, 0)
    try #require(count > 9)
    #expect(buffer[0] == 5 && Array(buffer[1..<9]) == [0x40, 0, 0, 1, 0x40, 0, 0, 2])
    beacon.order(.sendDatagram([6] + buffer[1..<5] + buffer[9..<count], to: b.endpoint))
    b.fromWire()
    expectSame(b.toKernel().map(\.packet), [packet])
    #expect(b.worker.store.rows[0].lastReceive != 0 && b.worker.store.rows[0].lastOnPath == 0, "the path is direct")
    b.order(.setPath(0, .relay(beacon: beacon.endpoint)))
    a.fromKernel(packet)
    let next = recv(beacon.worker.ports.udp, &buffer, buffer.count, 0)
    try #require(next > 9)
    beacon.order(.sendDatagram([6] + buffer[1..<5] + buffer[9..<next], to: b.endpoint))
    b.fromWire()
    #expect(b.toKernel().count == 1 && b.worker.store.rows[0].lastOnPath != 0)
    // The same wrapper from anyone else is nothing.
    let stranger = try Station(node: 9)
    stranger.order(.sendDatagram([6] + buffer[1..<5] + buffer[9..<count], to: b.endpoint))
    b.fromWire()
    #expect(b.drops(.beaconMessageFromStranger) == 1)
    #expect(b.toKernel().isEmpty)
  }

  @Test("the first packet in a second tells control that the peer is in use; pings do not, nor do packets that follow")
  func use() throws {
    let (a, b) = try pair()
    _ = a.events.takeAll()
    func resumed() -> Int { a.events.takeAll().count { if case .resumed(0) = $0 { true } else { false } } }
    a.order(.sendInner(0, [0, 9], path: nil))
    #expect(resumed() == 0)
    a.fromKernel(Model.udp(a.address, b.address, payload: bytes(10)))
    #expect(resumed() == 1)
    a.fromKernel(Model.udp(a.address, b.address, payload: bytes(10)))
    #expect(resumed() == 0)
  }
}
