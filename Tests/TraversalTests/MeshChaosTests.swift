// Everything at once: for two minutes every few seconds something fails for somebody, often for several and for both
// ends of a pair at one time, on a network that loses, doubles and reorders. Once it has stopped, nobody who can reach his
// peer stays apart from it, nobody doubts or changes anything any more, and nobody was flooded meanwhile.

import Glibc
import Simulator
import Testing
import Wire

private let ms: UInt64 = 1_000_000
private let second: UInt64 = 1_000_000_000
/// Two that are the same for ever, one that never was, and as many more as PILOT_TUN_CHAOS says; or the one of
/// PILOT_TUN_CHAOS_SEED.
private let seeds: [UInt64] = {
  func number(_ name: String) -> UInt64? { getenv(name).flatMap { UInt64(String(cString: $0)) } }
  if let seed = number("PILOT_TUN_CHAOS_SEED") { return [seed] }
  return [31, 32, UInt64.random(in: 1_000_000...UInt64.max)] + Array(100..<100 + (number("PILOT_TUN_CHAOS") ?? 0))
}()

@Suite("Meshes in chaos")
struct MeshChaosTests {
  private static let kinds: [VirtualMesh.Access] = [
    .open, .behind(.fullCone), .behind(.portRestricted), .behind(.symmetric),
    .behind(.portRestricted, carrier: .addressRestricted), .behind(.symmetric, version6: .firewalled),
  ]

  /// One thing that goes wrong for a node.
  private func disturb(_ node: VirtualNode, of mesh: VirtualMesh) {
    let router = node.host.addresses.first?.segment.router
    let peer = node.peers[0].id
    switch mesh.random(below: 9) {
    case 0: router?.flush()
    case 1:
      guard let router else { break }
      router.renumber(to: mesh.address4(in: router.outer))
    case 2:
      let nats: [VirtualNAT.Behaviour] = [.portRestricted, .symmetric, .fullCone]
      let site = mesh.addSite(.behind(nats[Int(mesh.random(below: 3))]))
      node.host.move(to: site, as: mesh.address4(in: site))
      mesh.network.schedule(after: mesh.random(below: second)) { node.networkChanged() }
    case 3:
      node.host.link.isUp = false
      mesh.network.schedule(after: 1 + mesh.random(below: 10 * second)) {
        node.host.link.isUp = true
        node.networkChanged()
      }
    case 4: if !node.isAsleep { node.sleep(for: 1 + mesh.random(below: 20 * second)) }
    case 5: if node.isRunning { node.restart(after: mesh.random(below: 3 * second)) }
    case 6: node.jumpBootClock(by: mesh.random(below: 3600 * second))
    default:
      // Dark in one direction; the other end may get the same.
      mesh.network.blackholes.insert([node.id, peer])
      mesh.network.schedule(after: 1 + mesh.random(below: 15 * second)) {
        mesh.network.blackholes.remove([node.id, peer])
      }
    }
  }

  private func disturbEverybody(_ mesh: VirtualMesh) {
    let beacons = mesh.network.beacons
    let beacon = beacons[Int(mesh.random(below: UInt64(beacons.count)))]
    switch mesh.random(below: 8) {
    case 0: beacon.restart()
    case 1:
      beacon.isUp = false
      mesh.network.schedule(after: 1 + mesh.random(below: 10 * second)) { beacon.isUp = true }
    case 2:
      mesh.network.isRelayUp = false
      mesh.network.schedule(after: 5 * second) { mesh.network.isRelayUp = true }
    case 3:
      mesh.network.directory.isUp = false
      mesh.network.schedule(after: 10 * second) { mesh.network.directory.isUp = true }
    default: break
    }
    for pair in mesh.pairs where mesh.random(below: 3) == 0 {
      disturb(pair.a, of: mesh)
      if mesh.random(below: 2) == 0 { disturb(pair.b, of: mesh) }
    }
  }

  /// Pairs of every two kinds, and two behind one NAT. Of four seeds two have real keys, two have three beacons.
  private func mesh(seed: UInt64) -> VirtualMesh {
    var habits = VirtualNode.Habits()
    habits.traceLimit = 256
    let mesh = VirtualMesh(seed: seed, isPlain: seed % 2 == 0, habits: habits)
    if seed % 4 >= 2 {
      for _ in 0..<2 { mesh.network.addBeacon() }
      for (beacon, latency) in zip(mesh.network.beacons, [40, 10, 20] as [UInt64]) {
        beacon.host.link.latency = latency * ms
      }
    }
    for (index, one) in Self.kinds.enumerated() {
      for other in Self.kinds[index...] { mesh.connect(mesh.add(one), mesh.add(other)) }
    }
    let site = mesh.addSite(.behind(.portRestricted))
    mesh.connect(mesh.add(in: site), mesh.add(in: site))
    for node in mesh.nodes { node.beacons = mesh.network.beacons.map(\.endpoint) }
    return mesh
  }

  @Test(
    "two minutes of faults of every sort at once; from the last one on no pair stays apart longer than 5 s, and then all is well",
    arguments: seeds)
  func everything(seed: UInt64) {
    let mesh = mesh(seed: seed)
    mesh.start()
    mesh.network.conditions.loss = 0.05
    mesh.network.conditions.duplication = 0.05
    mesh.network.conditions.reordering = 0.1
    mesh.traffic(every: 500 * ms, for: 280 * second)
    for step in UInt64(1)...40 { mesh.network.schedule(after: step * 3 * second) { disturbEverybody(mesh) } }
    // The last fault lasts for 20 s at most.
    mesh.run(for: 140 * second)
    mesh.excuseSilences()
    mesh.network.conditions.loss = 0
    mesh.network.conditions.duplication = 0
    mesh.network.conditions.reordering = 0
    for _ in 0..<40 {
      mesh.run(for: second)
      // At once: while what travelled can be shown.
      let silences = mesh.silences(over: 5 * second)
      guard silences.isEmpty else {
        Issue.record("\(mesh.report(silences))")
        return
      }
    }
    // What was left for silence comes back after its penalty; then all is quiet.
    mesh.run(for: 60 * second)
    let settled = mesh.network.now
    mesh.run(for: 30 * second)
    let problems = mesh.silences(over: 5 * second) + mesh.resets(since: settled) + mesh.flaps(since: settled)
    #expect(problems.isEmpty, "\(mesh.report(problems))")
    let excess = mesh.overBudget(perMinute: 160)
    #expect(excess.isEmpty, "\(mesh.report(excess))")
  }
}
