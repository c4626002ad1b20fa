// Two workers joined by real UDP sockets on loopback; their TUNs are packet-preserving socket pairs, so that a test
// sees each write as the kernel would. The test steps the workers itself: no threads, no waiting.

import Glibc
import LinkIO
import Session
import Shim
import Testing
import Wire

@testable import Engine

struct Missing: Error {}

/// `#require` for values that cannot be copied.
func need<Value: ~Copyable>(_ value: consuming Value?) throws -> Value {
  guard let value else { throw Missing() }
  return value
}

/// One worker with the far end of its TUN in the test's hands.
final class Station {
  let node: UInt32
  let tunEnd: Int32
  private let tunNear: Int32
  private let socket: UDPSocket
  let commands = Mailbox<EngineCommand>(limit: 1024)
  let events = Mailbox<EngineEvent>(limit: 1024)
  let streamEvents = Mailbox<StreamEvent>(limit: 8192)
  let counters = CounterBlock()
  var worker: Worker
  let address: IPv6Address

  static let key = Bytes32([UInt8](repeating: 9, count: 32))!

  init(
    node: UInt32, virtio: Bool = true, gso: Bool = true, uso: Bool = true, local: String = "127.0.0.1:0"
  ) throws {
    self.node = node
    address = OverlayMapping.address(for: PilotAddress(network: 0, node: node))
    var pair: [Int32] = [0, 0]
    try #require(socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue | SOCK_NONBLOCK.rawValue), 0, &pair) == 0)
    tunEnd = pair[0]
    tunNear = pair[1]
    var size: Int32 = 8 << 20
    for end in pair {
      setsockopt(end, SOL_SOCKET, SO_SNDBUF, &size, 4)
      setsockopt(end, SOL_SOCKET, SO_RCVBUF, &size, 4)
    }
    socket = try UDPSocket(local: #require(Endpoint(local)))
    worker = try need(
      Worker(
        ports: WorkerPorts(
          tun: tunNear, udp: socket.fd, family: socket.family, hasVirtioHeader: virtio, mayCoalesceTCP: virtio,
          mayCoalesceUDP: virtio && uso, hasGSO: gso && socket.isOn("udp-gso")),
        mtu: 1400, peers: try need(PeerStore(capacity: 256)), seed: 42, counters: counters, commands: commands,
        events: events, streamEvents: streamEvents))
    order(.setLocal(node: node, addresses: [address]))
  }

  deinit {
    worker.store.unmap()
    counters.free()
    close(tunEnd)
    close(tunNear)
  }

  var endpoint: Endpoint { socket.local }

  /// `time`: what the worker takes for now; tests of limits and lifetimes choose it.
  func order(_ list: EngineCommand..., at time: UInt64? = nil) {
    for command in list { #expect(commands.post(command)) }
    worker.now = time ?? pt_monotonic()
    worker.obeyCommands()
    worker.flushTrains()
  }

  /// The row knows `other` by a direct path and the common key.
  func meet(
    _ other: Station, row: PeerIndex = 0, admission: Admission = .all, session: SessionID = 1,
    key: Bytes32 = Station.key, takesRawIPv6: Bool = true
  ) throws {
    order(
      .addPeer(row, node: other.node), .setAdmission(row, admission), .setRawIPv6(row, takesRawIPv6),
      .setPath(row, .direct(other.endpoint)),
      .install(row, session, context: try #require(AEADContext(key: key)), sendPrefix: node, current: true))
  }

  /// Hands one packet to the worker as the kernel would and lets it leave.
  func fromKernel(_ packet: [UInt8], header: VirtioHeader = VirtioHeader()) {
    queue(packet, header: header)
    readKernel()
  }

  /// Lets the worker read and send what was queued, as one batch.
  func readKernel() {
    worker.now = pt_monotonic()
    #expect(worker.readTun() == 0)
    worker.flushTrains()
  }

  func queue(_ packet: [UInt8], header: VirtioHeader = VirtioHeader()) {
    var bytes = packet
    if worker.ports.hasVirtioHeader {
      var front = [UInt8](repeating: 0, count: VirtioHeader.byteCount)
      front.withUnsafeMutableBytes { header.store(to: $0.baseAddress!) }
      bytes = front + packet
    }
    #expect(write(tunEnd, bytes, bytes.count) == bytes.count)
  }

  /// Takes in everything that waits on the UDP socket; waits until `count` datagrams have come. What the worker writes
  /// to its TUN is collected for `toKernel`.
  func fromWire(_ count: UInt64 = 1, at time: UInt64? = nil) {
    let wanted = counters.value(.receivedDatagrams) + count
    var descriptor = worker.ports.udp
    repeat {
      guard pt_poll(&descriptor, 1, 1000) != 0 else { return }
      worker.now = time ?? pt_monotonic()
      worker.receiveDatagrams(worker.ports.udp)
      collect()
    } while counters.value(.receivedDatagrams) < wanted
  }

  private var written: [Written] = []
  private var buffer = [UInt8](repeating: 0, count: 70_000)

  /// Everything the worker wrote to its TUN since the last call.
  func toKernel() -> [Written] {
    collect()
    let all = written
    written = []
    return all
  }

  private func collect() {
    while true {
      let count = read(tunEnd, &buffer, buffer.count)
      guard count > 0 else { return }
      if worker.ports.hasVirtioHeader {
        let header = buffer.withUnsafeBytes { VirtioHeader($0.baseAddress!) }
        written.append(Written(header: header, packet: Array(buffer[VirtioHeader.byteCount..<count])))
      } else {
        written.append(Written(header: VirtioHeader(), packet: Array(buffer[..<count])))
      }
    }
  }

  func drops(_ reason: DropReason) -> UInt64 { counters.value(reason) }
}

/// One write to the TUN.
struct Written {
  var header: VirtioHeader
  var packet: [UInt8]
}

/// Compares packet lists; prints lengths and the first difference, not the bytes.
func expectSame(
  _ found: [[UInt8]], _ wanted: [[UInt8]], _ note: String = "", location: SourceLocation = #_sourceLocation
) {
  guard found != wanted else { return }
  let index = zip(found, wanted).enumerated().first { $0.element.0 != $0.element.1 }?.offset
  let byte = index.flatMap { index in
    zip(found[index], wanted[index]).enumerated().first { $0.element.0 != $0.element.1 }?.offset
  }
  Issue.record(
    """
    \(note) found \(found.count) packets, wanted \(wanted.count); first difference in packet \(index ?? -1) \
    at byte \(byte ?? -1); lengths \(found.map(\.count).prefix(12)) and \(wanted.map(\.count).prefix(12))
    """, sourceLocation: location)
}

/// Packets as a slow, obvious model builds and checks them.
enum Model {
  /// RFC 1071 sum over the pseudo-header and `transport`, complemented.
  static func checksum(_ packet: [UInt8], next: UInt8, at start: Int = 40) -> UInt16 {
    var sum: UInt32 = 0
    func add(_ bytes: ArraySlice<UInt8>) {
      var index = bytes.startIndex
      while index < bytes.endIndex {
        sum += UInt32(bytes[index]) << 8 | (index + 1 < bytes.endIndex ? UInt32(bytes[index + 1]) : 0)
        index += 2
      }
      while sum > 0xFFFF { sum = sum & 0xFFFF + sum >> 16 }
    }
    add(packet[8..<40])
    sum += UInt32(packet.count - start) + UInt32(next)
    add(packet[start...])
    while sum > 0xFFFF { sum = sum & 0xFFFF + sum >> 16 }
    return ~UInt16(sum)
  }

  static func big16(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 255), UInt8(value & 255)] }

  static func header(_ source: IPv6Address, _ destination: IPv6Address, next: UInt8, length: Int) -> [UInt8] {
    [0x60, 0, 0, 0] + big16(length) + [next, 64] + source.bytes + destination.bytes
  }

  static func udp(
    _ source: IPv6Address, _ destination: IPv6Address, ports: (Int, Int) = (4000, 5000), payload: [UInt8]
  ) -> [UInt8] {
    var packet =
      header(source, destination, next: 17, length: 8 + payload.count)
      + big16(ports.0) + big16(ports.1) + big16(8 + payload.count) + [0, 0] + payload
    let sum = checksum(packet, next: 17)
    packet.replaceSubrange(46..<48, with: big16(Int(sum == 0 ? 0xFFFF : sum)))
    return packet
  }

  /// An ICMPv6 error with what it quotes.
  static func icmpError(
    _ source: IPv6Address, _ destination: IPv6Address, type: UInt8 = 1, code: UInt8 = 4, quoting quoted: [UInt8]
  ) -> [UInt8] {
    var packet =
      header(source, destination, next: 58, length: 8 + quoted.count) + [type, code, 0, 0, 0, 0, 0, 0] + quoted
    packet.replaceSubrange(42..<44, with: big16(Int(checksum(packet, next: 58))))
    return packet
  }

  static func tcp(
    _ source: IPv6Address, _ destination: IPv6Address, ports: (Int, Int) = (4000, 5000), sequence: UInt32 = 1,
    flags: UInt8 = 0x10, options: [UInt8] = [], payload: [UInt8]
  ) -> [UInt8] {
    let offset = UInt8((20 + options.count) / 4) << 4
    var packet =
      header(source, destination, next: 6, length: 20 + options.count + payload.count)
      + big16(ports.0) + big16(ports.1)
    packet += withUnsafeBytes(of: sequence.bigEndian) { Array($0) } + [0, 0, 0, 7]
    packet += [offset, flags] + big16(500) + [0, 0, 0, 0] + options + payload
    packet.replaceSubrange(56..<58, with: big16(Int(checksum(packet, next: 6))))
    return packet
  }

  /// What a kernel hands over as one superpacket: checksum partial, segmentation asked for.
  static func superpacket(_ whole: [UInt8], segmentSize: Int) -> Written {
    var packet = whole
    let isTCP = packet[6] == 6
    let field = isTCP ? 56 : 46
    packet.replaceSubrange(field..<(field + 2), with: [0, 0])
    // The partial sum covers the pseudo-header alone, not complemented.
    let partial = ~checksum(Array(packet[..<40]) + [], next: packet[6], length: packet.count - 40)
    packet.replaceSubrange(field..<(field + 2), with: big16(Int(partial)))
    var header = VirtioHeader()
    header.flags = 1
    header.segmentation = isTCP ? 4 : 5
    header.segmentSize = UInt16(segmentSize)
    header.checksumStart = 40
    header.checksumOffset = UInt16(field - 40)
    header.headerLength = isTCP ? UInt16(40 + Int(packet[52] >> 4) * 4) : 48
    return Written(header: header, packet: packet)
  }

  private static func checksum(_ header: [UInt8], next: UInt8, length: Int) -> UInt16 {
    var sum: UInt32 = UInt32(length) + UInt32(next)
    for index in stride(from: 8, to: 40, by: 2) { sum += UInt32(header[index]) << 8 | UInt32(header[index + 1]) }
    while sum > 0xFFFF { sum = sum & 0xFFFF + sum >> 16 }
    return ~UInt16(sum)
  }

  /// The packets a kernel would make of one TUN write.
  static func segments(_ written: Written) -> [[UInt8]] {
    let (header, packet) = (written.header, written.packet)
    guard header.segmentation != 0 else { return [packet] }
    let isTCP = header.segmentation == 4
    let start = Int(header.headerLength)
    let size = Int(header.segmentSize)
    var all: [[UInt8]] = []
    var offset = start
    while offset < packet.count {
      let end = min(offset + size, packet.count)
      var piece = Array(packet[..<start]) + packet[offset..<end]
      piece.replaceSubrange(4..<6, with: big16(piece.count - 40))
      if isTCP {
        let sequence = packet[44..<48].reduce(UInt32(0)) { $0 << 8 | UInt32($1) } &+ UInt32(offset - start)
        piece.replaceSubrange(44..<48, with: withUnsafeBytes(of: sequence.bigEndian) { Array($0) })
        if end < packet.count { piece[53] &= ~0x09 }
        piece.replaceSubrange(56..<58, with: [0, 0])
        piece.replaceSubrange(56..<58, with: big16(Int(checksum(piece, next: 6))))
      } else {
        piece.replaceSubrange(44..<46, with: big16(piece.count - 40))
        piece.replaceSubrange(46..<48, with: [0, 0])
        let sum = checksum(piece, next: 17)
        piece.replaceSubrange(46..<48, with: big16(Int(sum == 0 ? 0xFFFF : sum)))
      }
      all.append(piece)
      offset = end
    }
    return all
  }
}
