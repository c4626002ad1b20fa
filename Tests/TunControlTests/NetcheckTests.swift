// `pilot-tun netcheck` without sockets: beacons and a NAT of each behaviour, played by a few lines each.

import JSON
import Testing
import Wire

@testable import TunControl

private typealias Behaviour = NetcheckReport.Behaviour

/// Beacons at 203.0.113.1 and .2 (port 9001, checks on 9002), and a NAT in front of the two sockets.
private struct World {
  var mapping: Behaviour? = .endpointIndependent
  var filtering = Behaviour.endpointIndependent
  var hasHairpin = false
  var mtu = 1500
  var hosts = 2
  var servesChecks = true
  var isBlocked = false

  static let home = IPv6Address(mappedIPv4: 0xC0A8_0102)
  static let outer = IPv6Address(mappedIPv4: 0xCB00_71FE)

  var ports: [String: UInt16] = [:]
  /// Outer port -> whom it was used to send to.
  var contacts: [UInt16: Set<Endpoint>] = [:]
  var owners: [UInt16: NetcheckMachine.Socket] = [:]

  var beacons: [(name: String, endpoint: Endpoint)] {
    (1...hosts).map { ("beacon\($0)", Self.beacon($0, 9001)) }
  }

  static func beacon(_ host: Int, _ port: UInt16) -> Endpoint {
    Endpoint(address: IPv6Address(mappedIPv4: 0xCB00_7100 + UInt32(host)), port: port)
  }

  /// Where a datagram of a socket to `target` comes from.
  private mutating func outerEndpoint(_ socket: NetcheckMachine.Socket, _ target: Endpoint) -> Endpoint {
    guard let mapping else {
      let port: UInt16 = socket == .probe ? 1000 : 2000
      owners[port] = socket
      contacts[port, default: []].insert(target)
      return Endpoint(address: Self.home, port: port)
    }
    let key =
      switch mapping {
      case .endpointIndependent: "\(socket)"
      case .addressDependent: "\(socket) \(target.address)"
      default: "\(socket) \(target)"
      }
    let port = ports[key] ?? UInt16(5000 + ports.count)
    ports[key] = port
    owners[port] = socket
    contacts[port, default: []].insert(target)
    return Endpoint(address: Self.outer, port: port)
  }

  /// What comes in for a datagram that a socket sends, if anything.
  mutating func carry(
    _ socket: NetcheckMachine.Socket, _ bytes: [UInt8], to target: Endpoint
  ) -> (NetcheckMachine.Socket, from: Endpoint, [UInt8])? {
    guard !isBlocked, bytes.count + 28 <= mtu else { return nil }
    let source = outerEndpoint(socket, target)
    if target.address == Self.outer {
      guard hasHairpin, let owner = owners[target.port] else { return nil }
      return (owner, source, bytes)
    }
    let host = Int(target.address.low & 0xFF)
    guard (1...hosts).contains(host) else { return nil }
    switch BeaconMessage(bytes) {
    case .discover? where target.port == 9001: return deliver(.discoverReply(source), to: source, from: target)
    case .check(let transaction, let port, let size)? where servesChecks:
      let answer = Endpoint(address: source.address, port: port == 0 ? source.port : port)
      let other: UInt16 = target.port == 9001 ? 9002 : 9001
      return deliver(
        .checkReply(transaction: transaction, seen: source, otherPort: other, size: size), to: answer, from: target)
    default: return nil
    }
  }

  private func deliver(
    _ message: BeaconMessage, to target: Endpoint, from: Endpoint
  ) -> (NetcheckMachine.Socket, from: Endpoint, [UInt8])? {
    guard let owner = owners[target.port], let known = contacts[target.port] else { return nil }
    let isLetIn =
      switch filtering {
      case .endpointIndependent: true
      case .addressDependent: known.contains { $0.address == from.address }
      default: known.contains(from)
      }
    return isLetIn ? (owner, from, message.encoded()) : nil
  }

  /// Runs a check to its end; answers take 10 ms.
  func check(
    _ steer: (inout NetcheckMachine, UInt64) -> [NetcheckMachine.Action] = { _, _ in [] }
  ) -> NetcheckReport {
    var world = self
    var now: UInt64 = 1
    var machine = NetcheckMachine(beacons: beacons, local: [Self.home], entropy: .max - 3)
    var actions = machine.start(now: now)
    var rounds = 0
    while true {
      rounds += 1
      precondition(rounds < 1000, "the check does not end")
      now += 10_000_000
      var next: [NetcheckMachine.Action] = []
      for case .send(let socket, let bytes, let target) in actions {
        guard let (owner, from, answer) = world.carry(socket, bytes, to: target) else { continue }
        next += machine.handle(.received(owner, from: from, answer), now: now)
      }
      next += steer(&machine, now)
      next += machine.handle(.tick, now: now)
      if next.isEmpty {
        guard let deadline = machine.nextDeadline else { return machine.report }
        now = max(now, deadline)
        next = machine.handle(.tick, now: now)
      }
      actions = next
    }
  }
}

@Suite("netcheck")
struct NetcheckTests {
  private static let behaviours: [Behaviour] = [.endpointIndependent, .addressDependent, .addressAndPortDependent]

  @Test("every mapping and filtering is told by two beacons")
  func behaviours() throws {
    for mapping in Self.behaviours {
      for filtering in Self.behaviours {
        let world = World(mapping: mapping, filtering: filtering)
        let network = try #require(world.check().networks[.ipv4])
        #expect(network.mapping == mapping)
        #expect(network.filtering == filtering, "mapping \(mapping.rawValue)")
        #expect(network.isTranslated)
        #expect(network.seen.address == World.outer)
        #expect(network.hairpin == false)
      }
    }
  }

  @Test("one beacon with a second port tells what depends on ports, and claims no more")
  func oneBeacon() throws {
    let symmetric = World(mapping: .addressAndPortDependent, filtering: .addressAndPortDependent, hosts: 1)
    let first = try #require(symmetric.check().networks[.ipv4])
    #expect(first.mapping == .addressAndPortDependent)
    #expect(first.filtering == .addressAndPortDependent)
    let open = World(filtering: .addressDependent, hosts: 1)
    let second = try #require(open.check().networks[.ipv4])
    #expect(second.mapping == .notPortDependent)
    #expect(second.filtering == .notPortDependent)
  }

  @Test("beacons that know no checks tell the mapping, and nothing that they cannot")
  func withoutChecks() throws {
    let world = World(mapping: .addressAndPortDependent, servesChecks: false)
    let report = world.check()
    let network = try #require(report.networks[.ipv4])
    #expect(network.mapping == .dependent)
    #expect(network.filtering == .unknown)
    #expect(report.beacons.allSatisfy { $0.mtu == nil && $0.otherPort == 0 && $0.roundTrip == 10_000_000 })
    let single = World(hosts: 1, servesChecks: false)
    let known = try #require(single.check().networks[.ipv4])
    #expect(known.mapping == .unknown)
  }

  @Test("hairpin, a firewall without translation, and the largest packet are found")
  func others() throws {
    let hairpin = World(hasHairpin: true, mtu: 1420)
    let report = hairpin.check()
    #expect(report.networks[.ipv4]?.hairpin == true)
    #expect(report.beacons.map(\.mtu) == [1420, 1420])
    let firewall = World(mapping: nil, filtering: .addressAndPortDependent)
    let network = try #require(firewall.check().networks[.ipv4])
    #expect(!network.isTranslated && network.hairpin == nil)
    #expect(network.mapping == .endpointIndependent)
    #expect(network.filtering == .addressAndPortDependent)
  }

  @Test("where UDP is blocked the check ends within a second and says so")
  func blocked() {
    let world = World(isBlocked: true)
    var last: UInt64 = 0
    let report = world.check {
      last = $1
      return []
    }
    #expect(!report.hasUDP && report.networks.isEmpty)
    #expect(last < 1_500_000_000)
    let text = NetcheckReport.text(report.json)
    #expect(text.contains("no beacon answers") && text.contains("no answer"))
  }

  @Test("answers that nobody asked for, or of somebody else, change nothing")
  func hostile() throws {
    let world = World(mapping: .addressAndPortDependent, filtering: .addressAndPortDependent)
    let lie = Endpoint(address: IPv6Address(mappedIPv4: 0x0102_0304), port: 7)
    let report = world.check { machine, now in
      var actions: [NetcheckMachine.Action] = []
      for socket in [NetcheckMachine.Socket.probe, .helper] {
        for from in [World.beacon(1, 9001), World.beacon(2, 9002), lie] {
          for transaction: UInt64 in [0, 1, 400, .max] {
            let reply = BeaconMessage.checkReply(transaction: transaction, seen: lie, otherPort: 1, size: 30)
            actions += machine.handle(.received(socket, from: from, reply.encoded()), now: now)
          }
        }
        for length in 0...31 {
          let zeros = [UInt8](repeating: 0x0C, count: length)
          actions += machine.handle(.received(socket, from: lie, zeros), now: now)
        }
        actions += machine.handle(
          .received(socket, from: lie, BeaconMessage.discoverReply(lie).encoded()), now: now)
      }
      return actions
    }
    let undisturbed = world.check()
    #expect(report == undisturbed)
    #expect(report.networks[.ipv4]?.seen.address == World.outer)
    #expect(report.networks[.ipv4]?.mapping == .addressAndPortDependent)
  }

  @Test("no route is told, and a packet longer than the interface takes is no loss")
  func refusals() throws {
    var machine = NetcheckMachine(beacons: World().beacons, local: [], entropy: 9)
    var actions = machine.start(now: 1)
    #expect(actions.count == 4)
    for case .send(let socket, let bytes, let target) in actions {
      actions = machine.handle(.refused(socket, to: target, size: bytes.count, isTooLong: false), now: 2)
    }
    #expect(machine.isDone)
    #expect(machine.report.beacons.allSatisfy { !$0.hasRoute })
    #expect(NetcheckReport.text(machine.report.json).contains("no route"))
  }

  @Test("the forms for people and programs agree")
  func forms() throws {
    let world = World(mapping: .addressAndPortDependent, filtering: .addressAndPortDependent)
    let data = world.check().json
    #expect(data.flag("udp"))
    #expect(data["ipv4"]?.string("mapping") == "address-and-port-dependent")
    #expect(data["ipv6"] == .null)
    #expect(data.items("beacons").map { $0.int("mtu") } == [1500, 1500])
    #expect(data.items("beacons").allSatisfy { $0.double("rtt_ms") == 10 })
    let text = NetcheckReport.text(data)
    #expect(text.contains("symmetric NAT") && text.contains("203.0.113.1:9001") && text.contains("1500"))
  }

  @Test("beacons come from the flags, or the configuration; without any it is wrong usage")
  func beacons() throws {
    let layers = ConfigurationLayers(flags: [.rendezvous: ["hub"]])
    #expect(try Netcheck.beacons(named: [], layers) == [HostPort(host: "hub", port: 9001)])
    #expect(
      try Netcheck.beacons(named: ["a", "[2001:db8::1]:7"], layers) == [
        HostPort(host: "a", port: 9001), HostPort(host: "2001:db8::1", port: 7),
      ])
    #expect(throws: ControlError.self) { try Netcheck.beacons(named: [], ConfigurationLayers()) }
    #expect(throws: ControlError.self) { try Netcheck.beacons(named: ["a:b:c"], layers) }
  }
}
