// Fills the metrics: counters by relaxed loads, the rest from what control holds. Asked by MetricsServer, by the verb
// `metrics` and so by `bugreport`.

import Directory
import Engine
import Gateway
import JSON
import LinkIO
import Naming
import PortMapping
import Session
package import Telemetry

extension Node {
  /// Adds what the worker counted for this peer since the last time to the path it has.
  func account(_ peer: PeerState) {
    let path = peer.handshake.currentSession == nil ? PathClass.none : pathClass(peer.enginePath)
    traffic.add(path, from: &peer.accounted, to: engine.statistics(of: peer.index))
  }

  /// Peers by the class of their path.
  func peersByPath() -> [PathClass: Int] {
    var counts: [PathClass: Int] = [:]
    for peer in peers.values {
      counts[peer.handshake.currentSession == nil ? .none : pathClass(peer.enginePath), default: 0] += 1
    }
    return counts
  }

  package func metrics() async -> [MetricFamily] {
    for peer in peers.values { account(peer) }
    var families: [MetricFamily] = []
    func add(_ declaration: MetricDeclaration, _ value: some BinaryInteger) {
      families.append(MetricFamily(declaration, [([], Double(value))]))
    }
    func add(_ declaration: MetricDeclaration, _ values: [(String, some BinaryInteger)]) {
      families.append(MetricFamily(declaration, values.map { ([$0.0], Double($0.1)) }))
    }
    func add(_ declaration: MetricDeclaration, by path: KeyPath<PathTraffic.Total, UInt64>) {
      add(declaration, PathClass.allCases.map { ($0.rawValue, traffic[$0][keyPath: path]) })
    }
    add(NodeMetrics.buildInfo, [(PilotTunVersion.text, 1)])
    add(NodeMetrics.uptime, (Clock.now() - startedAt) / 1_000_000_000)
    add(NodeMetrics.ready, isReady ? 1 : 0)
    let state = directoryState.word
    add(NodeMetrics.directoryState, DirectoryState.words.map { ($0, $0 == state ? 1 : 0) })
    add(NodeMetrics.directoryStateAge, directoryState.age(startedAt: startedAt))
    let byPath = peersByPath()
    add(NodeMetrics.peers, PathClass.allCases.map { ($0.rawValue, byPath[$0] ?? 0) })
    add(NodeMetrics.sentBytes, by: \.sentBytes)
    add(NodeMetrics.receivedBytes, by: \.receivedBytes)
    add(NodeMetrics.sentPackets, by: \.sentPackets)
    add(NodeMetrics.receivedPackets, by: \.receivedPackets)
    add(NodeMetrics.drops, dropCounts().sorted { $0.key < $1.key }.map { ($0.key, $0.value) })
    add(NodeMetrics.events, tallies.sorted { $0.key < $1.key }.map { ($0.key, $0.value) })
    add(NodeMetrics.offloads, engine.offloads.sorted { $0.name < $1.name }.map { ($0.name, $0.isOn ? 1 : 0) })
    add(NodeMetrics.streams, gateway.streamCount)
    add(NodeMetrics.trustRequests, directory.pendingHandshakes().count)
    add(NodeMetrics.warnings, await allWarnings().count)
    let mapping = portMappingStatus(.ipv4).string("state")
    add(NodeMetrics.portMapping, ["off", "none", "searching", "mapped"].map { ($0, $0 == mapping ? 1 : 0) })
    add(NodeMetrics.queues, engine.queueLengths.map { ($0.name, $0.count) })
    add(NodeMetrics.logSuppressed, LogOutput.suppressedCount)
    add(NodeMetrics.logLost, LogOutput.lostCount)
    addNames(to: &families)
    families += ProcessFigures.metrics()
    for (counter, value) in zip(WorkerCounter.allCases, engine.counters()) {
      add(NodeMetrics.worker(counter), value.value)
    }
    return families
  }

  /// The stub's counters are named by what they count: `queries_udp`, `answers_found`, `dropped_rate_limit`.
  private func addNames(to families: inout [MetricFamily]) {
    let groups: [(prefix: String, declaration: MetricDeclaration)] = [
      ("queries_", NodeMetrics.dnsQueries), ("answers_", NodeMetrics.dnsAnswers), ("dropped_", NodeMetrics.dnsDropped),
      ("", NodeMetrics.dnsEvents),
    ]
    families.append(MetricFamily(NodeMetrics.dnsRunning, [([], isStubRunning ? 1 : 0)]))
    var samples = [[(labels: [String], value: Double)]](repeating: [], count: groups.count)
    for (name, value) in (stub?.counters.snapshot ?? [:]).sorted(by: { $0.key < $1.key }) {
      guard let group = groups.firstIndex(where: { name.hasPrefix($0.prefix) }) else { continue }
      let word = name.dropFirst(groups[group].prefix.count).map { $0 == "_" ? "-" : String($0) }.joined()
      samples[group].append(([word], Double(value)))
    }
    for (group, samples) in zip(groups, samples) { families.append(MetricFamily(group.declaration, samples)) }
  }
}

extension DirectoryState {
  static let words = ["connecting", "registered", "unreachable"]

  /// Seconds in this state.
  func age(startedAt: UInt64) -> Int64 {
    switch self {
    case .connecting: Int64((Clock.now() - startedAt) / 1_000_000_000)
    case .connected(let since), .unreachable(let since, _, _): (ContinuousClock.now - since).components.seconds
    }
  }
}
