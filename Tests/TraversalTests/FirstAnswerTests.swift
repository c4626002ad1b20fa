// How many round trips pass between the first packet to a peer and its answer, behind every kind of NAT, under a clock in
// which a datagram takes 20 ms from one public address to another: 40 ms there and back, 80 ms through the relay.

import Simulator
import Testing
import Wire

private let ms: UInt64 = 1_000_000
private let second: UInt64 = 1_000_000_000
private let roundTrip = 40 * ms
/// Through the relay; the networks behind the NATs and the steps of the measurement take their part.
private let relayRoundTrip = 2 * roundTrip + 6 * ms

@Suite("First answer")
struct FirstAnswerTests {
  /// `isPlain`: without key exchanges, whose turns count where there is no session yet.
  private func mesh(seed: UInt64, isPlain: Bool = true, timeout: UInt64? = nil) -> VirtualMesh {
    var habits = VirtualNode.Habits()
    habits.opensPorts = false
    let mesh = VirtualMesh(seed: seed, isPlain: isPlain, habits: habits)
    mesh.network.conditions.latency = 20 * ms...20 * ms
    mesh.network.directory.latency = roundTrip
    var accesses: [VirtualMesh.Access] = [.open, .behind(.portRestricted, carrier: .portRestricted)]
    for kind in [VirtualNAT.Behaviour.fullCone, .addressRestricted, .portRestricted, .symmetric] {
      var nat = kind
      if let timeout { nat.timeout = timeout }
      accesses.append(.behind(nat))
    }
    for (index, one) in accesses.enumerated() {
      for other in accesses[index...] {
        mesh.connect(mesh.add(one), mesh.add(other))
        // First packets of either end.
        if index > 0 { mesh.connect(mesh.add(other), mesh.add(one)) }
      }
    }
    mesh.start()
    return mesh
  }

  /// Each pair's first end sends one packet, the other answers it. How long that took, in the order of the pairs; nil: not
  /// within a second.
  private func answers(_ mesh: VirtualMesh) throws -> [UInt64?] {
    let began = mesh.network.now
    let ends = try mesh.pairs.map { (try #require($0.a.peer($0.b.id)), try #require($0.b.peer($0.a.id))) }
    let before = ends.map { ($0.received.count, $1.received.count) }
    var took = [UInt64?](repeating: nil, count: ends.count)
    var hasAnswered = [Bool](repeating: false, count: ends.count)
    for (a, _) in ends { a.sendPacket() }
    while took.contains(nil), mesh.network.now < began + second {
      mesh.run(for: ms)
      for (index, (a, b)) in ends.enumerated() where took[index] == nil {
        if !hasAnswered[index], b.received.count > before[index].1 {
          hasAnswered[index] = true
          b.sendPacket()
        }
        if a.received.count > before[index].0 { took[index] = mesh.network.now - began }
      }
    }
    return took
  }

  private func expect(_ mesh: VirtualMesh, _ took: [UInt64?], within limit: UInt64) {
    let slow = zip(mesh.pairs, took).filter { $1.map { $0 > limit } ?? true }
    let text = slow.prefix(3).map { pair, time in
      let kinds = "\(mesh.access(of: pair.a)) to \(mesh.access(of: pair.b))"
      let flow = mesh.flow(between: pair.a.id, and: pair.b.id).joined(separator: "\n")
      return "\(kinds): \(time.map { "\($0 / ms) ms" } ?? "none")\n\(flow)"
    }
    #expect(slow.isEmpty, "\(slow.count) of \(took.count) pairs:\n\(text.joined(separator: "\n"))")
  }

  @Test("a pair that never met: within 6 round trips, whatever stands between them, the directory's included")
  func fresh() throws {
    let mesh = mesh(seed: 21, isPlain: false)
    let took = try answers(mesh)
    expect(mesh, took, within: 6 * roundTrip)
  }

  @Test("a pair that talked a moment ago: within the round trip of the relay")
  func warm() throws {
    let mesh = mesh(seed: 22)
    mesh.traffic(every: second, for: 10 * second)
    mesh.run(for: 12 * second)
    let took = try answers(mesh)
    expect(mesh, took, within: relayRoundTrip)
  }

  @Test("a pair whose NATs have forgotten it: within the round trip of the relay, for the first packet is not lost")
  func rested() throws {
    let mesh = mesh(seed: 23, timeout: 70 * second)
    mesh.traffic(every: second, for: 10 * second)
    mesh.run(for: 300 * second)
    let took = try answers(mesh)
    expect(mesh, took, within: relayRoundTrip)
    // And the pairs that were direct are so again, without a detour for long.
    mesh.traffic(every: second, for: 10 * second)
    mesh.run(for: 20 * second)
    let silences = mesh.silences(over: 2 * second)
    #expect(silences.isEmpty, "\(mesh.report(silences))")
  }
}
