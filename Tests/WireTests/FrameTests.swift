// The tunnel's outer and inner frames: Tests/Vectors/tunnel.json and their malformed twins.

import Testing
import Wire

private struct TunnelVectors: Decodable {
  struct Exchange: Decodable {
    let node: UInt32
    let signed: Hex
    let frame: Hex
  }
  struct Request: Decodable {
    let node: UInt32
    let frame: Hex
  }
  struct Sealed: Decodable {
    let sender: UInt32
    let prefix: Hex
    let counter: UInt64
    let nonce: Hex
    let aad: Hex
    let plaintext: Hex
    let frame: Hex
  }
  struct Plain: Decodable {
    let packet: Hex
    let frame: Hex
  }
  struct Rejected: Decodable {
    let name: String
    let frame: Hex
  }
  struct Key: Decodable {
    let node: UInt32
    let publicKey: Hex
    enum CodingKeys: String, CodingKey {
      case node
      case publicKey = "public"
    }
  }
  struct Computed: Decodable {
    let ed25519: [Key]
    let x25519: [Key]
    let pila: [Exchange]
    let pilk: [Request]
    let pilp: Hex
    let pilt: [Plain]
    let pils: [Sealed]
    let pilaRejected: [Rejected]
    let pilsRejected: [Rejected]
  }
  struct Captured: Decodable {
    struct TestNode: Decodable { let pilaSent: Hex }
    struct Official: Decodable {
      let node: UInt32
      let registeredEd25519: Hex
      let pila: Hex
      let x25519Public: Hex
    }
    struct Frame: Decodable {
      let frame: Hex
      let plaintext: Hex
    }
    let testNode: TestNode
    let official: Official
    let pingSent: Frame
    let pong: Frame
  }
  let computed: Computed
  let captured: Captured
}

/// Header fields of a sealed frame, or nil.
private func sealedFields(_ frame: [UInt8]) -> (sender: UInt32, prefix: UInt32, counter: UInt64)? {
  frame.withUnsafeBytes { buffer in
    guard let base = buffer.baseAddress, SealedFrame.isSealed(base, count: buffer.count) else { return nil }
    return (SealedFrame.sender(base), SealedFrame.noncePrefix(base), SealedFrame.nonceCounter(base))
  }
}

@Suite("Frames")
struct FrameTests {
  @Test("a datagram is told by its first bytes")
  func kinds() throws {
    let vectors: TunnelVectors = try Source.vectors("tunnel")
    for vector in vectors.computed.pila { #expect(FrameKind(vector.frame.bytes) == .pila) }
    for vector in vectors.computed.pilk { #expect(FrameKind(vector.frame.bytes) == .pilk) }
    for vector in vectors.computed.pils { #expect(FrameKind(vector.frame.bytes) == .pils) }
    for vector in vectors.computed.pilt { #expect(FrameKind(vector.frame.bytes) == .pilt) }
    #expect(FrameKind(vectors.computed.pilp.bytes) == .pilp)
    #expect(PunchFrame.bytes == vectors.computed.pilp.bytes)
    for code in UInt8(0)..<0x10 { #expect(FrameKind([code]) == .beacon(code: code)) }
    for text in ["", "P", "PIL", "PILX", "PILZ", "PILF", "pils", "QUIC", "\u{10}ILS"] {
      #expect(FrameKind(Array(text.utf8)) == .unknown, "\(text)")
    }
  }

  @Test("a key exchange is read and written as the vectors have it")
  func keyExchange() throws {
    let vectors: TunnelVectors = try Source.vectors("tunnel")
    #expect(vectors.computed.pila.count == 2)
    for (index, vector) in vectors.computed.pila.enumerated() {
      let frame = try #require(KeyExchangeFrame(vector.frame.bytes))
      #expect(frame.node == vector.node)
      #expect(frame.x25519.bytes == vectors.computed.x25519[index].publicKey.bytes)
      #expect(frame.ed25519.bytes == vectors.computed.ed25519[index].publicKey.bytes)
      #expect(frame.signedText == vector.signed.bytes)
      #expect(frame.signature.bytes == Array(vector.frame.bytes.suffix(64)))
      #expect(frame.extensionBytes.isEmpty)
      #expect(frame.encoded() == vector.frame.bytes)
    }
    let official = try #require(KeyExchangeFrame(vectors.captured.official.pila.bytes))
    #expect(official.node == vectors.captured.official.node)
    #expect(official.x25519.bytes == vectors.captured.official.x25519Public.bytes)
    #expect(official.ed25519.bytes == vectors.captured.official.registeredEd25519.bytes)
    #expect(official.encoded() == vectors.captured.official.pila.bytes)
    #expect(KeyExchangeFrame(vectors.captured.testNode.pilaSent.bytes)?.node == 82)
  }

  @Test("a key exchange keeps what follows its 136 bytes as the extension")
  func keyExchangeExtension() throws {
    let vectors: TunnelVectors = try Source.vectors("tunnel")
    let bytes = vectors.computed.pila[0].frame.bytes
    for count in [1, 7, 1000] {
      let longer = bytes + [UInt8](repeating: 0xEE, count: count)
      let frame = try #require(KeyExchangeFrame(longer))
      #expect(frame.extensionBytes.count == count)
      #expect(frame.encoded() == longer)
    }
  }

  @Test("a key exchange cut anywhere or with another magic is refused")
  func keyExchangeMalformed() throws {
    let vectors: TunnelVectors = try Source.vectors("tunnel")
    let bytes = vectors.computed.pila[0].frame.bytes
    for count in 0..<136 { #expect(KeyExchangeFrame(bytes.prefix(count)) == nil, "\(count) bytes") }
    for index in 0..<4 { #expect(KeyExchangeFrame(bytes.changing(index, to: bytes[index] ^ 1)) == nil) }
    // Well-formed but refused later, by signature or key; the codec must carry them unchanged.
    for vector in vectors.computed.pilaRejected {
      let frame = KeyExchangeFrame(vector.frame.bytes)
      #expect((frame == nil) == (vector.name == "135 bytes"), "\(vector.name)")
      #expect(frame.map { $0.encoded() } ?? vector.frame.bytes == vector.frame.bytes)
    }
    #expect(vectors.computed.pilaRejected.contains { KeyExchangeFrame($0.frame.bytes)?.x25519.isZero == true })
  }

  @Test("a key request is read, written, and refused when short")
  func keyRequest() throws {
    let vectors: TunnelVectors = try Source.vectors("tunnel")
    let vector = try #require(vectors.computed.pilk.first)
    let frame = try #require(KeyRequestFrame(vector.frame.bytes))
    #expect(frame.node == vector.node)
    #expect(frame.x25519.bytes == vectors.computed.x25519[0].publicKey.bytes)
    #expect(frame.encoded() == vector.frame.bytes)
    #expect(KeyRequestFrame(vector.frame.bytes + [1, 2, 3]) == frame)
    for count in 0..<40 { #expect(KeyRequestFrame(vector.frame.bytes.prefix(count)) == nil) }
    for index in 0..<4 { #expect(KeyRequestFrame(vector.frame.bytes.changing(index, to: 0)) == nil) }
  }

  @Test("a sealed frame's header is read and written as the vectors have it")
  func sealedHeader() throws {
    let vectors: TunnelVectors = try Source.vectors("tunnel")
    #expect(vectors.computed.pils.count == 3)
    for vector in vectors.computed.pils {
      let fields = try #require(sealedFields(vector.frame.bytes))
      #expect(fields.sender == vector.sender)
      #expect(fields.counter == vector.counter)
      var prefix: [UInt8] = []
      prefix.appendBig(fields.prefix)
      #expect(prefix == vector.prefix.bytes)
      var header = [UInt8](repeating: 0xAA, count: 20)
      header.withUnsafeMutableBytes {
        $0.baseAddress.map {
          SealedFrame.writeHeader(to: $0, sender: fields.sender, prefix: fields.prefix, counter: fields.counter)
        }
      }
      #expect(header == Array(vector.frame.bytes.prefix(20)))
      #expect(Array(header[SealedFrame.nonceOffset..<SealedFrame.bodyOffset]) == vector.nonce.bytes)
      #expect(Array(header[SealedFrame.senderOffset..<SealedFrame.nonceOffset]) == vector.aad.bytes)
      #expect(SealedFrame.innerCount(ofFrame: vector.frame.bytes.count) == vector.plaintext.bytes.count)
    }
  }

  @Test("a sealed frame below 36 bytes or with another magic is none")
  func sealedMalformed() throws {
    let vectors: TunnelVectors = try Source.vectors("tunnel")
    let bytes = vectors.computed.pils[0].frame.bytes
    for count in 0..<36 { #expect(sealedFields(Array(bytes.prefix(count))) == nil, "\(count) bytes") }
    #expect(sealedFields(Array(bytes.prefix(36))) != nil)
    for index in 0..<4 { #expect(sealedFields(bytes.changing(index, to: bytes[index] ^ 0x20)) == nil) }
    for vector in vectors.computed.pilsRejected {
      // Only the short one is malformed; the others fail to open.
      #expect((sealedFields(vector.frame.bytes) == nil) == vector.name.hasPrefix("shorter"), "\(vector.name)")
    }
  }

  @Test("an inner frame is told by its first nibble")
  func innerKinds() throws {
    let vectors: TunnelVectors = try Source.vectors("tunnel")
    #expect(InnerKind(vectors.captured.pong.plaintext.bytes) == .pilot)
    #expect(InnerKind(vectors.captured.pingSent.plaintext.bytes) == .pilot)
    #expect(InnerKind([UInt8]()) == .empty)
    for byte in UInt8.min...UInt8.max {
      let expected: InnerKind =
        switch byte >> 4 {
        case 0: .control
        case 1: .pilot
        case 2: .part
        case 6: .ipv6
        default: .reserved
        }
      #expect(InnerKind([byte]) == expected)
    }
  }

  @Test("a capabilities message survives, with bits and bytes of the future")
  func tunnelControl() {
    let message = TunnelControl.capabilities([.rawIPv6])
    let bytes = message.encoded()
    #expect(bytes == [0, 1, 0, 0, 0, 1])
    #expect(TunnelControl(bytes) == message)
    #expect(TunnelControl(bytes + [9, 9]) == message)
    #expect(TunnelControl([0, 1, 0xFF, 0, 0, 1]) == .capabilities(TunnelCapabilities(rawValue: 0xFF00_0001)))
    for count in 0..<bytes.count { #expect(TunnelControl(bytes.prefix(count)) == nil) }
    #expect(TunnelControl(bytes.changing(0, to: 1)) == nil)
    for kind in [UInt8(0), 200, 255] { #expect(TunnelControl(bytes.changing(1, to: kind)) == nil) }
  }

  @Test("relays and offers are told; unknown types of relays are skipped, cut messages refused")
  func relays() throws {
    let beacon = TunnelControl.Relay.beacon(Endpoint(address: try #require(IPv6Address("203.0.113.2")), port: 9001))
    let bytes = TunnelControl.relays([beacon, .node(0x4000_0007)]).encoded()
    #expect(bytes.count == 3 + 2 * 19 && bytes.prefix(3) == [0, 5, 2])
    #expect(TunnelControl(bytes) == .relays([beacon, .node(0x4000_0007)]))
    #expect(TunnelControl(bytes + [9]) == .relays([beacon, .node(0x4000_0007)]))
    #expect(TunnelControl(bytes.changing(3, to: 9)) == .relays([.node(0x4000_0007)]))
    for count in 0..<bytes.count { #expect(TunnelControl(bytes.prefix(count)) == nil) }
    #expect(TunnelControl(bytes.changing(2, to: 9)) == nil, "more than there may be")
    #expect(TunnelControl([0, 5, 0]) == .relays([]))
    let many = TunnelControl.relays((0..<20).map { .node($0) }).encoded()
    #expect(TunnelControl(many) == .relays((0..<8).map { .node($0) }))
    for isOffered in [true, false] {
      let offer = TunnelControl.relayOffer(isOffered: isOffered).encoded()
      #expect(offer == [0, 6, isOffered ? 1 : 0] && TunnelControl(offer) == .relayOffer(isOffered: isOffered))
    }
    #expect(TunnelControl([0, 6]) == nil)
  }

  @Test("candidates of a peer: layout, at most 16, cut ones refused")
  func tunnelCandidates() throws {
    let six = try #require(Endpoint("[2001:db8::1]:4000"))
    let four = try #require(Endpoint("192.0.2.1:4001"))
    let bytes = TunnelControl.candidates([six, four]).encoded()
    #expect(bytes.count == 3 + 2 * 18 && bytes.starts(with: [0, 2, 2, 0x20, 0x01, 0x0D, 0xB8]))
    #expect(bytes.suffix(8) == [0xFF, 0xFF, 192, 0, 2, 1, 0x0F, 0xA1])
    #expect(TunnelControl(bytes) == .candidates([six, four]))
    #expect(TunnelControl(bytes + [9]) == .candidates([six, four]))
    for count in 0..<bytes.count { #expect(TunnelControl(bytes.prefix(count)) == nil) }
    #expect(TunnelControl([0, 2, 0]) == .candidates([]))
    #expect(TunnelControl([0, 2, 17] + [UInt8](repeating: 1, count: 17 * 18)) == nil)
    let many = [Endpoint](repeating: four, count: 40)
    #expect(TunnelControl(TunnelControl.candidates(many).encoded()) == .candidates(Array(many.prefix(16))))
  }

  @Test("a NAT's kind and ports opened in numbers: layout, cut ones and empty ranges refused")
  func tunnelPorts() {
    let (kind, ports) = (TunnelControl.translation(2).encoded(), TunnelControl.portsOpened(1024...0xFFFE).encoded())
    #expect(kind == [0, 3, 2] && ports == [0, 4, 4, 0, 0xFF, 0xFE])
    for bytes in [kind, ports] {
      #expect(TunnelControl(bytes + [7])?.encoded() == bytes)
      for count in 0..<bytes.count { #expect(TunnelControl(bytes.prefix(count)) == nil) }
    }
    #expect(TunnelControl([0, 3, 77]) == .translation(77))
    #expect(TunnelControl([0, 4, 0, 0, 0, 9]) == nil && TunnelControl([0, 4, 0, 9, 0, 8]) == nil)
    #expect(TunnelControl([0, 4, 0, 9, 0, 9]) == .portsOpened(9...9))
  }
}
