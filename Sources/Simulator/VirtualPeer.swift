// One peer of a VirtualNode: a session, the real PathMachine, and the packets that programs send and get. What is sent
// where by the path machine's word is in VirtualPeer+Path.

import Session
package import Traversal
import Wire

package final class VirtualPeer {
  package static let stageLimit = 256
  static let mtu = 1400

  package let id: UInt32
  package unowned let node: VirtualNode
  package internal(set) var path = PathMachine()
  /// Which beacon stands behind the path's relay.
  package internal(set) var relays: RelayChoice
  /// Pings through relays that are under way.
  var relayProbes: [UInt32: (relay: RelayChoice.Relay, at: UInt64)] = [:]
  var nextRelayProbe: UInt32 = 0x8000_0000
  package internal(set) var paths: [Path] = []
  /// Largest inner frame that the path takes, as the machine last said it.
  package internal(set) var pathLimit = 0
  /// Each change of path with its time, the first choice included.
  package internal(set) var pathChanges: [(time: UInt64, path: Path)] = []
  /// How often the path machine doubted the session.
  package internal(set) var suspicions: [UInt64] = []

  /// Payload numbers in order of arrival.
  package private(set) var received: [UInt64] = []
  /// Payload numbers handed to the data plane, and the sealed frame that carried each.
  package private(set) var offered: [UInt64] = []
  package private(set) var carriedBy: [UInt64: FrameName] = [:]
  package private(set) var staged: [UInt64] = []
  package private(set) var lastReceive: UInt64 = 0
  package internal(set) var lastSend: UInt64 = 0
  /// The worker's counters: the last packet of a program that left, the last newest frame that came by the path.
  var lastOffered: UInt64 = 0
  var lastOnPath: UInt64 = 0
  /// Which frames go through the relay as well.
  private var rested = RestedPath()
  private var isSessionUp = false
  /// When a program last sent or got something.
  private(set) var lastUse: UInt64 = 0
  /// When data first came, by the network's clock; 0: not yet.
  package private(set) var firstDataAt: UInt64 = 0
  var silences = SilenceWatch()
  private(set) var trace: PeerTrace
  /// Sockets that were opened for the peer in numbers.
  var opening: VirtualOpening?
  /// The next spray of the peer's ports is refused before.
  var sprayedUntil: UInt64 = 0
  /// Attempts to leave the relay, by what became of them.
  package internal(set) var outcomes: [PunchOutcome: Int] = [:]
  /// Punches from sockets of their own, and to ports of the peer's NAT.
  package internal(set) var punches = 0

  var session: (any VirtualSession)?
  var record: VirtualDirectory.Record?
  var isResolving = false
  var lastResolveAt: UInt64 = 0
  private var lastWantedAt: UInt64 = 0
  private var scheduledTick: UInt64 = .max

  init(id: UInt32, node: VirtualNode) {
    self.id = id
    self.node = node
    relays = RelayChoice(leads: node.id < id)
    trace = PeerTrace(limit: node.habits.traceLimit)
  }

  /// The node's program begins anew, with nothing.
  func reset() {
    if let sealed = session as? SealedSession {
      sealed.restart()
    } else {
      session?.end()
      session = node.makeSession(for: self)
    }
    path = PathMachine(seed: UInt64(node.id) << 32 | UInt64(id))
    closeOpening()
    relays = RelayChoice(leads: node.id < id)
    relayProbes = [:]
    isSessionUp = false
    lastOffered = 0
    lastOnPath = 0
    rested = RestedPath()
    staged = []
    record = nil
    isResolving = false
    lastResolveAt = 0
    lastReceive = 0
    lastSend = 0
    lastUse = 0
    lastWantedAt = 0
    scheduledTick = .max
  }

  // MARK: Packets of programs

  /// A program sends one packet to the peer. Returns its number. `padding`: more bytes in it.
  @discardableResult
  package func sendPacket(padding: Int = 0) -> UInt64 {
    let number = UInt64(offered.count) + 1
    offered.append(number)
    lastUse = node.now
    resolveIfNeeded()
    if isReady { seal(number, padding) } else { stage(number) }
    return number
  }

  private var isReady: Bool { session?.isReady == true && path.path != .none && node.isRunning }

  private func stage(_ number: UInt64) {
    if staged.count < Self.stageLimit { staged.append(number) }
    want()
  }

  var isUsed: Bool { lastUse != 0 && node.now < lastUse + VirtualNode.useLasts }

  func want() {
    guard lastWantedAt == 0 || node.now >= lastWantedAt + 1_000_000_000 else { return }
    lastWantedAt = node.now
    session?.needed()
    arm()
  }

  func sessionReady() {
    arm()
    flush()
  }

  func flush() {
    guard isReady, !staged.isEmpty else { return }
    let packets = staged
    staged = []
    for number in packets { seal(number, 0) }
  }

  private func seal(_ number: UInt64, _ padding: Int) {
    var inner: [UInt8] = [0x60]
    inner.appendBig(number)
    // Programs hear Packet Too Big and send smaller packets.
    let room = (pathLimit == 0 ? VirtualPeer.mtu : pathLimit) - inner.count
    guard let payload = session?.seal(inner, padding: min(padding, room)) else { return }
    if case .frame(let bytes) = payload { carriedBy[number] = FrameName(bytes) }
    let hasRested = node.now > lastOffered + 1_000_000_000
    lastSend = node.now
    lastOffered = node.now
    if hasRested { rested.resume(now: node.now, lastOnPath: lastOnPath) }
    transmitOnPath(payload)
    if case .direct = path.path, rested.left > 0, rested.takesFrame(now: node.now, lastOnPath: lastOnPath) {
      sendRelayed(payload)
    }
    if hasRested { walk(.tick) }
  }

  /// A frame of the node itself: along the path, or another way.
  func sendControl(_ inner: [UInt8], padding: Int = 0, by way: Path? = nil, via: Endpoint? = nil) {
    guard let payload = session?.seal(inner, padding: max(0, padding)) else { return }
    lastSend = node.now
    switch way {
    case .direct(let endpoint): sendDirect(payload, to: endpoint)
    case .relay: sendRelayed(payload, via: via)
    case .some(.none), nil: transmitOnPath(payload)
    }
  }

  func noteReceive() { lastReceive = node.now }

  /// A frame of the peer was opened.
  func opened(_ inner: [UInt8], _ arrival: Arrival, isNewest: Bool) {
    noteReceive()
    if case .direct(let from) = arrival { node.contacts.prove(from) }
    note(.opened(InnerKind(inner), isRelayed: arrival == .relayed), arrival.endpoint)
    follow(inner, arrival, isNewest: isNewest)
    guard inner.first == 0x60, inner.count >= 9 else { return }
    lastUse = node.now
    if firstDataAt == 0 { firstDataAt = node.network.now }
    silences.end(at: node.network.now)
    received.append(inner[1..<9].reduce(0) { $0 << 8 | UInt64($1) })
  }

  // MARK: Time

  /// Once in a while: what the engine's counters tell the control plane of a peer that programs use.
  func survey() {
    let now = node.now
    if isUsed {
      if session?.isReady == true {
        if let keepalive = node.habits.keepalive, now >= lastSend + keepalive { sendProbeOnPath() }
        walk(.tick)
      }
      if now > max(lastReceive, lastResolveAt) + 15_000_000_000 { resolve() }
    }
    if !staged.isEmpty { want() }
  }

  func arm() {
    let isUp = session?.isReady == true
    if isUp != isSessionUp {
      isSessionUp = isUp
      walk(.session(isUp: isUp))
      if isUp {
        tellTranslation()
        tellCandidates()
        if node.beacons.count > 1 { choose(.ways(node.beacons.map { .beacon($0) })) }
      }
    }
    var next = path.nextDeadline(node.now) ?? .max
    if let other = session?.nextDeadline { next = min(next, other) }
    if let other = relays.nextDeadline(isUsed: isRelayUsed, now: node.now) { next = min(next, other) }
    guard next < scheduledTick else { return }
    scheduledTick = next
    node.schedule(at: next) { [weak self] in
      guard let self, scheduledTick == next else { return }
      scheduledTick = .max
      choose(.tick)
      walk(.tick)
      session?.tick()
      arm()
    }
  }

  // MARK: Reports

  func note(_ what: PeerTrace.What, _ endpoint: Endpoint?) { trace.append(what, endpoint, at: node.network.now) }
}

extension Arrival {
  var endpoint: Endpoint? {
    if case .direct(let endpoint) = self { return endpoint }
    return nil
  }
}
