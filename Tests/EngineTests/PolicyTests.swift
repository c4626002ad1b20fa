// What a worker refuses, and what it tells whom.

import Glibc
import Session
import Testing
import Wire

@testable import Engine

@Suite struct PolicyTests {
  private func pair(_ admission: Admission = .all) throws -> (a: Station, b: Station) {
    let a = try Station(node: 0x4000_0001)
    let b = try Station(node: 0x4000_0002)
    try a.meet(b)
    try b.meet(a, admission: admission)
    return (a, b)
  }

  private func icmp(_ packets: [Written]) -> [(type: UInt8, code: UInt8)] {
    packets.compactMap { $0.packet[6] == 58 ? ($0.packet[40], $0.packet[41]) : nil }
  }

  @Test("a replayed frame, a forged one, a cut one and a plaintext one carry nothing in")
  func hostileFrames() throws {
    let (a, b) = try pair()
    let catcher = try Station(node: 3)
    a.order(.setPath(0, .direct(catcher.endpoint)))
    let packet = Model.udp(a.address, b.address, payload: [1, 2, 3])
    a.fromKernel(packet)
    var buffer = [UInt8](repeating: 0, count: 2000)
    let count = recv(catcher.worker.ports.udp, &buffer, buffer.count, 0)
    try #require(count == 36 + packet.count)
    let frame = Array(buffer[..<count])
    catcher.order(.sendDatagram(frame, to: b.endpoint), .sendDatagram(frame, to: b.endpoint))
    b.fromWire()
    #expect(b.toKernel().count == 1)
    #expect(b.drops(.replayed) == 1)

    var forged = frame
    forged[19] = 9
    catcher.order(.sendDatagram(forged, to: b.endpoint))
    for length in [0, 3, 4, 8, 20, 35] where length > 0 {
      catcher.order(.sendDatagram(Array(frame[..<length]), to: b.endpoint))
    }
    catcher.order(.sendDatagram(Array("PILT".utf8) + packet, to: b.endpoint))
    catcher.order(.sendDatagram(Array("PILX".utf8) + packet, to: b.endpoint))
    b.fromWire()
    #expect(b.toKernel().isEmpty)
    #expect(b.drops(.authenticationFailed) == 1)
    #expect(b.drops(.frameShort) == 5)
    #expect(b.drops(.framePlaintext) == 1)
    #expect(b.drops(.frameUnknown) == 1)
  }

  @Test("an inner source that is not the peer's, and a destination that is not ours, go no further")
  func spoofed() throws {
    let (a, b) = try pair()
    let other = OverlayMapping.address(for: PilotAddress(network: 0, node: 77))
    a.order(.sendInner(0, Model.udp(other, b.address, payload: [1]), path: nil))
    a.order(.sendInner(0, Model.udp(a.address, other, payload: [1]), path: nil))
    a.order(.sendInner(0, [0x60, 0, 0], path: nil))
    a.order(.sendInner(0, Array(Model.udp(a.address, b.address, payload: [1, 2]).dropLast()), path: nil))
    a.order(.sendInner(0, [0x70, 0, 0], path: nil))
    b.fromWire()
    #expect(b.toKernel().isEmpty)
    #expect(b.drops(.spoofedSource) == 1)
    #expect(b.drops(.wrongDestination) == 1)
    #expect(b.drops(.innerMalformed) == 2)
    #expect(b.drops(.innerReserved) == 1)
  }

  @Test("a peer without trust gets administratively prohibited, and answers to our own flows come in")
  func untrusted() throws {
    let (a, b) = try pair(.repliesOnly)
    a.fromKernel(Model.udp(a.address, b.address, ports: (1000, 53), payload: [1]))
    b.fromWire()
    #expect(b.toKernel().isEmpty)
    #expect(b.drops(.notTrusted) == 1)
    a.fromWire()
    let answers = icmp(a.toKernel())
    #expect(answers.count == 1 && answers.first?.type == 1 && answers.first?.code == 1)

    b.fromKernel(Model.udp(b.address, a.address, ports: (53, 1000), payload: [2]))
    a.fromWire()
    #expect(a.toKernel().count == 1)
    let answer = Model.udp(a.address, b.address, ports: (1000, 53), payload: [3])
    a.fromKernel(answer)
    b.fromWire()
    expectSame(b.toKernel().map(\.packet), [answer])
  }

  @Test("unknown, malformed and foreign destinations are answered at once")
  func unreachable() throws {
    let (a, _) = try pair()
    let malformed = IPv6Address(high: 0xfd50_494c_4f54_0000, low: 1 << 40)
    a.fromKernel(Model.udp(a.address, malformed, payload: [1]))
    a.fromKernel(Model.udp(a.address, IPv6Address(high: 0xfd50_494c_4f54_ffff, low: 9), payload: [1]))
    a.fromKernel(Model.udp(a.address, IPv6Address(high: 0x2001 << 48, low: 1), payload: [1]))
    let codes = icmp(a.toKernel())
    #expect(codes.count == 3 && codes.allSatisfy { $0.type == 1 && $0.code == 0 })
    a.fromKernel(Model.udp(OverlayMapping.address(for: PilotAddress(network: 0, node: 5)), a.address, payload: [1]))
    #expect(a.drops(.sourceNotOurs) == 1)

    // Unknown to us: staged, control is asked once, and its refusal answers.
    let unknown = OverlayMapping.address(for: PilotAddress(network: 0, node: 99))
    _ = a.toKernel()
    a.fromKernel(Model.udp(a.address, unknown, payload: [1]))
    a.fromKernel(Model.udp(a.address, unknown, payload: [2]))
    let asked = a.events.takeAll().filter { if case .peerWanted(let wanted) = $0 { wanted.node == 99 } else { false } }
    #expect(asked.count == 1)
    #expect(a.toKernel().isEmpty)
    a.order(.addPeer(1, node: 99), .setRefusal(1, .noRoute), .failStaged(node: 99, .noRoute))
    #expect(icmp(a.toKernel()).count == 2)
    a.fromKernel(Model.udp(a.address, unknown, payload: [3]))
    #expect(icmp(a.toKernel()).count == 1)
  }

  @Test("a packet above the MTU is answered with Packet Too Big")
  func tooBig() throws {
    let (a, b) = try pair()
    a.fromKernel(Model.udp(a.address, b.address, payload: [UInt8](repeating: 0, count: 1353)))
    let answer = try #require(a.toKernel().first)
    #expect(answer.packet[40] == 2)
    #expect(Array(answer.packet[44..<48]) == [0, 0, 0x05, 0x78])
    #expect(a.drops(.packetTooBig) == 1)
  }

  @Test("packets staged before the session leave in order once it stands")
  func staged() throws {
    let a = try Station(node: 0x4000_0001)
    let b = try Station(node: 0x4000_0002)
    try b.meet(a)
    let packets = (0..<20).map { Model.udp(a.address, b.address, payload: [UInt8($0), 0, UInt8($0)]) }
    for packet in packets { a.fromKernel(packet) }
    try a.meet(b)
    b.fromWire()
    expectSame(b.toKernel().flatMap { Model.segments($0) }, packets)
    #expect(a.counters.value(.stagedPackets) == 20)
  }

  @Test("sessions change hands: receive-only, promoted, retired; frames of each open while it is held")
  func sessions() throws {
    let (a, b) = try pair()
    let second = Bytes32([UInt8](repeating: 5, count: 32))!
    let packet = Model.udp(a.address, b.address, payload: [1])
    b.order(.install(0, 2, context: try #require(AEADContext(key: second)), sendPrefix: 70, current: false))
    a.order(.install(0, 2, context: try #require(AEADContext(key: second)), sendPrefix: 71, current: true))
    a.fromKernel(packet)
    b.fromWire()
    #expect(b.toKernel().count == 1)
    #expect(b.events.takeAll().contains { if case .confirmed(0, 2) = $0 { true } else { false } })
    // Session 1 still opens what was under way, until it is retired.
    a.order(.promote(0, 1))
    a.fromKernel(packet)
    b.fromWire()
    #expect(b.toKernel().count == 1)
    b.order(.retire(0, 1))
    a.fromKernel(packet)
    b.fromWire()
    #expect(b.toKernel().isEmpty)
    #expect(b.drops(.authenticationFailed) == 1)
  }

  @Test("a peer that starts again under the same key is followed once, and its old frames are refused")
  func prefixes() throws {
    let (a, b) = try pair()
    let packet = Model.udp(a.address, b.address, payload: [1])
    a.fromKernel(packet)
    b.fromWire()
    // Same key, new prefix, counter from 1: what official daemons do.
    a.order(.install(0, 2, context: try #require(AEADContext(key: Station.key)), sendPrefix: 99, current: true))
    a.fromKernel(packet)
    b.fromWire()
    #expect(b.toKernel().count == 2)
    a.order(.promote(0, 1))
    a.fromKernel(packet)
    b.fromWire()
    #expect(b.toKernel().isEmpty)
    #expect(b.drops(.prefixRetired) == 1)
  }
}
