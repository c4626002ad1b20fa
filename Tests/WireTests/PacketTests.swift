// Pilot packets, their CRC, control packets and SACK: Tests/Vectors/packets.json and sack.json with malformed twins.

import Testing
import Wire

private struct PacketVectors: Decodable {
  struct Valid: Decodable {
    let name: String
    let flags: UInt8
    let `protocol`: UInt8
    let src: String
    let dst: String
    let srcPort: UInt16
    let dstPort: UInt16
    let seq: UInt32
    let ack: UInt32
    let window: UInt16
    let payload: Hex
    let crc32: Hex
    let wire: Hex
  }
  struct Trailing: Decodable {
    let wire: Hex
    let sameAs: Hex
  }
  struct Invalid: Decodable {
    let name: String
    let wire: Hex
  }
  let valid: [Valid]
  let validWithTrailingBytes: [Trailing]
  let invalid: [Invalid]
}

private struct SackVectors: Decodable {
  struct Case: Decodable {
    let name: String
    let payload: Hex
    let blocks: [[UInt32]]?
  }
  let cases: [Case]
}

@Suite("Pilot packets")
struct PacketTests {
  @Test("every packet of the vectors is read and written")
  func vectors() throws {
    let vectors: PacketVectors = try Source.vectors("packets")
    #expect(vectors.valid.count == 17)
    for vector in vectors.valid {
      let expected = PilotPacket(
        flags: PilotFlags(rawValue: vector.flags), protocolNumber: PilotProtocol(rawValue: vector.protocol),
        source: try #require(PilotAddress(vector.src)), destination: try #require(PilotAddress(vector.dst)),
        sourcePort: vector.srcPort, destinationPort: vector.dstPort, sequence: vector.seq,
        acknowledgement: vector.ack, window: vector.window, payload: vector.payload.bytes)
      #expect(try PilotPacket(vector.wire.bytes) == expected, "\(vector.name)")
      #expect(expected.encoded() == vector.wire.bytes, "\(vector.name)")
      #expect(Array(vector.wire.bytes[30..<34]) == vector.crc32.bytes)
    }
    for vector in vectors.validWithTrailingBytes {
      #expect(try PilotPacket(vector.wire.bytes) == PilotPacket(vector.sameAs.bytes))
      #expect(
        Array(PilotPacket.trailer(of: vector.wire.bytes)) == Array(vector.wire.bytes[vector.sameAs.bytes.count...]))
    }
  }

  @Test("every invalid packet of the vectors is refused for its own fault")
  func invalid() throws {
    let vectors: PacketVectors = try Source.vectors("packets")
    let faults: [String: PilotPacketFault] = [
      "33 bytes": .truncated, "payload cut short": .length, "bad crc": .checksum, "version 0": .version,
      "version 2": .version, "length field 0xFFFF over 1 byte": .length, "empty": .truncated,
    ]
    #expect(vectors.invalid.count == faults.count)
    for vector in vectors.invalid {
      let fault = try #require(faults[vector.name], "\(vector.name)")
      // "payload cut short" lost its last byte; only one byte of payload was declared.
      #expect(throws: fault, "\(vector.name)") { try PilotPacket(vector.wire.bytes) }
    }
  }

  @Test("a packet with any cut, any flipped bit or another version is refused")
  func malformedTwins() throws {
    let vectors: PacketVectors = try Source.vectors("packets")
    for vector in vectors.valid {
      let bytes = vector.wire.bytes
      for count in 0..<min(bytes.count, 200) {
        let cut = bytes.prefix(count)
        #expect(throws: PilotPacketFault.self, "\(vector.name), \(count) bytes") { try PilotPacket(cut) }
      }
      for bit in 0..<(min(bytes.count, 80) * 8) {
        let twin = bytes.changing(bit / 8, to: bytes[bit / 8] ^ 1 << UInt8(bit % 8))
        #expect(throws: PilotPacketFault.self, "\(vector.name), bit \(bit)") { try PilotPacket(twin) }
      }
      #expect(try PilotPacket(bytes + [1, 2, 3]) == PilotPacket(bytes))
    }
  }

  @Test("the CRC equals the bit-by-bit one at every length and alignment")
  func crc() {
    func slow(_ bytes: ArraySlice<UInt8>) -> UInt32 {
      var state: UInt32 = ~0
      for byte in bytes {
        state ^= UInt32(byte)
        for _ in 0..<8 { state = state & 1 == 1 ? state >> 1 ^ 0xEDB8_8320 : state >> 1 }
      }
      return ~state
    }
    #expect(CRC32.checksum(Array("123456789".utf8)) == 0xCBF4_3926)
    #expect(CRC32.checksum([]) == 0)
    var generator = SeededGenerator(seed: 32)
    let bytes = generator.bytes(300)
    for count in 0..<100 {
      for start in 0..<9 {
        let expected = slow(bytes[start..<(start + count)])
        #expect(
          bytes.withUnsafeBytes { CRC32.checksum(UnsafeRawBufferPointer(rebasing: $0[start..<(start + count)])) }
            == expected)
      }
    }
    #expect(CRC32.checksum(bytes) == slow(bytes[...]))
  }

  @Test("a ping is answered as official daemons answer")
  func pingPong() throws {
    let vectors: PacketVectors = try Source.vectors("packets")
    func packet(_ name: String) throws -> PilotPacket {
      try PilotPacket(try #require(vectors.valid.first { $0.name == name }).wire.bytes)
    }
    let one = PilotAddress(network: 0, node: 1)
    let two = PilotAddress(network: 0, node: 2)
    let ping = PilotPacket.ping(from: one, to: two, sequence: 0xFFFF_FFF0, payload: Array("probe-ping".utf8))
    #expect(try ping == packet("control ping"))
    #expect(try ping.pong(own: two) == packet("control pong"))
    #expect(try PilotPacket.keepalive(from: one) == packet("NAT keepalive"))
    #expect(
      try PilotPacket.ping(from: one, to: two, sequence: 0, payload: PilotPacket.pathProbePayload)
        == packet("path probe"))
    #expect(try packet("NAT keepalive").isKeepalive)
    #expect(try packet("control pong").isPong && !packet("control pong").isUpgradeProbe)
    #expect(try packet("relay-upgrade probe").isUpgradeProbe && !packet("NAT keepalive").isUpgradeProbe)
    #expect(try packet("path probe").pong(own: two)?.payload == PilotPacket.pathProbePayload)
    for name in ["control pong", "NAT keepalive", "relay-upgrade probe", "datagram", "data hello"] {
      #expect(try packet(name).pong(own: two) == nil, "\(name)")
    }
    var toNobody = ping
    toNobody.destination = PilotAddress(network: 0, node: 0)
    toNobody.sourcePort = 99
    toNobody.sequence = .max
    let answer = try #require(toNobody.pong(own: two))
    #expect(answer.source == two && answer.destinationPort == 99 && answer.acknowledgement == 0)
    var elsewhere = ping
    elsewhere.destinationPort = 7
    #expect(elsewhere.pong(own: two) == nil)
  }

  @Test("a payload above 65535 bytes is cut, never wrapped")
  func oversizedPayload() throws {
    let packet = PilotPacket(
      protocolNumber: .datagram, source: PilotAddress(network: 0, node: 1),
      destination: PilotAddress(network: 0, node: 2), payload: [UInt8](repeating: 7, count: 70_000))
    #expect(try PilotPacket(packet.encoded()).payload.count == 65_535)
  }

  @Test("SACK payloads are told from data as official daemons do, and written back")
  func sack() throws {
    let vectors: SackVectors = try Source.vectors("sack")
    #expect(vectors.cases.count == 10)
    for vector in vectors.cases {
      let sack = SelectiveAcknowledgement(vector.payload.bytes)
      #expect(sack?.blocks.map { [$0.left, $0.right] } == vector.blocks, "\(vector.name)")
      #expect(SelectiveAcknowledgement.matches(vector.payload.bytes) == (vector.blocks != nil))
      guard let sack else { continue }
      let encoded = sack.encoded()
      #expect(vector.payload.bytes.starts(with: encoded), "\(vector.name)")
      for count in 0..<encoded.count { #expect(SelectiveAcknowledgement(encoded.prefix(count)) == nil) }
      for index in 0..<4 {
        #expect(SelectiveAcknowledgement(encoded.changing(index, to: encoded[index] ^ 0x20)) == nil)
      }
    }
    let block = SelectiveAcknowledgement.Block(left: 1, right: 2)
    #expect(SelectiveAcknowledgement(blocks: []) == nil)
    #expect(SelectiveAcknowledgement(blocks: [block, block, block, block, block]) == nil)
  }
}
