// The machine that keeps a port mapped, against routers of a few lines each, in virtual time.

import PortMapping
import Testing
import Wire

private let second: UInt64 = 1_000_000_000
private let external = Endpoint(address: IPv6Address(mappedIPv4: 0xCB00_7109), port: 40_000)
private let network = MappingNetwork(
  server: Endpoint(address: IPv6Address(mappedIPv4: 0xC0A8_0101), port: 5351),
  local: IPv6Address(mappedIPv4: 0xC0A8_010A))

/// A router, and the node's machine at it.
private struct World {
  enum Router { case pcp, natPMP, upnp, silent }

  var router: Router
  var mapper = PortMapper(internalPort: 4000) { PCPNonce(high: $0.local.low, low: 77) }
  var now: UInt64 = 5 * second
  var bootedAt: UInt64 = 0
  var external = PortMapperTests.externalEndpoint
  var lifetime: UInt32 = 1200
  var result: UInt8 = 0
  /// Where answers come from.
  var source = network.server
  /// What the node sent or asked of UPnP, with the time.
  var sent: [(at: UInt64, bytes: [UInt8])] = []
  var upnp: [UPnPRequest] = []
  var changes = 0

  init(_ router: Router) { self.router = router }

  var epoch: UInt32 { UInt32((now - bootedAt) / second) }

  mutating func give(_ event: PortMapperEvent) {
    for action in mapper.handle(event, now: now, entropy: 0x1234_5678_9ABC_DEF0) {
      switch action {
      case .changed: changes += 1
      case .send(let bytes):
        sent.append((now, bytes))
        if let answer = answer(bytes) { give(.received(from: source, answer)) }
      case .upnp(let request):
        upnp.append(request)
        if case .map = request, router == .upnp { give(.upnp(.mapped(external))) }
        if case .map = request, router != .upnp { give(.upnp(.failed("no router answers"))) }
      }
    }
  }

  mutating func run(for duration: UInt64) {
    let end = now + duration
    while let deadline = mapper.nextDeadline, deadline <= end {
      now = max(now, deadline)
      give(.tick)
    }
    now = end
  }

  func answer(_ bytes: [UInt8]) -> [UInt8]? {
    switch (router, bytes.first) {
    case (.pcp, 2):
      var answer: [UInt8] = [2, bytes[1] | 0x80, 0, result]
      answer.appendBig(bytes[4..<8].allSatisfy { $0 == 0 } ? 0 : lifetime)
      answer.appendBig(epoch)
      answer += [UInt8](repeating: 0, count: 12) + bytes[24..<42]
      answer.appendBig(external.port)
      answer.appendBig(external.address.high)
      answer.appendBig(external.address.low)
      return answer
    case (.natPMP, 2): return natPMP(128, code: 1)
    case (.natPMP, 0):
      var answer = natPMP(bytes[1] | 0x80, code: UInt8(result))
      if bytes[1] == 0 {
        answer.appendBig(external.address.mappedIPv4 ?? 0)
      } else {
        answer += bytes[4..<6]
        answer.appendBig(external.port)
        answer.appendBig(lifetime)
      }
      return answer
    default: return nil
    }
  }

  private func natPMP(_ kind: UInt8, code: UInt8) -> [UInt8] {
    var bytes: [UInt8] = [0, kind, 0, code]
    bytes.appendBig(epoch)
    return bytes
  }

  /// What a restarted router tells everybody.
  func announcement() -> [UInt8] {
    if router == .natPMP {
      var bytes = natPMP(128, code: 0)
      bytes.appendBig(external.address.mappedIPv4 ?? 0)
      return bytes
    }
    var bytes: [UInt8] = [2, 0x80, 0, 0, 0, 0, 0, 0]
    bytes.appendBig(epoch)
    return bytes + [UInt8](repeating: 0, count: 12)
  }
}

@Suite("Port mapper")
struct PortMapperTests {
  static let externalEndpoint = external

  @Test("a router's own protocol is found, and its mapping renewed", arguments: ["pcp", "natPMP", "upnp"])
  func maps(kind: String) throws {
    var world = World(kind == "pcp" ? .pcp : kind == "natPMP" ? .natPMP : .upnp)
    world.give(.network(network))
    world.run(for: 10 * second)
    let mapping = try #require(world.mapper.mapping)
    #expect(mapping.external == external)
    #expect(mapping.service == (kind == "pcp" ? .pcp : kind == "natPMP" ? .natPMP : .upnp))
    #expect(world.mapper.problem == nil && world.changes == 1)
    let before = world.sent.count + world.upnp.count
    world.run(for: 3600 * second)
    #expect(world.mapper.mapping == mapping)
    let renewals = world.sent.count + world.upnp.count - before
    #expect((4...12).contains(renewals), "between 600 and 750 s: \(renewals) in an hour")
    #expect(world.changes == 1)
  }

  @Test("silence costs four questions by each protocol in doubling gaps, then a rest of 15 minutes")
  func silence() {
    var world = World(.silent)
    world.give(.network(network))
    world.run(for: 60 * second)
    #expect(world.mapper.mapping == nil)
    #expect(world.mapper.problem?.description.contains("no answer by PCP and NAT-PMP") == true)
    let times = world.sent.map { ($0.at - 5 * second) / 1_000_000 }
    #expect(times == [0, 250, 750, 1750, 3750, 4000, 4500, 5500])
    #expect(world.upnp.count == 1)
    world.run(for: 900 * second)
    #expect(world.sent.count == 16)
    world.give(.network(network))
    #expect(world.sent.count == 17, "a change of the network is worth a try at once")
  }

  @Test("a gateway without the port is not asked twice")
  func refusedPort() {
    var world = World(.silent)
    world.give(.network(network))
    world.give(.refused)
    #expect(world.sent.count == 1 && world.upnp.count == 1)
    #expect(world.mapper.problem != nil)
  }

  @Test("a refusal is told, and tried again when the server says")
  func refusal() {
    var world = World(.pcp)
    world.result = 2
    world.lifetime = 120
    world.give(.network(network))
    #expect(world.mapper.problem == .refused(.pcp, "not authorized"))
    #expect(world.upnp.isEmpty)
    world.result = 0
    world.lifetime = 1200
    world.run(for: 119 * second)
    #expect(world.mapper.mapping == nil)
    world.run(for: 2 * second)
    #expect(world.mapper.mapping?.external == external)
    #expect(world.mapper.problem == nil)
  }

  @Test("a router that restarted is asked again within 5 s, and its new endpoint told", arguments: [true, false])
  func restart(isPCP: Bool) {
    var world = World(isPCP ? .pcp : .natPMP)
    world.give(.network(network))
    world.run(for: 100 * second)
    let before = world.sent.count
    world.give(.received(from: world.source, world.announcement()))
    world.run(for: 6 * second)
    #expect(world.sent.count == before, "an announcement that fits the clock changes nothing")
    world.bootedAt = world.now - second
    world.external.port = 41_000
    world.give(.received(from: world.source, world.announcement()))
    world.run(for: 5 * second)
    #expect(world.mapper.mapping?.external.port == 41_000)
    #expect(world.changes == 2)
    let after = world.sent.count
    for _ in 0..<100 {
      world.bootedAt = world.now
      world.give(.received(from: world.source, world.announcement()))
      world.run(for: second / 100)
    }
    #expect(world.sent.count == after, "a flood of them is worth nothing at once")
    world.run(for: 20 * second)
    #expect(world.sent.count > after && world.sent.count <= after + 2, "and one renewal later")
  }

  @Test("a server that falls silent loses its mapping at the end of its lifetime, not before")
  func loss() {
    var world = World(.pcp)
    world.give(.network(network))
    let grantedAt = world.now
    world.router = .silent
    world.run(for: 1199 * second)
    #expect(world.mapper.mapping != nil)
    let renewals = world.sent.count
    #expect((10...80).contains(renewals), "\(renewals) questions")
    world.run(for: 2 * second)
    #expect(world.mapper.mapping == nil && world.changes == 2)
    #expect(world.now > grantedAt + 1200 * second)
    world.router = .pcp
    world.run(for: 3 * second)
    #expect(world.mapper.mapping != nil)
  }

  @Test("the mapping is given back at the end, whichever protocol gave it")
  func leaving() throws {
    var world = World(.pcp)
    world.give(.network(network))
    world.give(.leave)
    let last = try #require(world.sent.last?.bytes)
    #expect(last.count == PCPMessage.mapSize && last[4..<8].allSatisfy { $0 == 0 })
    #expect(last[24..<36] == world.sent[0].bytes[24..<36], "with the nonce that it was made with")
    #expect(world.mapper.mapping == nil && world.mapper.nextDeadline == nil && world.changes == 2)

    world = World(.natPMP)
    world.give(.network(network))
    world.give(.leave)
    #expect(world.sent.last?.bytes == NATPMPMessage.mapRequest(internalPort: 4000, externalPort: 0, lifetime: 0))

    world = World(.upnp)
    world.give(.network(network))
    world.run(for: 10 * second)
    world.give(.leave)
    #expect(world.upnp.last == .unmap(externalPort: external.port))
  }

  @Test("another network is asked with another nonce, and none has no mapping")
  func networks() {
    var world = World(.pcp)
    world.give(.network(network))
    let other = MappingNetwork(
      server: Endpoint(address: IPv6Address(mappedIPv4: 0x0A00_0001), port: 5351),
      local: IPv6Address(mappedIPv4: 0x0A00_0002))
    world.source = other.server
    world.give(.leave)
    world.give(.network(other))
    #expect(world.mapper.mapping != nil)
    #expect(world.sent.last.map { $0.bytes[24..<36] == world.sent[0].bytes[24..<36] } == false)
    world.give(.network(nil))
    #expect(world.mapper.mapping == nil && world.mapper.problem == .noGateway(.ipv4))
    #expect(world.mapper.nextDeadline == nil)
  }

  @Test("answers of others, with another nonce or another port, and useless ones count for nothing")
  func hostile() {
    var world = World(.pcp)
    world.source = Endpoint(address: IPv6Address(mappedIPv4: 0xC0A8_0166), port: 5351)
    world.give(.network(network))
    #expect(world.mapper.mapping == nil && world.mapper.ignored == 1)
    world.give(.received(from: network.server, [2, 1, 0]))
    #expect(world.mapper.ignored == 2)

    for offset in [24, 35, 41] {
      world = World(.silent)
      world.give(.network(network))
      world.router = .pcp
      var answer = world.answer(world.sent[0].bytes) ?? []
      answer[offset] ^= 1
      world.give(.received(from: network.server, answer))
      #expect(world.mapper.mapping == nil && world.mapper.ignored == 1, "octet \(offset)")
      answer[offset] ^= 1
      world.give(.received(from: network.server, answer))
      #expect(world.mapper.mapping != nil, "octet \(offset)")
    }

    for (address, port, lifetime) in [
      (UInt32(0x7F00_0001), UInt16(4000), UInt32(1200)), (0xE000_0001, 4000, 1200), (0, 4000, 1200),
      (0xCB00_7109, 0, 1200), (0xCB00_7109, 4000, 1),
    ] {
      world = World(.pcp)
      world.external = Endpoint(address: IPv6Address(mappedIPv4: address), port: port)
      world.lifetime = lifetime
      world.give(.network(network))
      #expect(world.mapper.mapping == nil)
      if case .useless? = world.mapper.problem {} else { Issue.record("\(String(describing: world.mapper.problem))") }
      #expect(world.sent.last.map { $0.bytes[4..<8].allSatisfy { $0 == 0 } } == true, "it is given back")
      #expect(world.mapper.nextDeadline == world.now + PortMapper.retryInterval)
    }
    world = World(.pcp)
    world.lifetime = .max
    world.give(.network(network))
    #expect(world.mapper.nextDeadline.map { $0 < world.now + 86_400 * second } == true)
  }
}
