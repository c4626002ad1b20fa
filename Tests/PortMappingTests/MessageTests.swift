// PCP and NAT-PMP octet by octet, as RFC 6887 and RFC 6886 draw them, with malformed twins.

import PortMapping
import Testing
import Wire

@Suite("Messages of PCP and NAT-PMP")
struct MessageTests {
  static let nonce = PCPNonce(high: 0x0102_0304_0506_0708, low: 0x090A_0B0C)
  static let external = Endpoint(address: IPv6Address(mappedIPv4: 0xCB00_7109), port: 40_000)
  static let mapping = PCPMessage.Mapping(nonce: nonce, internalPort: 4000, external: external)

  private static let mapped: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]
  private static let mapBody: [UInt8] =
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 17, 0, 0, 0, 0x0F, 0xA0, 0x9C, 0x40] + mapped + [203, 0, 113, 9]

  static func mapResponse(result: UInt8 = 0) -> [UInt8] {
    [2, 0x81, 0, result, 0, 0, 4, 0xB0, 0, 0, 0, 9] + [UInt8](repeating: 0, count: 12) + mapBody
  }

  @Test("requests of PCP are laid out as in RFC 6887 §7.1 and §11.1")
  func pcpRequests() {
    let client = IPv6Address(mappedIPv4: 0xC0A8_010A)
    let header: [UInt8] = [2, 1, 0, 0, 0, 0, 4, 0xB0] + Self.mapped + [192, 168, 1, 10]
    let map = PCPMessage.mapRequest(Self.mapping, lifetime: 1200, client: client)
    #expect(map == header + Self.mapBody)
    #expect(map.count == PCPMessage.mapSize)
    #expect(
      PCPMessage.announceRequest(client: client) == [2, 0, 0, 0, 0, 0, 0, 0] + Self.mapped + [192, 168, 1, 10])
  }

  @Test("a response of PCP is read, its malformed twins are not")
  func pcpResponses() throws {
    let bytes = Self.mapResponse()
    let response = try #require(PCPMessage.Response(bytes))
    #expect(response.result == .success && response.lifetime == 1200 && response.epoch == 9)
    #expect(response.mapping == Self.mapping)
    #expect(PCPMessage.Response(bytes + [3, 0, 0, 0])?.mapping == Self.mapping, "options are passed over")
    #expect(PCPMessage.Response(Self.mapResponse(result: 2))?.result.description == "not authorized")
    for size in [0, 1, 3, 23, 25, 56, 59, 61] {
      #expect(PCPMessage.Response(Array((bytes + [0]).prefix(size))) == nil, "\(size) octets")
    }
    #expect(PCPMessage.Response(Array(bytes.prefix(24))) == nil, "a success needs its mapping")
    #expect(PCPMessage.Response(bytes + [UInt8](repeating: 0, count: 1044)) == nil, "longer than any message")
    for (offset, value) in [(0, UInt8(1)), (1, 0x01), (36, 6)] {
      var twin = bytes
      twin[offset] = value
      #expect(PCPMessage.Response(twin) == nil, "octet \(offset) is \(value)")
    }
    let header = Array(Self.mapResponse(result: 1).prefix(24))
    #expect(PCPMessage.Response(header)?.result == .unsupportedVersion)
  }

  @Test("messages of NAT-PMP are those of RFC 6886 §3.2 and §3.3")
  func natPMP() {
    #expect(NATPMPMessage.addressRequest == [0, 0])
    #expect(
      NATPMPMessage.mapRequest(internalPort: 4000, externalPort: 4001, lifetime: 1200)
        == [0, 1, 0, 0, 0x0F, 0xA0, 0x0F, 0xA1, 0, 0, 4, 0xB0])
    let address: [UInt8] = [0, 128, 0, 0, 0, 0, 0, 7, 203, 0, 113, 9]
    #expect(NATPMPMessage.Response(address)?.answer == .address(Self.external.address))
    #expect(NATPMPMessage.Response(address)?.epoch == 7)
    let mapping: [UInt8] = [0, 129, 0, 0, 0, 0, 0, 7, 0x0F, 0xA0, 0x9C, 0x40, 0, 0, 4, 0xB0]
    #expect(
      NATPMPMessage.Response(mapping)?.answer
        == .mapping(internalPort: 4000, externalPort: 40_000, lifetime: 1200))
    let refusal: [UInt8] = [0, 128, 0, 1, 0, 0, 0, 7]
    #expect(NATPMPMessage.Response(refusal)?.answer == .failure(.unsupportedVersion))
    for size in 0..<mapping.count { #expect(NATPMPMessage.Response(Array(mapping.prefix(size))) == nil) }
    #expect(NATPMPMessage.Response(mapping + [0]) == nil)
    #expect(NATPMPMessage.Response([0, 1] + mapping.dropFirst(2)) == nil, "a request is no response")
    #expect(NATPMPMessage.Response([0, 130] + mapping.dropFirst(2)) == nil, "TCP was not asked for")
    #expect(NATPMPMessage.Response([2] + mapping.dropFirst()) == nil)
  }
}
