// All streams of this node, dialed and arrived, as a pure machine: packets, bytes and time in; packets and events out.
// The gateway owns one and gives each stream to whoever serves it: an input, then `takeEvents` and what owners do until
// there are none, then `flush`, events once more, then `takePackets`.

package import Wire

/// Counted refusals.
package enum StreamCount: String, Sendable, CaseIterable {
  case notTrusted = "stream-not-trusted"
  case overLimit = "stream-over-limit"
  case unknown = "stream-unknown"
}

/// Names one stream for as long as it is there; never reused.
package struct StreamID: Hashable, Sendable {
  /// Of the streams that are there now no other has it.
  package fileprivate(set) var slot: UInt32
  fileprivate var generation: UInt32
}

package struct StreamTable: Sendable {
  /// Streams that one peer opened, and all; each may hold 1.2 MB when its peer sends and nobody reads.
  package static let perPeer = 128
  package static let total = 1024
  /// Of which peers may open so many: the rest is for programs here.
  static let arrivedTotal = 768
  /// SYNs of one peer: 64 at once, then 10 a second, as official daemons allow (wire/tunnel §5.2).
  static let synBurst = 64.0
  static let synRate = 10.0
  /// Dials of one peer leave a little slower than peers take them, for those that must ask again. Those that would wait
  /// for longer fail.
  static let dialBurst: UInt64 = 60
  static let dialGap: UInt64 = 110_000_000
  static let dialWaits: UInt64 = 10_000_000_000

  package enum Event: Sendable {
    /// A peer opened it: `accept` or `refuse` it.
    case arrived(StreamID)
    /// The dialed peer accepted.
    case opened(StreamID)
    /// Bytes can be read or written, or the peer ended its side.
    case changed(StreamID)
    /// It is gone, after everything that was readable has been read or was given up.
    case closed(StreamID, StreamEnd)
  }

  /// Who speaks with whom; addresses as the peer wrote them or as they were dialed.
  package struct Ends: Equatable, Sendable {
    package var local: PilotAddress
    package var remote: PilotAddress
    package var localPort: UInt16
    package var remotePort: UInt16

    package init(local: PilotAddress, remote: PilotAddress, localPort: UInt16, remotePort: UInt16) {
      self.local = local
      self.remote = remote
      self.localPort = localPort
      self.remotePort = remotePort
    }
  }

  private struct Key: Hashable {
    var peer: UInt32
    var remotePort: UInt16
    var localPort: UInt16
  }

  private struct Stream: Sendable {
    var machine: StreamMachine
    var ends: Ends
    var generation: UInt32
    var isInUse = true
    var isDialed: Bool
    var isDialing: Bool
    /// `closed` waits until the owner has read what came.
    var isOver = false
    var isMarked = false
    var isDirty = false
    var due: UInt64 = .max
    /// When bytes last came or went, and after how long without any it is closed.
    var lastData: UInt64
    var idleLasts: UInt64 = .max
  }

  private var streams: [Stream] = []
  private var free: [Int] = []
  private var dirty: [Int] = []
  private var slots: [Key: Int] = [:]
  private var arrivedOfPeer: [UInt32: Int] = [:]
  /// Of peers whose path takes less than a full segment.
  private var segmentSizes: [UInt32: Int] = [:]
  private var arrived = 0
  private var syns: [UInt32: (left: Double, at: UInt64)] = [:]
  /// When the dials to a peer that began so far would have left, one by one.
  private var dialsDue: [UInt32: UInt64] = [:]
  private var nextPort = PilotPort.firstEphemeral
  private var entropy: UInt64
  private var packets: [PilotPacket] = []
  private var events: [Event] = []
  private var counts: [StreamCount: Int] = [:]

  /// `entropy`: so that first ports and sequence numbers are others than before a restart: a peer that still holds an
  /// old stream answers a dial with the same ports in that one's name. 0: ports from the first one on and numbers from
  /// 0, for tests.
  package init(entropy: UInt64 = 0) {
    self.entropy = entropy
    if entropy != 0 { nextPort += UInt16(truncatingIfNeeded: number() % 16_384) }
  }

  /// An initial sequence number, or another number that nobody needs to guess (splitmix64).
  private mutating func number() -> UInt32 {
    guard entropy != 0 else { return 0 }
    entropy &+= 0x9E37_79B9_7F4A_7C15
    var value = entropy
    value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
    value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
    return UInt32(truncatingIfNeeded: value ^ value >> 31)
  }

  package var count: Int { slots.count }

  package mutating func takeCounts() -> [StreamCount: Int] {
    defer { counts = [:] }
    return counts
  }

  /// What leaves, in order, as of the last `flush`; the destination's node is the peer.
  package mutating func takePackets() -> [PilotPacket] {
    defer { packets.removeAll(keepingCapacity: packets.capacity <= 4096) }
    return packets
  }

  package var hasEvents: Bool { !events.isEmpty }

  package mutating func takeEvents() -> [Event] {
    defer { events.removeAll(keepingCapacity: events.capacity <= 4096) }
    return events
  }

  // MARK: Opening

  /// Begins a dial; nil when there is no room, or too many dials wait. `localPort`: nil for the next free ephemeral one.
  package mutating func dial(
    from local: PilotAddress, to remote: PilotAddress, port: UInt16, localPort: UInt16? = nil, now: UInt64
  ) -> StreamID? {
    makeRoom(for: nil)
    guard slots.count < Self.total, let own = localPort ?? freePort(remote.node, port) else { return nil }
    let key = Key(peer: remote.node, remotePort: port, localPort: own)
    guard slots[key] == nil, let start = dialTime(remote.node, now) else { return nil }
    let slot = place(
      Stream(
        machine: StreamMachine(dialing: number(), now: start),
        ends: Ends(local: local, remote: remote, localPort: own, remotePort: port), generation: 0, isDialed: true,
        isDialing: true, lastData: now), key)
    settle(slot, now)
    return id(slot)
  }

  /// When the SYN of another dial to the peer may leave: what is over its limit a peer drops unheard.
  private mutating func dialTime(_ peer: UInt32, _ now: UInt64) -> UInt64? {
    if dialsDue.count > 4096 { dialsDue = dialsDue.filter { now < $0.value } }
    let due = max(dialsDue[peer] ?? 0, now)
    let start = max(now, due - min(due, (Self.dialBurst - 1) * Self.dialGap))
    guard start <= now + Self.dialWaits else { return nil }
    dialsDue[peer] = due + Self.dialGap
    return start
  }

  private mutating func freePort(_ peer: UInt32, _ remotePort: UInt16) -> UInt16? {
    for _ in 0..<(Int(UInt16.max) - Int(PilotPort.firstEphemeral) + 1) {
      let port = nextPort
      nextPort = nextPort == .max ? PilotPort.firstEphemeral : nextPort + 1
      if slots[Key(peer: peer, remotePort: remotePort, localPort: port)] == nil { return port }
    }
    return nil
  }

  /// A stream packet of this peer for us. `mayOpen`: whether the peer may open a stream to the port.
  package mutating func receive(_ packet: PilotPacket, from peer: UInt32, mayOpen: Bool, now: UInt64) {
    let key = Key(peer: peer, remotePort: packet.sourcePort, localPort: packet.destinationPort)
    let segment = StreamSegment(
      flags: packet.flags, sequence: packet.sequence, acknowledgement: packet.acknowledgement, window: packet.window,
      payload: packet.payload)
    let isOpening = packet.flags.contains(.syn) && !packet.flags.contains(.ack)
    if let slot = slots[key] {
      guard isOpening, streams[slot].machine.isOutlived(by: now) else {
        if !segment.payload.isEmpty { streams[slot].lastData = now }
        streams[slot].machine.receive(segment, now: now)
        return settle(slot, now)
      }
    }
    // Packets of streams that are not there: silence, never RST.
    guard isOpening else { return counts[.unknown, default: 0] += 1 }
    arrive(key, packet, segment, mayOpen: mayOpen, now)
  }

  private mutating func arrive(
    _ key: Key, _ packet: PilotPacket, _ segment: StreamSegment, mayOpen: Bool, _ now: UInt64
  ) {
    // A stranger learns nothing, not even which ports are closed.
    guard mayOpen else { return counts[.notTrusted, default: 0] += 1 }
    guard takesSyn(of: key.peer, now) else { return counts[.overLimit, default: 0] += 1 }
    if let old = slots[key] { remove(old, .reset) }
    makeRoom(for: key.peer)
    guard slots.count < Self.total, arrived < Self.arrivedTotal, arrivedOfPeer[key.peer, default: 0] < Self.perPeer
    else {
      counts[.overLimit, default: 0] += 1
      packets.append(Self.reset(packet))
      return
    }
    guard let machine = StreamMachine(answering: segment, first: number(), now: now) else { return }
    let slot = place(
      Stream(
        machine: machine,
        ends: Ends(
          local: packet.destination, remote: packet.source, localPort: key.localPort, remotePort: key.remotePort),
        generation: 0, isDialed: false, isDialing: false, lastData: now), key)
    arrivedOfPeer[key.peer, default: 0] += 1
    arrived += 1
    events.append(.arrived(id(slot)))
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
    defer { syns[peer] = bucket }
    guard bucket.left >= 1 else { return false }
    bucket.left -= 1
    return true
  }

  /// Streams that only linger give way to new ones.
  private mutating func makeRoom(for peer: UInt32?) {
    func oldest(_ isMeant: (Key) -> Bool) -> Int? {
      slots.filter { isMeant($0.key) && streams[$0.value].machine.phase == .lingering && streams[$0.value].isOver }
        .min { streams[$0.value].due < streams[$1.value].due }?.value
    }
    if let peer, arrivedOfPeer[peer, default: 0] >= Self.perPeer,
      let slot = oldest({ $0.peer == peer })
    {
      remove(slot, .finished)
    }
    if slots.count >= Self.total, let slot = oldest({ _ in true }) { remove(slot, .finished) }
  }

  // MARK: Slots

  private func id(_ slot: Int) -> StreamID {
    StreamID(slot: UInt32(slot), generation: streams[slot].generation)
  }

  private func slot(_ id: StreamID) -> Int? {
    let slot = Int(id.slot)
    guard slot < streams.count, streams[slot].isInUse, streams[slot].generation == id.generation else { return nil }
    return slot
  }

  private mutating func place(_ stream: Stream, _ key: Key) -> Int {
    var stream = stream
    let slot: Int
    if let reused = free.popLast() {
      slot = reused
      stream.generation = streams[slot].generation &+ 1
      stream.isDirty = streams[slot].isDirty
      streams[slot] = stream
    } else {
      slot = streams.count
      streams.append(stream)
    }
    if let size = segmentSizes[key.peer] { streams[slot].machine.setSegmentSize(size) }
    slots[key] = slot
    return slot
  }

  /// The path to the peer takes packets of this many bytes, header included; nil: full segments.
  package mutating func setPathLimit(of peer: UInt32, _ limit: Int?, now: UInt64) {
    let size = limit.map { min($0 - PilotPacket.headerSize, StreamLimits.segmentSize) } ?? StreamLimits.segmentSize
    guard size != segmentSizes[peer] ?? StreamLimits.segmentSize else { return }
    segmentSizes[peer] = size == StreamLimits.segmentSize ? nil : size
    for (key, slot) in slots where key.peer == peer {
      streams[slot].machine.setSegmentSize(size)
      settle(slot, now)
    }
  }

  private func key(_ slot: Int) -> Key {
    let ends = streams[slot].ends
    return Key(peer: ends.remote.node, remotePort: ends.remotePort, localPort: ends.localPort)
  }

  private mutating func remove(_ slot: Int, _ end: StreamEnd) {
    let key = key(slot)
    slots[key] = nil
    if !streams[slot].isOver { events.append(.closed(id(slot), end)) }
    if !streams[slot].isDialed, let left = arrivedOfPeer[key.peer] {
      arrivedOfPeer[key.peer] = left > 1 ? left - 1 : nil
      arrived -= 1
    }
    // The buffers go; the generation stays for the next one.
    let generation = streams[slot].generation
    streams[slot].machine = StreamMachine(dialing: 0, now: 0)
    streams[slot].isInUse = false
    streams[slot].due = .max
    streams[slot].generation = generation
    free.append(slot)
  }

  /// Tells what happened; what leaves waits for `flush`, so that what the owner writes now takes acknowledgements along.
  private mutating func settle(_ slot: Int, _ now: UInt64) {
    if !streams[slot].isDirty {
      streams[slot].isDirty = true
      dirty.append(slot)
    }
    let phase = streams[slot].machine.phase
    if streams[slot].isDialing, phase != .dialing {
      streams[slot].isDialing = false
      if phase != .closed { events.append(.opened(id(slot))) }
    }
    if phase == .lingering, streams[slot].machine.readable == 0, !streams[slot].isOver {
      events.append(.closed(id(slot), streams[slot].machine.end ?? .finished))
      streams[slot].isOver = true
    }
    if !streams[slot].isMarked, !streams[slot].isOver, phase != .dialing, phase != .arriving {
      streams[slot].isMarked = true
      events.append(.changed(id(slot)))
    }
  }

  /// Takes out what leaves, after owners had their turn. Streams may end by it: look for events once more.
  package mutating func flush(_ now: UInt64) {
    while let slot = dirty.popLast() {
      streams[slot].isDirty = false
      if streams[slot].isInUse { flush(slot, now) }
    }
  }

  private mutating func flush(_ slot: Int, _ now: UInt64) {
    let ends = streams[slot].ends
    while let segment = streams[slot].machine.nextSegment(now) {
      packets.append(
        PilotPacket(
          flags: segment.flags, protocolNumber: .stream, source: ends.local, destination: ends.remote,
          sourcePort: ends.localPort, destinationPort: ends.remotePort, sequence: segment.sequence,
          acknowledgement: segment.acknowledgement, window: segment.window, payload: segment.payload))
    }
    let phase = streams[slot].machine.phase
    if phase == .closed {
      let end = streams[slot].machine.end ?? .finished
      // What a reset or a timeout left readable is given up with the stream; an orderly end leaves it to the owner,
      // however long that takes.
      guard end == .finished, streams[slot].machine.readable > 0 else { return remove(slot, end) }
    }
    let idle =
      streams[slot].idleLasts == .max || phase != .open ? nil : streams[slot].lastData + streams[slot].idleLasts
    streams[slot].due = earliest(streams[slot].machine.nextDeadline, idle) ?? .max
  }

  // MARK: What owners do

  /// Nil once the stream is gone.
  package func ends(of id: StreamID) -> Ends? { slot(id).map { streams[$0].ends } }

  package func phase(of id: StreamID) -> StreamMachine.Phase? { slot(id).map { streams[$0].machine.phase } }

  package func statistics(of id: StreamID) -> StreamStatistics? { slot(id).map { streams[$0].machine.statistics } }

  package mutating func accept(_ id: StreamID, now: UInt64) { act(id, now) { $0.accept(now) } }

  package mutating func refuse(_ id: StreamID, now: UInt64) { act(id, now) { $0.refuse() } }

  /// Ends the stream when all that was written has arrived.
  package mutating func close(_ id: StreamID, now: UInt64) { act(id, now) { $0.close(now) } }

  /// Ends the stream at once; what was not read is given up.
  package mutating func abort(_ id: StreamID, now: UInt64) {
    guard let slot = slot(id) else { return }
    if streams[slot].machine.phase == .lingering {
      _ = streams[slot].machine.read(.max, now: now)
    } else {
      streams[slot].machine.abort()
    }
    settle(slot, now)
  }

  /// Closes the stream when nothing came or went for this long.
  package mutating func closeWhenIdle(_ id: StreamID, after nanoseconds: UInt64, now: UInt64) {
    guard let slot = slot(id) else { return }
    streams[slot].idleLasts = nanoseconds
    settle(slot, now)
  }

  private mutating func act(_ id: StreamID, _ now: UInt64, _ change: (inout StreamMachine) -> Void) {
    guard let slot = slot(id) else { return }
    change(&streams[slot].machine)
    settle(slot, now)
  }

  package func readable(_ id: StreamID) -> Int { slot(id).map { streams[$0].machine.readable } ?? 0 }

  package func writable(_ id: StreamID) -> Int { slot(id).map { streams[$0].machine.writable } ?? 0 }

  /// The peer said that nothing more comes.
  package func hasRemoteEnded(_ id: StreamID) -> Bool {
    slot(id).map { streams[$0].machine.hasRemoteEnded } ?? true
  }

  /// All that was written arrived.
  package func isFlushed(_ id: StreamID) -> Bool { slot(id).map { streams[$0].machine.isFlushed } ?? true }

  /// Takes what came, in order. Reading is what opens the window again.
  package mutating func read(_ id: StreamID, _ limit: Int, now: UInt64) -> [UInt8] {
    guard let slot = slot(id) else { return [] }
    let bytes = streams[slot].machine.read(limit, now: now)
    if !bytes.isEmpty { settle(slot, now) }
    return bytes
  }

  /// Takes as many bytes as there is room for.
  package mutating func write(_ id: StreamID, _ bytes: some Collection<UInt8>, now: UInt64) -> Int {
    guard let slot = slot(id) else { return 0 }
    let count = streams[slot].machine.write(bytes)
    if count > 0 {
      streams[slot].lastData = now
      settle(slot, now)
    }
    return count
  }

  /// The owner looks at the stream: the next change is told again. Call it before reading and writing.
  package mutating func look(_ id: StreamID) {
    if let slot = slot(id) { streams[slot].isMarked = false }
  }

  // MARK: Time

  package var nextDeadline: UInt64? {
    var next = UInt64.max
    for stream in streams where stream.due < next { next = stream.due }
    return next == .max ? nil : next
  }

  /// `nextDeadline` is reached.
  package mutating func tick(_ now: UInt64) {
    for slot in streams.indices where streams[slot].due <= now {
      streams[slot].machine.tick(now)
      if streams[slot].idleLasts != .max, now >= streams[slot].lastData + streams[slot].idleLasts {
        streams[slot].machine.close(now)
      }
      settle(slot, now)
    }
  }

  /// The peer is gone, or may not speak to us any more: its streams end, without a word to it.
  ///
  /// - onlyArrived: what we dialed goes on.
  package mutating func forget(_ peer: UInt32, onlyArrived: Bool = false) {
    for (key, slot) in slots where key.peer == peer && !(onlyArrived && streams[slot].isDialed) {
      remove(slot, .reset)
    }
  }
}
