// What control asks of the worker (EngineInterface.swift). Between batches, never per packet.

internal import LinkIO
internal import Session
internal import Shim
internal import Wire

extension Worker {
  mutating func obeyCommands() {
    for command in commands.takeAll() { obey(command) }
  }

  private mutating func obey(_ command: EngineCommand) {
    switch command {
    case .setLocal(let node, let addresses):
      self.node = node
      localAddressCount = min(addresses.count, localAddresses.count)
      for index in 0..<localAddressCount { localAddresses[index] = addresses[index] }
    case .setRelays(let beacons, let nodes): setRelays(beacons, nodes)
    case .setRelayLimit(let limit): setRelayLimit(limit)
    case .setRelaying(let index, let isRelayedFor): withRow(index) { $0.isRelayedFor = isRelayedFor }
    case .addPeer(let index, let node): addPeer(index, node: node)
    case .removePeer(let index): removePeer(index)
    case .setPath(let index, let path):
      withRow(index) { setPath(path, &$0) }
      flushStage(index)
    case .setAdmission(let index, let admission): withRow(index) { $0.admission = admission }
    case .setRefusal(let index, let refusal): withRow(index) { $0.refusal = refusal }
    case .setRawIPv6(let index, let takes):
      withRow(index) {
        $0.takesRawIPv6 = takes
        $0.isKindKnown = true
      }
      flushStage(index)
    case .setSplitPackets(let index, let takes): withRow(index) { $0.takesSplitPackets = takes }
    case .setPathLimit(let index, let limit): setPathLimit(index, limit)
    case .setFallback(let index, let relay):
      withRow(index) {
        $0.fallback = relay.map { pt_endpoint($0) } ?? pt_endpoint()
        if relay == nil { $0.rested = RestedPath() }
      }
    case .setStreaming(let index, let isStreaming): withRow(index) { $0.hasStreams = isStreaming }
    case .setFlow(let flow): translations.set(flow)
    case .endFlow(let id): translations.end(id)
    case .removeFlow(let id): translations.remove(id)
    case .retry(let bytes): retry(bytes)
    case .refuse(let bytes, let refusal): refuse(bytes, refusal)
    case .tapDatagrams(let taps): tapsDatagrams = taps
    case .install(let index, let id, let context, let prefix, let isCurrent):
      install(index, id: id, context: context, prefix: prefix, isCurrent: isCurrent)
    case .promote(let index, let id): promote(index, id: id)
    case .retire(let index, let id): retire(index, id: id)
    case .sendInner(let index, let bytes, let path): sendInner(index, bytes, path: path)
    case .sendDatagram(let bytes, let endpoint): sendDatagram(bytes, to: endpoint)
    case .receive(let bytes, let from, let relayedFrom): receiveAgain(bytes, from: from, relayedFrom: relayedFrom)
    case .adoptSocket(let index, let fd, let endpoint): adoptSocket(index, fd, to: endpoint)
    case .releaseSocket(let index): releaseSocket(index)
    case .failStaged(let node, let refusal): failStaged(node, refusal)
    case .disableOffload(let name, let reason): disableOffload(name, reason: reason)
    case .stop: isRunning = false
    }
  }

  private func withRow(_ index: PeerIndex, _ change: (inout PeerRow) -> Void) {
    guard Int(index) < store.capacity, store.rows[Int(index)].isInUse else { return }
    change(&store.rows[Int(index)])
  }

  private mutating func addPeer(_ index: PeerIndex, node: UInt32) {
    guard Int(index) < store.capacity else { return }
    // Control hands out rows: one still in use here is one whose removal it could not tell us.
    if store.rows[Int(index)].isInUse { removePeer(index) }
    guard table.insert(node, row: index) else { return }
    let row = store.rows + Int(index)
    pt_wipe(row, MemoryLayout<PeerRow>.stride)
    row.pointee.node = node
    row.pointee.isInUse = true
  }

  private mutating func removePeer(_ index: PeerIndex) {
    guard Int(index) < store.capacity, store.rows[Int(index)].isInUse else { return }
    let row = store.rows[Int(index)]
    // A train under way holds the row's number: it leaves before the row can be someone else's.
    flushTrains()
    for number in [row.current, row.second, row.third] { store.releaseSession(number) }
    extras.release(index)
    table.remove(row.node)
    emptyStage(row.node)
    pt_wipe(store.rows + Int(index), MemoryLayout<PeerRow>.stride)
  }

  private func setPath(_ path: EnginePath, _ row: inout PeerRow) {
    switch path {
    case .none:
      row.path = .none
      row.rested = RestedPath()
    case .direct(let endpoint):
      row.path = .direct
      row.endpoint = pt_endpoint(endpoint)
      row.socket = extras.number(for: row.endpoint)
    case .relay(let beacon):
      row.path = .relay
      row.rested = RestedPath()
      row.endpoint = pt_endpoint(beacon)
      row.socket = 0
    }
    // A new path has not refused anything yet.
    row.innerMTU = 0
    row.isWithoutGSO = false
  }

  private mutating func adoptSocket(_ index: PeerIndex, _ fd: Int32, to endpoint: Endpoint) {
    guard Int(index) < store.capacity, store.rows[Int(index)].isInUse else {
      pt_close(fd)
      return tell(.socketRefused(index, to: endpoint))
    }
    // Trains under way hold numbers of sockets.
    flushTrains()
    guard extras.adopt(fd, for: index, to: pt_endpoint(endpoint)) else {
      return tell(.socketRefused(index, to: endpoint))
    }
    withRow(index) { $0.socket = $0.path == .direct ? extras.number(for: $0.endpoint) : 0 }
  }

  private mutating func releaseSocket(_ index: PeerIndex) {
    flushTrains()
    extras.release(index)
    withRow(index) { $0.socket = $0.path == .direct ? extras.number(for: $0.endpoint) : 0 }
  }

  /// 0 or less: unknown.
  private func setPathLimit(_ index: PeerIndex, _ limit: Int) {
    let bounded = limit <= 0 ? 0 : min(max(limit, SplitFrame.smallestLimit), mtu)
    withRow(index) { $0.innerMTU = UInt64(bounded) }
  }

  private mutating func install(
    _ index: PeerIndex, id: SessionID, context: AEADContext, prefix: UInt32, isCurrent: Bool
  ) {
    guard Int(index) < store.capacity, store.rows[Int(index)].isInUse, let number = store.takeSession() else {
      return context.release()
    }
    let session = store.sessions + Int(number - 1)
    session.pointee.peer = index
    session.pointee.id = id
    session.pointee.context = context.raw
    session.pointee.sendPrefix = prefix
    let row = store.rows + Int(index)
    row.pointee.failures = 0
    if isCurrent {
      store.releaseSession(row.pointee.third)
      row.pointee.third = row.pointee.second
      row.pointee.second = row.pointee.current
      row.pointee.current = number
      flushStage(index)
    } else {
      store.releaseSession(row.pointee.third)
      row.pointee.third = row.pointee.second
      row.pointee.second = number
    }
  }

  mutating func promote(_ index: PeerIndex, id: SessionID) {
    guard Int(index) < store.capacity, store.rows[Int(index)].isInUse else { return }
    let number = store.session(id, of: index)
    let row = store.rows + Int(index)
    guard number != 0, number != row.pointee.current else { return }
    if row.pointee.second == number {
      row.pointee.second = row.pointee.current
    } else {
      row.pointee.third = row.pointee.current
    }
    row.pointee.current = number
    flushStage(index)
  }

  private mutating func retire(_ index: PeerIndex, id: SessionID) {
    guard Int(index) < store.capacity, store.rows[Int(index)].isInUse else { return }
    let number = store.session(id, of: index)
    guard number != 0 else { return }
    let row = store.rows + Int(index)
    if row.pointee.current == number { row.pointee.current = 0 }
    if row.pointee.second == number { row.pointee.second = 0 }
    if row.pointee.third == number { row.pointee.third = 0 }
    store.releaseSession(number)
  }

  // MARK: - Frames of control

  private mutating func sendInner(_ index: PeerIndex, _ bytes: [UInt8], path: EnginePath?) {
    guard Int(index) < store.capacity, store.rows[Int(index)].isInUse, bytes.count <= 60_000 else { return }
    let row = store.rows + Int(index)
    guard row.pointee.current != 0 else { return counters.drop(.sessionMissing) }
    var kind = row.pointee.path
    var to = row.pointee.endpoint
    switch path {
    case .direct(let endpoint):
      kind = .direct
      to = pt_endpoint(endpoint)
    case .relay(let beacon):
      kind = .relay
      to = pt_endpoint(beacon)
    case .some(.none), nil: break
    }
    guard kind != .none else { return counters.drop(.sendError) }
    let session = store.sessions + Int(row.pointee.current - 1)
    if path == nil, bytes.first.map({ $0 >> 4 }) == 1 {
      let isSealed = bytes.withUnsafeBytes { source in
        sealPacket(
          source.baseAddress!, length: source.count, limit: frameLimit(row), index: index, row: row, session: session)
      }
      guard isSealed else { return }
    } else {
      guard
        let inner = beginFrame(
          bytes.count, index: index, node: row.pointee.node, kind: kind, to: to, socket: extras.number(for: to),
          session: session)
      else { return }
      bytes.withUnsafeBytes { source in
        sealFrame(inner, from: source.baseAddress ?? UnsafeRawPointer(inner), length: source.count, session: session)
      }
    }
    row.pointee.sentPackets &+= 1
    row.pointee.sentBytes &+= UInt64(bytes.count)
    // Segments and datagrams are use of the path, as packets of programs are; pings and keepalives are not.
    if bytes.count > 1, bytes[0] >> 4 == 1, bytes[1] <= PilotProtocol.datagram.rawValue { noteUse(index, row) }
  }

  private mutating func sendDatagram(_ bytes: [UInt8], to endpoint: Endpoint) {
    guard !bytes.isEmpty, bytes.count <= 2048 else { return }
    let result = bytes.withUnsafeBytes { source in
      scratch.copyMemory(from: source.baseAddress!, byteCount: source.count)
      var message = pt_send(
        data: scratch, length: UInt32(source.count), segment: 0, reserved: 0, to: pt_endpoint(endpoint))
      return pt_udp_send(descriptor(extras.number(for: message.to)), ports.family, &message, 1)
    }
    if result != 1 { counters.drop(.sendError) }
  }

  private mutating func receiveAgain(_ bytes: [UInt8], from: Endpoint, relayedFrom: UInt32?) {
    guard bytes.count >= 4, bytes.count <= 2048 else { return }
    // A receive buffer: those are free between batches, while `scratch` and `answer` serve what a frame may cause.
    let place = receiveMemory
    bytes.withUnsafeBytes { place.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
    handleFrame(
      place, length: bytes.count,
      arrival: Arrival(from: pt_endpoint(from), relayedFrom: relayedFrom ?? 0, isRelayed: relayedFrom != nil))
    flushCoalescer()
  }

  // MARK: - Staged packets

  /// Sends what waits for the peer, once it has a session and a path and its kind is known.
  private mutating func flushStage(_ index: PeerIndex) {
    guard stage.count > 0, Int(index) < store.capacity, store.rows[Int(index)].isInUse else { return }
    let row = store.rows + Int(index)
    guard row.pointee.current != 0, row.pointee.path != .none, row.pointee.isKindKnown else { return }
    drainStage(row.pointee.node)
  }

  private mutating func retry(_ bytes: [UInt8]) {
    guard bytes.count <= Self.tunBufferSize else { return }
    bytes.withUnsafeBytes {
      tunBuffer.copyMemory(from: $0.baseAddress ?? UnsafeRawPointer(tunBuffer), byteCount: $0.count)
    }
    handleTunPacket(tunBuffer, length: bytes.count)
  }

  private mutating func refuse(_ bytes: [UInt8], _ refusal: Refusal?) {
    let skip = ports.hasVirtioHeader ? VirtioHeader.byteCount : 0
    guard bytes.count > skip, bytes.count <= Self.tunBufferSize else { return }
    bytes.withUnsafeBytes {
      tunBuffer.copyMemory(from: $0.baseAddress ?? UnsafeRawPointer(tunBuffer), byteCount: $0.count)
    }
    if let refusal { return refuse(refusal, tunBuffer + skip, length: bytes.count - skip) }
    resetLocally(tunBuffer + skip, length: bytes.count - skip)
  }

  private mutating func failStaged(_ node: UInt32, _ refusal: Refusal) {
    while true {
      let slot = stage.oldest(of: node)
      guard slot >= 0 else { return }
      let (base, length) = takeStaged(slot)
      let skip = ports.hasVirtioHeader ? VirtioHeader.byteCount : 0
      refuse(refusal, base + skip, length: length - skip)
    }
  }

  private mutating func drainStage(_ node: UInt32) {
    while true {
      let slot = stage.oldest(of: node)
      guard slot >= 0 else { return }
      let (base, length) = takeStaged(slot)
      handleTunPacket(base, length: length)
    }
  }

  private mutating func emptyStage(_ node: UInt32) {
    while true {
      let slot = stage.oldest(of: node)
      guard slot >= 0 else { return }
      counters.drop(.stageExpired)
      stage.release(slot)
    }
  }

  /// Moves a staged packet into the TUN's buffer, so that handling it may stage it again without harm.
  private mutating func takeStaged(_ slot: Int) -> (base: UnsafeMutableRawPointer, length: Int) {
    let (base, length) = stage.bytes(slot)
    tunBuffer.copyMemory(from: base, byteCount: length)
    stage.release(slot)
    return (tunBuffer, length)
  }

  private mutating func disableOffload(_ name: String, reason: String) {
    switch name {
    case "tun-tso": ports.mayCoalesceTCP = false
    case "tun-uso": ports.mayCoalesceUDP = false
    case "udp-gso": ports.hasGSO = false
    case "udp-gro": _ = pt_udp_set_gro(ports.udp, 0)
    default: return
    }
    tell(.offloadDisabled(name, reason: reason))
  }
}
