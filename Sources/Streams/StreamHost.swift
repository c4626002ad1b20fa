// The streams that peers open to this node's own services, as a pure machine: packets and time in, packets out. The
// node has one; today's only service is the echo of port 7, which the official `pilotctl ping` and `bench` speak to.

package import Wire

/// Counted refusals.
package enum StreamCount: String, Sendable, CaseIterable {
  case portClosed = "stream-port-closed"
  case notTrusted = "stream-not-trusted"
  case overLimit = "stream-over-limit"
  case unknown = "stream-unknown"
}

package struct StreamHost: Sendable {
  /// Streams of one peer and of all; each may hold 1.2 MB when its peer sends and does not read.
  package static let perPeer = 32
  package static let total = 256
  /// SYNs of one peer: 64 at once, then 10 a second, as official daemons allow (wire/tunnel §5.2).
  static let synBurst = 64.0
  static let synRate = 10.0

  private struct Key: Hashable {
    var peer: UInt32
    var remotePort: UInt16
    var localPort: UInt16
  }

  private struct Stream {
    var machine: StreamMachine
    /// Addresses as the peer wrote them, ours first.
    var local: PilotAddress
    var remote: PilotAddress
    var echo = Echo()
    /// When bytes last came; an idle one is closed 120 s later, as official daemons do.
    var lastData: UInt64
  }

  static let idleLasts: UInt64 = 120_000_000_000

  private var streams: [Key: Stream] = [:]
  /// When each wants to be ticked.
  private var due: [Key: UInt64] = [:]
  private var countOfPeer: [UInt32: Int] = [:]
  private var syns: [UInt32: (left: Double, at: UInt64)] = [:]
  /// From the monotonic time of the calls to nanoseconds since 1970.
  package var wallOffset: UInt64 = 0
  /// Refusals since `takeCounts`.
  private var counts: [StreamCount: Int] = [:]

  package init() {}

  package var count: Int { streams.count }

  package mutating func takeCounts() -> [StreamCount: Int] {
    defer { counts = [:] }
    return counts
  }

  // MARK: Packets

  /// A stream packet of this peer for us. The packets to send back, in order.
  package mutating func receive(
    _ packet: PilotPacket, from peer: UInt32, isAdmitted: Bool, now: UInt64
  ) -> [PilotPacket] {
    let key = Key(peer: peer, remotePort: packet.sourcePort, localPort: packet.destinationPort)
    let segment = StreamSegment(
      flags: packet.flags, sequence: packet.sequence, acknowledgement: packet.acknowledgement, window: packet.window,
      payload: packet.payload)
    let isOpening = packet.flags.contains(.syn) && !packet.flags.contains(.ack)
    // Taken out while it works: what it holds is then its own and not copied.
    let isAnew = isOpening && streams[key]?.machine.isOutlived(by: now) == true
    if !isAnew, var stream = streams.removeValue(forKey: key) {
      if !segment.payload.isEmpty { stream.lastData = now }
      stream.machine.receive(segment, now: now)
      return serve(key, &stream, now)
    }
    guard isOpening else {
      // Packets of streams that are not there: silence, never RST.
      counts[.unknown, default: 0] += 1
      return []
    }
    return open(key, packet, segment, isAdmitted: isAdmitted, now)
  }

  private mutating func open(
    _ key: Key, _ packet: PilotPacket, _ segment: StreamSegment, isAdmitted: Bool, _ now: UInt64
  ) -> [PilotPacket] {
    // The order of the checks is the deployed one: a closed port is told to anybody, trust is asked for behind it.
    guard key.localPort == PilotPort.echo else {
      counts[.portClosed, default: 0] += 1
      return [Self.reset(packet)]
    }
    guard isAdmitted else {
      counts[.notTrusted, default: 0] += 1
      return []
    }
    guard takesSyn(of: key.peer, now) else {
      counts[.overLimit, default: 0] += 1
      return []
    }
    if streams[key] != nil { remove(key) }
    makeRoom(for: key.peer)
    guard streams.count < Self.total, countOfPeer[key.peer, default: 0] < Self.perPeer else {
      counts[.overLimit, default: 0] += 1
      return [Self.reset(packet)]
    }
    guard var machine = StreamMachine(answering: segment, first: 0, now: now) else { return [] }
    machine.accept(now)
    var stream = Stream(machine: machine, local: packet.destination, remote: packet.source, lastData: now)
    countOfPeer[key.peer, default: 0] += 1
    return serve(key, &stream, now)
  }

  /// Streams that only linger give way to new ones.
  private mutating func makeRoom(for peer: UInt32) {
    func oldest(_ isMeant: (Key) -> Bool) -> Key? {
      due.filter { isMeant($0.key) && streams[$0.key]?.machine.phase == .lingering }.min { $0.value < $1.value }?.key
    }
    if countOfPeer[peer, default: 0] >= Self.perPeer, let key = oldest({ $0.peer == peer }) { remove(key) }
    if streams.count >= Self.total, let key = oldest({ _ in true }) { remove(key) }
  }

  private static func reset(_ packet: PilotPacket) -> PilotPacket {
    PilotPacket(
      flags: .rst, protocolNumber: .stream, source: packet.destination, destination: packet.source,
      sourcePort: packet.destinationPort, destinationPort: packet.sourcePort)
  }

  private mutating func takesSyn(of peer: UInt32, _ now: UInt64) -> Bool {
    // A bucket that is full again need not be remembered.
    if syns.count > 4096 { syns = syns.filter { now < $0.value.at + 10_000_000_000 } }
    guard syns.count <= 4096 || syns[peer] != nil else { return false }
    var bucket = syns[peer] ?? (Self.synBurst, now)
    bucket.left = min(Self.synBurst, bucket.left + Double(now - bucket.at) / 1e9 * Self.synRate)
    bucket.at = now
    guard bucket.left >= 1 else {
      syns[peer] = bucket
      return false
    }
    bucket.left -= 1
    syns[peer] = bucket
    return true
  }

  /// Lets the service work, keeps or forgets the stream, and gives what leaves.
  private mutating func serve(_ key: Key, _ stream: inout Stream, _ now: UInt64) -> [PilotPacket] {
    stream.echo.work(&stream.machine, now, wall: now &+ wallOffset)
    var packets: [PilotPacket] = []
    while let segment = stream.machine.nextSegment(now) {
      packets.append(
        PilotPacket(
          flags: segment.flags, protocolNumber: .stream, source: stream.local, destination: stream.remote,
          sourcePort: key.localPort, destinationPort: key.remotePort, sequence: segment.sequence,
          acknowledgement: segment.acknowledgement, window: segment.window, payload: segment.payload))
    }
    if stream.machine.phase == .closed {
      remove(key)
    } else {
      due[key] = earliest(
        stream.machine.nextDeadline, stream.machine.phase == .open ? stream.lastData + Self.idleLasts : nil)
      streams[key] = stream
    }
    return packets
  }

  private mutating func remove(_ key: Key) {
    streams[key] = nil
    due[key] = nil
    if let left = countOfPeer[key.peer] { countOfPeer[key.peer] = left > 1 ? left - 1 : nil }
  }

  // MARK: Time

  package var nextDeadline: UInt64? { due.values.min() }

  /// `nextDeadline` is reached: what to send, by peer.
  package mutating func tick(_ now: UInt64) -> [(peer: UInt32, packet: PilotPacket)] {
    var all: [(peer: UInt32, packet: PilotPacket)] = []
    for key in due.filter({ $0.value <= now }).keys {
      guard var stream = streams.removeValue(forKey: key) else { continue }
      stream.machine.tick(now)
      if now >= stream.lastData + Self.idleLasts { stream.machine.close(now) }
      all += serve(key, &stream, now).map { (key.peer, $0) }
    }
    return all
  }

  /// The peer is gone, or may not speak to us any more.
  package mutating func forget(_ peer: UInt32) {
    guard countOfPeer[peer] != nil else { return }
    for key in streams.keys.filter({ $0.peer == peer }) { remove(key) }
  }
}

/// The echo of port 7 (wire/tunnel §6): every byte back; a message `TRCE` with an 8-byte time comes back with our time
/// in nanoseconds behind it.
struct Echo: Sendable {
  private static let trace = Array("TRCE".utf8)

  /// Reads as much as can be written: who does not take the answers is not read from, and so stops.
  mutating func work(_ machine: inout StreamMachine, _ now: UInt64, wall: UInt64) {
    while machine.readable > 0, machine.writable > 0 {
      // Eight bytes of room for the time of a trace.
      let bytes = machine.read(max(1, machine.writable - 8), now: now)
      _ = machine.write(bytes)
      if bytes.count == 12, bytes.starts(with: Self.trace) {
        _ = machine.write(withUnsafeBytes(of: wall.bigEndian) { Array($0) })
      }
    }
  }
}
