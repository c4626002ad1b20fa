// A clock that jumps from event to event, and a network that delays, loses, doubles and reorders datagrams, with a
// relay in it. Tests build pairs of VirtualNode on it.

package import SeededRandom
import Session
package import Wire

/// What the network does to datagrams. Probabilities from 0 to 1, times in nanoseconds.
package struct NetworkConditions: Sendable {
  package var latency: ClosedRange<UInt64> = 5_000_000...5_000_000
  package var loss = 0.0
  package var duplication = 0.0
  /// With this probability a datagram takes up to `reorderDelay` longer.
  package var reordering = 0.0
  package var reorderDelay: UInt64 = 50_000_000
  package init() {}
}

/// Names one sealed frame: who sent it under which nonce.
package struct FrameName: Hashable, Sendable {
  package var sender: UInt32
  package var prefix: UInt32
  package var counter: UInt64

  package init?(_ bytes: [UInt8]) {
    var reader = ByteReader(bytes)
    guard reader.u32() == SealedFrame.magic, let sender = reader.u32(), let prefix = reader.u32(),
      let counter = reader.u64()
    else { return nil }
    self.sender = sender
    self.prefix = prefix
    self.counter = counter
  }
}

package final class VirtualNetwork {
  private struct Item {
    var time: UInt64
    var order: UInt64
    var run: () -> Void
  }

  /// Starts late enough that 0 can mean "never".
  package private(set) var now: UInt64 = 1_000_000_000_000
  package var conditions = NetworkConditions()
  package var generator: SeededGenerator
  package let seed: UInt64
  /// Ordered pairs of node ids whose direct datagrams vanish.
  package var blackholes: Set<[UInt32]> = []
  package var isRelayUp = true
  /// Every datagram that any node sent, for replays by tests: PILA frames only.
  package private(set) var recordedExchanges: [(from: UInt32, bytes: [UInt8])] = []
  /// Sealed frames of which at least one copy was handed to a node, and those that were sent.
  package private(set) var arrivedFrames: Set<FrameName> = []
  package private(set) var sentDatagrams = 0
  /// What was sent when, newest last, bounded: printed by failing tests.
  package private(set) var flow: [String] = []

  private var queue: [Item] = []
  private var order: UInt64 = 0
  private var nodes: [UInt32: VirtualNode] = [:]

  package init(seed: UInt64) {
    self.seed = seed
    generator = SeededGenerator(seed: seed)
  }

  package func attach(_ node: VirtualNode) { nodes[node.id] = node }

  /// Forgets nodes and events, which refer back to the network: without it neither would ever end.
  package func shutDown() {
    nodes = [:]
    queue = []
  }

  // MARK: Clock

  package func schedule(at time: UInt64, _ run: @escaping () -> Void) {
    order += 1
    let item = Item(time: max(time, now), order: order, run: run)
    // Sorted, latest first: the next event is the last element.
    var low = 0
    var high = queue.count
    while low < high {
      let middle = (low + high) / 2
      if (queue[middle].time, queue[middle].order) > (item.time, item.order) { low = middle + 1 } else { high = middle }
    }
    queue.insert(item, at: low)
  }

  package func schedule(after delay: UInt64, _ run: @escaping () -> Void) { schedule(at: now + delay, run) }

  /// Runs events up to `duration` from now; the clock then stands there.
  package func run(for duration: UInt64) {
    let end = now + duration
    while let next = queue.last, next.time <= end {
      queue.removeLast()
      now = next.time
      next.run()
    }
    now = end
  }

  // MARK: Datagrams

  /// A datagram from a node's socket to an endpoint.
  package func send(_ bytes: [UInt8], from node: VirtualNode, to endpoint: Endpoint) {
    record(bytes, from: node.id, "-> \(endpoint)")
    guard let target = nodes.values.first(where: { $0.endpoint == endpoint }),
      !blackholes.contains([node.id, target.id])
    else { return }
    let source = node.endpoint
    carry(bytes, legs: 1) { target.receive(bytes, from: .direct(source)) }
  }

  /// A datagram through the relay.
  package func relay(_ bytes: [UInt8], from node: VirtualNode, to target: UInt32) {
    record(bytes, from: node.id, "-> relay -> \(target)")
    guard isRelayUp, let target = nodes[target] else { return }
    carry(bytes, legs: 2) { target.receive(bytes, from: .relayed) }
  }

  /// A datagram of an attacker, from an endpoint of his own.
  package func inject(_ bytes: [UInt8], to target: UInt32, from endpoint: Endpoint) {
    guard let target = nodes[target] else { return }
    log("attacker -> \(target.id) \(Self.name(bytes))")
    schedule(after: conditions.latency.lowerBound) { target.receive(bytes, from: .direct(endpoint)) }
  }

  private func carry(_ bytes: [UInt8], legs: UInt64, _ deliver: @escaping () -> Void) {
    for _ in 0..<(generator.chance(conditions.duplication) ? 2 : 1) {
      var delay: UInt64 = 0
      for _ in 0..<legs {
        if generator.chance(conditions.loss) { return log("   lost \(Self.name(bytes))") }
        delay += UInt64.random(in: conditions.latency, using: &generator)
        if generator.chance(conditions.reordering) {
          delay += UInt64.random(in: 0...conditions.reorderDelay, using: &generator)
        }
      }
      schedule(after: delay) { [weak self] in
        if let name = FrameName(bytes) { self?.arrivedFrames.insert(name) }
        deliver()
      }
    }
  }

  private func record(_ bytes: [UInt8], from node: UInt32, _ way: String) {
    sentDatagrams += 1
    if FrameKind(bytes) == .pila, recordedExchanges.count < 4096 { recordedExchanges.append((node, bytes)) }
    log("\(node) \(way) \(Self.name(bytes))")
  }

  package func log(_ line: String) {
    if flow.count >= 400 { flow.removeFirst(200) }
    flow.append("\((now - 1_000_000_000_000) / 1000) us  \(line)")
  }

  private static func name(_ bytes: [UInt8]) -> String {
    switch FrameKind(bytes) {
    case .pila:
      let frame = KeyExchangeFrame(bytes)
      return "PILA \(frame?.x25519.description.prefix(6) ?? "?")"
    case .pilk: return "PILK"
    case .pils: return "PILS \(FrameName(bytes).map { "\($0.counter)" } ?? "?")"
    default: return "\(bytes.count) bytes"
    }
  }

  /// Seed and flow, for the comment of a failing expectation.
  package var report: String { "seed \(seed)\n" + flow.joined(separator: "\n") }
}
