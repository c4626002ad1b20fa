// One node of a simulated network: a socket on a host, its peers, and what control does for all of them: discovers,
// surveys, answers to punches. For a node with one peer (VirtualPair) the peer's members are the node's.

import SeededRandom
package import Session
package import Traversal
package import Wire

@dynamicMemberLookup
package final class VirtualNode: VirtualSocket {
  /// What a node does without being asked.
  package struct Habits: Sendable {
    /// As where the NAT was found to keep mappings for a while (NATSurvey).
    package var discoverInterval: UInt64 = 60_000_000_000
    package var surveyInterval: UInt64 = 5_000_000_000
    /// A probe on a path that is in use and was quiet for this long; nil: none.
    package var keepalive: UInt64? = 25_000_000_000
    /// Sessions are PlainSession: no cryptography, for large meshes.
    package var isPlain = false
    /// Lines of each peer's trace.
    package var traceLimit = 64
    /// Whether ports are opened in numbers where a punch cannot connect.
    package var opensPorts = true
    package init() {}
  }

  /// A peer that no program used for this long gets no keepalive.
  static let useLasts: UInt64 = 120_000_000_000

  package let id: UInt32
  package let network: VirtualNetwork
  package let host: VirtualHost
  package let identity: Identity
  package let habits: Habits
  /// `announces` false: an official daemon's manner.
  package let configuration: HandshakeMachine.Configuration
  /// In the order they were added, so that a seed gives the same run.
  package private(set) var peers: [VirtualPeer] = []
  private var peersByID: [UInt32: VirtualPeer] = [:]
  package private(set) var isRunning = false
  package internal(set) var contacts = Contacts()
  /// What the node's survey of its NAT found; meshes set it from the NATs there are.
  package var translation = PortTranslation.unknown
  var nextSocketPort: UInt16 = 30_000

  /// What the directory answers instead of the network's directory; tests of pairs set them.
  package var directoryKey: Bytes32?
  package var directoryEndpoint: Endpoint?
  package var beacon: Endpoint? {
    get { beacons.first }
    set { beacons = newValue.map { [$0] } ?? [] }
  }
  /// All that the node keeps itself known to; which of them carries a peer's frames is its RelayChoice's.
  package var beacons: [Endpoint] = []
  /// The beacon that the frame at hand came by.
  var cameBy: Endpoint?
  /// What the beacon last said of our socket.
  package internal(set) var observed: Endpoint?
  /// Which beacons are asked when (VirtualNode+Beacons).
  var beaconChoice = BeaconChoice()
  var beaconTick: UInt64 = .max
  private(set) var networkChangedAt: UInt64 = 0

  var generator: SeededGenerator
  private var generation: UInt32 = 0
  private var slept: UInt64 = 0
  private var wakesAt: UInt64 = 0

  package init(
    id: UInt32, network: VirtualNetwork, host: VirtualHost, identity: Identity, habits: Habits = Habits(),
    configuration: HandshakeMachine.Configuration = .init()
  ) {
    self.id = id
    self.network = network
    self.host = host
    self.identity = identity
    self.habits = habits
    self.configuration = configuration
    beacons = network.beacons.first.map { [$0.endpoint] } ?? []
    generator = SeededGenerator(seed: network.seed &* 31 &+ UInt64(id))
    host.socket = self
    network.attach(self)
  }

  // MARK: Peers

  package func peer(_ id: UInt32) -> VirtualPeer? { peersByID[id] }

  @discardableResult
  package func addPeer(_ id: UInt32) -> VirtualPeer {
    if let known = peersByID[id] { return known }
    let peer = VirtualPeer(id: id, node: self)
    peer.session = makeSession(for: peer)
    peers.append(peer)
    peersByID[id] = peer
    return peer
  }

  func makeSession(for peer: VirtualPeer) -> any VirtualSession {
    guard !habits.isPlain else { return PlainSession(peer: peer, epoch: generation + 1) }
    return SealedSession(peer: peer, identity: identity, configuration: configuration)
  }

  /// The only peer.
  package var only: VirtualPeer {
    guard let first = peers.first else { fatalError("node \(id) has no peer") }
    return first
  }

  package var sealed: SealedSession {
    guard let session = only.session as? SealedSession else { fatalError("node \(id) does without cryptography") }
    return session
  }

  package subscript<Value>(dynamicMember member: KeyPath<VirtualPeer, Value>) -> Value { only[keyPath: member] }
  package subscript<Value>(dynamicMember member: KeyPath<SealedSession, Value>) -> Value { sealed[keyPath: member] }
  package func handle(_ event: HandshakeMachine.Event) { sealed.handle(event) }
  @discardableResult
  package func sendPacket() -> UInt64 { only.sendPacket() }

  /// Where sealed frames go when the path is direct.
  package var directEndpoint: Endpoint? {
    guard case .direct(let endpoint) = only.path.path else { return nil }
    return endpoint
  }

  /// The endpoint of the host, which tests of pairs move about in the core.
  package var endpoint: Endpoint {
    get { host.endpoints[0] }
    set { host.move(to: network.core, as: newValue.address, port: newValue.port) }
  }

  var directoryRecord: VirtualDirectory.Record? {
    directoryEndpoint.map { VirtualDirectory.Record(endpoints: [$0], key: directoryKey) }
  }

  // MARK: Life

  /// Begins: tells the beacon, and looks at its peers from now on.
  package func start() {
    isRunning = true
    generation += 1
    let mine = generation
    beaconChoice = BeaconChoice()
    beaconChoice.interval = habits.discoverInterval
    beaconTick = .max
    steer(.listed(beacons))
    repeating(every: habits.surveyInterval, mine) { $0.survey() }
    if directoryEndpoint != nil { for peer in peers { peer.resolve() } }
  }

  private func repeating(every interval: UInt64, _ mine: UInt32, _ run: @escaping (VirtualNode) -> Void) {
    schedule(after: interval) { [weak self] in
      guard let self, mine == generation else { return }
      run(self)
      repeating(every: interval, mine, run)
    }
  }

  /// The process ends and begins anew: same identity, nothing else survives.
  package func restart(after delay: UInt64 = 0) {
    isRunning = false
    generation += 1
    observed = nil
    for peer in peers { peer.session?.end() }
    network.log("\(id) stops")
    network.schedule(after: delay) { [weak self] in
      guard let self else { return }
      network.log("\(id) starts")
      for peer in peers { peer.reset() }
      start()
    }
  }

  private func survey() { for peer in peers { peer.survey() } }

  /// What netlink tells: our addresses are others now.
  package func networkChanged() {
    network.log("\(id) notices a change of its network")
    networkChangedAt = now
    steer(.networkChanged)
    for peer in peers { peer.networkChanged() }
  }

  // MARK: The node's clock

  /// Monotonic: it stands still while the node sleeps. Timers follow it.
  package var now: UInt64 { network.now - slept }

  func schedule(at time: UInt64, _ run: @escaping () -> Void) {
    network.schedule(at: time + slept) { [weak self] in
      guard let self else { return }
      if network.now < wakesAt {
        // The clock stood still: as much of the wait is left as there was when it fell asleep.
        network.schedule(at: wakesAt) { [weak self] in self?.schedule(at: time, run) }
      } else if now < time {
        schedule(at: time, run)
      } else {
        run()
      }
    }
  }

  func schedule(after delay: UInt64, _ run: @escaping () -> Void) { schedule(at: now + delay, run) }

  func random(below limit: UInt64) -> UInt64 { limit == 0 ? 0 : generator.next() % limit }

  /// The machine sleeps: it hears nothing, its monotonic clock stands, and on waking the boot clock is ahead.
  package func sleep(for duration: UInt64) {
    let began = network.now
    wakesAt = began + duration
    network.schedule(at: wakesAt) { [weak self] in
      guard let self else { return }
      slept += duration
      jumpBootClock(by: duration)
    }
  }

  /// The boot clock jumps against the monotonic one: control looks half a second later, and takes it for a sleep.
  package func jumpBootClock(by step: UInt64) {
    guard step > 1_000_000_000, isRunning else { return }
    let mine = generation
    schedule(after: 500_000_000) { [weak self] in
      if let self, mine == generation { networkChanged() }
    }
  }

  package var isAsleep: Bool { network.now < wakesAt }
}
