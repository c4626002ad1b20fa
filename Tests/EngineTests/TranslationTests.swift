// What becomes of packets for peers that take no raw IPv6, and of what such peers send.

import Session
import Shim
import Testing
import Wire

@testable import Engine

@Suite("Translation") struct TranslationTests {
  private static let phantom = OverlayMapping.phantom
  private static let gateway = OverlayMapping.gateway

  /// Two stations of which neither takes raw IPv6 from the other.
  private func pair(admission: Admission = .all) throws -> (Station, Station) {
    let (a, b) = (try Station(node: 1), try Station(node: 2))
    try a.meet(b, admission: admission, takesRawIPv6: false)
    try b.meet(a, takesRawIPv6: false)
    return (a, b)
  }

  private func bytes(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) } }

  private func pilot(_ kind: PilotProtocol, _ packet: [UInt8]) throws -> PilotPacket {
    let packet = try PilotPacket(packet)
    #expect(packet.protocolNumber == kind)
    return packet
  }

  private func echo(_ a: Station, _ b: Station, type: UInt8 = 128, payload: [UInt8]) -> [UInt8] {
    var packet =
      Model.header(a.address, b.address, next: 58, length: 8 + payload.count) + [type, 0, 0, 0, 0x12, 0x34, 0, 9]
      + payload
    packet.replaceSubrange(42..<44, with: Model.big16(Int(Model.checksum(packet, next: 58))))
    return packet
  }

  @Test("an echo request leaves as a ping, and the peer's answer comes back as the reply", arguments: [0, 1, 56, 1200])
  func echo(size: Int) throws {
    let (a, b) = try pair(admission: .repliesOnly)
    let request = echo(a, b, payload: bytes(size))
    a.fromKernel(request)
    b.fromWire()
    guard
      case .innerFrame(_, let inner, _, _) = b.events.takeAll().first(where: { event in
        if case .innerFrame = event { true } else { false }
      })
    else { throw Missing() }
    let ping = try pilot(.control, inner)
    #expect(ping.isPing && ping.sourcePort == 0x1234 && ping.sequence == 9 && ping.payload.count == size + 4)
    let pong = try #require(ping.pong(own: PilotAddress(network: 0, node: 2)))
    b.order(.sendInner(0, pong.encoded(), path: nil))
    a.fromWire()
    expectSame(a.toKernel().map(\.packet), [echo(b, a, type: 129, payload: bytes(size))])
    // Nobody asked for this one.
    var stray = pong
    stray.destinationPort = 77
    b.order(.sendInner(0, stray.encoded(), path: nil))
    a.fromWire()
    #expect(a.toKernel().isEmpty && a.drops(.notTrusted) == 1)
  }

  @Test("UDP crosses as datagrams with its ports, superpackets as several; empty and fragmented ones are refused")
  func datagrams() throws {
    let (a, b) = try pair()
    let one = Model.udp(a.address, b.address, ports: (4000, 53), payload: bytes(1352))
    let many = Model.superpacket(
      Model.udp(a.address, b.address, ports: (4000, 53), payload: bytes(2500)), segmentSize: 1000)
    a.queue(one)
    a.queue(many.packet, header: many.header)
    a.readKernel()
    b.fromWire(4)
    expectSame(b.toKernel().map(\.packet), [one] + Model.segments(many))
    #expect(a.counters.value(.translatedPackets) == 4)

    a.fromKernel(Model.udp(a.address, b.address, payload: []))
    var fragment = Model.udp(a.address, b.address, payload: bytes(100))
    fragment[6] = 44
    fragment[40] = 17
    a.fromKernel(fragment)
    #expect(a.drops(.peerWithoutRawIPv6) == 2)
    let answers = a.toKernel().map(\.packet)
    #expect(answers.count == 2 && answers.allSatisfy { $0[6] == 58 && $0[40] == 1 && $0[41] == 3 })
    a.fromKernel(Model.udp(a.address, b.address, payload: bytes(1353)))
    #expect(a.toKernel().map { $0.packet[40] } == [2])
  }

  @Test("a datagram of a stranger answers a flow or is dropped, as is one with a foreign source or for another node")
  func datagramGate() throws {
    let (a, b) = try pair(admission: .repliesOnly)
    func datagram(
      _ source: UInt32 = 2, _ destination: UInt32 = 1, network: UInt16 = 0, ports: (UInt16, UInt16) = (53, 4000)
    )
      -> [UInt8]
    {
      PilotPacket(
        protocolNumber: .datagram, source: PilotAddress(network: network, node: source),
        destination: PilotAddress(network: 0, node: destination), sourcePort: ports.0, destinationPort: ports.1,
        payload: [1, 2, 3]
      ).encoded()
    }
    func send(_ inner: [UInt8]) {
      b.order(.sendInner(0, inner, path: nil))
      a.fromWire()
    }
    send(datagram())
    #expect(a.drops(.notTrusted) == 1)
    a.fromKernel(Model.udp(a.address, b.address, ports: (4000, 53), payload: [9]))
    send(datagram())
    expectSame(a.toKernel().map(\.packet), [Model.udp(b.address, a.address, ports: (53, 4000), payload: [1, 2, 3])])
    send(datagram(7))
    send(datagram(network: 0xFFFF))
    #expect(a.drops(.spoofedSource) == 2)
    send(datagram(2, 8))
    #expect(a.drops(.wrongDestination) == 1)
    var broken = datagram()
    broken[31] ^= 1
    send(broken)
    send(Array(broken.prefix(20)))
    #expect(a.drops(.innerMalformed) == 2)
    // A network that we are not in comes to the backbone's address, and its source shows it.
    send(datagram(network: 5))
    let source = OverlayMapping.address(for: PilotAddress(network: 5, node: 2))
    expectSame(a.toKernel().map(\.packet), [Model.udp(source, a.address, ports: (53, 4000), payload: [1, 2, 3])])
    #expect(a.streamEvents.takeAll().isEmpty)
    a.order(.tapDatagrams(true))
    send(datagram())
    #expect(a.streamEvents.takeAll().count == 1)
  }

  // MARK: TCP

  private func flow(_ a: Station, _ b: Station, id: UInt16 = 5) -> TranslatedFlow {
    TranslatedFlow(id: id, own: a.address, ownPort: 4000, peer: b.address, peerPort: 80, gatewayPort: 7777)
  }

  @Test("a connection's SYN waits for the gateway; then its packets go there and back with right checksums")
  func connection() throws {
    let (a, b) = try pair()
    let syn = Model.tcp(a.address, b.address, ports: (4000, 80), flags: 0x02, options: [2, 4, 5, 0x28], payload: [])
    a.fromKernel(syn)
    guard case .opening(let held, packetAt: VirtioHeader.byteCount) = a.streamEvents.takeAll().first else {
      throw Missing()
    }
    #expect(a.toKernel().isEmpty)
    a.order(.setFlow(flow(a, b)), .retry(held))
    let opened = Model.tcp(
      Self.phantom, Self.gateway, ports: (5, 7777), flags: 0x02, options: [2, 4, 5, 0x28], payload: [])
    expectSame(a.toKernel().map(\.packet), [opened])
    // The socket's answer.
    a.fromKernel(Model.tcp(Self.gateway, Self.phantom, ports: (7777, 5), flags: 0x12, payload: []))
    expectSame(
      a.toKernel().map(\.packet), [Model.tcp(b.address, a.address, ports: (80, 4000), flags: 0x12, payload: [])])
    // A superpacket with a partial checksum stays one.
    let whole = Model.superpacket(
      Model.tcp(a.address, b.address, ports: (4000, 80), payload: bytes(9000)), segmentSize: 1340)
    a.fromKernel(whole.packet, header: whole.header)
    let passed = a.toKernel()
    #expect(passed.count == 1 && passed[0].header.segmentSize == 1340)
    expectSame(
      passed.flatMap { Model.segments($0) },
      Model.segments(
        Model.superpacket(
          Model.tcp(Self.phantom, Self.gateway, ports: (5, 7777), payload: bytes(9000)), segmentSize: 1340)))
    expectSame(
      passed.map(\.packet),
      [
        Model.superpacket(
          Model.tcp(Self.phantom, Self.gateway, ports: (5, 7777), payload: bytes(9000)), segmentSize: 1340
        ).packet
      ])
    // Nothing of it went to the wire.
    #expect(a.counters.value(.sentFrames) == 0)
  }

  @Test("what belongs to no flow is reset; a socket that is not the flow's own cannot speak for the peer")
  func strangers() throws {
    let (a, b) = try pair()
    a.fromKernel(Model.tcp(a.address, b.address, ports: (4000, 80), sequence: 100, payload: bytes(10)))
    let answer = try #require(a.toKernel().first?.packet)
    #expect(answer[6] == 6 && answer[53] == 0x04 && Array(answer[44..<48]) == [0, 0, 0, 7])
    #expect(Model.checksum(answer, next: 6) == 0)
    a.order(.setFlow(flow(a, b)))
    a.fromKernel(Model.tcp(Self.gateway, Self.phantom, ports: (7778, 5), payload: []))
    a.fromKernel(Model.tcp(Self.gateway, Self.phantom, ports: (7777, 6), payload: []))
    a.fromKernel(Model.tcp(Self.gateway, Self.phantom, ports: (7777, 60_000), payload: []))
    #expect(a.toKernel().isEmpty && a.drops(.flowUnknown) == 4)
    a.fromKernel(Model.tcp(a.address, Self.phantom, ports: (7777, 5), payload: []))
    #expect(a.drops(.destinationMalformed) == 1)
    #expect(a.toKernel().count == 1, "no route")
    a.order(.endFlow(5))
    a.fromKernel(Model.tcp(Self.gateway, Self.phantom, ports: (7777, 5), payload: []))
    #expect(a.toKernel().count == 1)
    a.fromKernel(Model.tcp(Self.gateway, Self.phantom, ports: (7777, 5), flags: 0x02, payload: []))
    #expect(a.toKernel().isEmpty && a.streamEvents.takeAll().count == 1, "nobody takes the port over")
    a.fromKernel(Model.tcp(a.address, b.address, ports: (4000, 80), flags: 0x02, payload: []))
    #expect(a.toKernel().isEmpty && a.streamEvents.takeAll().count == 1)
    a.order(.removeFlow(5), .removeFlow(5))
    a.fromKernel(Model.tcp(a.address, b.address, ports: (4000, 80), payload: []))
    #expect(a.drops(.flowUnknown) == 5)
  }

  @Test("a held SYN is refused by RST or by ICMPv6")
  func refusals() throws {
    let (a, b) = try pair()
    a.fromKernel(Model.tcp(a.address, b.address, ports: (4000, 80), flags: 0x02, payload: []))
    guard case .opening(let held, packetAt: VirtioHeader.byteCount) = a.streamEvents.takeAll().first else {
      throw Missing()
    }
    _ = a.toKernel()
    a.order(.refuse(held, nil), .refuse(held, .addressUnreachable))
    let answers = a.toKernel().map(\.packet)
    #expect(answers.count == 2)
    #expect(answers.first?[53] == 0x14 && answers.first.map { Array($0[48..<52]) } == [0, 0, 0, 2])
    #expect(answers.last.map { Array($0[40..<42]) } == [1, 3])
  }

  @Test("a peer that takes raw IPv6 gets it, but for connections that a stream of its opened")
  func mixed() throws {
    let (a, b) = (try Station(node: 1), try Station(node: 2))
    try a.meet(b)
    try b.meet(a)
    a.order(.setFlow(flow(a, b)))
    let packet = Model.tcp(a.address, b.address, ports: (4000, 80), payload: bytes(5))
    a.fromKernel(packet)
    #expect(a.toKernel().count == 1)
    let other = Model.tcp(a.address, b.address, ports: (4001, 80), payload: bytes(5))
    a.fromKernel(other)
    b.fromWire()
    expectSame(b.toKernel().flatMap { Model.segments($0) }, [other])
  }

  @Test("packets wait until it is known how the peer takes them")
  func unknownKind() throws {
    let (a, b) = (try Station(node: 1), try Station(node: 2))
    try b.meet(a)
    a.order(
      .addPeer(0, node: 2), .setAdmission(0, .all), .setPath(0, .direct(b.endpoint)),
      .install(0, 1, context: try #require(AEADContext(key: Station.key)), sendPrefix: 1, current: true))
    let packet = Model.udp(a.address, b.address, payload: bytes(5))
    a.fromKernel(packet)
    #expect(a.counters.value(.sentFrames) == 0 && a.counters.value(.stagedPackets) == 1)
    a.order(.setRawIPv6(0, true))
    b.fromWire()
    expectSame(b.toKernel().map(\.packet), [packet])
  }

  @Test("flows of one bucket are found and removed one by one")
  func table() throws {
    var table = try need(TranslationTable(seed: 3))
    let own = OverlayMapping.address(for: PilotAddress(network: 0, node: 1))
    func flow(_ id: UInt16, _ port: UInt16) -> TranslatedFlow {
      TranslatedFlow(
        id: id, own: own, ownPort: port, peer: OverlayMapping.address(for: PilotAddress(network: 0, node: 2)),
        peerPort: 80, gatewayPort: 1)
    }
    for id in 1...UInt16(TranslatedFlow.capacity) { table.set(flow(id, 20_000 &+ id)) }
    table.set(flow(0, 1))
    table.set(flow(UInt16(TranslatedFlow.capacity) + 1, 1))
    let full = table.count
    #expect(full == TranslatedFlow.capacity)
    func find(_ port: UInt16) -> UInt16 {
      let wanted = flow(1, port)
      return table.find(own: wanted.own, ownPort: port, peer: wanted.peer, peerPort: 80)
    }
    for id in stride(from: UInt16(1), through: UInt16(TranslatedFlow.capacity), by: 2) { table.remove(id) }
    for id in 1...UInt16(TranslatedFlow.capacity) {
      let found = find(20_000 &+ id)
      guard found == (id % 2 == 0 ? id : 0) else {
        Issue.record("flow \(id): found \(found)")
        break
      }
    }
    let half = table.count
    #expect(half == TranslatedFlow.capacity / 2)
    // A number that is set again belongs to the new flow alone.
    table.set(flow(2, 9))
    let (new, old) = (find(9), find(20_002))
    #expect(new == 2 && old == 0)
  }
}
