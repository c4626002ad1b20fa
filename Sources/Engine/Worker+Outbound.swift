// TUN -> sealed frames: routing, staging, splitting of superpackets, sealing into trains, sending. Per packet.

internal import LinkIO
internal import Session
internal import Shim
internal import Wire

extension Worker {
  /// Superpackets are not cut into segments with less than this behind headers of whatever length.
  private static let leastSegment = 256

  /// Reads packets until the TUN is empty or the burst is over. Negative errno when the device is gone.
  mutating func readTun() -> Int {
    var reads = 0
    while reads < Self.tunBurst {
      let length = pt_read(ports.tun, tunBuffer, Self.tunBufferSize)
      guard length > 0 else {
        // EAGAIN: empty. EBADFD: the link was removed under us.
        return length == -11 || length == 0 || length == -4 ? 0 : Int(length)
      }
      reads &+= 1
      counters.count(.tunReads)
      handleTunPacket(tunBuffer, length: Int(length))
    }
    return 0
  }

  /// One packet as it came from the TUN (or from the stage), with the virtio-net header when there is one.
  @inline(never)
  mutating func handleTunPacket(_ base: UnsafeMutableRawPointer, length total: Int) {
    var header = VirtioHeader()
    var packet = base
    var length = total
    if ports.hasVirtioHeader {
      guard total >= VirtioHeader.byteCount else { return counters.drop(.tunMalformed) }
      header = VirtioHeader(base)
      packet = base + VirtioHeader.byteCount
      length = total &- VirtioHeader.byteCount
    }
    guard length >= 1, packet.load(as: UInt8.self) >> 4 == 6 else { return counters.drop(.tunNotIPv6) }
    guard length >= 40 else { return counters.drop(.tunMalformed) }
    let declared = 40 &+ Int(UInt16(bigEndian: packet.loadUnaligned(fromByteOffset: 4, as: UInt16.self)))
    guard declared <= length else { return counters.drop(.tunMalformed) }
    length = declared

    let destination = IPv6Address(packet, at: 24)
    guard OverlayMapping.contains(destination) else {
      if destination.high >> 56 == 0xFF { return counters.drop(.tunMulticast) }
      counters.drop(.destinationOutsideOverlay)
      return answerLocally(packet, length: length, .unreachable(.noRoute))
    }
    guard let pilot = OverlayMapping.pilotAddress(from: destination), pilot.node != PilotAddress.broadcastNode else {
      counters.drop(.destinationMalformed)
      return answerLocally(packet, length: length, .unreachable(.noRoute))
    }
    guard pilot.network != OverlayMapping.localNetwork else {
      return handleLocalNetwork(
        Outbound(
          base: base, total: total, packet: packet, length: length, header: header, pilot: pilot, index: 0))
    }
    guard isLocal(IPv6Address(packet, at: 8)) else {
      counters.drop(.sourceNotOurs)
      return answerLocally(packet, length: length, .unreachable(.sourcePolicy))
    }
    if translations.count > 0 {
      let outbound = Outbound(
        base: base, total: total, packet: packet, length: length, header: header, pilot: pilot, index: 0)
      if translateKnown(outbound) { return }
    }
    guard let index = table.row(of: pilot.node) else {
      stagePacket(base, length: total, node: pilot.node)
      return askFor(pilot)
    }
    let row = store.rows + Int(index)
    guard row.pointee.refusal == .none else { return refuse(row.pointee.refusal, packet, length: length) }
    guard row.pointee.current != 0, row.pointee.path != .none, row.pointee.isKindKnown else {
      stagePacket(base, length: total, node: pilot.node)
      return askForSession(index, row)
    }
    if row.pointee.admission != .all {
      flows.note(
        node: pilot.node, packet: packet, length: length, now: now,
        openingOnly: row.pointee.admission == .repliesToOpened)
    }
    if !row.pointee.takesRawIPv6 {
      let outbound = Outbound(
        base: base, total: total, packet: packet, length: length, header: header, pilot: pilot, index: index)
      if translate(outbound, row) { return }
      counters.drop(.peerWithoutRawIPv6)
      return answerLocally(packet, length: length, .unreachable(.address))
    }
    let session = store.sessions + Int(row.pointee.current &- 1)
    noteUse(index, row)
    send(packet, length: length, header: header, index: index, row: row, session: session)
  }

  /// Splits, seals and queues one routed packet.
  @inline(__always)
  private mutating func send(
    _ packet: UnsafeMutableRawPointer, length: Int, header: VirtioHeader, index: PeerIndex,
    row: UnsafeMutablePointer<PeerRow>, session: UnsafeMutablePointer<SessionRow>
  ) {
    let limit = frameLimit(row)
    let packetLimit = packetLimit(limit)
    let kind = header.segmentation & ~UInt8(PT_VNET_GSO_ECN)
    if kind == UInt8(PT_VNET_GSO_NONE) {
      guard length <= packetLimit else { return tooBig(packet, length: length, limit: packetLimit) }
      if header.flags & UInt8(PT_VNET_F_NEEDS_CSUM) != 0 {
        guard completeChecksum(packet, length: length, header: header) else { return counters.drop(.tunMalformed) }
      }
      guard sealPacket(packet, length: length, limit: limit, index: index, row: row, session: session) else { return }
      row.pointee.sentPackets &+= 1
      row.pointee.sentBytes &+= UInt64(length)
      counters.count(.tunReadPackets)
      return
    }
    let start = Int(header.checksumStart)
    let isTCP = kind == UInt8(PT_VNET_GSO_TCPV6)
    guard isTCP || kind == UInt8(PT_VNET_GSO_UDP_L4), header.segmentSize > 0, start >= 40, start &+ 8 <= length else {
      return counters.drop(.tunMalformed)
    }
    var headerLength = start &+ 8
    if isTCP {
      guard start &+ 20 <= length else { return counters.drop(.tunMalformed) }
      headerLength = start &+ Int(packet.load(fromByteOffset: start &+ 12, as: UInt8.self) >> 4) &* 4
      guard headerLength >= start &+ 20, headerLength <= length else { return counters.drop(.tunMalformed) }
    }
    var segmentSize = Int(header.segmentSize)
    if isTCP, headerLength &+ segmentSize > limit, limit &- headerLength >= Self.leastSegment {
      // A stream of bytes may be cut anywhere: smaller segments arrive a round trip earlier than Packet Too Big helps.
      segmentSize = limit &- headerLength
    }
    guard headerLength &+ min(segmentSize, length &- headerLength) <= packetLimit else {
      return tooBig(packet, length: length, limit: packetLimit)
    }
    // Sum of what no segment changes: the addresses and the protocol.
    let fixed = pt_checksum_add(isTCP ? 6 : 17, packet + 8, 32)
    let sequence =
      isTCP ? UInt32(bigEndian: packet.loadUnaligned(fromByteOffset: start &+ 4, as: UInt32.self)) : 0
    let flags: UInt8 = isTCP ? packet.load(fromByteOffset: start &+ 13, as: UInt8.self) : 0
    var offset = headerLength
    var count = 0
    // Each segment is made whole where its payload lies: the headers move along and overwrite what is sealed already.
    var segment = packet
    while offset < length || count == 0 {
      let payload = min(segmentSize, length &- offset)
      let size = headerLength &+ payload
      let next = packet + (offset &- headerLength)
      if count > 0 { next.copyMemory(from: segment, byteCount: headerLength) }
      segment = next
      segment.storeBytes(of: UInt16(truncatingIfNeeded: size &- 40).bigEndian, toByteOffset: 4, as: UInt16.self)
      let transport = segment + start
      let transportLength = size &- start
      if isTCP {
        transport.storeBytes(
          of: (sequence &+ UInt32(truncatingIfNeeded: offset &- headerLength)).bigEndian, toByteOffset: 4,
          as: UInt32.self)
        // FIN and PSH belong to the last segment, CWR to the first (RFC 3168 §6.1.2).
        var own = flags
        if offset &+ payload < length { own &= ~0x09 }
        if count > 0 { own &= ~0x80 }
        transport.storeBytes(of: own, toByteOffset: 13, as: UInt8.self)
        transport.storeBytes(of: UInt16(0), toByteOffset: 16, as: UInt16.self)
        let sum = pt_checksum_fold(
          pt_checksum_add(fixed &+ UInt64(transportLength), transport, transportLength))
        transport.storeBytes(of: (~sum).bigEndian, toByteOffset: 16, as: UInt16.self)
      } else {
        transport.storeBytes(
          of: UInt16(truncatingIfNeeded: transportLength).bigEndian, toByteOffset: 4, as: UInt16.self)
        transport.storeBytes(of: UInt16(0), toByteOffset: 6, as: UInt16.self)
        let sum = ~pt_checksum_fold(
          pt_checksum_add(fixed &+ UInt64(transportLength), transport, transportLength))
        transport.storeBytes(of: (sum == 0 ? 0xFFFF : sum).bigEndian, toByteOffset: 6, as: UInt16.self)
      }
      guard sealPacket(segment, length: size, limit: limit, index: index, row: row, session: session) else { return }
      offset &+= payload
      count &+= 1
      row.pointee.sentBytes &+= UInt64(size)
    }
    row.pointee.sentPackets &+= UInt64(count)
    counters.count(.tunReadPackets, count)
  }

  /// Finishes a checksum that the kernel left partial: the field holds the pseudo-header's sum.
  @inline(__always)
  private func completeChecksum(_ packet: UnsafeMutableRawPointer, length: Int, header: VirtioHeader) -> Bool {
    let start = Int(header.checksumStart)
    let field = start &+ Int(header.checksumOffset)
    guard start >= 40, field &+ 2 <= length else { return false }
    let sum = ~pt_checksum_fold(pt_checksum_add(0, packet + start, length &- start))
    // A UDP checksum of zero means "none", which IPv6 does not allow (RFC 8200 §8.1).
    packet.storeBytes(of: (sum == 0 ? 0xFFFF : sum).bigEndian, toByteOffset: field, as: UInt16.self)
    return true
  }

  /// Room for a frame with `length` inner bytes in a train, header written; the pointer is where the inner bytes go.
  @inline(__always)
  mutating func beginFrame(
    _ length: Int, index: PeerIndex, row: UnsafeMutablePointer<PeerRow>, session: UnsafeMutablePointer<SessionRow>
  ) -> UnsafeMutableRawPointer? {
    let kind = row.pointee.path
    return beginFrame(
      length, index: index, node: row.pointee.node, kind: kind, to: row.pointee.endpoint, socket: row.pointee.socket,
      session: session)
  }

  @inline(__always)
  mutating func beginFrame(
    _ length: Int, index: PeerIndex, node peer: UInt32, kind: PathKind, to: pt_endpoint,
    socket: UInt8, session: UnsafeMutablePointer<SessionRow>
  ) -> UnsafeMutableRawPointer? {
    // 2^60 frames are out of reach; control makes a new key long before (HandshakeMachine's rekey).
    guard session.pointee.sendCounter < 1 << 60 else {
      counters.drop(.nonceExhausted)
      return nil
    }
    let wrap = wrapLength(kind)
    let size = wrap &+ SealedFrame.overhead &+ length
    var place = trains.reserve(peer: index, to: to, socket: socket, size: size)
    if place == nil {
      flushTrains()
      place = trains.reserve(peer: index, to: to, socket: socket, size: size)
    }
    guard var frame = place else { return nil }
    if kind == .relay {
      RelayHeader.writeRelay(to: frame, source: node, destination: peer)
      frame += wrap
    }
    session.pointee.sendCounter &+= 1
    SealedFrame.writeHeader(
      to: frame, sender: node, prefix: session.pointee.sendPrefix, counter: session.pointee.sendCounter)
    return frame + SealedFrame.headerSize
  }

  /// Seals `text` into the frame whose inner bytes begin at `inner` (`text` may be there already); the tag goes right
  /// behind. The frame's header stands before `inner`.
  @inline(__always)
  mutating func sealFrame(
    _ inner: UnsafeMutableRawPointer, from text: UnsafeRawPointer, length: Int,
    session: UnsafeMutablePointer<SessionRow>
  ) {
    // SAFETY: `beginFrame` reserved header, inner bytes and tag; a session row in use has a context.
    let header = (inner - SealedFrame.headerSize).assumingMemoryBound(to: UInt8.self)
    _ = pt_aead_seal_to(
      session.pointee.context!, header + 8, header + 4, 4, text.assumingMemoryBound(to: UInt8.self),
      inner.assumingMemoryBound(to: UInt8.self), length)
    counters.count(.sentFrames)
  }

  /// The sealed frame whose inner bytes begin at `inner` goes through the relay as well, while nobody knows whether the
  /// path still leads anywhere.
  @inline(never)
  mutating func sendTwice(
    _ inner: UnsafeMutableRawPointer, length: Int, index: PeerIndex, row: UnsafeMutablePointer<PeerRow>
  ) {
    guard row.pointee.rested.takesFrame(now: now, lastOnPath: row.pointee.lastOnPath) else { return }
    let frame = inner - SealedFrame.headerSize
    let count = SealedFrame.overhead &+ length
    let size = RelayHeader.relaySize &+ count
    var place = trains.reserve(peer: index, to: row.pointee.fallback, socket: 0, size: size)
    if place == nil {
      // The frame has left then, but its bytes are where they were.
      flushTrains()
      place = trains.reserve(peer: index, to: row.pointee.fallback, socket: 0, size: size)
    }
    guard let copy = place else { return }
    // They may overlap: the bytes move before the header is written.
    (copy + RelayHeader.relaySize).copyMemory(from: frame, byteCount: count)
    RelayHeader.writeRelay(to: copy, source: node, destination: row.pointee.node)
    counters.count(.sentTwice)
  }

  // MARK: - Not sent

  mutating func stagePacket(_ base: UnsafeRawPointer, length: Int, node: UInt32) {
    let result = stage.stage(node: node, bytes: base, length: length, now: now)
    counters.drop(.stageExpired, result.expired)
    switch result.verdict {
    case .staged: counters.count(.stagedPackets)
    case .full: counters.drop(.stageFull)
    case .tooLarge: counters.drop(.stageTooLarge)
    }
  }

  @inline(never)
  private func askForSession(_ index: PeerIndex, _ row: UnsafeMutablePointer<PeerRow>) {
    guard now &- row.pointee.lastWanted > Self.second else { return }
    row.pointee.lastWanted = now
    tell(.sessionWanted(index))
  }

  /// Asks control for a node without a row, once a second at most.
  @inline(never)
  mutating func askFor(_ pilot: PilotAddress) {
    let entry = Int((pilot.node &* 0x9E37_79B1) >> 26)
    let seconds = UInt32(truncatingIfNeeded: now / Self.second)
    let mark = UInt64(pilot.node) << 32 | UInt64(seconds)
    guard wanted[entry] != mark else { return }
    wanted[entry] = mark
    tell(.peerWanted(pilot))
  }

  mutating func refuse(_ refusal: Refusal, _ packet: UnsafeMutableRawPointer, length: Int) {
    switch refusal {
    case .none: return
    case .noRoute:
      counters.drop(.destinationUnknown)
      answerLocally(packet, length: length, .unreachable(.noRoute))
    case .prohibited:
      counters.drop(.destinationProhibited)
      answerLocally(packet, length: length, .unreachable(.prohibited))
    case .addressUnreachable:
      counters.drop(.destinationUnreachable)
      answerLocally(packet, length: length, .unreachable(.address))
    }
  }

  mutating func tooBig(_ packet: UnsafeMutableRawPointer, length: Int, limit: Int) {
    counters.drop(.packetTooBig)
    answerLocally(packet, length: length, .packetTooBig(mtu: UInt32(limit)))
  }
}
