// One node of a simulated pair: the real HandshakeMachine and PathMachine around a tiny data plane that seals and opens
// with the real AEAD. What control and the engine do with actions and events, in a hundred lines.

import SeededRandom
package import Session
package import Traversal
package import Wire

package final class VirtualNode {
  private struct Tunnel {
    var context: AEADContext
    var sendPrefix: UInt32
    var sendCounter: UInt64 = 0
    /// Windows per nonce prefix of the peer.
    var windows: [UInt32: ReplayWindow] = [:]
    var isConfirmed = false
  }

  package let id: UInt32
  package let peer: UInt32
  package let identity: Identity
  package var endpoint: Endpoint
  package private(set) var handshake: HandshakeMachine
  package private(set) var path = PathMachine()

  /// What the directory answers; nil: it does not.
  package var directoryKey: Bytes32?
  package var directoryEndpoint: Endpoint?
  /// False: an official daemon's manner, no announcement.
  package let configuration: HandshakeMachine.Configuration

  /// Payload numbers in order of arrival.
  package private(set) var received: [UInt64] = []
  /// Payload numbers handed to the data plane, and the sealed frame that carried each.
  package private(set) var offered: [UInt64] = []
  package private(set) var carriedBy: [UInt64: FrameName] = [:]
  package private(set) var counts: [HandshakeCount: Int] = [:]
  package private(set) var alarms: [KeyAlarm] = []
  package private(set) var installations = 0
  package private(set) var promotions = 0
  package private(set) var retirements = 0
  package private(set) var giveUps = 0
  package private(set) var opened = 0
  package private(set) var undecryptable = 0
  package private(set) var paths: [Path] = []
  package private(set) var isRunning = true
  package static let stageLimit = 256

  /// Where sealed frames go when the path is direct.
  package var directEndpoint: Endpoint? {
    if case .direct(let endpoint) = path.path { return endpoint }
    return nil
  }

  private let network: VirtualNetwork
  private var generator: SeededGenerator
  private var tunnels: [HandshakeMachine.SessionID: Tunnel] = [:]
  private var sealing: HandshakeMachine.SessionID?
  package private(set) var staged: [UInt64] = []
  private var nextNumber: UInt64 = 1
  private var lastUse: UInt64 = 0
  private var lastOnPath: UInt64 = 0
  package private(set) var lastReceive: UInt64 = 0
  private var lastWantedAt: UInt64 = 0
  private var generation = 0
  private var scheduledTick: UInt64 = .max

  package init(
    id: UInt32, peer: UInt32, network: VirtualNetwork, identity: Identity,
    configuration: HandshakeMachine.Configuration = .init()
  ) {
    self.id = id
    self.peer = peer
    self.network = network
    self.identity = identity
    self.configuration = configuration
    endpoint = Endpoint(address: IPv6Address(mappedIPv4: 0x0A00_0000 | id), port: 4000)
    generator = SeededGenerator(seed: network.seed &* 31 &+ UInt64(id))
    handshake = HandshakeMachine(identity: identity, node: id, peer: peer, configuration: configuration)
    network.attach(self)
  }

  deinit { for tunnel in tunnels.values { tunnel.context.release() } }

  /// Begins with what the directory says. Call it when keys and endpoints are set.
  package func start() {
    walk(.beacon(isAvailable: network.isRelayUp))
    walk(.record(directoryEndpoint.map { [.init($0, .directory)] } ?? [], isRelayOnly: false))
    housekeep(generation)
  }

  /// The process ends and begins anew: same identity, nothing else survives.
  package func restart(after delay: UInt64 = 0) {
    for tunnel in tunnels.values { tunnel.context.release() }
    tunnels = [:]
    sealing = nil
    staged = []
    isRunning = false
    generation += 1
    scheduledTick = .max
    network.log("\(id) stops")
    network.schedule(after: delay) { [self] in
      network.log("\(id) starts")
      isRunning = true
      handshake = HandshakeMachine(identity: identity, node: id, peer: peer, configuration: configuration)
      path = PathMachine()
      lastReceive = 0
      lastUse = 0
      lastOnPath = 0
      lastWantedAt = 0
      start()
    }
  }

  private func housekeep(_ mine: Int) {
    guard mine == generation else { return }
    walk(.tick)
    if !staged.isEmpty { want() }
    network.schedule(after: 1_000_000_000) { [weak self] in self?.housekeep(mine) }
  }

  // MARK: Events in

  package func handle(_ event: HandshakeMachine.Event) {
    apply(handshake.handle(event, now: network.now, lastReceive: lastReceive, using: &generator))
    walk(.session(isUp: sealing != nil))
  }

  package func receive(_ bytes: [UInt8], from arrival: Arrival) {
    guard isRunning else { return }
    switch FrameKind(bytes) {
    case .pila: if let frame = KeyExchangeFrame(bytes) { handle(.keyExchange(frame, arrival)) }
    case .pilk: if let frame = KeyRequestFrame(bytes) { handle(.keyRequest(frame, arrival)) }
    case .pils: open(bytes, arrival)
    default: break
    }
  }

  private func arm() {
    let deadlines = [handshake.nextDeadline, path.nextDeadline(network.now)].compactMap { $0 }
    guard let next = deadlines.min(), next < scheduledTick else { return }
    scheduledTick = next
    let mine = generation
    network.schedule(at: next) { [weak self] in
      guard let self, mine == generation else { return }
      scheduledTick = .max
      walk(.tick)
      handle(.tick)
    }
  }

  // MARK: Actions out

  private func apply(_ actions: [HandshakeMachine.Action]) {
    for action in actions {
      switch action {
      case .send(let bytes, let route): send(bytes, route)
      case .attempted(let number): walk(.handshakeTry(number))
      case .heard(.direct(let from)): walk(.handshakeHeard(from))
      case .heard(.relayed): walk(.handshakeHeard(nil))
      case .requestPeerKey:
        let key = directoryKey
        network.schedule(after: 2_000_000) { [weak self] in
          self?.handle(key.map { .peerKey($0) } ?? .peerKeyUnavailable)
        }
      case .install(let session, let context, let prefix):
        installations += 1
        tunnels[session] = Tunnel(context: context, sendPrefix: prefix)
      case .promote(let session, _):
        network.log("\(id) promotes \(session)")
        promotions += 1
        sealing = session
        flush()
      case .retire(let session):
        retirements += 1
        if sealing == session { sealing = nil }
        tunnels.removeValue(forKey: session)?.context.release()
      case .confirm: sealAndSend([0, 0])
      case .replayEarly(let frames): for frame in frames { open(frame.bytes, frame.arrival) }
      case .punch: break
      case .giveUp: giveUps += 1
      case .count(let reason): counts[reason, default: 0] += 1
      case .alarm(let alarm): alarms.append(alarm)
      }
    }
  }

  private func walk(_ event: PathMachine.Event) {
    let activity = PathActivity(sentAt: lastUse, receivedAt: lastReceive, onPathAt: lastOnPath)
    for action in path.handle(event, activity: activity, now: network.now) {
      switch action {
      case .setPath(let path):
        network.log("\(id) path \(path)")
        paths.append(path)
        flush()
      case .probe(let id, let way, let size):
        var inner: [UInt8] = [0, 1]
        inner.appendBig(id)
        inner += [UInt8](repeating: 0, count: max(0, size - inner.count))
        sealAndSend(inner, by: way)
      case .setPathLimit: break
      case .callPeer: sealAndSend([0, 3])
      case .suspectSession: handle(.failing)
      }
    }
    arm()
  }

  private func send(_ bytes: [UInt8], _ route: HandshakeMachine.Route) {
    var direct = directoryEndpoint
    if case .direct(let endpoint) = path.path { direct = endpoint }
    switch route {
    case .reply(.direct(let endpoint)): network.send(bytes, from: self, to: endpoint)
    case .reply(.relayed), .relay: network.relay(bytes, from: self, to: peer)
    case .path where path.path == .relay: network.relay(bytes, from: self, to: peer)
    case .path where path.path != .none: if let direct { network.send(bytes, from: self, to: direct) }
    case .path, .both:
      if let direct { network.send(bytes, from: self, to: direct) }
      network.relay(bytes, from: self, to: peer)
    }
  }

  // MARK: Data plane

  /// A program sends one packet to the peer. Returns its number.
  @discardableResult
  package func sendPacket() -> UInt64 {
    let number = nextNumber
    nextNumber += 1
    offered.append(number)
    if isReady { seal(number) } else { stage(number) }
    return number
  }

  private var isReady: Bool { sealing != nil && path.path != .none && isRunning }

  private func stage(_ number: UInt64) {
    if staged.count < Self.stageLimit { staged.append(number) }
    want()
  }

  private func want() {
    guard lastWantedAt == 0 || network.now >= lastWantedAt + 1_000_000_000 else { return }
    lastWantedAt = network.now
    handle(.needed)
  }

  private func flush() {
    guard isReady else { return }
    let packets = staged
    staged = []
    for number in packets { seal(number) }
  }

  private func seal(_ number: UInt64) {
    var inner: [UInt8] = [0x60]
    inner.appendBig(number)
    let hasRested = network.now > lastUse + 1_000_000_000
    lastUse = network.now
    if let name = sealAndSend(inner) { carriedBy[number] = name }
    if hasRested { walk(.tick) }
  }

  @discardableResult
  private func sealAndSend(_ inner: [UInt8], by way: Path? = nil) -> FrameName? {
    guard let sealing, var tunnel = tunnels[sealing] else { return nil }
    tunnel.sendCounter += 1
    tunnels[sealing] = tunnel
    var frame = [UInt8](repeating: 0, count: SealedFrame.headerSize) + inner
    frame += [UInt8](repeating: 0, count: SealedFrame.tagSize)
    frame.withUnsafeMutableBytes { bytes in
      guard let base = bytes.baseAddress else { return }
      SealedFrame.writeHeader(to: base, sender: id, prefix: tunnel.sendPrefix, counter: tunnel.sendCounter)
      _ = AEADContext.seal(
        tunnel.context.raw, nonce: base + SealedFrame.nonceOffset, associated: base + SealedFrame.senderOffset,
        associatedLength: 4, text: base + SealedFrame.bodyOffset, length: inner.count)
    }
    switch way ?? path.path {
    case .none: return nil
    case .direct(let endpoint): network.send(frame, from: self, to: endpoint)
    case .relay: network.relay(frame, from: self, to: peer)
    }
    return FrameName(frame)
  }

  private func open(_ frame: [UInt8], _ arrival: Arrival) {
    guard let name = FrameName(frame), name.sender == peer, frame.count >= SealedFrame.overhead else { return }
    for session in tunnels.keys.sorted() {
      guard var tunnel = tunnels[session], let inner = Self.opened(frame, tunnel.context) else { continue }
      var window = tunnel.windows[name.prefix] ?? ReplayWindow()
      guard window.accepts(name.counter) else { return }
      let isNewest = name.counter > window.highest
      window.record(name.counter)
      tunnel.windows[name.prefix] = window
      let isFirst = !tunnel.isConfirmed
      tunnel.isConfirmed = true
      tunnels[session] = tunnel
      opened += 1
      lastReceive = network.now
      if isFirst { handle(.confirmed(session)) }
      arrived(inner, arrival, isNewest: isNewest)
      return
    }
    undecryptable += 1
    handle(.undecryptable(frame, arrival))
  }

  private func arrived(_ inner: [UInt8], _ arrival: Arrival, isNewest: Bool) {
    let way: Path
    switch arrival {
    case .direct(let from):
      way = .direct(from)
      if isNewest, path.path != way { walk(.moved(from)) }
    case .relayed: way = .relay
    }
    if isNewest, path.path == way { lastOnPath = network.now }
    if inner.starts(with: [0, 1]), inner.count >= 6 { sealAndSend([0, 2] + inner.dropFirst(2), by: way) }
    if inner.starts(with: [0, 2]), inner.count >= 6 {
      walk(.probeAnswered(inner[2..<6].reduce(0) { $0 << 8 | UInt32($1) }))
    }
    if inner == [0, 3] { walk(.told([])) }
    if inner.first == 0x60, inner.count == 9 {
      received.append(inner.dropFirst().reduce(0) { $0 << 8 | UInt64($1) })
    }
  }

  private static func opened(_ frame: [UInt8], _ context: AEADContext) -> [UInt8]? {
    var copy = frame
    let length = SealedFrame.innerCount(ofFrame: frame.count)
    let isAuthentic = copy.withUnsafeMutableBytes { bytes in
      guard let base = bytes.baseAddress else { return false }
      return AEADContext.open(
        context.raw, nonce: base + SealedFrame.nonceOffset, associated: base + SealedFrame.senderOffset,
        associatedLength: 4, text: base + SealedFrame.bodyOffset, length: length)
    }
    return isAuthentic ? Array(copy[SealedFrame.bodyOffset..<(SealedFrame.bodyOffset + length)]) : nil
  }
}
