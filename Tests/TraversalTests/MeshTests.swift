// Meshes behind NATs with the real PathMachine: who reaches whom, how soon, and the invariants that hold while networks
// fail. Seeds are fixed, and printed with the flow of the failing pair.

import Simulator
import Testing
import Wire

private let ms: UInt64 = 1_000_000
private let second: UInt64 = 1_000_000_000

@Suite("Meshes")
struct MeshTests {
  @Test("scale")
  func scale() {
    let clock = ContinuousClock()
    var mesh: VirtualMesh?
    let count = 1000
    let built = clock.measure {
      let made = VirtualMesh(seed: 1, habits: { var h = VirtualNode.Habits(); h.traceLimit = 16; return h }())
      made.network.keepsFlow = false
      let kinds: [VirtualMesh.Access] = [.open, .behind(.fullCone), .behind(.portRestricted), .behind(.symmetric), .behind(.addressRestricted, carrier: .portRestricted)]
      for i in 0..<count { made.add(kinds[i % kinds.count]) }
      for i in 0..<count { for _ in 0..<2 { made.connect(made.nodes[i], made.nodes[Int.random(in: 0..<count, using: &made.network.generator)]) } }
      mesh = made
    }
    print("built", built)
    guard let mesh else { return }
    print("start", clock.measure { mesh.start(within: 10 * second) })
    mesh.traffic(every: 5 * second, for: 180 * second)
    for _ in 0..<6 { print("30 s", clock.measure { mesh.run(for: 30 * second) }, mesh.network.sentDatagrams, mesh.directShare) }
    print(mesh.report(mesh.silences(over: 15 * second)))
    print(mesh.report(mesh.resets(since: mesh.network.now - 120 * second)))
    print(mesh.report(mesh.flaps(since: mesh.network.now - 120 * second)))
    print(mesh.report(mesh.overBudget(perMinute: 60)))
  }
}
