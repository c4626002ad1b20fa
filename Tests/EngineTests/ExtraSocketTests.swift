// A socket of a peer's own: frames to its endpoint leave by it, what comes in there counts as the peer's, and it goes with
// the row or with the next one.

import Glibc
import LinkIO
import Session
import Shim
import Testing
import Wire

@testable import Engine

@Suite struct ExtraSocketTests {
  private typealias Socket = (fd: Int32, endpoint: Endpoint)

  private func open() throws -> Socket {
    var raw = pt_endpoint(try #require(Endpoint("127.0.0.1:0")))
    var family: Int32 = 0
    let fd = pt_udp_open(&raw, &family)
    try #require(fd >= 0 && pt_udp_local(fd, &raw) == 0)
    return (fd, Endpoint(raw))
  }

  /// Where the next datagram for `station` comes from, taken off its socket.
  private func source(_ station: Station) throws -> UInt16 {
    var descriptor = station.worker.ports.udp
    try #require(pt_poll(&descriptor, 1, 1000) != 0)
    var message = pt_receive()
    var buffer = [UInt8](repeating: 0, count: 65_536)
    return try buffer.withUnsafeMutableBytes {
      message.data = $0.baseAddress
      message.capacity = 65_536
      try #require(pt_udp_receive(descriptor, &message, 1) == 1)
      return message.from.port
    }
  }

  /// Descriptors of closed ones may be others' by now.
  private func isOpen(_ socket: Socket) -> Bool {
    var raw = pt_endpoint(socket.endpoint)
    return pt_udp_local(socket.fd, &raw) == 0 && Endpoint(raw) == socket.endpoint
  }

  /// Rows whose socket was refused since the last call.
  private func refusedSockets(_ station: Station) -> [PeerIndex] {
    station.events.takeAll().compactMap { if case .socketRefused(let index, _) = $0 { index } else { nil } }
  }

  @Test("data, control frames and datagrams to the endpoint leave by it; what others get does not")
  func leaves() throws {
    let (a, b, c) = (try Station(node: 1), try Station(node: 2), try Station(node: 3))
    try a.meet(b)
    try a.meet(c, row: 1)
    let extra = try open()
    a.order(.adoptSocket(0, extra.fd, to: b.endpoint))
    func packet(_ to: Station) -> [UInt8] { Model.udp(a.address, to.address, ports: (1, 9), payload: [1, 2, 3]) }
    a.fromKernel(packet(b))
    #expect(try source(b) == extra.endpoint.port)
    a.order(.sendInner(0, [0, 0], path: nil))
    #expect(try source(b) == extra.endpoint.port)
    a.order(.sendInner(0, [0, 0], path: .direct(b.endpoint)), .sendDatagram([0x50, 0x49, 0x4C, 0x50], to: b.endpoint))
    #expect(try source(b) == extra.endpoint.port)
    #expect(try source(b) == extra.endpoint.port)
    // One batch for both peers: each by its own socket.
    a.queue(packet(c))
    a.queue(packet(b))
    a.readKernel()
    #expect(try source(c) == a.endpoint.port)
    #expect(try source(b) == extra.endpoint.port)
    a.order(.setPath(0, .direct(c.endpoint)))
    a.fromKernel(packet(b))
    #expect(try source(c) == a.endpoint.port)
    a.order(.setPath(0, .direct(b.endpoint)))
    a.fromKernel(packet(b))
    #expect(try source(b) == extra.endpoint.port)
    a.order(.releaseSocket(0))
    #expect(!isOpen(extra))
    a.fromKernel(packet(b))
    #expect(try source(b) == a.endpoint.port)
  }

  @Test("what comes in there is the peer's, on the path")
  func arrives() throws {
    let (a, b) = (try Station(node: 1), try Station(node: 2))
    try a.meet(b)
    let extra = try open()
    a.order(.adoptSocket(0, extra.fd, to: b.endpoint))
    try b.meet(a)
    b.order(.setPath(0, .direct(extra.endpoint)))
    let packet = Model.udp(b.address, a.address, ports: (1, 9), payload: [1, 2, 3])
    b.fromKernel(packet)
    var descriptor = extra.fd
    try #require(pt_poll(&descriptor, 1, 1000) != 0)
    a.worker.now = pt_monotonic()
    a.worker.receiveDatagrams(extra.fd)
    #expect(a.toKernel().count == 1)
    let row = a.worker.store.rows[0]
    #expect(row.lastOnPath != 0 && row.lastOnPath == row.lastReceive)
  }

  @Test("a socket is closed when the peer gets another, or goes, or there are too many, and none is lost")
  func closes() throws {
    let a = try Station(node: 1)
    let there = try #require(Endpoint("127.0.0.1:9"))
    let nobody = try open()
    a.order(.adoptSocket(200, nobody.fd, to: there))
    #expect(!isOpen(nobody), "no such row")
    #expect(refusedSockets(a) == [200], "and whoever opened it hears so")
    var sockets: [Socket] = []
    for row in 0..<UInt32(Engine.extraSockets) {
      a.order(.addPeer(row, node: 10 + row))
      sockets.append(try open())
      a.order(
        .adoptSocket(row, sockets[Int(row)].fd, to: Endpoint(address: there.address, port: UInt16(1000 + row))))
    }
    #expect(sockets.allSatisfy(isOpen) && a.worker.extras.end == Engine.extraSockets)
    let tooMany = try open()
    a.order(.addPeer(100, node: 100), .adoptSocket(100, tooMany.fd, to: there))
    #expect(!isOpen(tooMany))
    #expect(refusedSockets(a) == [100])
    let next = try open()
    a.order(.adoptSocket(3, next.fd, to: there))
    #expect(!isOpen(sockets[3]) && isOpen(next))
    #expect(refusedSockets(a).isEmpty)
    a.order(.removePeer(UInt32(Engine.extraSockets - 1)))
    #expect(!isOpen(sockets[Engine.extraSockets - 1]) && a.worker.extras.end == Engine.extraSockets - 1)
    for row in 0..<UInt32(Engine.extraSockets - 1) { a.order(.releaseSocket(row)) }
    #expect(a.worker.extras.end == 0 && !isOpen(next))
  }
}
