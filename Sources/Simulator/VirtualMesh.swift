// Meshes of nodes behind NATs of chosen kinds, with traffic between them. Tests build one, run it, cause faults, and ask
// VirtualMesh+Checks whether the invariants hold:
//
//     let mesh = VirtualMesh(seed: 1)
//     let a = mesh.add(.behind(.portRestricted))
//     let b = mesh.add(.behind(.symmetric, carrier: .portRestricted))
//     mesh.connect(a, b)
//     mesh.start()
//     mesh.traffic(every: second, for: 60 * second)
//     mesh.run(for: 60 * second)
//     let problems = mesh.silences(over: 5 * second)
//     #expect(problems.isEmpty, "\(mesh.report(problems))")

import SeededRandom
import Session
import Traversal
package import Wire

package final class VirtualMesh {
  /// How a node is attached.
  package struct Access: Sendable, CustomStringConvertible {
    package enum Version6: String, Sendable {
      case none
      case open = "IPv6"
      case firewalled = "IPv6 behind a firewall"
    }

    /// Nil: a public address.
    package var nat: VirtualNAT.Behaviour?
    /// A second NAT in front of the first.
    package var carrier: VirtualNAT.Behaviour?
    package var version6 = Version6.none
    package var hasVersion4 = true
    package init() {}

    package static let open = Access()

    package static func behind(
      _ nat: VirtualNAT.Behaviour, carrier: VirtualNAT.Behaviour? = nil, version6: Version6 = .none
    ) -> Access {
      var access = Access()
      access.nat = nat
      access.carrier = carrier
      access.version6 = version6
      return access
    }

    package var description: String {
      var parts: [String] = []
      if hasVersion4 { parts.append(nat.map { "\($0)" } ?? "public") }
      if let carrier { parts.append("behind \(carrier)") }
      if version6 != .none { parts.append(version6.rawValue) }
      return parts.joined(separator: ", ")
    }
  }

  package typealias Pair = (a: VirtualNode, b: VirtualNode)

  package let network: VirtualNetwork
  package private(set) var nodes: [VirtualNode] = []
  package private(set) var pairs: [Pair] = []
  private var accesses: [UInt32: Access] = [:]
  private var habits: VirtualNode.Habits
  private var publicAddresses: UInt32 = 0
  private var sites: UInt64 = 0

  /// `isPlain`: sessions without cryptography, for meshes of thousands.
  package init(seed: UInt64, isPlain: Bool = true, habits: VirtualNode.Habits = .init()) {
    network = VirtualNetwork(seed: seed)
    // The peers' traces are enough, and cheaper.
    network.keepsFlow = false
    network.conditions.latency = 10_000_000...30_000_000
    self.habits = habits
    self.habits.isPlain = isPlain
  }

  deinit { network.shutDown() }

  // MARK: Building

  /// One more node. `site`: a network to be in, from `addSite`; nil: one of its own, by `access`.
  @discardableResult
  package func add(_ access: Access = .open, in site: VirtualSegment? = nil) -> VirtualNode {
    let id = UInt32(nodes.count) + 1
    let host = VirtualHost(id: id)
    let segment = site ?? addSite(access)
    if access.hasVersion4 { host.join(segment, as: address4(in: segment)) }
    if access.version6 != .none {
      sites += 1
      host.join(segment, as: IPv6Address(high: 0x2001_0DB8_0000_0000 | sites, low: UInt64(id)))
    }
    var seed = Bytes32()
    seed.words = (UInt64(id), network.seed, 5, 7)
    let node = VirtualNode(id: id, network: network, host: host, identity: Identity(seed: seed), habits: habits)
    if !access.hasVersion4 { node.beacon = network.beacons[0].endpoint6 }
    // As far as one beacon's two ports tell.
    let isDependent = [access.nat, access.carrier].contains { $0?.mapping == .addressAndPortDependent }
    if access.hasVersion4 { node.translation = isDependent ? .dependent : .independent }
    accesses[id] = access
    nodes.append(node)
    return node
  }

  /// A network by itself, for several nodes, or for the homes of a carrier (`outer`).
  package func addSite(_ access: Access, of outer: VirtualSegment? = nil) -> VirtualSegment {
    guard let nat = access.nat else { return outer ?? network.core }
    var above = outer ?? network.core
    if let carrier = access.carrier {
      above = network.addSegment("carrier", behind: carrier, external: address4(in: above), of: above)
    }
    let firewall: VirtualNAT.Behaviour? = access.version6 == .firewalled ? .firewall : nil
    return network.addSegment("home", behind: nat, external: address4(in: above), of: above, firewall: firewall)
  }

  /// The next address: public ones never repeat, those of homes and carriers repeat everywhere.
  package func address4(in segment: VirtualSegment) -> IPv6Address {
    if segment === network.core {
      publicAddresses += 1
      return IPv6Address(mappedIPv4: 0x0B00_0000 + publicAddresses)
    }
    let base: UInt32 = segment.name == "carrier" ? 0x6440_0000 : 0xC0A8_0100
    return IPv6Address(mappedIPv4: base + 2 + UInt32(segment.owners.count))
  }

  /// Makes two nodes each other's peers.
  package func connect(_ a: VirtualNode, _ b: VirtualNode) {
    guard a !== b, a.peer(b.id) == nil else { return }
    a.addPeer(b.id)
    b.addPeer(a.id)
    pairs.append((a, b))
  }

  package func access(of node: VirtualNode) -> Access { accesses[node.id] ?? .open }

  /// Starts all nodes and runs until the directory knows them.
  package func start(within spread: UInt64 = 1_000_000_000) {
    for node in nodes {
      network.schedule(after: random(below: max(spread, 1))) { node.start() }
    }
    run(for: spread + 2_000_000_000)
  }

  // MARK: Running

  package func run(for duration: UInt64) { network.run(for: duration) }

  package func random(below limit: UInt64) -> UInt64 { UInt64.random(in: 0..<limit, using: &network.generator) }

  /// Both ends of each pair send a packet every `interval` for `duration`, not all at one time. Does not run the clock.
  /// Silences count from the first packet to a moment after the last. `padding`: bytes more in each packet.
  package func traffic(
    every interval: UInt64, for duration: UInt64, between some: [Pair]? = nil, padding: Int = 0
  ) {
    let end = network.now + duration
    for pair in some ?? pairs {
      let offset = random(below: interval)
      for (sender, receiver) in [pair, (pair.b, pair.a)] {
        guard let out = sender.peer(receiver.id), let back = receiver.peer(sender.id) else { continue }
        network.schedule(after: offset) { [weak self] in
          guard let self else { return }
          back.silences.reset(since: network.now)
          send(out, back, every: interval, until: end, padding)
        }
      }
    }
  }

  private func send(
    _ out: VirtualPeer, _ back: VirtualPeer, every interval: UInt64, until end: UInt64, _ padding: Int
  ) {
    if out.node.isRunning, !out.node.isAsleep { out.sendPacket(padding: padding) }
    let next = network.now + interval
    network.schedule(at: next) { [weak self] in
      guard next < end else { return back.silences.stop(at: next) }
      self?.send(out, back, every: interval, until: end, padding)
    }
  }
}
