// UDP -> opened frames -> TUN: demultiplexing, replay check, opening in place, admission, coalescing. Per packet.

internal import LinkIO
internal import Session
internal import Shim
internal import Wire

/// Where a frame came from.
struct Arrival {
  var from: pt_endpoint
  /// Source node that the beacon's wrapper names.
  var relayedFrom: UInt32
  var isRelayed: Bool
}

extension Worker {
  static let magicKeyExchange: UInt32 = 0x5049_4C41
  static let magicKeyRequest: UInt32 = 0x5049_4C4B
  static let magicSealed: UInt32 = 0x5049_4C53
  static let magicPlain: UInt32 = 0x5049_4C54
  static let magicPunch: UInt32 = 0x5049_4C50
  /// Consecutive failures before control is asked to look (an attacker can forge them; good frames reset the count).
  static let failureLimit: UInt32 = 32

  mutating func receiveDatagrams(_ socket: Int32) {
    var bursts = 0
    while bursts < Self.udpBurst {
      let count = pt_udp_receive(socket, receiveSlots, Int32(Self.receiveBuffers))
      counters.count(.receiveCalls)
      guard count > 0 else { break }
      var index = 0
      while index < Int(count) {
        let slot = receiveSlots[index]
        if slot.truncated != 0 {
          counters.drop(.datagramTruncated)
        } else {
          receive(slot)
        }
        index &+= 1
      }
      flushCoalescer()
      flushTrains()
      bursts &+= 1
      if Int(count) < Self.receiveBuffers { break }
    }
  }

  /// One buffer: a single datagram, or several of one source joined by the kernel (UDP_GRO).
  @inline(__always)
  private mutating func receive(_ slot: pt_receive) {
    let total = Int(slot.length)
    let step = slot.segment == 0 ? total : Int(slot.segment)
    var offset = 0
    while offset < total {
      let length = min(step, total &- offset)
      counters.count(.receivedDatagrams)
      handleDatagram(slot.data + offset, length: length, from: slot.from)
      offset &+= length
    }
  }

  @inline(__always)
  mutating func handleDatagram(_ base: UnsafeMutableRawPointer, length: Int, from: pt_endpoint) {
    guard length > 0 else { return }
    let first = base.load(as: UInt8.self)
    if first >= 0x10 {
      handleFrame(base, length: length, arrival: Arrival(from: from, relayedFrom: 0, isRelayed: false))
    } else {
      handleBeaconMessage(base, length: length, from: from, code: first)
    }
  }

  @inline(never)
  private mutating func handleBeaconMessage(
    _ base: UnsafeMutableRawPointer, length: Int, from: pt_endpoint, code: UInt8
  ) {
    if code == RelayHeader.relayCode { return relayFrame(base, length: length, from: from) }
    let position = relayPosition(from)
    guard position < (code == RelayHeader.deliverCode ? relayCount : beaconCount) else {
      return counters.drop(.beaconMessageFromStranger)
    }
    if code == 0x06 {
      guard length > 5 else { return counters.drop(.frameShort) }
      let source = UInt32(bigEndian: base.loadUnaligned(fromByteOffset: 1, as: UInt32.self))
      guard base.load(fromByteOffset: 5, as: UInt8.self) >= 0x10 else { return counters.drop(.relayNested) }
      counters.count(.relayedFrames)
      handleFrame(
        base + 5, length: length &- 5, arrival: Arrival(from: from, relayedFrom: source, isRelayed: true))
      return
    }
    guard beaconBudget.take(now: now) else { return counters.drop(.keyExchangeOverLimit) }
    post(base, length: length, arrival: Arrival(from: from, relayedFrom: 0, isRelayed: false))
  }

  @inline(__always)
  mutating func handleFrame(_ base: UnsafeMutableRawPointer, length: Int, arrival: Arrival) {
    guard length >= 4 else { return counters.drop(.frameShort) }
    let magic = UInt32(bigEndian: base.loadUnaligned(as: UInt32.self))
    if magic == Self.magicSealed {
      openFrame(base, length: length, arrival: arrival)
    } else {
      handleOtherFrame(base, length: length, arrival: arrival, magic: magic)
    }
  }

  @inline(never)
  private mutating func handleOtherFrame(
    _ base: UnsafeMutableRawPointer, length: Int, arrival: Arrival, magic: UInt32
  ) {
    switch magic {
    case Self.magicKeyExchange, Self.magicKeyRequest:
      guard length >= (magic == Self.magicKeyExchange ? 136 : 40) else { return counters.drop(.frameShort) }
      guard admitsKeyExchange(arrival), keyExchangeBudget.take(now: now) else {
        return counters.drop(.keyExchangeOverLimit)
      }
      post(base, length: min(length, 2048), arrival: arrival)
    case Self.magicPlain: counters.drop(.framePlaintext)
    case Self.magicPunch: counters.count(.punches)
    default: counters.drop(.frameUnknown)
    }
  }

  /// 10 key exchanges a second from each source, with a burst of 20: a stranger's flood leaves the others' share alone.
  /// Sources are hashed (IPv4 address or IPv6 /64, or the relayed node) into 1024 places.
  private mutating func admitsKeyExchange(_ arrival: Arrival) -> Bool {
    let place = place(of: arrival)
    let due = max(keyExchangeDue[place], now)
    guard due < now &+ 2 &* Self.second else { return false }
    keyExchangeDue[place] = due &+ Self.second / 10
    return true
  }

  /// Frames that wait for a key: 32 a second from each source, with a burst of 64, which is what is staged for one peer.
  private mutating func admitsStranger(_ arrival: Arrival) -> Bool {
    let place = place(of: arrival)
    let due = max(strangerDue[place], now)
    guard due < now &+ 2 &* Self.second else { return false }
    strangerDue[place] = due &+ Self.second / 32
    return true
  }

  private func place(of arrival: Arrival) -> Int {
    let from = Endpoint(arrival.from).address
    let source =
      arrival.isRelayed ? UInt64(arrival.relayedFrom) : from.mappedIPv4.map { UInt64($0) << 32 } ?? from.high
    return Int(((source ^ seed) &* 0x9E37_79B9_7F4A_7C15) >> 54)
  }

  @inline(never)
  private mutating func post(_ base: UnsafeMutableRawPointer, length: Int, arrival: Arrival) {
    let bytes = [UInt8](UnsafeRawBufferPointer(start: base, count: length))
    tell(
      .datagram(
        bytes, from: Endpoint(arrival.from), relayedFrom: arrival.isRelayed ? arrival.relayedFrom : nil))
  }

  // MARK: - Sealed frames

  @inline(__always)
  private mutating func openFrame(_ base: UnsafeMutableRawPointer, length: Int, arrival: Arrival) {
    guard length >= SealedFrame.overhead else { return counters.drop(.frameShort) }
    let sender = UInt32(bigEndian: base.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
    guard let index = table.row(of: sender) else {
      counters.drop(.senderUnknown)
      return undecryptable(base, length: length, arrival: arrival, row: nil)
    }
    let row = store.rows + Int(index)
    let prefix = base.loadUnaligned(fromByteOffset: 8, as: UInt32.self)
    let counter = UInt64(bigEndian: base.loadUnaligned(fromByteOffset: 12, as: UInt64.self))
    let textLength = length &- SealedFrame.overhead
    let number = knownSession(row, prefix: prefix)
    guard number != 0 else {
      return openUnderNewPrefix(base, length: length, arrival: arrival, index: index, row: row, prefix: prefix)
    }
    let session = store.sessions + Int(number &- 1)
    guard session.pointee.window.accepts(counter) else { return counters.drop(.replayed) }
    let bytes = base.assumingMemoryBound(to: UInt8.self)
    // SAFETY: the frame is at least header and tag; a session in use has a context.
    guard
      pt_aead_open(
        session.pointee.context!, bytes + 8, bytes + 4, 4, bytes + SealedFrame.headerSize, textLength) == 0
    else { return failed(base, length: length, arrival: arrival, index: index, row: row) }
    opened(
      base + SealedFrame.headerSize, length: textLength, counter: counter, index: index, row: row, session: session,
      arrival: arrival)
  }

  /// The session whose peer uses this nonce prefix, or 0.
  @inline(__always)
  private func knownSession(_ row: UnsafeMutablePointer<PeerRow>, prefix: UInt32) -> UInt32 {
    let sessions = store.sessions
    let current = row.pointee.current
    if current != 0, sessions[Int(current &- 1)].hasReceivePrefix, sessions[Int(current &- 1)].receivePrefix == prefix {
      return current
    }
    let second = row.pointee.second
    if second != 0, sessions[Int(second &- 1)].hasReceivePrefix, sessions[Int(second &- 1)].receivePrefix == prefix {
      return second
    }
    let third = row.pointee.third
    if third != 0, sessions[Int(third &- 1)].hasReceivePrefix, sessions[Int(third &- 1)].receivePrefix == prefix {
      return third
    }
    return 0
  }

  /// The first frame of a session, or of a peer that installed the same key again (official daemons do, with a new
  /// prefix): every session of the peer is tried on a copy. Rare.
  @inline(never)
  private mutating func openUnderNewPrefix(
    _ base: UnsafeMutableRawPointer, length: Int, arrival: Arrival, index: PeerIndex,
    row: UnsafeMutablePointer<PeerRow>, prefix: UInt32
  ) {
    let numbers = (row.pointee.current, row.pointee.second, row.pointee.third)
    guard numbers.0 | numbers.1 | numbers.2 != 0 else {
      counters.drop(.sessionMissing)
      return undecryptable(base, length: length, arrival: arrival, row: row)
    }
    let counter = UInt64(bigEndian: base.loadUnaligned(fromByteOffset: 12, as: UInt64.self))
    for position in 0..<3 {
      let number = position == 0 ? numbers.0 : position == 1 ? numbers.1 : numbers.2
      guard number != 0 else { continue }
      let session = store.sessions + Int(number &- 1)
      // Opening in place destroys a frame that does not open.
      scratch.copyMemory(from: base, byteCount: length)
      let bytes = scratch.assumingMemoryBound(to: UInt8.self)
      guard
        pt_aead_open(
          session.pointee.context!, bytes + 8, bytes + 4, 4, bytes + SealedFrame.headerSize,
          length &- SealedFrame.overhead) == 0
      else { continue }
      guard adoptPrefix(prefix, session) else {
        counters.drop(.prefixRetired)
        // Authentic, and yet refused for good: only a new key helps.
        if session.pointee.retiredPrefixCount >= 4, now &- row.pointee.lastFailing > Self.second {
          row.pointee.lastFailing = now
          tell(.failing(index))
        }
        return
      }
      // The opened bytes go back to where the rest of this batch's payloads live: slices may point at them.
      base.copyMemory(from: scratch, byteCount: length)
      guard session.pointee.window.accepts(counter) else { return counters.drop(.replayed) }
      opened(
        base + SealedFrame.headerSize, length: length &- SealedFrame.overhead, counter: counter, index: index,
        row: row, session: session, arrival: arrival)
      return
    }
    failed(base, length: length, arrival: arrival, index: index, row: row)
  }

  /// Makes `prefix` the one of the session, with a fresh window. False when the peer used and left it before.
  private func adoptPrefix(_ prefix: UInt32, _ session: UnsafeMutablePointer<SessionRow>) -> Bool {
    if session.pointee.hasReceivePrefix {
      let retired = session.pointee.retiredPrefixes
      let count = session.pointee.retiredPrefixCount
      if count > 0, retired.0 == prefix { return false }
      if count > 1, retired.1 == prefix { return false }
      if count > 2, retired.2 == prefix { return false }
      if count > 3, retired.3 == prefix { return false }
      // Four prefixes under one key are enough: control makes a new key when frames stop to open.
      guard count < 4 else { return false }
      switch count {
      case 0: session.pointee.retiredPrefixes.0 = session.pointee.receivePrefix
      case 1: session.pointee.retiredPrefixes.1 = session.pointee.receivePrefix
      case 2: session.pointee.retiredPrefixes.2 = session.pointee.receivePrefix
      default: session.pointee.retiredPrefixes.3 = session.pointee.receivePrefix
      }
      session.pointee.retiredPrefixCount = count &+ 1
      session.pointee.window = ReplayWindow()
    }
    session.pointee.hasReceivePrefix = true
    session.pointee.receivePrefix = prefix
    return true
  }

  @inline(never)
  private mutating func failed(
    _ base: UnsafeMutableRawPointer, length: Int, arrival: Arrival, index: PeerIndex,
    row: UnsafeMutablePointer<PeerRow>
  ) {
    counters.drop(.authenticationFailed)
    row.pointee.failures &+= 1
    if row.pointee.failures >= Self.failureLimit, now &- row.pointee.lastFailing > Self.second {
      row.pointee.lastFailing = now
      tell(.failing(index))
    }
    // The frame is destroyed when its prefix was known; a frame under an unknown prefix is whole and may be early.
    if knownSession(row, prefix: base.loadUnaligned(fromByteOffset: 8, as: UInt32.self)) == 0 {
      undecryptable(base, length: length, arrival: arrival, row: row)
    }
  }

  /// Tells control, within limits: 20 a second for each peer with a row, 200 a second for all strangers.
  @inline(never)
  private mutating func undecryptable(
    _ base: UnsafeMutableRawPointer, length: Int, arrival: Arrival, row: UnsafeMutablePointer<PeerRow>?
  ) {
    if let row {
      guard now &- row.pointee.lastUndecryptable > Self.second / 20 else { return }
      row.pointee.lastUndecryptable = now
    } else {
      guard admitsStranger(arrival), strangerBudget.take(now: now) else { return }
    }
    let bytes = [UInt8](UnsafeRawBufferPointer(start: base, count: min(length, 2048)))
    tell(
      .undecryptable(
        bytes, from: Endpoint(arrival.from), relayedFrom: arrival.isRelayed ? arrival.relayedFrom : nil))
  }

  /// An authentic frame.
  @inline(__always)
  private mutating func opened(
    _ inner: UnsafeMutableRawPointer, length: Int, counter: UInt64, index: PeerIndex,
    row: UnsafeMutablePointer<PeerRow>, session: UnsafeMutablePointer<SessionRow>, arrival: Arrival
  ) {
    let isNewest = counter > session.pointee.window.highest || counter == 0
    session.pointee.window.record(counter)
    row.pointee.failures = 0
    row.pointee.lastReceive = now
    row.pointee.receivedPackets &+= 1
    row.pointee.receivedBytes &+= UInt64(length)
    counters.count(.receivedFrames)
    if !session.pointee.isConfirmed {
      session.pointee.isConfirmed = true
      tellConfirmed(index, session.pointee.id)
      takeOver(index, row, session.pointee.id)
    }
    if isNewest { noteArrival(index, row, arrival) }
    guard length > 0 else { return counters.drop(.innerMalformed) }
    let nibble = inner.load(as: UInt8.self) >> 4
    if nibble == 6 {
      acceptPacket(inner, length: length, row: row, index: index)
    } else if nibble == 1 {
      receivePilot(inner, length: length, row: row, index: index, arrival: arrival)
    } else if nibble == 0 {
      receiveForControl(inner, length: length, row: row, index: index, arrival: arrival)
    } else if nibble == 2 {
      receivePart(
        inner, length: length, counter: counter, prefix: session.pointee.receivePrefix, index: index, row: row,
        arrival: arrival)
    } else {
      counters.drop(.innerReserved)
    }
  }

  /// A peer that restarted holds only the new key. Its first packet may be answered at once, so the answer must not
  /// wait under the old key for control's `promote`, which follows.
  @inline(never)
  private mutating func takeOver(_ index: PeerIndex, _ row: UnsafeMutablePointer<PeerRow>, _ session: SessionID) {
    let current = row.pointee.current
    guard current != 0, store.sessions[Int(current &- 1)].id < session else { return }
    promote(index, id: session)
  }

  @inline(never)
  private func tellConfirmed(_ index: PeerIndex, _ session: SessionID) { tell(.confirmed(index, session)) }

  /// Inner frames for control: 200 a second of a peer, with a burst of a second.
  @inline(never)
  func receiveForControl(
    _ inner: UnsafeMutableRawPointer, length: Int, row: UnsafeMutablePointer<PeerRow>, index: PeerIndex,
    arrival: Arrival
  ) {
    guard takesInner(row) else { return counters.drop(.innerOverLimit) }
    tell(
      .innerFrame(
        index, [UInt8](UnsafeRawBufferPointer(start: inner, count: min(length, 9000))), from: Endpoint(arrival.from),
        isRelayed: arrival.isRelayed))
  }

  func takesInner(_ row: UnsafeMutablePointer<PeerRow>) -> Bool {
    let due = max(row.pointee.innerDue, now)
    guard due < now &+ Self.second else { return false }
    row.pointee.innerDue = due &+ Self.second / 200
    return true
  }

  @inline(never)
  private func tellMoved(_ index: PeerIndex, _ from: pt_endpoint) { tell(.moved(index, Endpoint(from))) }

  /// Where the newest frame came from: by the path we use, or from elsewhere.
  @inline(__always)
  private mutating func noteArrival(_ index: PeerIndex, _ row: UnsafeMutablePointer<PeerRow>, _ arrival: Arrival) {
    if arrival.isRelayed {
      // What comes through another relay says nothing of the one that we send through.
      if row.pointee.path == .relay, row.pointee.endpoint.port == arrival.from.port,
        Endpoint.sameAddress(row.pointee.endpoint, arrival.from)
      {
        row.pointee.lastOnPath = now
      }
    } else if row.pointee.path == .direct, row.pointee.endpoint.port == arrival.from.port,
      Endpoint.sameAddress(row.pointee.endpoint, arrival.from)
    {
      row.pointee.lastOnPath = now
    } else {
      guard now &- row.pointee.lastMoved > Self.second / 20 else { return }
      row.pointee.lastMoved = now
      tellMoved(index, arrival.from)
    }
  }

  /// A packet of use leaves, as opposed to pings and keepalives. Control watches the path while that goes on.
  @inline(__always)
  func noteUse(_ index: PeerIndex, _ row: UnsafeMutablePointer<PeerRow>) {
    let isResumed = now &- row.pointee.lastSend > Self.second
    // Before control is told: it reads this at once.
    row.pointee.lastSend = now
    guard isResumed else { return }
    if row.pointee.path == .direct, row.pointee.fallback.port != 0, row.pointee.takesRawIPv6 {
      row.pointee.rested.resume(now: now, lastOnPath: row.pointee.lastOnPath)
    }
    tellResumed(index)
  }

  @inline(never)
  private func tellResumed(_ index: PeerIndex) { tell(.resumed(index)) }

  // MARK: - Inner IPv6

  /// Checks source, destination and admission, then hands the packet to the TUN.
  @inline(__always)
  mutating func acceptPacket(
    _ packet: UnsafeMutableRawPointer, length total: Int, row: UnsafeMutablePointer<PeerRow>, index: PeerIndex
  ) {
    guard total >= 40 else { return counters.drop(.innerMalformed) }
    let length = 40 &+ Int(UInt16(bigEndian: packet.loadUnaligned(fromByteOffset: 4, as: UInt16.self)))
    guard length <= total else { return counters.drop(.innerMalformed) }
    // The peer's key opened the frame, so the source must be the peer's address, in whatever network.
    let source = IPv6Address(packet, at: 8)
    guard OverlayMapping.contains(source), source.low == UInt64(row.pointee.node),
      UInt16(truncatingIfNeeded: source.high) != OverlayMapping.localNetwork
    else { return counters.drop(.spoofedSource) }
    guard isLocal(IPv6Address(packet, at: 24)) else { return counters.drop(.wrongDestination) }
    if row.pointee.admission != .all {
      guard admits(packet, length: length, row: row) else {
        counters.drop(.notTrusted)
        return answerPeer(packet, length: length, index: index, row: row)
      }
    }
    let next = packet.load(fromByteOffset: 6, as: UInt8.self)
    if next == 6 {
      joinTCP(packet, length: length)
    } else if next == 17 {
      joinUDP(packet, length: length)
    } else {
      writePacket(packet, length: length)
    }
  }

  /// What a peer without trust may send: answers to our own flows, and errors about what we sent it lately.
  @inline(never)
  private func admits(_ packet: UnsafeMutableRawPointer, length: Int, row: UnsafeMutablePointer<PeerRow>) -> Bool {
    let isError =
      packet.load(fromByteOffset: 6, as: UInt8.self) == 58 && length >= 48
      && packet.load(fromByteOffset: 40, as: UInt8.self) < 128
    if isError {
      // The kernel acts on the quoted packet: it must be one of ours to this very peer.
      guard length >= 88, isLocal(IPv6Address(packet, at: 56)) else { return false }
      let quoted = IPv6Address(packet, at: 72)
      guard OverlayMapping.contains(quoted), quoted.low == UInt64(row.pointee.node) else { return false }
      return row.pointee.lastSend != 0 && now &- row.pointee.lastSend < 60 * Self.second
    }
    return flows.answers(node: row.pointee.node, packet: packet, length: length, now: now)
  }
}
