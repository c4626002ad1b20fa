// When the node leaves UDP for TLS and returns: the machine under a clock of its own.

import Testing

@testable import TunControl

@Suite("Choice of the transport")
struct TransportChoiceTests {
  private static let second: UInt64 = 1_000_000_000

  /// A beacon that answers by UDP or not, and a TLS port that answers or not.
  private struct World {
    var machine: TransportChoice
    var now: UInt64 = 1_000_000_000_000
    var hasUDP = true
    /// Only a socket other than the worker's hears answers.
    var hasOnlyProbes = false
    var hasTLS = true
    var dials = 0
    var asks = 0
    /// How often anything happened.
    var wakeups = 0
    /// How often the machine was due.
    var ticks = 0
    var probes: [UInt64] = []
    var log: [String] = []
    private var pending: [(at: UInt64, event: TransportChoice.Event)] = []
    private var isLinkUp = false

    init(_ mode: TransportMode = .auto, entropy: UInt64 = 5) {
      machine = TransportChoice(mode: mode, now: now, entropy: entropy)
    }

    mutating func give(_ event: TransportChoice.Event) {
      for action in machine.handle(event, now: now) {
        switch action {
        case .ask:
          asks += 1
          give(.asked)
          if hasUDP, !hasOnlyProbes { pending.append((now + 20_000_000, .answered)) }
        case .dial:
          dials += 1
          isLinkUp = hasTLS
          pending.append((now + 50_000_000, hasTLS ? .linkUp : .linkDown))
        case .hangUp: isLinkUp = false
        case .use(let carrier, let reason):
          log.append("\(carrier.rawValue): \(reason)")
          // As the node does: for everybody else it is another network.
          if carrier == .udp { give(.networkChanged) }
        case .probe:
          probes.append(now)
          if hasUDP { pending.append((now + 40_000_000, .probeAnswered)) }
        }
      }
    }

    /// The node asks every 25 s by itself.
    mutating func ask() {
      give(.asked)
      if hasUDP, !hasOnlyProbes, machine.carrier == .udp { pending.append((now + 20_000_000, .answered)) }
    }

    mutating func run(_ seconds: Double) {
      let end = now + UInt64(seconds * 1e9)
      for _ in 0..<100_000 {
        let due = min(machine.nextDeadline, pending.map(\.at).min() ?? .max)
        guard due <= end else { break }
        wakeups += 1
        now = max(now, due)
        if let index = pending.firstIndex(where: { $0.at <= now }) {
          let event = pending.remove(at: index).event
          if event == .answered, !hasUDP || machine.carrier == .tls { continue }
          give(event)
        } else {
          ticks += 1
          give(.tick)
        }
      }
      now = end
    }

    mutating func breakLink() {
      isLinkUp = false
      give(.linkDown)
    }
  }

  @Test("UDP that answers is used, and TLS is never touched")
  func plain() {
    var world = World()
    world.give(.registered)
    for _ in 0..<20 {
      world.ask()
      world.run(25)
    }
    #expect(world.machine.carrier == .udp && world.dials == 0 && world.probes.isEmpty && world.log.isEmpty)
    #expect(world.machine.nextDeadline == .max)
  }

  @Test("blocked from the start: TLS after a second and a half, with the reason; UDP again as soon as it is there")
  func blocked() {
    var world = World()
    world.hasUDP = false
    world.ask()
    world.run(0.3)
    world.give(.registered)
    world.run(1.1)
    #expect(world.machine.carrier == .udp && world.machine.isLinkUp)
    world.run(0.2)
    #expect(world.log == ["tls: no answer by UDP from the beacon on this network"])
    world.run(3600)
    #expect(world.dials == 1, "the link stands")
    let gaps = zip(world.probes, world.probes.dropFirst()).map { ($1 - $0) / Self.second }
    #expect(gaps.first.map { $0 <= 13 } == true && gaps.allSatisfy { $0 <= 375 }, "\(gaps)")
    #expect((9...25).contains(world.probes.count), "\(gaps)")
    world.hasUDP = true
    world.give(.networkChanged)
    world.run(1)
    #expect(world.machine.carrier == .udp && !world.machine.isLinkUp)
    #expect(world.log.last == "udp: the beacon answers by UDP again")
    world.run(100)
    #expect(world.machine.nextDeadline == .max)
  }

  @Test("UDP that dies later is left; a lost answer or two change nothing")
  func later() {
    var world = World()
    world.give(.registered)
    world.ask()
    world.run(100)
    world.hasUDP = false
    world.ask()
    world.run(2)
    world.hasUDP = true
    world.run(60)
    #expect(world.log.isEmpty && world.machine.carrier == .udp)
    world.hasUDP = false
    world.ask()
    world.run(4.9)
    #expect(world.log.isEmpty && world.machine.isLinkUp)
    world.run(1)
    #expect(world.log == ["tls: no answer by UDP from the beacon for 5 s"])
  }

  @Test("on another network UDP has to prove itself anew, and has the time of an answer once TLS shows that it works")
  func moved() {
    var world = World()
    world.give(.registered)
    world.ask()
    world.run(100)
    // Nothing passes until the third second; then both do.
    (world.hasUDP, world.hasTLS) = (false, false)
    world.give(.networkChanged)
    world.ask()
    world.run(3)
    (world.hasUDP, world.hasTLS) = (true, true)
    world.run(60)
    #expect(world.log.isEmpty && world.machine.carrier == .udp && !world.machine.isLinkUp)
    world.hasUDP = false
    world.give(.networkChanged)
    world.ask()
    world.run(1.6)
    #expect(world.machine.carrier == .tls)
  }

  @Test("a rendezvous that takes the connection and ends it at once is dialled ever more rarely")
  func thrownOut() {
    var world = World()
    world.hasUDP = false
    world.give(.registered)
    world.ask()
    world.run(2)
    let before = world.dials
    for _ in 0..<6000 {
      if world.machine.isLinkUp { world.breakLink() }
      world.run(0.1)
    }
    #expect((10...25).contains(world.dials - before), "\(world.dials - before) dials in ten minutes")
    // One that stands is a good one, and is made again at once when it ends.
    world.run(120)
    let after = world.dials
    world.breakLink()
    world.run(1)
    #expect(world.dials == after + 1)
  }

  @Test("without TLS the node stays on UDP, tries both ever more rarely, and takes what works first")
  func neither() {
    var world = World()
    (world.hasUDP, world.hasTLS) = (false, false)
    world.give(.registered)
    world.ask()
    world.run(600)
    #expect(world.machine.carrier == .udp && world.log.isEmpty)
    #expect((8...25).contains(world.dials), "\(world.dials)")
    world.hasTLS = true
    world.run(90)
    #expect(world.machine.carrier == .tls)
    world.hasTLS = false
    world.hasUDP = true
    world.breakLink()
    world.run(2)
    #expect(world.machine.carrier == .udp, "a link that ends has UDP tried at once")
  }

  @Test("a link that ends is made again, and the relay is told of it")
  func relink() {
    var world = World()
    world.hasUDP = false
    world.give(.registered)
    world.ask()
    world.run(6)
    let dials = world.dials
    world.breakLink()
    world.run(2)
    #expect(world.dials == dials + 1 && world.machine.isLinkUp && world.log.count == 2)
  }

  @Test("UDP that only another socket hears is not taken for good")
  func halfOpen() {
    var world = World()
    world.hasUDP = false
    world.give(.registered)
    world.ask()
    world.run(6)
    (world.hasUDP, world.hasOnlyProbes) = (true, true)
    world.run(1000)
    #expect(world.machine.carrier == .tls || world.log.last?.hasPrefix("udp") == true)
    #expect(world.machine.isLinkUp)
    #expect(world.log.count < 30, "\(world.log.count) changes in 1000 s")
    #expect(world.wakeups < 500, "\(world.wakeups) wake-ups in 1000 s")
    let gaps = zip(world.probes, world.probes.dropFirst()).map { ($1 - $0) / Self.second }
    #expect(gaps.last.map { $0 > 60 } == true, "probes grow rare: \(gaps)")
  }

  @Test("another network: the connection that stands is doubted, and a new one takes over")
  func doubted() {
    var world = World(.tls)
    world.give(.registered)
    world.run(10)
    #expect(world.dials == 1)
    world.give(.networkChanged)
    world.run(1)
    #expect(world.dials == 2 && world.machine.isLinkUp)
    world.run(100)
    #expect(world.dials == 2)
  }

  @Test("a mode that is set is kept")
  func set() {
    var udp = World(.udp)
    udp.hasUDP = false
    udp.give(.registered)
    udp.ask()
    udp.run(100)
    #expect(udp.dials == 0 && udp.machine.carrier == .udp)
    var tls = World(.tls)
    tls.give(.registered)
    tls.run(100)
    #expect(tls.dials == 1 && tls.machine.carrier == .tls && tls.machine.isLinkUp && tls.probes.isEmpty)
    #expect(tls.log == ["tls: transport = tls"])
  }

  @Test("nothing before the node has an address")
  func unregistered() {
    var world = World()
    world.hasUDP = false
    world.ask()
    world.run(60)
    #expect(world.dials == 0)
    world.give(.registered)
    world.run(1.5)
    #expect(world.machine.carrier == .tls)
  }

  @Test("without a network, with an address or none, the machine wakes once a minute", arguments: [true, false])
  func sleeps(isRegistered: Bool) {
    var world = World()
    (world.hasUDP, world.hasTLS) = (false, false)
    if isRegistered { world.give(.registered) }
    world.ask()
    world.run(120)
    (world.ticks, world.asks) = (0, 0)
    world.run(3600)
    #expect((45...90).contains(world.asks), "\(world.asks) questions in an hour")
    #expect(world.ticks <= world.asks + (isRegistered ? 90 : 1), "\(world.ticks) wake-ups in an hour")
    world.hasUDP = true
    world.give(.networkChanged)
    world.ask()
    world.run(100)
    #expect(world.machine.carrier == .udp && world.log.isEmpty)
    #expect(world.machine.nextDeadline == .max, "all is well and nothing is due")
  }

  @Test("a peer that is reached by UDP again has the beacon tried, and many such peers no more than twice a minute")
  func peers() throws {
    var world = World()
    world.hasUDP = false
    world.give(.registered)
    world.ask()
    world.run(2000)
    #expect(world.machine.carrier == .tls)
    let before = world.probes.count
    let start = world.now
    for _ in 0..<300 {
      world.give(.peerReached)
      world.run(0.2)
    }
    let made = world.probes.dropFirst(before)
    #expect(try #require(made.first) <= start + 30 * Self.second)
    #expect((1...3).contains(made.count), "\(made.count) in a minute")
    world.run(200)
    world.hasUDP = true
    world.give(.peerReached)
    world.run(1)
    #expect(world.machine.carrier == .udp && world.log.last == "udp: the beacon answers by UDP again")
    let probes = world.probes.count
    world.give(.peerReached)
    world.run(100)
    #expect(world.probes.count == probes, "on UDP it says nothing new")
  }

  @Test(
    "when the network is back after hours, TLS that comes up first does not win before UDP was asked",
    arguments: UInt64(1)...16)
  func returning(entropy: UInt64) {
    var world = World(entropy: entropy)
    (world.hasUDP, world.hasTLS) = (false, false)
    world.give(.registered)
    world.ask()
    world.run(7200)
    (world.hasUDP, world.hasTLS) = (true, true)
    world.run(90)
    #expect(world.machine.carrier == .udp && world.log.isEmpty && !world.machine.isLinkUp, "\(world.log)")
  }
}
