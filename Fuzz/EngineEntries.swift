// The packet path of one worker between a packet of the TUN and sealed frames, in both directions. Nothing leaves: the
// UDP socket is none, the TUN is one end of a socket pair. CorpusTests replays the corpus and seeded mutations of it.

import Glibc
import LinkIO
import Session
import Shim
import Wire

@testable import Engine

/// A way through the worker, by the name of its corpus folder.
enum EngineEntry: String, CaseIterable {
  /// Out: the virtio-net header and the packet that the kernel hands over, to the frames of the trains.
  case tunpacket
  /// In: what peers seal, to the writes of joined packets.
  case tunjoin
  /// In: packets in two frames, whose parts come in any order, twice or not at all.
  case tunparts

  /// Runs the worker. nil: it held what it promises; else the promise that was broken.
  func violation(_ bytes: [UInt8]) -> String? {
    guard let bed = WorkerBed() else { return "no memory for a worker" }
    switch self {
    case .tunpacket: return Self.outward(bytes, bed)
    case .tunjoin: return Self.inward(bytes, bed)
    case .tunparts: return Self.parts(bytes, bed)
    }
  }

  // MARK: - Out

  private static func outward(_ bytes: [UInt8], _ bed: WorkerBed) -> String? {
    if let fault = hand(bytes, to: bed) { return fault }
    let packet = VirtioHeader.byteCount
    guard bytes.count >= packet + 40, let second = WorkerBed() else { return nil }
    // The same bytes as an IPv6 packet to the peer, or no input would come as far as splitting.
    var repaired = bytes
    repaired[packet] = 0x60 | bytes[packet] & 15
    repaired.replaceSubrange((packet + 4)..<(packet + 6), with: big16(min(bytes.count - packet - 40, 0xFFFF)))
    repaired.replaceSubrange((packet + 8)..<(packet + 24), with: bed.own.bytes)
    repaired.replaceSubrange((packet + 24)..<(packet + 40), with: bed.peer.bytes)
    return hand(repaired, to: second)
  }

  private static func hand(_ bytes: [UInt8], to bed: WorkerBed) -> String? {
    guard bytes.count <= Worker.tunBufferSize else { return nil }
    // A block of just this size: reading past the packet is an error that the sanitizer sees.
    let block = UnsafeMutableRawPointer.allocate(byteCount: max(bytes.count, 1), alignment: 1)
    defer { block.deallocate() }
    bytes.withUnsafeBytes { if let base = $0.baseAddress { block.copyMemory(from: base, byteCount: $0.count) } }
    bed.worker.handleTunPacket(block, length: bytes.count)
    let sent = bed.counters.value(.tunReadPackets)
    let others = bed.drops + bed.counters.value(.stagedPackets)
    // Full trains were sent to nowhere: their frames cannot be looked at any more.
    guard bed.counters.value(.sentTrains) == 0 else { return sent > 0 ? nil : "trains without a packet" }
    guard others == (sent > 0 ? 0 : 1) else { return "a packet counted \(others) times besides \(sent) sent" }
    guard let frames = bed.openTrains() else { return "a frame that does not open" }
    guard frames.count == Int(sent) else { return "\(frames.count) frames and \(sent) packets counted" }
    for write in bed.writes() {
      if let fault = answerFault(write.packet) { return fault }
    }
    guard sent > 0 else { return nil }
    let header = bytes.withUnsafeBytes { $0.baseAddress.map { VirtioHeader($0) } } ?? VirtioHeader()
    let packet = bytes.dropFirst(VirtioHeader.byteCount)
    let declared = 40 + Int(packet[packet.startIndex + 4]) << 8 + Int(packet[packet.startIndex + 5])
    return splitFault(frames, of: Array(packet.prefix(declared)), header, limit: bed.worker.mtu)
  }

  private static func answerFault(_ answer: [UInt8]) -> String? {
    answer.withUnsafeBytes { buffer in
      guard let base = buffer.baseAddress, let packet = IPv6Packet(base, count: buffer.count),
        packet.totalLength == buffer.count, packet.nextHeader == IPProtocol.icmpv6, packet.icmpv6?.isError == true
      else { return "an answer that is no ICMPv6 error" }
      return isChecksumRight(answer, at: 40, next: IPProtocol.icmpv6) ? nil : "an answer with a wrong checksum"
    }
  }

  /// Whether the frames are the packet: as it is, or cut as the header asks (virtio 1.2 §5.1.6.2).
  private static func splitFault(
    _ frames: [[UInt8]], of packet: [UInt8], _ header: VirtioHeader, limit: Int
  ) -> String? {
    guard frames.allSatisfy({ $0.count <= limit }) else { return "a packet above the limit" }
    let start = Int(header.checksumStart)
    let kind = header.segmentation & 0x7F
    guard kind != 0 else {
      var whole = packet
      if header.flags & 1 != 0 {
        let field = start + Int(header.checksumOffset)
        let sum = ~slowSum(packet[start...])
        whole.replaceSubrange(field..<(field + 2), with: big16(Int(sum == 0 ? 0xFFFF : sum)))
      }
      return frames == [whole] ? nil : "a packet is not what it was read from"
    }
    let isTCP = kind == 4
    let headerLength = isTCP ? start + Int(packet[start + 12] >> 4) * 4 : start + 8
    // TCP may be cut smaller than asked for, to fit.
    let step = isTCP ? min(Int(header.segmentSize), limit - headerLength) : Int(header.segmentSize)
    var payload: [UInt8] = []
    for (number, frame) in frames.enumerated() {
      let isLast = number == frames.count - 1
      let size = frame.count - headerLength
      guard size == step || isLast && (0...step).contains(size) else {
        return "a segment of \(size) bytes"
      }
      var wanted = Array(packet[..<headerLength])
      wanted.replaceSubrange(4..<6, with: big16(frame.count - 40))
      if isTCP {
        let sequence = big32(packet, start + 4) &+ UInt32(payload.count)
        wanted.replaceSubrange((start + 4)..<(start + 6), with: big16(Int(sequence >> 16)))
        wanted.replaceSubrange((start + 6)..<(start + 8), with: big16(Int(sequence & 0xFFFF)))
        if !isLast { wanted[start + 13] &= ~0x09 }
        if number > 0 { wanted[start + 13] &= ~0x80 }
      } else {
        wanted.replaceSubrange((start + 4)..<(start + 6), with: big16(frame.count - start))
      }
      let field = start + (isTCP ? 16 : 6)
      wanted.replaceSubrange(field..<(field + 2), with: frame[field..<(field + 2)])
      guard Array(frame[..<headerLength]) == wanted else { return "segment \(number) has other headers" }
      guard isChecksumRight(frame, at: start, next: isTCP ? 6 : 17) else { return "a segment's checksum is wrong" }
      payload += frame[headerLength...]
    }
    return payload == Array(packet[headerLength...]) ? nil : "segments are not what they were cut from"
  }

  // MARK: - In

  private static func inward(_ bytes: [UInt8], _ bed: WorkerBed) -> String? {
    // First the input as one inner frame: it may be anything.
    bed.receive([bytes])
    _ = bed.writes()
    guard let second = WorkerBed() else { return nil }
    let batches = packets(bytes, from: second.peer, to: second.own)
    var written: [Written] = []
    for batch in batches {
      second.receive(batch)
      written += second.writes()
    }
    guard second.drops == 0 else { return "a packet of the peer is dropped" }
    let given = batches.flatMap { $0 }
    guard second.counters.value(.tunWrittenSegments) == given.count else { return "segments are counted wrong" }
    var found: [[UInt8]: [(bytes: [UInt8], isJoined: Bool)]] = [:]
    for write in written {
      if let fault = headerFault(write) { return fault }
      for segment in segments(write) { found[flow(segment), default: []].append((segment, write.isJoined)) }
    }
    var order: [[UInt8]: [[UInt8]]] = [:]
    for packet in given { order[flow(packet), default: []].append(packet) }
    guard order.count == found.count else { return "flows appear or vanish" }
    for (flow, packets) in order {
      guard let others = found[flow], others.count == packets.count else { return "packets of a flow are lost" }
      for (other, packet) in zip(others, packets) {
        let isSame = other.isJoined ? comparable(other.bytes) == comparable(packet) : other.bytes == packet
        guard isSame else { return "a packet of a flow is changed or out of order" }
        guard !other.isJoined || isChecksumRight(packet, at: 40, next: packet[6]) else {
          return "a wrong checksum is blessed"
        }
      }
    }
    return nil
  }

  /// The input as orders to make packets: three bytes each, or a raw packet's length and bytes. A bit ends a batch.
  private static func packets(_ bytes: [UInt8], from peer: IPv6Address, to own: IPv6Address) -> [[[UInt8]]] {
    var reader = ByteReader(bytes)
    var batches: [[[UInt8]]] = [[]]
    var sequences = [UInt32](repeating: 0xFFFF_FF00, count: 8)
    var total = 0
    // Together they have to fit into the socket pair's buffer.
    while total < 48, let order = reader.byte(), let flow = reader.byte(), let size = reader.byte() {
      total += 1
      let number = Int(flow & 7)
      let payload = (0..<Int(size) * 8).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ total) }
      let ports = [0x10, UInt8(number), 0x20, 0]
      var transport: [UInt8]
      var next: UInt8 = 6
      switch order & 3 {
      case 0, 1:
        let options: [UInt8] = order & 1 == 0 ? [] : [1, 1, 8, 10, 0, 0, 0, flow >> 3, 0, 0, 0, 2]
        if order & 0x40 != 0 { sequences[number] &+= 1 }
        transport = ports
        transport.appendBig(sequences[number])
        transport += [0, 0, 0, 9, UInt8(20 + options.count) << 2, order & 0x20 == 0 ? 0x10 : 0x18, 1, size, 0, 0, 0, 0]
        transport += options + payload
        sequences[number] &+= UInt32(payload.count)
      case 2:
        next = 17
        transport = ports + big16(8 + payload.count) + [0, 0] + payload
      default:
        next = flow
        transport = Array(reader.take(min(Int(size), reader.remaining)) ?? [])
      }
      var packet = [0x60, 0, 0, 0] + big16(transport.count) + [next, 64] + peer.bytes + own.bytes + transport
      if order & 3 != 3 {
        let field = next == 6 ? 56 : 46
        let sum = ~slowSum(packet[8...], initial: transport.count + Int(next))
        let isWrong = order & 0x10 != 0
        packet.replaceSubrange(field..<(field + 2), with: big16(Int(sum == 0 ? 0xFFFF : sum) ^ (isWrong ? 1 : 0)))
      }
      batches[batches.count - 1].append(packet)
      if order & 0x80 != 0 { batches.append([]) }
    }
    return batches
  }

  // MARK: - In two frames

  private static func parts(_ bytes: [UInt8], _ bed: WorkerBed) -> String? {
    // First the input as one inner frame: it may be anything.
    bed.receive([bytes])
    _ = bed.writes()
    guard let second = WorkerBed() else { return nil }
    var reader = ByteReader(bytes)
    var packets: [[UInt8]] = []
    var frames: [[UInt8]] = []
    let count = Int(reader.byte() ?? 0) % 24 + 1
    while packets.count < count, let size = reader.byte(), let cut = reader.byte() {
      let payload = (0..<Int(size) * 1240 / 255).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ packets.count) }
      let packet = [0x60, 0, 0, 0] + big16(payload.count) + [59, 64] + second.peer.bytes + second.own.bytes + payload
      let first = 1 + Int(cut) * (packet.count - 2) / 255
      packets.append(packet)
      frames.append([0x20] + packet[..<first])
      frames.append([0x21] + packet[first...])
    }
    guard !frames.isEmpty else { return nil }
    // The rest of the input: which frame comes next.
    let order = (reader.take(min(reader.remaining, 96)) ?? []).map { Int($0) % frames.count }
    second.receive(frames, order: order)
    // The slow model: at most 4 parts wait, the oldest gives way.
    var waiting: [Int] = []
    var seen: Set<Int> = []
    var whole: [[UInt8]] = []
    var alone: UInt64 = 0
    for frame in order where seen.insert(frame).inserted {
      if let index = waiting.firstIndex(of: frame ^ 1) {
        waiting.remove(at: index)
        whole.append(packets[frame / 2])
      } else {
        if waiting.count == Rejoiner.placesPerPeer {
          waiting.removeFirst()
          alone += 1
        }
        waiting.append(frame)
      }
    }
    guard second.writes().map(\.packet) == whole else { return "other packets than those whose parts came" }
    guard second.counters.value(.partAlone) == alone else { return "lonely parts are counted wrong" }
    return second.drops == alone + UInt64(order.count - seen.count) ? nil : "drops are counted wrong"
  }

  /// What names a flow that may be joined; everything else keeps its order among itself.
  private static func flow(_ packet: [UInt8]) -> [UInt8] {
    guard packet.count >= 48, packet[6] == 17 || packet[6] == 6 && packet.count >= 60 else { return [] }
    return [packet[6]] + packet[40..<44]
  }

  /// Without what joining may change: the newest window is everybody's, checksums are made anew, and the urgent
  /// pointer (without URG) is that of the first.
  private static func comparable(_ packet: [UInt8]) -> [UInt8] {
    var copy = packet
    if packet[6] == 6 {
      copy.replaceSubrange(54..<60, with: [0, 0, 0, 0, 0, 0])
    } else {
      copy.replaceSubrange(46..<48, with: [0, 0])
    }
    return copy
  }

  /// Whether the kernel would take a write for what it is.
  private static func headerFault(_ write: Written) -> String? {
    let (header, packet) = (write.header, write.packet)
    guard packet.count >= 40, Int(packet[4]) << 8 + Int(packet[5]) == packet.count - 40 else {
      return "a packet of a wrong length"
    }
    guard write.isJoined else {
      guard header.flags != 2 || isChecksumRight(packet, at: 40, next: packet[6]) else {
        return "a wrong checksum is called valid"
      }
      return header.flags & 1 == 0 && header.segmentation == 0 ? nil : "a single packet asks for work"
    }
    let isTCP = packet[6] == 6
    let length = isTCP ? 40 + Int(packet[52] >> 4) * 4 : 48
    guard header.flags == 1, header.segmentation == (isTCP ? 4 : 5), header.checksumStart == 40,
      header.checksumOffset == (isTCP ? 16 : 6), Int(header.headerLength) == length, header.segmentSize > 0,
      packet.count > length + Int(header.segmentSize)
    else { return "a header that does not fit its superpacket" }
    let field = isTCP ? 56 : 46
    let partial = slowSum(packet[8..<40], initial: packet.count - 40 + Int(packet[6]))
    return big16(Int(partial)) == Array(packet[field..<(field + 2)]) ? nil : "a wrong partial checksum"
  }

  /// The packets a kernel makes of one write. Their checksums are those of the write.
  private static func segments(_ write: Written) -> [[UInt8]] {
    guard write.isJoined else { return [write.packet] }
    let packet = write.packet
    let start = Int(write.header.headerLength)
    var all: [[UInt8]] = []
    for offset in stride(from: start, to: packet.count, by: Int(write.header.segmentSize)) {
      let end = min(offset + Int(write.header.segmentSize), packet.count)
      var piece = Array(packet[..<start]) + packet[offset..<end]
      piece.replaceSubrange(4..<6, with: big16(piece.count - 40))
      if packet[6] == 6 {
        let sequence = big32(packet, 44) &+ UInt32(offset - start)
        piece.replaceSubrange(44..<48, with: big16(Int(sequence >> 16)) + big16(Int(sequence & 0xFFFF)))
        if end < packet.count { piece[53] &= ~0x09 }
      } else {
        piece.replaceSubrange(44..<46, with: big16(piece.count - 40))
      }
      all.append(piece)
    }
    return all
  }

  // MARK: - Words and sums

  private static func big16(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 255), UInt8(value & 255)] }

  private static func big32(_ bytes: [UInt8], _ offset: Int) -> UInt32 {
    bytes[offset..<(offset + 4)].reduce(0) { $0 << 8 | UInt32($1) }
  }

  /// The ones' complement sum (RFC 1071), word by word.
  private static func slowSum(_ bytes: ArraySlice<UInt8>, initial: Int = 0) -> UInt16 {
    var sum = initial
    for index in stride(from: bytes.startIndex, to: bytes.endIndex, by: 2) {
      sum += Int(bytes[index]) << 8 + (index + 1 < bytes.endIndex ? Int(bytes[index + 1]) : 0)
    }
    while sum > 0xFFFF { sum = sum & 0xFFFF + sum >> 16 }
    return UInt16(sum)
  }

  private static func isChecksumRight(_ packet: [UInt8], at start: Int, next: UInt8) -> Bool {
    let addresses = Int(slowSum(packet[8..<40]))
    return slowSum(packet[start...], initial: addresses + packet.count - start + Int(next)) == 0xFFFF
  }
}

/// One write to the TUN.
struct Written {
  var header: VirtioHeader
  var packet: [UInt8]
  var isJoined: Bool { header.segmentation != 0 }
}

/// A worker with one peer, a session and a path, made anew for each input.
final class WorkerBed {
  let own = OverlayMapping.address(for: PilotAddress(network: 0, node: 1))
  let peer = OverlayMapping.address(for: PilotAddress(network: 0, node: 2))
  let counters = CounterBlock()
  var worker: Worker
  private let near: Int32
  private let far: Int32
  private let commands = Mailbox<EngineCommand>(limit: 16)
  /// The key of the session once more: the worker owns the context it was given.
  private let context: AEADContext
  private var received: UInt64 = 0
  private var buffer = [UInt8](repeating: 0, count: 66_000)

  init?() {
    var ends: [Int32] = [-1, -1]
    guard let key = Bytes32([UInt8](repeating: 9, count: 32)), let context = AEADContext(key: key),
      let installed = AEADContext(key: key), let store = PeerStore(capacity: 4),
      socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue | SOCK_NONBLOCK.rawValue), 0, &ends) == 0
    else { return nil }
    (near, far) = (ends[0], ends[1])
    var size: Int32 = 1 << 20
    setsockopt(near, SOL_SOCKET, SO_SNDBUF, &size, 4)
    self.context = context
    guard
      let worker = Worker(
        ports: WorkerPorts(
          tun: near, udp: -1, family: 4, hasVirtioHeader: true, mayCoalesceTCP: true, mayCoalesceUDP: true,
          hasGSO: true),
        mtu: 1400, peers: store, seed: 42, counters: counters, commands: commands,
        events: Mailbox<EngineEvent>(limit: 16), streamEvents: Mailbox<StreamEvent>(limit: 16))
    else { return nil }
    self.worker = worker
    self.worker.now = 1_000_000_000_000
    order(
      .setLocal(node: 1, addresses: [own]), .addPeer(0, node: 2), .setAdmission(0, .all), .setRawIPv6(0, true),
      .setPath(0, .direct(Endpoint(address: IPv6Address(mappedIPv4: 0x7F00_0001), port: 9))),
      .install(0, 1, context: installed, sendPrefix: 1, current: true))
  }

  deinit {
    // Gives the session's context back.
    order(.removePeer(0))
    worker.store.unmap()
    context.release()
    counters.free()
    close(near)
    close(far)
  }

  private func order(_ list: EngineCommand...) {
    for command in list { _ = commands.post(command) }
    worker.obeyCommands()
  }

  var drops: UInt64 { DropReason.allCases.reduce(0) { $0 + counters.value($1) } }

  /// The inner bytes of all frames that wait in the trains; nil when one is not what the peer can open.
  func openTrains() -> [[UInt8]]? {
    var all: [[UInt8]] = []
    for index in 0..<worker.trains.count {
      let train = worker.trains.trains[index]
      for offset in stride(from: 0, to: train.length, by: train.stride) {
        let size = min(train.stride, train.length - offset)
        var frame = Array(UnsafeRawBufferPointer(start: worker.trains.buffer(index) + offset, count: size))
        let isOpen = frame.withUnsafeMutableBytes { bytes -> Bool in
          guard let base = bytes.baseAddress, SealedFrame.isSealed(base, count: size), SealedFrame.sender(base) == 1,
            SealedFrame.nonceCounter(base) == UInt64(all.count + 1)
          else { return false }
          return AEADContext.open(
            context.raw, nonce: base + SealedFrame.nonceOffset, associated: base + SealedFrame.senderOffset,
            associatedLength: 4, text: base + SealedFrame.bodyOffset,
            length: SealedFrame.innerCount(ofFrame: size))
        }
        guard isOpen else { return nil }
        all.append(Array(frame[SealedFrame.bodyOffset..<(size - SealedFrame.tagSize)]))
      }
    }
    return all
  }

  /// One batch of frames from the peer, each in a block of just its size, a moment after the other. `order`: in which
  /// they come, as positions in `inners`.
  func receive(_ inners: [[UInt8]], order: [Int]? = nil) {
    let sealed = inners.map { inner in
      let size = SealedFrame.overhead + inner.count
      let block = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 1)
      received += 1
      SealedFrame.writeHeader(to: block, sender: 2, prefix: 2, counter: received)
      let body = block + SealedFrame.bodyOffset
      inner.withUnsafeBytes { if let base = $0.baseAddress { body.copyMemory(from: base, byteCount: $0.count) } }
      _ = AEADContext.seal(
        context.raw, nonce: block + SealedFrame.nonceOffset, associated: block + SealedFrame.senderOffset,
        associatedLength: 4, text: body, length: inner.count)
      return UnsafeMutableRawBufferPointer(start: block, count: size)
    }
    var blocks: [UnsafeMutableRawBufferPointer] = []
    for position in order ?? Array(sealed.indices) {
      // Opening destroys the frame.
      let block = UnsafeMutableRawBufferPointer.allocate(byteCount: sealed[position].count, alignment: 1)
      block.copyMemory(from: UnsafeRawBufferPointer(sealed[position]))
      blocks.append(block)
      worker.now += 1
      if let base = block.baseAddress {
        worker.handleDatagram(base, length: block.count, from: pt_endpoint(Endpoint(address: own, port: 9)))
      }
    }
    worker.flushCoalescer()
    for block in sealed + blocks { block.deallocate() }
  }

  /// What the worker wrote to its TUN.
  func writes() -> [Written] {
    var all: [Written] = []
    while true {
      let count = read(far, &buffer, buffer.count)
      guard count >= VirtioHeader.byteCount else { return all }
      let header = buffer.withUnsafeBytes { $0.baseAddress.map { VirtioHeader($0) } } ?? VirtioHeader()
      all.append(Written(header: header, packet: Array(buffer[VirtioHeader.byteCount..<count])))
    }
  }
}
