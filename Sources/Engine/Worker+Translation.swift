// Packets of local programs for peers that take no raw IPv6 (official agents), and what those send: UDP as Pilot
// datagrams, echo requests as Pilot pings, TCP towards the gateway's sockets, which speak Pilot streams. No allocation
// but for the first packet of a connection.

internal import LinkIO
internal import Session
internal import Shim
internal import Wire

/// What stands before the payload of a ping that carries an ICMPv6 echo: its answer is an echo reply.
enum EchoMark {
  static let word: UInt32 = 0x4943_4D36  // "ICM6"
  static let size = 4
}

extension Worker {
  /// A packet with its virtio-net header, on its way to a peer.
  struct Outbound {
    /// Where the virtio-net header (or the packet) begins, and the bytes from there on.
    var base: UnsafeMutableRawPointer
    var total: Int
    var packet: UnsafeMutableRawPointer
    var length: Int
    var header: VirtioHeader
    var pilot: PilotAddress
    var index: PeerIndex
  }

  /// For a peer that takes no raw IPv6. False: what it is cannot be carried.
  @inline(never)
  mutating func translate(_ outbound: Outbound, _ row: UnsafeMutablePointer<PeerRow>) -> Bool {
    let packet = outbound.packet
    let next = packet.load(fromByteOffset: 6, as: UInt8.self)
    if next == IPProtocol.tcp { return translateTCP(outbound) }
    let limit = packetLimit(frameLimit(row))
    if outbound.header.segmentation == UInt8(PT_VNET_GSO_NONE), outbound.length > limit {
      tooBig(packet, length: outbound.length, limit: limit)
      return true
    }
    switch next {
    case IPProtocol.udp: return sendDatagrams(outbound, row)
    case IPProtocol.icmpv6: return sendEcho(outbound, row)
    default: return false
    }
  }

  // MARK: - TCP

  /// A packet of a connection that is translated already, whatever has become of the peer meanwhile: both its ends are
  /// here.
  @inline(never)
  mutating func translateKnown(_ outbound: Outbound) -> Bool {
    let packet = outbound.packet
    guard packet.load(fromByteOffset: 6, as: UInt8.self) == IPProtocol.tcp, outbound.length >= 60 else { return false }
    let id = translations.find(
      own: IPv6Address(packet, at: 8), ownPort: UnsafeRawPointer(packet).loadBig16(40),
      peer: IPv6Address(packet, at: 24), peerPort: UnsafeRawPointer(packet).loadBig16(42))
    // SYN, and not ACK, RST or FIN.
    let isOpening = packet.load(fromByteOffset: 53, as: UInt8.self) & 0x17 == 0x02
    guard let flow = translations.row(id), !(isOpening && flow.pointee.isEnding) else { return false }
    rewrite(
      outbound, source: OverlayMapping.phantom, sourcePort: id, destination: OverlayMapping.gateway,
      destinationPort: flow.pointee.gatewayPort)
    return true
  }

  private mutating func translateTCP(_ outbound: Outbound) -> Bool {
    let packet = outbound.packet
    guard outbound.length >= 60 else { return false }
    if packet.load(fromByteOffset: 53, as: UInt8.self) & 0x17 == 0x02 {
      guard openingBudget.take(now: now) else {
        counters.drop(.openingOverLimit)
        return true
      }
      tellOpening(outbound)
    } else {
      counters.drop(.flowUnknown)
      resetLocally(packet, length: outbound.length)
    }
    return true
  }

  @inline(never)
  private func tellOpening(_ outbound: Outbound) {
    let bytes = [UInt8](UnsafeRawBufferPointer(start: outbound.base, count: outbound.total))
    if !streamEvents.post(.opening(bytes, packetAt: outbound.packet - outbound.base)) { counters.drop(.eventQueueFull) }
  }

  /// Something for an address of network 65535: a gateway's socket speaks, or a program is mistaken.
  @inline(never)
  mutating func handleLocalNetwork(_ outbound: Outbound) {
    let packet = outbound.packet
    if IPv6Address(packet, at: 24) == OverlayMapping.phantom, IPv6Address(packet, at: 8) == OverlayMapping.gateway,
      packet.load(fromByteOffset: 6, as: UInt8.self) == IPProtocol.tcp, outbound.length >= 60
    {
      let own = UnsafeRawPointer(packet).loadBig16(40)
      // Only the socket that the gateway made for the flow speaks for the peer.
      let isOpening = packet.load(fromByteOffset: 53, as: UInt8.self) & 0x17 == 0x02
      if let flow = translations.row(UnsafeRawPointer(packet).loadBig16(42)), flow.pointee.gatewayPort == own,
        !(isOpening && flow.pointee.isEnding)
      {
        return rewrite(
          outbound, source: flow.pointee.peer, sourcePort: flow.pointee.peerPort, destination: flow.pointee.own,
          destinationPort: flow.pointee.ownPort)
      }
      // The command that tells the flow's row may be on its way still.
      if isOpening, openingBudget.take(now: now) {
        return tellOpening(outbound)
      }
      return counters.drop(.flowUnknown)
    }
    counters.drop(.destinationMalformed)
    answerLocally(packet, length: outbound.length, .unreachable(.noRoute))
  }

  /// Puts other addresses and ports into a TCP packet and hands it back to the kernel, superpackets as they are.
  private mutating func rewrite(
    _ outbound: Outbound, source: IPv6Address, sourcePort: UInt16, destination: IPv6Address, destinationPort: UInt16
  ) {
    let packet = outbound.packet
    let raw = UnsafeRawPointer(packet)
    // RFC 1624: the sum loses the old words and gains the new. While the kernel leaves the checksum to the device, the
    // field holds the pseudo-header's sum alone, in which the ports have no part.
    let isPartial = outbound.header.flags & UInt8(PT_VNET_F_NEEDS_CSUM) != 0
    var old = InternetChecksum.halves(IPv6Address(raw, at: 8)) &+ InternetChecksum.halves(IPv6Address(raw, at: 24))
    var new = InternetChecksum.halves(source) &+ InternetChecksum.halves(destination)
    if !isPartial {
      old &+= UInt64(raw.loadBig32(40))
      new &+= UInt64(sourcePort) << 16 | UInt64(destinationPort)
    }
    let field = raw.loadBig16(56)
    let sum = InternetChecksum.fold(
      UInt64(isPartial ? field : ~field) &+ UInt64(~InternetChecksum.fold(old)) &+ new)
    packet.storeBig16(isPartial ? sum : ~sum, 56)
    source.store(to: packet, at: 8)
    destination.store(to: packet, at: 24)
    packet.storeBig16(sourcePort, 40)
    packet.storeBig16(destinationPort, 42)
    counters.count(.tunWrites)
    if pt_write(ports.tun, outbound.base, outbound.total) < 0 {
      counters.drop(.tunWriteFailed)
    } else {
      counters.count(.translatedPackets)
    }
  }

  /// Tells a local program that its connection is not there (any more).
  mutating func resetLocally(_ packet: UnsafeMutableRawPointer, length: Int) {
    guard icmpBudget.take(now: now) else { return counters.drop(.icmpOverLimit) }
    let place = answer + VirtioHeader.byteCount
    let size = TCPReset.write(inReplyTo: packet, count: length, to: place)
    if size > 0 { writePacket(place, length: size) }
  }

  // MARK: - Datagrams and echoes, out

  /// UDP with the same ports; a superpacket is several datagrams.
  private mutating func sendDatagrams(_ outbound: Outbound, _ row: UnsafeMutablePointer<PeerRow>) -> Bool {
    let raw = UnsafeRawPointer(outbound.packet)
    let payload = outbound.length &- 48
    guard payload > 0 else { return false }
    let isJoined = outbound.header.segmentation & ~UInt8(PT_VNET_GSO_ECN) == UInt8(PT_VNET_GSO_UDP_L4)
    let step = isJoined && outbound.header.segmentSize > 0 ? Int(outbound.header.segmentSize) : payload
    var offset = 0
    while offset < payload {
      let count = min(step, payload &- offset)
      sendPilot(
        .datagram, outbound, sourcePort: raw.loadBig16(40), destinationPort: raw.loadBig16(42), sequence: 0, mark: 0,
        payload: raw + 48 + offset, count: count, row)
      offset &+= count
    }
    return true
  }

  /// An echo request as a ping whose port is the identifier; everything else of ICMPv6 stays here.
  private mutating func sendEcho(_ outbound: Outbound, _ row: UnsafeMutablePointer<PeerRow>) -> Bool {
    let raw = UnsafeRawPointer(outbound.packet)
    guard outbound.length >= 48, raw.loadByte(40) == 128 else { return false }
    sendPilot(
      .control, outbound, sourcePort: raw.loadBig16(44), destinationPort: PilotPort.ping,
      sequence: UInt32(raw.loadBig16(46)), mark: EchoMark.size, payload: raw + 48, count: outbound.length &- 48, row)
    return true
  }

  private mutating func sendPilot(
    _ kind: PilotProtocol, _ outbound: Outbound, sourcePort: UInt16, destinationPort: UInt16, sequence: UInt32,
    mark: Int, payload: UnsafeRawPointer, count: Int, _ row: UnsafeMutablePointer<PeerRow>
  ) {
    let session = store.sessions + Int(row.pointee.current &- 1)
    let size = PilotPacket.headerSize &+ mark &+ count
    guard let own = OverlayMapping.pilotAddress(from: IPv6Address(outbound.packet, at: 8)),
      let inner = beginFrame(size, index: outbound.index, row: row, session: session)
    else { return }
    let text = inner + PilotPacket.headerSize
    if mark > 0 { text.storeBig32(EchoMark.word, 0) }
    (text + mark).copyMemory(from: payload, byteCount: count)
    PilotPacketView.writeHeader(
      to: inner, protocolNumber: kind, source: own, destination: outbound.pilot, sourcePort: sourcePort,
      destinationPort: destinationPort, sequence: sequence, payloadCount: mark &+ count)
    sealFrame(inner, from: inner, length: size, session: session)
    noteUse(outbound.index, row)
    row.pointee.sentPackets &+= 1
    row.pointee.sentBytes &+= UInt64(size)
    counters.count(.translatedPackets)
  }

  // MARK: - Datagrams and echoes, in

  /// A Pilot packet from a peer. Datagrams and answers to echoes become IPv6 packets here, segments go to the gateway,
  /// the rest to control.
  @inline(never)
  mutating func receivePilot(
    _ inner: UnsafeMutableRawPointer, length: Int, row: UnsafeMutablePointer<PeerRow>, index: PeerIndex,
    arrival: Arrival
  ) {
    let raw = UnsafeRawPointer(inner)
    guard length >= PilotPacket.headerSize else { return counters.drop(.innerMalformed) }
    let kind = PilotProtocol(rawValue: raw.loadByte(1))
    let isEchoReply =
      kind == .control && PilotFlags(rawValue: raw.loadByte(0)).contains(.ack)
      && raw.loadBig16(2) >= UInt16(EchoMark.size) && length >= PilotPacket.headerSize + EchoMark.size
      && raw.loadBig32(PilotPacket.headerSize) == EchoMark.word
    switch kind {
    case .datagram: receiveDatagram(raw, length: length, row: row, index: index)
    case .control where isEchoReply: receiveEchoReply(raw, length: length, row: row)
    case .stream: receiveSegment(inner, length: length, row: row, index: index, arrival: arrival)
    default: receiveForControl(inner, length: length, row: row, index: index, arrival: arrival)
    }
  }

  /// The packet's view when its source is the peer and its destination this node.
  private func checked(
    _ raw: UnsafeRawPointer, length: Int, row: UnsafeMutablePointer<PeerRow>
  ) -> PilotPacketView? {
    guard let view = PilotPacketView(raw, count: length) else {
      counters.drop(.innerMalformed)
      return nil
    }
    guard view.source.node == row.pointee.node, view.source.network != OverlayMapping.localNetwork else {
      counters.drop(.spoofedSource)
      return nil
    }
    guard view.destination.node == node, localAddressCount > 0 else {
      counters.drop(.wrongDestination)
      return nil
    }
    return view
  }

  /// Our address in the network that the peer spoke to, or on the backbone.
  private func localAddress(for pilot: PilotAddress) -> IPv6Address {
    let wanted = OverlayMapping.address(for: pilot)
    return isLocal(wanted) ? wanted : localAddresses[0]
  }

  private mutating func receiveDatagram(
    _ raw: UnsafeRawPointer, length: Int, row: UnsafeMutablePointer<PeerRow>, index: PeerIndex
  ) {
    guard let view = checked(raw, length: length, row: row) else { return }
    let payload = view.payloadCount
    guard payload > 0, payload <= 65_535 &- 8 else { return counters.drop(.innerMalformed) }
    let packet = scratch + VirtioHeader.byteCount
    let transport = packet + 40
    // The frame lies in a receive buffer: `scratch` is free.
    (packet + 48).copyMemory(from: view.payload, byteCount: payload)
    transport.storeBig16(view.sourcePort, 0)
    transport.storeBig16(view.destinationPort, 2)
    transport.storeBig16(UInt16(truncatingIfNeeded: payload &+ 8), 4)
    let size = finish(packet, transportLength: payload &+ 8, protocol: IPProtocol.udp, checksumAt: 6, view)
    guard admitsTranslated(packet, length: size, row: row) else { return counters.drop(.notTrusted) }
    if tapsDatagrams { tellDatagram(index, raw, length: length) }
    writePacket(packet, length: size)
    counters.count(.translatedPackets)
  }

  private mutating func receiveEchoReply(
    _ raw: UnsafeRawPointer, length: Int, row: UnsafeMutablePointer<PeerRow>
  ) {
    guard let view = checked(raw, length: length, row: row) else { return }
    let payload = view.payloadCount &- EchoMark.size
    guard payload >= 0, payload <= 65_535 &- 8 else { return counters.drop(.innerMalformed) }
    let packet = scratch + VirtioHeader.byteCount
    (packet + 48).copyMemory(from: view.payload + EchoMark.size, byteCount: payload)
    (packet + 40).storeBig32(129 << 24, 0)
    (packet + 40).storeBig16(view.destinationPort, 4)
    (packet + 40).storeBig16(UInt16(truncatingIfNeeded: view.sequence), 6)
    let size = finish(packet, transportLength: payload &+ 8, protocol: IPProtocol.icmpv6, checksumAt: 2, view)
    guard admitsTranslated(packet, length: size, row: row) else { return counters.drop(.notTrusted) }
    writePacket(packet, length: size)
    counters.count(.translatedPackets)
  }

  private func admitsTranslated(
    _ packet: UnsafeMutableRawPointer, length: Int, row: UnsafeMutablePointer<PeerRow>
  ) -> Bool {
    row.pointee.admission == .all || flows.answers(node: row.pointee.node, packet: packet, length: length, now: now)
  }

  /// Header and checksum of a packet whose transport part stands at 40, checksum field excepted.
  private func finish(
    _ packet: UnsafeMutableRawPointer, transportLength: Int, protocol next: UInt8, checksumAt field: Int,
    _ view: PilotPacketView
  ) -> Int {
    let source = OverlayMapping.address(for: view.source)
    let destination = localAddress(for: view.destination)
    IPv6Packet.writeHeader(
      to: packet, payloadLength: UInt16(truncatingIfNeeded: transportLength), nextHeader: next, source: source,
      destination: destination)
    (packet + 40).storeBig16(0, field)
    let sum = ~pt_checksum_fold(
      pt_checksum_add(UInt64(next) &+ UInt64(transportLength), packet + 8, 32 &+ transportLength))
    (packet + 40).storeBig16(sum == 0 ? 0xFFFF : sum, field)
    return 40 &+ transportLength
  }

  // MARK: - For the gateway

  /// Segments: 60,000 a second of a peer that we speak streams with or that may come in, else as few as control frames.
  static let longestSegment = 9000

  private func receiveSegment(
    _ inner: UnsafeMutableRawPointer, length: Int, row: UnsafeMutablePointer<PeerRow>, index: PeerIndex,
    arrival: Arrival
  ) {
    if row.pointee.admission == .all || row.pointee.hasStreams {
      let due = max(row.pointee.streamDue, now)
      guard due < now &+ Self.second / 10 else { return counters.drop(.innerOverLimit) }
      row.pointee.streamDue = due &+ Self.second / 60_000
    } else {
      guard takesInner(row) else { return counters.drop(.innerOverLimit) }
    }
    guard length <= Self.longestSegment else { return counters.drop(.innerMalformed) }
    let bytes = [UInt8](UnsafeRawBufferPointer(start: inner, count: length))
    let event = StreamEvent.segment(
      index, bytes, from: Endpoint(arrival.from), isRelayed: arrival.isRelayed)
    // What finds the queue full is lost, and sent again by its stream. Programs' openings keep their room.
    if !streamEvents.post(event, leaving: 1024) { counters.drop(.eventQueueFull) }
  }

  private func tellDatagram(_ index: PeerIndex, _ raw: UnsafeRawPointer, length: Int) {
    let bytes = [UInt8](UnsafeRawBufferPointer(start: raw, count: length))
    if !streamEvents.post(.datagram(index, bytes)) { counters.drop(.eventQueueFull) }
  }
}
