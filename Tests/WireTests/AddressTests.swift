// Text and wire forms of addresses: Tests/Vectors/addresses.json, RFC 5952, and the overlay mapping.

import Testing
import Wire

private struct AddressVectors: Decodable {
  struct Valid: Decodable {
    let text: String
    let network: UInt16
    let node: UInt32
    let wire: Hex
    let canonical: String
  }
  struct Invalid: Decodable {
    let text: String
    let why: String
  }
  let valid: [Valid]
  let invalid: [Invalid]
}

@Suite("Addresses")
struct AddressTests {
  @Test("every valid Pilot address of the vectors is read and written in canonical form")
  func validAddresses() throws {
    let vectors: AddressVectors = try Source.vectors("addresses")
    #expect(vectors.valid.count == 12)
    for vector in vectors.valid {
      let address = try #require(PilotAddress(vector.text), "\(vector.text)")
      #expect(address == PilotAddress(network: vector.network, node: vector.node))
      #expect(address.description == vector.canonical)
      var wire: [UInt8] = []
      wire.appendBig(address.network)
      wire.appendBig(address.node)
      #expect(wire == vector.wire.bytes)
    }
  }

  @Test("every invalid Pilot address of the vectors is refused")
  func invalidAddresses() throws {
    let vectors: AddressVectors = try Source.vectors("addresses")
    #expect(vectors.invalid.count == 17)
    for vector in vectors.invalid { #expect(PilotAddress(vector.text) == nil, "\(vector.why): \(vector.text)") }
  }

  @Test(
    "an IPv6 address is written as RFC 5952 says",
    arguments: [
      ("::", "::"), ("::1", "::1"), ("1::", "1::"), ("0:0:0:0:0:0:0:0", "::"),
      ("2001:0db8::0001", "2001:db8::1"), ("2001:db8:0:0:0:0:2:1", "2001:db8::2:1"),
      ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"), ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
      ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"), ("2001:DB8::ABCD", "2001:db8::abcd"),
      ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"), ("::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"),
      ("::ffff:192.0.2.7", "192.0.2.7"), ("192.0.2.7", "192.0.2.7"), ("64:ff9b::192.0.2.33", "64:ff9b::c000:221"),
      ("fd50:494c:4f54:0:0:0:0:1", "fd50:494c:4f54::1"),
    ])
  func addressText(text: String, canonical: String) throws {
    let address = try #require(IPv6Address(text))
    #expect(address.description == canonical)
    #expect(IPv6Address(canonical) == address)
  }

  @Test(
    "what is no address text is refused",
    arguments: [
      "", ":", ":::", "1", "1:2", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1::2::3", "12345::", "g::", ":1::", "1:",
      "::1:", "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:1.2.3.4", "::1.2.3", "::256.1.1.1",
      "::1.2.3.4:5", "fe80::1%eth0", "::1/128", "[::1]", " ::1", "::1 ", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.-4",
      "1.2.3.", "::é",
    ])
  func badAddressText(text: String) {
    #expect(IPv6Address(text) == nil)
  }

  @Test("an IPv6 address survives bytes and text, whatever its bits")
  func addressRoundTrip() {
    var generator = SeededGenerator(seed: 5952)
    for _ in 0..<2000 {
      // Sparse bits, so that runs of zero groups of all lengths occur.
      let mask = generator.next() & generator.next()
      let address = IPv6Address(
        high: generator.next() & mask & generator.next(), low: generator.next() & ~mask & generator.next())
      #expect(IPv6Address(address.description) == address)
      #expect(address.bytes.withUnsafeBytes { $0.baseAddress.map { IPv6Address($0, at: 0) } } == address)
      var stored = [UInt8](repeating: 0, count: 17)
      stored.withUnsafeMutableBytes { $0.baseAddress.map { address.store(to: $0, at: 1) } }
      #expect(Array(stored.dropFirst()) == address.bytes)
    }
  }

  @Test("an address is read out of a socket address of its family, and of no other")
  func socketAddresses() {
    var bytes: [UInt8] = [2, 0, 0x23, 0x29, 192, 0, 2, 7] + [UInt8](repeating: 0, count: 20)
    func read() -> IPv6Address? { bytes.withUnsafeBytes { IPv6Address(socketAddress: $0.baseAddress!) } }
    #expect(read() == IPv6Address("192.0.2.7"))
    bytes.replaceSubrange(
      0..<24, with: [10, 0, 0x23, 0x29, 0, 0, 0, 0, 0x20, 1, 0x0D, 0xB8] + [UInt8](repeating: 0, count: 11) + [9])
    #expect(read() == IPv6Address("2001:db8::9"))
    bytes[0] = 1
    #expect(read() == nil, "AF_UNIX")
  }

  @Test("an endpoint is read and written with its port; signs, names and bare IPv6 are refused")
  func endpoints() throws {
    let v4 = try #require(Endpoint("192.0.2.7:9001"))
    #expect(v4.isIPv4 && v4.port == 9001 && v4.description == "192.0.2.7:9001")
    let v6 = try #require(Endpoint("[2001:db8::7]:65535"))
    #expect(!v6.isIPv4 && v6.description == "[2001:db8::7]:65535")
    let refused = [
      "", ":1", "1.2.3.4", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:+5", "1.2.3.4:-5", "::1:5", "host:1", "[::1]",
    ]
    for text in refused {
      #expect(Endpoint(text) == nil, "\(text)")
    }
  }

  @Test("every Pilot address maps to one overlay address and back")
  func overlayRoundTrip() throws {
    let sample = PilotAddress(network: 5, node: 0x00A3_F291)
    #expect(OverlayMapping.address(for: sample).description == "fd50:494c:4f54:5::a3:f291")
    #expect(OverlayMapping.resolver.description == "fd50:494c:4f54:ffff::53")
    var generator = SeededGenerator(seed: 48)
    for _ in 0..<2000 {
      let pilot = PilotAddress(
        network: .random(in: 0...0xFFFF, using: &generator), node: .random(in: 1...UInt32.max, using: &generator))
      let address = OverlayMapping.address(for: pilot)
      #expect(OverlayMapping.contains(address))
      #expect(OverlayMapping.pilotAddress(from: address) == pilot)
    }
  }

  @Test(
    "a bit pattern that names no node maps to nothing",
    arguments: [
      "fd50:494c:4f54::", "fd50:494c:4f54:5::", "fd50:494c:4f54::1:0:1", "fd50:494c:4f54:0:1::1",
      "fd50:494c:4f54:0:8000::1", "fd50:494c:4f55::1", "fd50:494c:4f53:ffff::1", "2001:db8::1", "::1",
    ])
  func overlayInvalid(text: String) throws {
    #expect(OverlayMapping.pilotAddress(from: try #require(IPv6Address(text))) == nil)
  }
}
