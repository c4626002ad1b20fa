// The simulator's NAT against RFC 4787, by probing it as a STUN client does (RFC 5780): one inner socket, two servers
// with two ports each.

import SeededRandom
import Simulator
import Testing
import Wire

private let second: UInt64 = 1_000_000_000

@Suite("Virtual NAT")
struct VirtualNATTests {
  private static let external = IPv6Address(mappedIPv4: 0xCB00_7101)
  private static let inner = Endpoint(address: IPv6Address(mappedIPv4: 0xC0A8_0102), port: 4000)
  /// Address and port alternate: 1 and 2 share the address, 1 and 3 the port.
  private static let servers = [
    Endpoint(address: IPv6Address(mappedIPv4: 0xC612_0001), port: 3478),
    Endpoint(address: IPv6Address(mappedIPv4: 0xC612_0001), port: 3479),
    Endpoint(address: IPv6Address(mappedIPv4: 0xC612_0002), port: 3478),
  ]

  /// A NAT under test with its clock.
  private final class Probe {
    var nat: VirtualNAT
    var now: UInt64 = 1000 * second
    var generator = SeededGenerator(seed: 7)

    init(_ behaviour: VirtualNAT.Behaviour) { nat = VirtualNAT(external: external, behaviour: behaviour) }

    func out(_ inner: Endpoint = inner, to remote: Endpoint) -> Endpoint? {
      nat.outbound(from: inner, to: remote, now: now, using: &generator)
    }

    func comesIn(from remote: Endpoint, to outer: Endpoint) -> Bool {
      behind(outer, from: remote) != nil
    }

    func behind(_ outer: Endpoint, from remote: Endpoint) -> Endpoint? {
      try? nat.inbound(from: remote, to: outer, now: now).get()
    }
  }

  @Test("the mapping depends on what it says", arguments: VirtualNAT.Behaviour.all)
  func mapping(behaviour: VirtualNAT.Behaviour) throws {
    let probe = Probe(behaviour)
    var seen: [Endpoint] = []
    for server in Self.servers { seen.append(try #require(probe.out(to: server))) }
    #expect(seen.allSatisfy { $0.address == Self.external })
    #expect((seen[0] == seen[1]) == (behaviour.mapping != .addressAndPortDependent))
    #expect((seen[0] == seen[2]) == (behaviour.mapping == .endpointIndependent))
    let again = try #require(probe.out(to: Self.servers[0]))
    #expect(again == seen[0], "a mapping is kept")
  }

  @Test("the filter depends on what it says", arguments: VirtualNAT.Behaviour.all)
  func filtering(behaviour: VirtualNAT.Behaviour) throws {
    let probe = Probe(behaviour)
    let outer = try #require(probe.out(to: Self.servers[0]))
    var passed: [Bool] = []
    for server in Self.servers { passed.append(probe.comesIn(from: server, to: outer)) }
    let expected: [Bool] =
      switch behaviour.filtering {
      case .endpointIndependent: [true, true, true]
      case .addressDependent: [true, true, false]
      case .addressAndPortDependent: [true, false, false]
      }
    #expect(passed == expected)
    let stranger = probe.comesIn(from: Self.servers[0], to: Endpoint(address: Self.external, port: 9))
    #expect(!stranger, "a port without mapping takes nothing")
    #expect(probe.behind(outer, from: Self.servers[0]) == Self.inner)
  }

  @Test("ports are preserved while free, counted up, or drawn")
  func allocation() throws {
    let preserving = Probe(.portRestricted)
    let other = Endpoint(address: IPv6Address(mappedIPv4: 0xC0A8_0103), port: 4000)
    let first = try #require(preserving.out(to: Self.servers[0]))
    let next = try #require(preserving.out(other, to: Self.servers[0]))
    #expect(first.port == 4000 && next.port == 4001)
    let sequential = Probe(.symmetricSequential)
    let counted = (0..<3).compactMap { sequential.out(to: Self.servers[$0])?.port }
    #expect(counted == [20_001, 20_002, 20_003])
    let random = Probe(.symmetric)
    var drawn: [UInt16] = []
    for port in UInt16(1)...50 {
      let server = Endpoint(address: Self.servers[0].address, port: port)
      drawn.append(try #require(random.out(to: server)).port)
    }
    #expect(Set(drawn).count == 50 && drawn != drawn.sorted())
  }

  @Test("a mapping ends with its timeout; outbound refreshes it, inbound only where the NAT says so")
  func timeouts() throws {
    for isRefreshed in [false, true] {
      let probe = Probe(.init(timeout: 30 * second, isRefreshedByInbound: isRefreshed))
      let outer = try #require(probe.out(to: Self.servers[0]))
      probe.now += 20 * second
      _ = probe.out(to: Self.servers[0])
      probe.now += 20 * second
      #expect(probe.comesIn(from: Self.servers[0], to: outer), "refreshed by outbound")
      probe.now += 20 * second
      let comesIn = probe.comesIn(from: Self.servers[0], to: outer)
      #expect(comesIn == isRefreshed)
      probe.now += 40 * second
      #expect(!probe.comesIn(from: Self.servers[0], to: outer))
    }
  }

  @Test("a permission of the filter ends by itself while the mapping lives on")
  func permissions() throws {
    let probe = Probe(.init(timeout: 30 * second))
    let outer = try #require(probe.out(to: Self.servers[0]))
    for _ in 0..<3 {
      probe.now += 15 * second
      _ = probe.out(to: Self.servers[2])
    }
    #expect(probe.comesIn(from: Self.servers[2], to: outer))
    #expect(!probe.comesIn(from: Self.servers[0], to: outer))
  }

  @Test("a port whose mapping ended belongs to whoever takes it next, also when the first returns")
  func reuse() throws {
    let probe = Probe(.init(timeout: 30 * second))
    let other = Endpoint(address: IPv6Address(mappedIPv4: 0xC0A8_0103), port: 4000)
    let first = try #require(probe.out(to: Self.servers[0]))
    probe.now += 31 * second
    let taken = try #require(probe.out(other, to: Self.servers[0]))
    let third = try #require(probe.out(to: Self.servers[0]))
    #expect(first == taken && third != taken)
    #expect(probe.behind(taken, from: Self.servers[0]) == other)
    #expect(probe.behind(third, from: Self.servers[0]) == Self.inner)
  }

  @Test("a flush and another address lose the table, and dead mappings do not pile up")
  func losses() throws {
    let probe = Probe(.symmetric)
    let outer = try #require(probe.out(to: Self.servers[0]))
    probe.nat.flush()
    #expect(!probe.comesIn(from: Self.servers[0], to: outer))
    let moved = IPv6Address(mappedIPv4: 0xCB00_7102)
    probe.nat.renumber(to: moved)
    let anew = try #require(probe.out(to: Self.servers[0]))
    #expect(anew.address == moved)
    for port in UInt16(1)...2000 {
      probe.now += second
      _ = probe.out(to: Endpoint(address: Self.servers[0].address, port: port))
    }
    #expect(probe.nat.mappingCount < 500)
  }

  @Test("a firewall translates nothing and filters all the same")
  func firewall() throws {
    let probe = Probe(.firewall)
    let own = Endpoint(address: IPv6Address(high: 0x2001_0DB8_0000_0000, low: 5), port: 4000)
    let server = Endpoint(address: IPv6Address(high: 0x2001_0DB8_0000_0001, low: 1), port: 3478)
    #expect(!probe.comesIn(from: server, to: own))
    let outer = try #require(probe.out(own, to: server))
    #expect(outer == own)
    #expect(probe.comesIn(from: server, to: own))
    #expect(!probe.comesIn(from: Endpoint(address: server.address, port: 1), to: own))
  }
}
