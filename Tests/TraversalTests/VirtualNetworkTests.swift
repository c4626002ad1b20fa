// The simulator's network: where datagrams go through hosts, NATs and NATs behind NATs, what the faults do to them, and
// whom the beacon knows.

import Simulator
import Testing
import Wire

private let ms: UInt64 = 1_000_000
private let second: UInt64 = 1_000_000_000

/// A socket that notes what it gets.
private final class Probe: VirtualSocket {
  let host: VirtualHost
  let network: VirtualNetwork
  var arrived: [(payload: VirtualPayload, from: Endpoint)] = []
  var refusals: [Int?] = []

  init(_ network: VirtualNetwork, _ id: UInt32, _ segment: VirtualSegment? = nil, _ address: IPv6Address) {
    self.network = network
    host = VirtualHost(id: id)
    host.join(segment ?? network.core, as: address)
    host.socket = self
  }

  func receive(_ payload: VirtualPayload, from source: Endpoint) { arrived.append((payload, source)) }
  func refused(to destination: Endpoint, mtu: Int?) { refusals.append(mtu) }

  var endpoint: Endpoint { host.endpoints[0] }

  func send(to endpoint: Endpoint, size: Int = 100) {
    network.send(.frame([UInt8](repeating: 0x60, count: size)), from: host, to: endpoint, about: 0)
  }

  /// The own endpoint as the beacon sees it.
  func discover(node: UInt32 = 0) -> Endpoint? {
    network.send(.beacon(.discover(node: node, key: nil)), from: host, to: network.beacons[0].endpoint, about: 0)
    network.run(for: 50 * ms)
    guard case .beacon(.discoverReply(let endpoint)) = arrived.last?.payload else { return nil }
    return endpoint
  }
}

@Suite("Virtual network")
struct VirtualNetworkTests {
  private static func v4(_ address: UInt32) -> IPv6Address { IPv6Address(mappedIPv4: address) }
  private static let lanAddress = v4(0xC0A8_0102)

  @Test("hosts of one LAN reach each other, hosts of two LANs with the same addresses do not")
  func segments() {
    let network = VirtualNetwork(seed: 1)
    defer { network.shutDown() }
    let home = network.addSegment("home", behind: .portRestricted, external: Self.v4(0xCB00_7101))
    let other = network.addSegment("other", behind: .portRestricted, external: Self.v4(0xCB00_7102))
    let a = Probe(network, 1, home, Self.lanAddress)
    let b = Probe(network, 2, home, Self.v4(0xC0A8_0103))
    let c = Probe(network, 3, other, Self.v4(0xC0A8_0104))
    a.send(to: b.endpoint)
    a.send(to: c.endpoint)
    network.run(for: ms)
    #expect(b.arrived.map(\.from) == [a.endpoint])
    network.run(for: second)
    #expect(c.arrived.isEmpty)
    #expect(network.report.contains("no route"))
  }

  @Test("through two NATs the beacon sees the outer one, and an answer finds the way back")
  func nested() {
    let network = VirtualNetwork(seed: 2)
    defer { network.shutDown() }
    let carrier = network.addSegment("carrier", behind: .symmetric, external: Self.v4(0xCB00_7101))
    let home = network.addSegment("home", behind: .portRestricted, external: Self.v4(0x6440_0002), of: carrier)
    let a = Probe(network, 1, home, Self.lanAddress)
    let seen = a.discover()
    #expect(seen?.address == Self.v4(0xCB00_7101))
    #expect(a.arrived.count == 1)
  }

  @Test("hairpinning: only where the NAT does it, with the external source", arguments: [false, true])
  func hairpin(hairpins: Bool) throws {
    let network = VirtualNetwork(seed: 3)
    defer { network.shutDown() }
    let home = network.addSegment(
      "home", behind: .init(filtering: .endpointIndependent, hairpins: hairpins), external: Self.v4(0xCB00_7101))
    let a = Probe(network, 1, home, Self.lanAddress)
    let b = Probe(network, 2, home, Self.v4(0xC0A8_0103))
    let reflexive = try #require(b.discover())
    a.send(to: reflexive)
    network.run(for: 50 * ms)
    #expect(b.arrived.count == (hairpins ? 2 : 1))
    if hairpins { #expect(b.arrived.last?.from.address == Self.v4(0xCB00_7101)) }
  }

  @Test("IPv6 passes a router without a firewall, and a firewall once it was opened from inside")
  func addressesOfVersion6() {
    let network = VirtualNetwork(seed: 4)
    defer { network.shutDown() }
    let home = network.addSegment(
      "home", behind: .portRestricted, external: Self.v4(0xCB00_7101), firewall: .firewall)
    let inside = Probe(network, 1, home, IPv6Address(high: 0x2001_0DB8_0001_0000, low: 5))
    let outside = Probe(network, 2, nil, IPv6Address(high: 0x2001_0DB8_0002_0000, low: 5))
    outside.send(to: inside.endpoint)
    network.run(for: 50 * ms)
    #expect(inside.arrived.isEmpty)
    inside.send(to: outside.endpoint)
    network.run(for: 50 * ms)
    #expect(outside.arrived.map(\.from) == [inside.endpoint])
    outside.send(to: inside.endpoint)
    network.run(for: 50 * ms)
    #expect(inside.arrived.count == 1)
  }

  @Test("a datagram above the link's MTU vanishes, or is refused to its sender")
  func sizes() {
    for refuses in [false, true] {
      let network = VirtualNetwork(seed: 5)
      defer { network.shutDown() }
      let home = network.addSegment("home", behind: .portRestricted, external: Self.v4(0xCB00_7101))
      let a = Probe(network, 1, home, Self.lanAddress)
      let b = Probe(network, 2, nil, Self.v4(0xCB00_7109))
      home.router?.link.mtu = 1280
      home.router?.link.refusesTooBig = refuses
      a.send(to: b.endpoint, size: 1252)
      a.send(to: b.endpoint, size: 1253)
      network.run(for: 50 * ms)
      #expect(b.arrived.count == 1)
      #expect(a.refusals == (refuses ? [1280] : []))
    }
  }

  @Test("links that are down, block UDP, lose and delay")
  func links() {
    let network = VirtualNetwork(seed: 6)
    defer { network.shutDown() }
    let a = Probe(network, 1, nil, Self.v4(0xCB00_7108))
    let b = Probe(network, 2, nil, Self.v4(0xCB00_7109))
    a.host.link.isUp = false
    a.send(to: b.endpoint)
    network.run(for: ms)
    #expect(a.refusals == [nil])
    a.host.link.isUp = true
    a.host.link.passesUDP = false
    a.send(to: b.endpoint)
    a.host.link.passesUDP = true
    a.host.link.latency = 100 * ms
    a.send(to: b.endpoint)
    network.run(for: 104 * ms)
    #expect(b.arrived.isEmpty)
    network.run(for: 2 * ms)
    #expect(b.arrived.count == 1)
    a.host.link.loss = 0.3
    for _ in 0..<1000 { a.send(to: b.endpoint) }
    network.run(for: second)
    #expect((600...800).contains(b.arrived.count))
    let before = b.arrived.count
    network.blackholes = [[1, 2]]
    a.host.link.loss = 0
    a.send(to: b.endpoint)
    b.send(to: a.endpoint)
    network.run(for: second)
    #expect(b.arrived.count == before && a.arrived.count == 1)
  }

  @Test("the beacon relays to a node as long as its NAT keeps the mapping, and forgets everyone at a restart")
  func beacon() {
    let network = VirtualNetwork(seed: 7)
    defer { network.shutDown() }
    let home = network.addSegment("home", behind: .init(timeout: 30 * second), external: Self.v4(0xCB00_7101))
    let a = Probe(network, 1, home, Self.lanAddress)
    let b = Probe(network, 2, nil, Self.v4(0xCB00_7109))
    let beacon = network.beacons[0]
    func relay() -> Bool {
      let before = a.arrived.count
      network.send(.relay(source: 2, destination: 1, .punch), from: b.host, to: beacon.endpoint, about: 1)
      network.run(for: 50 * ms)
      return a.arrived.count == before + 1
    }
    #expect(!relay(), "it knows nobody")
    _ = a.discover(node: 1)
    #expect(relay())
    if case .relayed(2, .punch)? = a.arrived.last?.payload {} else { Issue.record("not as code 06") }
    network.run(for: 31 * second)
    #expect(!relay(), "the mapping ended")
    _ = a.discover(node: 1)
    #expect(relay())
    beacon.restart()
    #expect(!relay())
    // Another socket claims the id too soon after.
    _ = a.discover(node: 1)
    _ = b.discover(node: 1)
    #expect(beacon.binding(of: 1)?.address == Self.v4(0xCB00_7101))
  }

  @Test("a punch request tells both ends where the other is")
  func punch() {
    let network = VirtualNetwork(seed: 8)
    defer { network.shutDown() }
    let home = network.addSegment("home", behind: .portRestricted, external: Self.v4(0xCB00_7101))
    let a = Probe(network, 1, home, Self.lanAddress)
    let b = Probe(network, 2, nil, Self.v4(0xCB00_7109))
    let seen = a.discover(node: 1)
    _ = b.discover(node: 2)
    let request = VirtualPayload.beacon(.punchRequest(requester: 2, target: 1, grant: nil))
    network.send(request, from: b.host, to: network.beacons[0].endpoint, about: 1)
    network.run(for: 50 * ms)
    func told(_ probe: Probe) -> Endpoint? {
      if case .beacon(.punchCommand(let endpoint))? = probe.arrived.last?.payload { return endpoint }
      return nil
    }
    #expect(told(a) == b.endpoint && told(b) == seen)
  }

  @Test("roaming: a host that moved is reached at its new place only, a renumbered router at its new address")
  func roaming() throws {
    let network = VirtualNetwork(seed: 9)
    defer { network.shutDown() }
    let home = network.addSegment("home", behind: .fullCone, external: Self.v4(0xCB00_7101))
    let a = Probe(network, 1, home, Self.lanAddress)
    let b = Probe(network, 2, nil, Self.v4(0xCB00_7109))
    let seen = try #require(a.discover())
    home.router?.renumber(to: Self.v4(0xCB00_7102))
    b.send(to: seen)
    network.run(for: second)
    #expect(a.arrived.count == 1)
    let anew = try #require(a.discover())
    #expect(anew.address == Self.v4(0xCB00_7102))
    a.host.move(to: network.core, as: Self.v4(0xCB00_7155), port: 5000)
    b.send(to: anew)
    b.send(to: Endpoint(address: Self.v4(0xCB00_7155), port: 5000))
    network.run(for: second)
    #expect(a.arrived.count == 3)
  }

  @Test("events run in the order of their times, those of one time in the order they came")
  func order() {
    let network = VirtualNetwork(seed: 10)
    var seen: [Int] = []
    var expected: [(time: UInt64, number: Int)] = []
    for number in 0..<5000 {
      let delay = UInt64.random(in: 0...300, using: &network.generator)
      expected.append((delay, number))
      network.schedule(after: delay) { seen.append(number) }
    }
    network.run(for: second)
    expected.sort { ($0.time, $0.number) < ($1.time, $1.number) }
    let isSorted = seen == expected.map(\.number)
    #expect(isSorted)
  }
}
