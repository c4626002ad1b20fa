// What the size of a path does to packets: Packet Too Big, smaller segments, one packet in two frames, and refusals of
// the kernel.

import Glibc
import LinkIO
import SeededRandom
import Session
import Shim
import Testing
import Wire

@testable import Engine

@Suite struct PathLimitTests {
  private func pair(local: String = "127.0.0.1:0", gso: Bool = true) throws -> (a: Station, b: Station) {
    let a = try Station(node: 0x4000_0001, gso: gso, local: local)
    let b = try Station(node: 0x4000_0002, gso: gso, local: local)
    for (station, other) in [(a, b), (b, a)] {
      try station.meet(other)
      station.order(.setSplitPackets(0, true))
    }
    return (a, b)
  }

  private func bytes(_ count: Int, _ start: Int = 0) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: ($0 &+ start) &* 7 &+ $0 >> 8) }
  }

  /// A UDP packet of `size` bytes.
  private func packet(_ a: Station, _ b: Station, size: Int, _ number: Int = 0) -> [UInt8] {
    Model.udp(a.address, b.address, ports: (1000 + number, 9), payload: bytes(size - 48, number))
  }

  /// Takes the next datagram for `b` off its socket instead of the worker.
  private func datagram(_ b: Station) throws -> [UInt8] {
    var descriptor = b.worker.ports.udp
    try #require(pt_poll(&descriptor, 1, 1000) != 0)
    var buffer = [UInt8](repeating: 0, count: 65_536)
    let count = recv(b.worker.ports.udp, &buffer, buffer.count, 0)
    try #require(count > 0)
    return Array(buffer[..<count])
  }

  /// The frames that `a` sends for one packet, each a datagram of its own.
  private func frames(_ a: Station, _ b: Station, for packet: [UInt8]) throws -> [[UInt8]] {
    let before = a.counters.value(.sentFrames)
    // Joined datagrams would hide how large each is.
    try #require(pt_udp_set_gro(b.worker.ports.udp, 0) == 0)
    a.fromKernel(packet)
    let sent = a.counters.value(.sentFrames) - before
    return try (0..<Int(sent)).map { _ in try datagram(b) }
  }

  /// MTU that an ICMPv6 Packet Too Big tells; nil: it is another packet.
  private func toldMTU(_ packet: [UInt8]) -> Int? {
    guard packet.count > 48, packet[6] == 58, packet[40] == 2 else { return nil }
    return packet[44..<48].reduce(0) { $0 << 8 | Int($1) }
  }

  // MARK: - 1280 and more

  @Test(
    "packets above the path's limit hear Packet Too Big with it, those up to it pass", arguments: [1280, 1300, 1399])
  func packetTooBig(limit: Int) throws {
    let (a, b) = try pair()
    a.order(.setPathLimit(0, limit))
    let fitting = packet(a, b, size: limit)
    a.fromKernel(fitting)
    b.fromWire()
    expectSame(b.toKernel().map(\.packet), [fitting])
    a.fromKernel(packet(a, b, size: limit + 1))
    #expect(a.toKernel().map { toldMTU($0.packet) } == [limit])
    #expect(a.drops(.packetTooBig) == 1)
    let large = Model.superpacket(packet(a, b, size: 9000), segmentSize: limit - 47)
    a.fromKernel(large.packet, header: large.header)
    #expect(a.toKernel().map { toldMTU($0.packet) } == [limit], "datagrams of a superpacket are not cut")
    // A new path has refused nothing yet.
    a.order(.setPath(0, .direct(b.endpoint)))
    a.fromKernel(packet(a, b, size: 1400))
    b.fromWire()
    #expect(b.toKernel().count == 1)
  }

  @Test(
    "limits outside the possible are brought inside",
    arguments: [(-1, 0), (0, 0), (1, 641), (640, 641), (1400, 1400), (9999, 1400)])
  func bounds(limit: Int, held: UInt64) throws {
    let (a, _) = try pair()
    a.order(.setPathLimit(0, limit), .setPathLimit(7, limit), .setPathLimit(99_999, limit))
    #expect(a.worker.store.rows[0].innerMTU == held)
  }

  @Test(
    "a TCP superpacket with segments too large for the path is cut into smaller ones, byte for byte",
    arguments: [641, 1000, 1280, 1399], [false, true])
  func smallerSegments(limit: Int, gso: Bool) throws {
    let (a, b) = try pair(gso: gso)
    a.order(.setPathLimit(0, limit))
    let options: [UInt8] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]
    for flags: UInt8 in [0x18, 0x99] {
      let whole = Model.tcp(
        a.address, b.address, sequence: 0xFFFF_F000, flags: flags, options: options, payload: bytes(30_000))
      var given = Model.superpacket(whole, segmentSize: 1328)
      // CWR stays with the first segment only when the kernel says that the flow uses ECN; the worker does it always.
      a.fromKernel(given.packet, header: given.header)
      let count = (30_000 + limit - 73) / (limit - 72)
      b.fromWire(UInt64(count))
      given.header.segmentSize = UInt16(limit - 72)
      var wanted = Model.segments(given)
      for index in wanted.indices.dropFirst() where flags & 0x80 != 0 {
        wanted[index][53] &= ~0x80
        wanted[index].replaceSubrange(56..<58, with: [0, 0])
        wanted[index].replaceSubrange(56..<58, with: Model.big16(Int(Model.checksum(wanted[index], next: 6))))
      }
      expectSame(b.toKernel().flatMap { Model.segments($0) }, wanted, "flags \(flags):")
    }
    #expect(a.drops(.packetTooBig) + a.drops(.pathTooSmall) == 0)
    #expect(a.counters.value(.splitPackets) == 0)
  }

  // MARK: - Less than 1280

  @Test("below 1280 a packet travels in two frames that fit, and arrives as it was", arguments: [641, 700, 1000, 1279])
  func twoFrames(limit: Int) throws {
    let (a, b) = try pair()
    a.order(.setPathLimit(0, limit))
    for size in [limit - 1, limit, limit + 1, limit + 2, 1279, 1280] where size <= 1280 {
      let given = packet(a, b, size: size)
      let sent = try frames(a, b, for: given)
      #expect(sent.count == (size > limit ? 2 : 1), "\(size)")
      #expect(sent.allSatisfy { $0.count <= limit + SealedFrame.overhead }, "\(sent.map(\.count))")
      for frame in sent { b.order(.receive(frame, from: a.endpoint, relayedFrom: nil)) }
      expectSame(b.toKernel().map(\.packet), [given], "\(size) bytes:")
    }
    a.fromKernel(packet(a, b, size: 1281))
    #expect(a.toKernel().map { toldMTU($0.packet) } == [1280])
    #expect(b.counters.value(.joinedPackets) == a.counters.value(.splitPackets))
    #expect(b.drops(.partAlone) + b.drops(.innerMalformed) + b.drops(.innerReserved) == 0)
  }

  @Test("many packets in two frames each keep their order, join to superpackets, and go in trains of one size")
  func manyPackets() throws {
    let (a, b) = try pair()
    a.order(.setPathLimit(0, 1100))
    let packets = (0..<60).map {
      Model.tcp(a.address, b.address, sequence: UInt32(1 + $0 * 1220), payload: bytes(1220, $0))
    }
    for packet in packets { a.queue(packet) }
    a.readKernel()
    #expect(a.counters.value(.sentFrames) == 120 && a.counters.value(.sentTrains) == 2)
    b.fromWire(120)
    let written = b.toKernel()
    expectSame(written.flatMap { Model.segments($0) }, packets)
    #expect(b.counters.value(.joinedPackets) == 60)
    #expect(written.count < 10, "\(written.count) writes")
  }

  @Test("datagrams of a UDP superpacket travel in two frames each")
  func splitDatagrams() throws {
    let (a, b) = try pair()
    a.order(.setPathLimit(0, 1000))
    let given = Model.superpacket(packet(a, b, size: 8000), segmentSize: 1232)
    a.fromKernel(given.packet, header: given.header)
    b.fromWire(14)
    expectSame(b.toKernel().flatMap { Model.segments($0) }, Model.segments(given))
    #expect(a.counters.value(.splitPackets) == 6 && a.counters.value(.sentFrames) == 13)
  }

  @Test("a peer that does not join gets its packets whole, and its TCP in segments that fit")
  func peerThatDoesNotJoin() throws {
    let (a, b) = try pair()
    a.order(.setPathLimit(0, 1000), .setSplitPackets(0, false))
    let sent = try frames(a, b, for: packet(a, b, size: 1280))
    #expect(sent.map(\.count) == [1280 + SealedFrame.overhead])
    let whole = Model.superpacket(Model.tcp(a.address, b.address, payload: bytes(5000)), segmentSize: 1220)
    a.fromKernel(whole.packet, header: whole.header)
    let segments = try (0..<6).map { _ in try datagram(b).count }
    #expect(segments.allSatisfy { $0 <= 1000 + SealedFrame.overhead }, "\(segments)")
  }

  @Test("Pilot packets of control travel in two frames, too; probes and what has a path of its own go whole")
  func pilotPackets() throws {
    let (a, b) = try pair()
    a.order(.setPathLimit(0, 700))
    let payload = bytes(1000)
    let segment = PilotPacket(
      protocolNumber: .stream, source: PilotAddress(network: 0, node: a.node),
      destination: PilotAddress(network: 0, node: b.node), sourcePort: 1, destinationPort: 2, payload: payload
    ).encoded()
    a.order(.sendInner(0, segment, path: nil))
    b.fromWire(2)
    let received = b.streamEvents.takeAll().compactMap { event -> [UInt8]? in
      if case .segment(0, let bytes, _, _) = event { bytes } else { nil }
    }
    expectSame(received, [segment])
    #expect(a.counters.value(.splitPackets) == 1)
    a.order(.sendInner(0, segment, path: .direct(b.endpoint)), .sendInner(0, [0] + payload, path: nil))
    #expect(a.counters.value(.splitPackets) == 1 && a.counters.value(.sentFrames) == 4)
  }

  // MARK: - Parts as they come

  @Test("parts join in either order; a repeated one is a replay, one whose other half is lost stays alone")
  func orders() throws {
    let (a, b) = try pair()
    a.order(.setPathLimit(0, 641))
    func deliver(_ frame: [UInt8], at time: UInt64? = nil) {
      b.order(.receive(frame, from: a.endpoint, relayedFrom: nil), at: time)
    }
    let swapped = packet(a, b, size: 1280, 1)
    let parts = try frames(a, b, for: swapped)
    deliver(parts[1])
    #expect(b.toKernel().isEmpty)
    deliver(parts[1])
    deliver(parts[0])
    expectSame(b.toKernel().map(\.packet), [swapped])
    deliver(parts[0])
    deliver(parts[1])
    #expect(b.toKernel().isEmpty && b.drops(.replayed) == 3)

    // First parts of three packets, then the rests in another order, and others in between.
    let packets = (2..<5).map { packet(a, b, size: 1279, $0) }
    let all = try packets.map { try frames(a, b, for: $0) }
    let small = packet(a, b, size: 300, 9)
    let between = try frames(a, b, for: small)
    for parts in all { deliver(parts[0]) }
    deliver(between[0])
    for index in [2, 0, 1] { deliver(all[index][1]) }
    expectSame(b.toKernel().map(\.packet), [small, packets[2], packets[0], packets[1]])

    // Rests whose first parts never come: the fifth pushes the oldest out, the others still join.
    let start = pt_monotonic()
    let late = try (10..<15).map { try frames(a, b, for: packet(a, b, size: 1000, $0)) }
    for (index, parts) in late.enumerated() { deliver(parts[1], at: start + UInt64(index)) }
    #expect(b.drops(.partAlone) == 1)
    for parts in late.dropFirst() { deliver(parts[0], at: start + 5) }
    #expect(b.toKernel().count == 4)

    // A part that waited for more than a second is not joined.
    let slow = try frames(a, b, for: packet(a, b, size: 1000, 20))
    deliver(slow[0], at: start + 10)
    deliver(slow[1], at: start + 11 + Rejoiner.lifetime)
    #expect(b.toKernel().isEmpty)
  }

  @Test("parts that are no parts of a packet are counted drops")
  func lies() throws {
    let (a, b) = try pair()
    func send(_ inners: [UInt8]...) -> [[UInt8]] {
      for inner in inners { a.order(.sendInner(0, inner, path: nil)) }
      b.fromWire(UInt64(inners.count))
      return b.toKernel().map(\.packet)
    }
    let whole = packet(a, b, size: 1000)
    let (first, rest) = (Array(whole[..<500]), Array(whole[500...]))
    expectSame(send([0x20] + first, [0x21] + rest), [whole])
    #expect(b.drops(.innerMalformed) + b.drops(.innerReserved) == 0)
    // No bytes; more than a half may have; together more than a packet that is split.
    expectSame(send([0x20], [0x21], [0x20] + bytes(1280), [0x21] + bytes(1280)), [])
    #expect(b.drops(.innerMalformed) == 4)
    expectSame(send([0x20] + bytes(700), [0x21] + bytes(581)), [])
    #expect(b.drops(.innerMalformed) == 5)
    // Joined it is no packet, or one whose own length says more, or somebody else's.
    expectSame(send([0x20, 0x20], [0x21] + rest), [])
    expectSame(send([0x20, 0x00], [0x21] + rest), [])
    expectSame(send([0x20] + first, [0x21] + rest.dropLast()), [])
    expectSame(send([0x20, 0x60], [0x21] + first[1...37]), [])
    #expect(b.drops(.innerMalformed) == 9)
    let foreign = OverlayMapping.address(for: PilotAddress(network: 0, node: 77))
    let spoofed = Model.udp(foreign, b.address, payload: bytes(900))
    expectSame(send([0x20] + spoofed[..<20], [0x21] + spoofed[20...]), [])
    #expect(b.drops(.spoofedSource) == 1)
    let astray = Model.udp(a.address, foreign, payload: bytes(900))
    expectSame(send([0x20] + astray[..<20], [0x21] + astray[20...]), [])
    #expect(b.drops(.wrongDestination) == 1)
    // Two firsts, two rests, in neither order.
    expectSame(send([0x20] + rest, [0x20] + rest, [0x21] + first), [])
    #expect(b.drops(.innerMalformed) == 10)
    // Kinds of a later version.
    for kind: UInt8 in 0x22...0x2F { expectSame(send([kind] + first), []) }
    #expect(b.drops(.innerReserved) == 14)
    // Padding behind the packet is cut off, as it is of a packet in one frame.
    expectSame(send([0x20] + first, [0x21] + rest + [1, 2, 3]), [whole])
  }

  @Test("the admission of a peer is asked for the joined packet")
  func admission() throws {
    let (a, b) = try pair()
    a.order(.setPathLimit(0, 641))
    b.order(.setAdmission(0, .repliesOnly))
    a.fromKernel(packet(a, b, size: 1200))
    b.fromWire(2)
    #expect(b.toKernel().isEmpty && b.drops(.notTrusted) == 1)
  }

  @Test("one peer's lonely parts do not push out another's")
  func isolation() throws {
    let rejoiner = try need(Rejoiner())
    var table = consume rejoiner
    // Two nodes of one set.
    func set(_ node: UInt32) -> UInt32 { (node &* 0x9E37_79B1) >> 27 }
    let good: UInt32 = 7
    let bad = try #require((8..<10_000).first { set($0) == set(good) })
    let part = bytes(600)
    func add(_ node: UInt32, _ counter: UInt64, isRest: Bool, at time: UInt64) -> Rejoiner.Verdict {
      part.withUnsafeBytes {
        table.add(
          node: node, prefix: node, counter: counter, isRest: isRest, bytes: $0.baseAddress!, count: $0.count, now: time
        )
      }
    }
    func isJoined(_ verdict: Rejoiner.Verdict) -> Bool { if case .joined = verdict { true } else { false } }
    for counter: UInt64 in 1...4 { _ = add(good, counter * 10, isRest: false, at: counter) }
    for counter: UInt64 in 1...100 { _ = add(bad, counter * 10, isRest: counter % 2 == 0, at: 10 + counter) }
    for counter: UInt64 in 1...4 {
      let verdict = add(good, counter * 10 + 1, isRest: true, at: 200)
      #expect(isJoined(verdict), "\(counter)")
    }
    // The same counters under another prefix, or of another node, are other packets.
    _ = add(good, 500, isRest: false, at: 300)
    let other = part.withUnsafeBytes {
      table.add(node: good, prefix: 99, counter: 501, isRest: true, bytes: $0.baseAddress!, count: $0.count, now: 300)
    }
    #expect(!isJoined(other))
    let another = add(bad, 501, isRest: true, at: 300)
    #expect(!isJoined(another))
    // A rest without a counter before it.
    let zero = add(good, 0, isRest: true, at: 400)
    let last = add(good, .max, isRest: false, at: 400)
    #expect(!isJoined(zero) && isJoined(last))
  }

  @Test(
    "under loss, doubling and reordering every packet that comes is one that was sent",
    arguments: [1, 2, UInt64.random(in: 3..<1_000_000)])
  func disorder(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let (a, b) = try pair()
    a.order(.setPathLimit(0, 641))
    var sent: Set<[UInt8]> = []
    var complete = 0
    var came: [[UInt8]] = []
    for _ in 0..<30 {
      var batch: [(frame: [UInt8], packet: Int)] = []
      for number in 0..<Int.random(in: 1...4, using: &random) {
        let given = packet(
          a, b, size: Int.random(in: 642...1280, using: &random), Int.random(in: 0...9000, using: &random))
        sent.insert(given)
        for frame in try frames(a, b, for: given) { batch.append((frame, number)) }
      }
      let arriving = batch.filter { _ in Int.random(in: 0..<5, using: &random) > 0 }
      for number in 0..<4 where arriving.count(where: { $0.packet == number }) == 2 { complete += 1 }
      let doubled = arriving + arriving.filter { _ in Bool.random(using: &random) }
      for item in doubled.shuffled(using: &random) {
        b.order(.receive(item.frame, from: a.endpoint, relayedFrom: nil))
        came += b.toKernel().map(\.packet)
      }
    }
    let isSubset = came.allSatisfy { sent.contains($0) }
    #expect(isSubset, "seed \(seed)")
    // Parts that stay alone may push out one that would have been joined.
    #expect(came.count <= complete && came.count * 10 >= complete * 7, "seed \(seed): \(came.count) of \(complete)")
    #expect(b.drops(.innerMalformed) == 0, "seed \(seed)")
  }

  // MARK: - The kernel says no

  private static let hasIPv6Loopback = (try? Station(node: 1, local: "[::1]:0")) != nil

  /// From now on the station's kernel takes datagrams of at most `mtu` bytes with their headers.
  private func limitKernel(_ station: Station, mtu: Int32) throws {
    var value = mtu
    try #require(setsockopt(station.worker.ports.udp, Int32(IPPROTO_IPV6), IPV6_MTU, &value, 4) == 0)
  }

  private func refusals(_ station: Station) -> [(size: Int, limit: Int?, path: EnginePath)] {
    station.events.takeAll().compactMap {
      if case .tooBig(0, let size, let limit, let path) = $0 { (size, limit, path) } else { nil }
    }
  }

  @Test(
    "a size that the kernel refuses lowers the path's limit and is told, 20 times a second at most",
    .enabled(if: hasIPv6Loopback), arguments: [true, false])
  func refusedSize(gso: Bool) throws {
    let (a, b) = try pair(local: "[::1]:0", gso: gso)
    // Room for 1300 bytes of inner frame.
    try limitKernel(a, mtu: 1300 + 36 + 48)
    a.fromKernel(packet(a, b, size: 1301))
    #expect(a.drops(.pathTooSmall) == 1 && a.worker.store.rows[0].innerMTU == 1280)
    let told = refusals(a)
    #expect(told.map(\.size) == [1301] && told.first?.path == .direct(b.endpoint))
    #expect(told.first?.limit == nil, "the route itself says nothing")
    // Now senders hear of it, and what fits arrives.
    a.fromKernel(packet(a, b, size: 1301))
    #expect(a.toKernel().map { toldMTU($0.packet) } == [1280])
    let fitting = packet(a, b, size: 1280)
    a.fromKernel(fitting)
    b.fromWire()
    expectSame(b.toKernel().map(\.packet), [fitting])

    // A smaller link yet: two frames for one packet.
    try limitKernel(a, mtu: 1280)
    usleep(60_000)
    a.fromKernel(fitting)
    #expect(a.worker.store.rows[0].innerMTU == UInt64(SplitFrame.smallestLimit))
    a.fromKernel(fitting)
    b.fromWire(2)
    expectSame(b.toKernel().map(\.packet), [fitting])
    #expect(refusals(a).map(\.size) == [1280])
  }

  @Test(
    "a train of frames that are all too large is counted frame by frame and told once",
    .enabled(if: hasIPv6Loopback))
  func refusedTrain() throws {
    let (a, b) = try pair(local: "[::1]:0")
    try limitKernel(a, mtu: 1300)
    let given = Model.superpacket(Model.tcp(a.address, b.address, payload: bytes(12_000)), segmentSize: 1200)
    a.fromKernel(given.packet, header: given.header)
    #expect(a.drops(.pathTooSmall) == 10 && a.drops(.sendError) == 0)
    #expect(refusals(a).count == 1)
    // TCP sends again: in segments that fit now.
    a.fromKernel(given.packet, header: given.header)
    b.fromWire(21)
    #expect(b.toKernel().map(\.packet.count).reduce(0, +) >= 12_000)
    #expect(a.drops(.pathTooSmall) == 10)
  }

  @Test(
    "a refused probe is told and changes nothing: not on another path, and not above the limit",
    .enabled(if: hasIPv6Loopback))
  func refusedProbe() throws {
    let (a, b) = try pair(local: "[::1]:0")
    let c = try Station(node: 3, local: "[::1]:0")
    try limitKernel(a, mtu: 1300)
    let probe = [0] + bytes(1399)
    a.order(.sendInner(0, probe, path: .direct(c.endpoint)))
    #expect(refusals(a).map(\.path) == [.direct(c.endpoint)])
    #expect(a.worker.store.rows[0].innerMTU == 0)
    usleep(60_000)
    a.order(.setPathLimit(0, 1280), .sendInner(0, probe, path: nil))
    #expect(refusals(a).map(\.size) == [1400])
    #expect(a.worker.store.rows[0].innerMTU == 1280)
    usleep(60_000)
    a.order(.sendInner(0, probe, path: .relay(beacon: b.endpoint)))
    let relayed = refusals(a)
    #expect(relayed.map(\.size) == [1400] && relayed.first?.path == .relay(beacon: b.endpoint))
  }

  @Test("the kernel knows the MTU of a route")
  func routeMTU() throws {
    var loopback = pt_endpoint(try #require(Endpoint("127.0.0.1:9")))
    #expect(pt_udp_route_mtu(&loopback) >= 65_535)
    var nowhere = pt_endpoint(try #require(Endpoint("[fe80::1]:9")))
    #expect(pt_udp_route_mtu(&nowhere) < 0, "a link-local address without a scope")
  }
}
