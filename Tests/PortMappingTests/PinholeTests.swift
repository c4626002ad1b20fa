// A hole in the router's firewall for IPv6, asked for by PCP alone (RFC 6887).

import PortMapping
import Testing
import Wire

@Suite("Pinholes")
struct PinholeTests {
  private static let second: UInt64 = 1_000_000_000
  private static let own = IPv6Address(high: 0x2001_0DB8_0000_0002, low: 0x10)
  private static let network = MappingNetwork(
    server: Endpoint(address: IPv6Address(high: 0xFE80_0000_0000_0000, low: 1), port: 5351), local: own, scope: 2)

  private var mapper = PortMapper(internalPort: 4000, family: .ipv6) { PCPNonce(high: $0.local.low, low: 77) }

  /// What a server answers to a MAP.
  private func answer(_ request: [UInt8], result: UInt8 = 0, external: IPv6Address, lifetime: UInt32 = 1200) -> [UInt8]
  {
    var answer: [UInt8] = [2, 0x81, 0, result]
    answer.appendBig(lifetime)
    answer.appendBig(UInt32(100))
    answer += [UInt8](repeating: 0, count: 12) + request[24..<42]
    answer.appendBig(UInt16(4000))
    answer.appendBig(external.high)
    answer.appendBig(external.low)
    return answer
  }

  private mutating func begin() throws -> [UInt8] {
    let actions = mapper.handle(.network(Self.network), now: Self.second, entropy: 5)
    guard case .send(let request)? = actions.first, actions.count == 1 else { throw Failure() }
    return request
  }
  private struct Failure: Error {}

  private mutating func hear(_ bytes: [UInt8]) -> [PortMapperAction] {
    mapper.handle(.received(from: Self.network.server, bytes), now: 2 * Self.second, entropy: 5)
  }

  @Test("the request names our address and any external one, the answer is the mapping, the end gives it back")
  mutating func granted() throws {
    let request = try begin()
    let client = Array(request[8..<24])
    let wanted = Array(request[44..<60])
    #expect(request.count == 60 && client == Self.own.bytes)
    #expect(wanted == [UInt8](repeating: 0, count: 16), "any address of IPv6 (RFC 6887 §11.1)")
    let heard = hear(answer(request, external: Self.own))
    #expect(heard == [.changed])
    #expect(mapper.mapping?.external == Endpoint(address: Self.own, port: 4000) && mapper.mapping?.service == .pcp)
    let last = mapper.handle(.leave, now: 3 * Self.second, entropy: 5)
    guard case .send(let bytes)? = last.first else { throw Failure() }
    let lifetime = Array(bytes[4..<8])
    let external = Array(bytes[42..<60])
    #expect(lifetime == [0, 0, 0, 0] && external == [UInt8](repeating: 0, count: 18))
  }

  @Test(
    "addresses at which nobody reaches a machine are refused, and given back",
    arguments: [
      IPv6Address(high: 0, low: 0), IPv6Address(high: 0, low: 1), IPv6Address(high: 0xFE80_0000_0000_0000, low: 1),
      IPv6Address(high: 0xFF02_0000_0000_0000, low: 1), IPv6Address(mappedIPv4: 0xCB00_7109),
      IPv6Address(high: 0xFD50_494C_4F54_0000, low: 7), IPv6Address(high: 0xFD00_0000_0000_0002, low: 16),
    ])
  mutating func useless(external: IPv6Address) throws {
    let request = try begin()
    let heard = hear(answer(request, external: external))
    #expect(mapper.mapping == nil && mapper.nextDeadline == 2 * Self.second + PortMapper.retryInterval)
    guard case .send(let bytes)? = heard.first, heard.last == .changed, heard.count == 2 else { throw Failure() }
    let lifetime = Array(bytes[4..<8])
    let nonces = (Array(request[24..<36]), Array(bytes[24..<36]))
    #expect(lifetime == [0, 0, 0, 0] && nonces.0 == nonces.1)
    guard case .useless? = mapper.problem else { throw Failure() }
  }

  @Test("where PCP is not spoken nothing else is asked: no NAT-PMP, no UPnP")
  mutating func silence() throws {
    _ = try begin()
    var now = Self.second
    var sent = 1
    while mapper.problem == nil, let due = mapper.nextDeadline {
      now = max(now, due)
      for action in mapper.handle(.tick, now: now, entropy: 5) {
        if case .send(let bytes) = action {
          #expect(bytes[0] == 2)
          sent += 1
        } else {
          #expect(action == .changed)
        }
      }
    }
    #expect(sent == PortMapper.searchTries && mapper.problem == .noPCP)
    #expect(mapper.nextDeadline == now + PortMapper.retryInterval)
  }

  @Test("a server that knows another version, or nobody at the port, ends the search at once")
  mutating func refusals() throws {
    _ = try begin()
    let unsupported: [UInt8] = [0, 0x80, 0, 1, 0, 0, 0, 0]
    let heard = hear(unsupported)
    #expect(heard == [.changed] && mapper.problem == .noPCP)
    _ = mapper.handle(.leave, now: 3 * Self.second, entropy: 5)
    _ = try begin()
    let refused = mapper.handle(.refused, now: 3 * Self.second, entropy: 5)
    #expect(refused == [.changed] && mapper.problem == .noPCP)
  }

  @Test("without a default gateway that is said for the family")
  mutating func noGateway() {
    _ = mapper.handle(.network(nil), now: 1, entropy: 5)
    #expect(mapper.problem == .noGateway(.ipv6))
    #expect(mapper.problem?.description.contains("IPv6") == true)
  }
}
