// A clock that jumps from event to event, and a network that delays, loses, doubles and reorders datagrams. Hosts are
// on it directly or behind routers (VirtualTopology), with a beacon and a directory. VirtualPair and VirtualMesh put
// nodes on it.

package import SeededRandom
package import Wire

/// What the public core does to datagrams. Probabilities from 0 to 1, times in nanoseconds.
package struct NetworkConditions: Sendable {
  package var latency: ClosedRange<UInt64> = 5_000_000...5_000_000
  package var loss = 0.0
  package var duplication = 0.0
  /// With this probability a datagram takes up to `reorderDelay` longer.
  package var reordering = 0.0
  package var reorderDelay: UInt64 = 50_000_000
  package init() {}
}

package final class VirtualNetwork {
  /// Starts late enough that 0 can mean "never".
  package static let start: UInt64 = 1_000_000_000_000
  package private(set) var now = start
  package var elapsed: UInt64 { now - Self.start }
  package var conditions = NetworkConditions()
  package var generator: SeededGenerator
  package let seed: UInt64
  /// Ordered pairs of node ids whose direct datagrams vanish.
  package var blackholes: Set<[UInt32]> = []
  /// Every key exchange that any node sent, for replays by tests.
  package private(set) var recordedExchanges: [(from: UInt32, bytes: [UInt8])] = []
  /// Sealed frames of which at least one copy was handed to a node.
  package internal(set) var arrivedFrames: Set<FrameName> = []
  /// Frames for peers that nodes sent: no beacon messages, no punches.
  package internal(set) var sentDatagrams = 0
  /// What was sent when, newest last, bounded: printed by failing tests. Large meshes do without.
  package private(set) var flow: [String] = []
  package var keepsFlow = true

  package let core = VirtualSegment(name: "core")
  package private(set) var beacons: [VirtualBeacon] = []
  package let directory = VirtualDirectory()
  private var segments: [VirtualSegment] = []
  private let queue = EventQueue()
  private(set) var nodes: [UInt32: VirtualNode] = [:]

  package init(seed: UInt64) {
    self.seed = seed
    generator = SeededGenerator(seed: seed)
    addBeacon()
  }

  package func attach(_ node: VirtualNode) { nodes[node.id] = node }

  /// Forgets nodes and events, which refer back to the network: without it neither would ever end.
  package func shutDown() {
    nodes = [:]
    queue.removeAll()
    for segment in segments + [core] {
      segment.owners = [:]
      segment.router = nil
    }
    segments = []
    beacons = []
  }

  // MARK: Places

  /// One more beacon, at public addresses of its own. There is one from the start.
  @discardableResult
  package func addBeacon() -> VirtualBeacon {
    let beacon = VirtualBeacon(network: self, number: beacons.count)
    beacons.append(beacon)
    return beacon
  }

  package var isRelayUp: Bool {
    get { beacons.contains { $0.isUp } }
    set { for beacon in beacons { beacon.isUp = newValue } }
  }

  /// A network behind a router: `external` is the router's address in `outer`.
  package func addSegment(
    _ name: String, behind behaviour: VirtualNAT.Behaviour, external: IPv6Address, of outer: VirtualSegment? = nil,
    firewall: VirtualNAT.Behaviour? = nil
  ) -> VirtualSegment {
    let outer = outer ?? core
    let inner = VirtualSegment(name: name)
    let firstPort = UInt16.random(in: 10_000...60_000, using: &generator)
    let nat = VirtualNAT(external: external, behaviour: behaviour, firstPort: firstPort)
    let router = VirtualRouter(nat: nat, inner: inner, outer: outer)
    router.firewall = firewall.map { VirtualNAT(external: external, behaviour: $0) }
    inner.router = router
    outer.owners[external] = .router(router)
    segments.append(inner)
    return inner
  }

  // MARK: Clock

  package func schedule(at time: UInt64, _ run: @escaping () -> Void) { queue.insert(at: max(time, now), run) }

  package func schedule(after delay: UInt64, _ run: @escaping () -> Void) { schedule(at: now + delay, run) }

  /// Runs events up to `duration` from now; the clock then stands there.
  package func run(for duration: UInt64) {
    let end = now + duration
    while let next = queue.next, next <= end, let event = queue.removeFirst() {
      now = event.time
      event.run()
    }
    now = end
  }

  // MARK: Reports

  /// A datagram of an attacker, from an endpoint of his own.
  package func inject(_ bytes: [UInt8], to target: UInt32, from endpoint: Endpoint) {
    guard let target = nodes[target] else { return }
    log("attacker -> \(target.id) \(VirtualPayload.frame(bytes).name)")
    schedule(after: conditions.latency.lowerBound) { target.receive(.frame(bytes), from: endpoint) }
  }

  func record(_ payload: VirtualPayload, from node: UInt32) {
    switch payload {
    case .frame(let bytes):
      if FrameKind(bytes) == .pila, recordedExchanges.count < 4096 { recordedExchanges.append((node, bytes)) }
      sentDatagrams += 1
    case .plain: sentDatagrams += 1
    case .relay(_, _, let inner): record(inner, from: node)
    case .punch, .beacon, .relayed: break
    }
  }

  /// A datagram ended on its way.
  func end(_ datagram: VirtualDatagram, _ fate: VirtualFate) {
    log("   \(fate.rawValue): \(datagram.payload.name) of \(datagram.from) to \(datagram.destination)")
    nodes[datagram.from]?.peer(datagram.to)?.note(.ended(fate), datagram.destination)
  }

  package func log(_ line: @autoclosure () -> String) {
    guard keepsFlow else { return }
    if flow.count >= 400 { flow.removeFirst(200) }
    flow.append("\(elapsed / 1000) us  \(line())")
  }

  /// Seed and flow, for the comment of a failing expectation.
  package var report: String { "seed \(seed)\n" + flow.joined(separator: "\n") }
}
