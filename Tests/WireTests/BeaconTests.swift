// Beacon messages: Tests/Vectors/beacon.json and their malformed twins.

import Testing
import Wire

private struct BeaconVectors: Decodable {
  struct Case: Decodable {
    let name: String
    let wire: Hex
    let code: UInt8
    let node: UInt32?
    let ed25519: Hex?
    let ip: String?
    let port: UInt16?
    let requester: UInt32?
    let target: UInt32?
    let src: UInt32?
    let dst: UInt32?
    let inner: Hex?
    let beacon: UInt32?
    let nodes: [UInt32]?
    let kind: UInt8?

    /// The message, built from the fields of the vector.
    var message: BeaconMessage? {
      let endpoint = ip.flatMap { IPv6Address($0) }.map { Endpoint(address: $0, port: port ?? 0) }
      switch code {
      case 1: return node.map { .discover(node: $0, key: ed25519.flatMap { Bytes32($0.bytes) }) }
      case 2: return endpoint.map { .discoverReply($0) }
      case 3: return .punchRequest(requester: requester ?? 0, target: target ?? 0, grant: nil)
      case 4: return endpoint.map { .punchCommand($0) }
      case 5: return .relay(source: src ?? 0, destination: dst ?? 0, frame: inner?.bytes ?? [])
      case 6: return .relayDeliver(source: src ?? 0, frame: inner?.bytes ?? [])
      case 7: return .gossip(beacon: beacon ?? 0, nodes: nodes ?? [])
      case 9: return .relayDeliverWithDestination(source: src ?? 0, destination: dst ?? 0, frame: inner?.bytes ?? [])
      case 10: return .notify(kind: kind ?? 0)
      default: return nil
      }
    }
  }
  let cases: [Case]
}

@Suite("Beacon messages")
struct BeaconTests {
  @Test("every message of the vectors is read and written")
  func vectors() throws {
    let vectors: BeaconVectors = try Source.vectors("beacon")
    #expect(vectors.cases.count == 11)
    for vector in vectors.cases {
      let expected = try #require(vector.message, "\(vector.name)")
      #expect(BeaconMessage(vector.wire.bytes) == expected, "\(vector.name)")
      #expect(expected.encoded() == vector.wire.bytes, "\(vector.name)")
      #expect(FrameKind(vector.wire.bytes) == .beacon(code: vector.code))
      #expect(expected.code == vector.code)
    }
  }

  @Test("a challenge and its proof are read and written; an extension that is not whole counts as absent")
  func proofs() throws {
    let key = try #require(Bytes32((0..<32).map { UInt8($0) }))
    let signature = try #require(Bytes64((0..<64).map { UInt8($0) }))
    let proof = BeaconMessage.provenDiscover(node: 7, key: key, challenge: 0x0102_0304_0506_0708, signature: signature)
    let bytes = proof.encoded()
    #expect(bytes.count == 109 && bytes[0] == 1)
    #expect(BeaconMessage(bytes) == proof && BeaconMessage(bytes + [9]) == proof)
    for count in 37..<109 { #expect(BeaconMessage(bytes.prefix(count)) == .discover(node: 7, key: key)) }
    for address in ["203.0.113.9", "2001:db8::9"] {
      let seen = Endpoint(address: try #require(IPv6Address(address)), port: 4000)
      let challenge = BeaconMessage.discoverChallenge(seen, challenge: 9)
      let bytes = challenge.encoded()
      #expect(bytes[0] == 2 && BeaconMessage(bytes) == challenge && BeaconMessage(bytes + [1]) == challenge)
      // Official daemons read the endpoint and no further.
      let plain = BeaconMessage.discoverReply(seen).encoded()
      #expect(bytes.starts(with: plain))
      // No more than what was asked with.
      #expect(bytes.count <= BeaconMessage.discover(node: 7, key: key).encoded().count)
      for count in plain.count..<bytes.count { #expect(BeaconMessage(bytes.prefix(count)) == .discoverReply(seen)) }
    }
    #expect(BeaconMessage.proofText(node: 7, challenge: 9) == Array("pilot-beacon:7:9".utf8))
  }

  @Test("a message cut inside its fields is refused")
  func truncated() throws {
    let vectors: BeaconVectors = try Source.vectors("beacon")
    for vector in vectors.cases {
      // The optional key is missing when it is not whole; a relayed frame may be any bytes, but not none.
      let least: Int
      switch vector.code {
      case 1: least = 5
      case 5, 9: least = 10
      case 6: least = 6
      default: least = vector.wire.bytes.count
      }
      for count in 0..<least {
        #expect(BeaconMessage(vector.wire.bytes.prefix(count)) == nil, "\(vector.name), \(count) bytes")
      }
      for count in least...vector.wire.bytes.count {
        #expect(BeaconMessage(vector.wire.bytes.prefix(count)) != nil, "\(vector.name), \(count) bytes")
      }
    }
    let keyed = try #require(vectors.cases.first { $0.ed25519 != nil })
    #expect(BeaconMessage(keyed.wire.bytes.dropLast()) == .discover(node: 7, key: nil))
  }

  @Test("bytes after the last field are ignored, but belong to a relayed frame")
  func trailing() throws {
    let vectors: BeaconVectors = try Source.vectors("beacon")
    for vector in vectors.cases {
      let message = BeaconMessage(vector.wire.bytes + [0xEE])
      switch vector.message {
      case .relay(let source, let destination, let frame):
        #expect(message == .relay(source: source, destination: destination, frame: frame + [0xEE]))
      case .relayDeliver(let source, let frame):
        #expect(message == .relayDeliver(source: source, frame: frame + [0xEE]))
      case .relayDeliverWithDestination(let source, let destination, let frame):
        let longer = frame + [0xEE]
        #expect(message == .relayDeliverWithDestination(source: source, destination: destination, frame: longer))
      default: #expect(message == vector.message, "\(vector.name)")
      }
    }
  }

  @Test("unassigned codes and odd address lengths are refused")
  func unassigned() {
    for code in [UInt8(0), 8, 13, 14, 15, 16, 255] {
      #expect(BeaconMessage([code] + [UInt8](repeating: 4, count: 40)) == nil, "\(code)")
    }
    for code in [UInt8(2), 4] {
      for length in UInt8.min...UInt8.max where length != 4 && length != 16 {
        #expect(BeaconMessage([code, length] + [UInt8](repeating: 1, count: 300)) == nil)
      }
    }
    #expect(BeaconMessage(hex("07 00000064 ffff 00000007")) == nil)
  }

  @Test("a check and its reply have the size they say, at least 30 bytes, and are read back")
  func checks() throws {
    let v6 = Endpoint(address: try #require(IPv6Address("2001:db8::7")), port: 4000)
    let v4 = Endpoint(address: IPv6Address(mappedIPv4: 0x0102_0304), port: 9)
    for size in [30, 31, 1472] {
      for message in [
        BeaconMessage.check(transaction: .max - 1, answerPort: 4000, size: size),
        .checkReply(transaction: 7, seen: v6, otherPort: 9002, size: size),
        .checkReply(transaction: 7, seen: v4, otherPort: 0, size: size),
      ] {
        let bytes = message.encoded()
        #expect(bytes.count == size)
        #expect(BeaconMessage(bytes) == message)
      }
    }
    #expect(
      BeaconMessage.check(transaction: 1, answerPort: 2, size: 0).encoded()
        == hex("0b 0000000000000001 0002") + [UInt8](repeating: 0, count: 19))
    for count in 0..<30 {
      #expect(BeaconMessage([11] + [UInt8](repeating: 4, count: count)) == nil || count == 29)
      #expect(BeaconMessage([12] + [UInt8](repeating: 4, count: count)) == nil || count == 29)
    }
    // An address length that is neither 4 nor 16.
    #expect(BeaconMessage([12] + [UInt8](repeating: 5, count: 40)) == nil)
  }

  @Test("a mapped IPv4 endpoint is the IPv4 one and leaves as 4 bytes")
  func mappedEndpoint() {
    let bytes = hex("04 10 00000000000000000000ffffc6336409 9c42")
    #expect(BeaconMessage(bytes)?.encoded() == hex("04 04 c6336409 9c42"))
  }

  @Test("a punch grant is read when it is whole")
  func grant() throws {
    let signature = try #require(Bytes64([UInt8](repeating: 0x5A, count: 64)))
    let message = BeaconMessage.punchRequest(
      requester: 7, target: 9, grant: PunchGrant(expiry: -2, signature: signature))
    let bytes = message.encoded()
    #expect(bytes.count == 9 + 72)
    #expect(BeaconMessage(bytes) == message)
    #expect(BeaconMessage(bytes.dropLast()) == .punchRequest(requester: 7, target: 9, grant: nil))
    #expect(
      String(decoding: PunchGrant.signedText(requester: 7, target: 9, expiry: 1_790_000_000), as: UTF8.self)
        == "punch-grant:7:9:1790000000")
  }

  @Test("gossip names at most 65535 nodes")
  func gossipLimit() {
    let message = BeaconMessage.gossip(beacon: 1, nodes: Array(0..<70_000))
    #expect(BeaconMessage(message.encoded()) == .gossip(beacon: 1, nodes: Array(0..<65_535)))
  }

  @Test("the packet path writes and reads the same relay headers")
  func relayHeader() {
    var bytes = [UInt8](repeating: 0, count: 9) + PunchFrame.bytes
    bytes.withUnsafeMutableBytes { $0.baseAddress.map { RelayHeader.writeRelay(to: $0, source: 7, destination: 9) } }
    #expect(BeaconMessage(bytes) == .relay(source: 7, destination: 9, frame: PunchFrame.bytes))
    var delivered = [UInt8](repeating: 0, count: 5) + PunchFrame.bytes
    delivered.withUnsafeMutableBytes { $0.baseAddress.map { RelayHeader.writeDeliver(to: $0, source: 7) } }
    #expect(BeaconMessage(delivered) == .relayDeliver(source: 7, frame: PunchFrame.bytes))
    delivered.withUnsafeBytes { buffer in
      guard let base = buffer.baseAddress else { return }
      #expect(RelayHeader.isDeliver(base, count: 6) && !RelayHeader.isDeliver(base, count: 5))
      #expect(!RelayHeader.isRelay(base, count: buffer.count))
    }
  }
}
