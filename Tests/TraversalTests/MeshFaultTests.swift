// Meshes whose networks fail in mid flow: NATs, addresses, relay, directory, links, clocks. Each test says within what
// time data flows again, and that who was not touched notices nothing.

import Simulator
import Traversal
import Testing
import Wire

private let ms: UInt64 = 1_000_000
private let second: UInt64 = 1_000_000_000

@Suite("Meshes with faults")
struct MeshFaultTests {
  /// Pairs of every sort with traffic every 200 ms in both directions, settled for a minute.
  private func mesh(seed: UInt64, for duration: UInt64) -> VirtualMesh {
    let mesh = VirtualMesh(seed: seed)
    let kinds: [VirtualMesh.Access] = [
      .open, .behind(.fullCone), .behind(.addressRestricted), .behind(.portRestricted), .behind(.symmetric),
      .behind(.portRestricted, carrier: .addressRestricted),
    ]
    for (index, one) in kinds.enumerated() {
      for other in kinds[index...] { mesh.connect(mesh.add(one), mesh.add(other)) }
    }
    mesh.start()
    mesh.traffic(every: 200 * ms, for: 60 * second + duration)
    mesh.run(for: 60 * second)
    mesh.excuseSilences()
    return mesh
  }

  private func router(of node: VirtualNode) -> VirtualRouter? { node.host.addresses.first?.segment.router }

  private func expectNoSilence(_ mesh: VirtualMesh, over limit: UInt64, _ location: SourceLocation = #_sourceLocation) {
    let silences = mesh.silences(over: limit)
    #expect(silences.isEmpty, "\(mesh.report(silences))", sourceLocation: location)
  }

  @Test("a NAT that loses its table: data again within 5 s")
  func flush() {
    let mesh = mesh(seed: 1, for: 60 * second)
    for pair in mesh.pairs { router(of: pair.a)?.flush() }
    mesh.run(for: 61 * second)
    expectNoSilence(mesh, over: 5 * second)
  }

  @Test("NATs that filter by port and give other ports after they forgot: direct again within 5 s, on both ends")
  func flushMoves() {
    let mesh = VirtualMesh(seed: 17)
    let moving = VirtualNAT.Behaviour(allocation: .random)
    for _ in 0..<20 { mesh.connect(mesh.add(.behind(moving)), mesh.add(.behind(moving))) }
    mesh.start()
    mesh.traffic(every: 200 * ms, for: 90 * second)
    mesh.run(for: 30 * second)
    let before = mesh.relayed()
    #expect(before.isEmpty, "\(mesh.report(before))")
    mesh.excuseSilences()
    for (number, pair) in mesh.pairs.enumerated() {
      router(of: pair.a)?.flush()
      if number % 2 == 0 { router(of: pair.b)?.flush() }
    }
    mesh.run(for: 5 * second)
    let after = mesh.relayed()
    #expect(after.isEmpty, "\(mesh.report(after))")
    mesh.run(for: 56 * second)
    expectNoSilence(mesh, over: 3 * second)
  }

  @Test("a NAT that forgot a node before it met its peer, and gave it another port: a first packet arrives within 3 s")
  func flushBeforeMeeting() {
    let mesh = VirtualMesh(seed: 18)
    for _ in 0..<8 { mesh.connect(mesh.add(.behind(.symmetric)), mesh.add(.behind(.symmetric))) }
    mesh.start()
    mesh.run(for: 10 * second)
    for pair in mesh.pairs { router(of: pair.a)?.flush() }
    mesh.traffic(every: 200 * ms, for: 10 * second)
    mesh.run(for: 11 * second)
    expectNoSilence(mesh, over: 3 * second)
  }

  @Test("a node that moves twice within 5 s and begins anew at the second place: data again within 5 s")
  func restartElsewhere() {
    let mesh = VirtualMesh(seed: 19)
    for _ in 0..<8 { mesh.connect(mesh.add(.behind(.symmetric)), mesh.add(.behind(.symmetric))) }
    mesh.start()
    mesh.traffic(every: 200 * ms, for: 30 * second)
    mesh.run(for: 10 * second)
    for pair in mesh.pairs {
      for step in UInt64(0)..<2 {
        mesh.network.schedule(after: step * 2 * second) {
          let site = mesh.addSite(.behind(.symmetric))
          pair.a.host.move(to: site, as: mesh.address4(in: site))
          if step == 0 { pair.a.networkChanged() } else { pair.a.restart() }
        }
      }
    }
    mesh.run(for: 2 * second)
    mesh.excuseSilences()
    mesh.run(for: 19 * second)
    expectNoSilence(mesh, over: 5 * second)
  }

  @Test("both NATs of a pair lose their tables at once: data again within 5 s")
  func flushBoth() {
    let mesh = mesh(seed: 2, for: 60 * second)
    for node in mesh.nodes { router(of: node)?.flush() }
    mesh.run(for: 61 * second)
    expectNoSilence(mesh, over: 5 * second)
  }

  @Test("the provider gives a NAT another address: data again within 5 s")
  func renumber() {
    let mesh = mesh(seed: 3, for: 60 * second)
    for pair in mesh.pairs {
      guard let router = router(of: pair.a) else { continue }
      router.renumber(to: mesh.address4(in: router.outer))
    }
    mesh.run(for: 61 * second)
    expectNoSilence(mesh, over: 5 * second)
  }

  @Test(
    "a node that moves to another network and notices: data again within 2 s")
  func roaming() {
    let mesh = mesh(seed: 4, for: 60 * second)
    for pair in mesh.pairs {
      let site = mesh.addSite(.behind(.portRestricted))
      pair.a.host.move(to: site, as: mesh.address4(in: site))
      mesh.network.schedule(after: 500 * ms) { pair.a.networkChanged() }
    }
    mesh.run(for: 61 * second)
    expectNoSilence(mesh, over: 2500 * ms)
  }

  @Test("a relay that restarts and forgets its nodes: data again within 5 s")
  func relayRestart() {
    let mesh = mesh(seed: 5, for: 90 * second)
    mesh.network.beacons[0].restart()
    mesh.run(for: 91 * second)
    expectNoSilence(mesh, over: 5 * second)
  }

  @Test(
    "three beacons of which two die, one after the other: data again within 5 s, both ends of a pair on one beacon",
    arguments: [11, 12])
  func beaconsLost(seed: UInt64) {
    let mesh = VirtualMesh(seed: seed)
    for _ in 0..<2 { mesh.network.addBeacon() }
    let beacons = mesh.network.beacons
    // The second is nearest, by 40 ms in each direction.
    for (beacon, latency) in zip(beacons, [60, 20, 60]) { beacon.host.link.latency = UInt64(latency) * ms }
    for kind in [VirtualMesh.Access.behind(.symmetric), .behind(.portRestricted), .open] {
      for other in [VirtualMesh.Access.behind(.symmetric), .behind(.portRestricted)] {
        mesh.connect(mesh.add(kind), mesh.add(other))
      }
    }
    mesh.connect(mesh.add(.behind(.symmetric)), mesh.add(.behind(.symmetric)))
    for node in mesh.nodes { node.beacons = beacons.map(\.endpoint) }
    mesh.start()
    mesh.traffic(every: 200 * ms, for: 240 * second)
    mesh.run(for: 60 * second)
    let relayed = mesh.pairs.filter { $0.a.directEndpoint == nil }
    #expect(relayed.count >= 2)
    for (step, dead) in [1, 0].enumerated() {
      for pair in relayed {
        #expect(pair.a.only.relays.present == pair.b.only.relays.present)
        if step == 0 { #expect(pair.a.only.relays.present == .beacon(beacons[1].endpoint)) }
      }
      mesh.excuseSilences()
      beacons[dead].isUp = false
      mesh.run(for: 80 * second)
      expectNoSilence(mesh, over: 5 * second)
    }
    for pair in relayed {
      #expect(pair.a.only.relays.present == .beacon(beacons[2].endpoint))
      #expect(pair.b.only.relays.present == .beacon(beacons[2].endpoint))
    }
  }

  @Test("without relay and directory, pairs that are direct go on as if nothing were")
  func rendezvousLost() {
    let mesh = mesh(seed: 6, for: 180 * second)
    mesh.network.isRelayUp = false
    mesh.network.directory.isUp = false
    let since = mesh.network.now
    mesh.run(for: 181 * second)
    let direct = Set(mesh.pairs.filter { $0.a.directEndpoint != nil && $0.b.directEndpoint != nil }.map(\.a.id))
    #expect(direct.count > mesh.pairs.count / 2)
    let problems = (mesh.silences(over: second) + mesh.changes(since: since)).filter {
      direct.contains(min($0.a, $0.b))
    }
    #expect(problems.isEmpty, "\(mesh.report(problems))")
  }

  @Test(
    "a way that goes dark in one direction, or in both: data again within 5 s", arguments: [1, 2])
  func blackhole(directions: Int) {
    let mesh = mesh(seed: 7, for: 60 * second)
    for pair in mesh.pairs {
      mesh.network.blackholes.insert([pair.a.id, pair.b.id])
      if directions == 2 { mesh.network.blackholes.insert([pair.b.id, pair.a.id]) }
    }
    mesh.run(for: 61 * second)
    expectNoSilence(mesh, over: 5 * second)
  }

  @Test("a link that is down for 20 s: data again within 2 s of its return, and no doubt elsewhere")
  func linkDown() {
    let mesh = mesh(seed: 8, for: 90 * second)
    for pair in mesh.pairs { pair.a.host.link.isUp = false }
    mesh.run(for: 20 * second)
    for pair in mesh.pairs {
      pair.a.host.link.isUp = true
      pair.a.networkChanged()
    }
    mesh.excuseSilences()
    mesh.run(for: 71 * second)
    expectNoSilence(mesh, over: 2500 * ms)
  }

  @Test("a laptop that sleeps for 10 minutes: data again within 2 s of waking, as soon as it notices")
  func sleep() {
    let mesh = mesh(seed: 9, for: 700 * second)
    for pair in mesh.pairs { pair.a.sleep(for: 600 * second) }
    mesh.run(for: 600 * second)
    mesh.excuseSilences()
    mesh.run(for: 60 * second)
    // Half a second of it until it notices.
    expectNoSilence(mesh, over: 2500 * ms)
  }

  @Test("a boot clock that jumps while nothing else happens disturbs nobody")
  func clockJump() {
    let mesh = mesh(seed: 10, for: 120 * second)
    let since = mesh.network.now
    for pair in mesh.pairs { pair.a.jumpBootClock(by: 3600 * second) }
    mesh.run(for: 121 * second)
    let problems = mesh.silences(over: second) + mesh.changes(since: since) + mesh.resets(since: since)
    #expect(problems.isEmpty, "\(mesh.report(problems))")
  }

  @Test("a program that restarts: data again within 5 s")
  func restart() {
    let mesh = mesh(seed: 11, for: 60 * second)
    for pair in mesh.pairs { pair.a.restart(after: 500 * ms) }
    mesh.run(for: 61 * second)
    expectNoSilence(mesh, over: 5500 * ms)
  }

  @Test("loss, duplication and reordering: no pair waits for 5 s, none flaps below 30 %", arguments: [0.05, 0.15, 0.3])
  func loss(share: Double) {
    let mesh = mesh(seed: 12, for: 120 * second)
    mesh.network.conditions.loss = share
    mesh.network.conditions.duplication = 0.1
    mesh.network.conditions.reordering = 0.2
    let since = mesh.network.now
    mesh.run(for: 121 * second)
    expectNoSilence(mesh, over: 5 * second)
    // At 30 % the relay, four crossings for an answer, is hardly a way: one end in a hundred may take it for dead.
    let flaps = mesh.flaps(since: since)
    #expect(flaps.count <= (share < 0.3 ? 0 : mesh.pairs.count / 20), "\(mesh.report(flaps))")
  }

  @Test("an idle pair whose NATs forgot it: data within 5 s of the next packet")
  func afterIdle() {
    let mesh = mesh(seed: 13, for: second)
    mesh.run(for: 900 * second)
    mesh.traffic(every: 200 * ms, for: 60 * second)
    mesh.run(for: 61 * second)
    expectNoSilence(mesh, over: 5 * second)
  }

  @Test("NATs that forget after 30 s: the relay stays reachable, and a direct path in use stays")
  func shortTimeouts() {
    let mesh = VirtualMesh(seed: 14)
    let short = VirtualNAT.Behaviour(timeout: 30 * second)
    let symmetric = VirtualNAT.Behaviour(mapping: .addressAndPortDependent, allocation: .random, timeout: 30 * second)
    for (a, b) in [(short, short), (short, symmetric), (symmetric, symmetric)] {
      mesh.connect(mesh.add(.behind(a)), mesh.add(.behind(b)))
    }
    mesh.start()
    // Long enough for the mapping to the beacon to end before the first packet.
    mesh.run(for: 50 * second)
    mesh.traffic(every: 20 * second, for: 600 * second)
    mesh.run(for: 60 * second)
    let settled = mesh.network.now
    mesh.run(for: 540 * second)
    expectNoSilence(mesh, over: 25 * second)
    let flaps = mesh.flaps(since: settled)
    #expect(flaps.isEmpty, "\(mesh.report(flaps))")
  }

  /// A node that was quiet for 50 s and its peer that now sends, both behind symmetric NATs that forget after 30 s.
  private func quietListener(discoverEvery interval: UInt64) -> VirtualMesh {
    var habits = VirtualNode.Habits()
    habits.discoverInterval = interval
    let mesh = VirtualMesh(seed: 15, habits: habits)
    let short = VirtualNAT.Behaviour(mapping: .addressAndPortDependent, allocation: .random, timeout: 30 * second)
    for _ in 0..<8 { mesh.connect(mesh.add(.behind(short)), mesh.add(.behind(short))) }
    mesh.start()
    mesh.run(for: 50 * second)
    for step in UInt64(0)..<25 {
      mesh.network.schedule(after: step * 200 * ms) {
        for pair in mesh.pairs { pair.a.peer(pair.b.id)?.sendPacket() }
      }
    }
    mesh.run(for: 5 * second)
    return mesh
  }

  @Test("who only listens is reached through the relay as long as its discovers keep the NAT open, and no longer")
  func listeners() {
    let kept = quietListener(discoverEvery: 25 * second)
    let lost = quietListener(discoverEvery: 60 * second)
    let (reached, unreached) = (
      kept.pairs.count { $0.b.peers[0].firstDataAt != 0 }, lost.pairs.count { $0.b.peers[0].firstDataAt == 0 }
    )
    #expect(reached == kept.pairs.count)
    #expect(unreached == lost.pairs.count)
  }

  @Test(
    "a way that swallows big packets while small ones pass: big ones arrive again within 12 s")
  func smallWay() {
    let mesh = VirtualMesh(seed: 16)
    for _ in 0..<4 { mesh.connect(mesh.add(.behind(.portRestricted)), mesh.add(.open)) }
    mesh.start()
    mesh.traffic(every: 200 * ms, for: 60 * second, padding: 1300)
    mesh.run(for: 20 * second)
    for pair in mesh.pairs { router(of: pair.a)?.link.mtu = 1340 }
    mesh.run(for: 41 * second)
    expectNoSilence(mesh, over: 12 * second)
  }
}
