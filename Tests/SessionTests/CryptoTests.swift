// Identity, key schedule and sealed frames against the computed and the recorded vectors, and malformed twins.

import Session
import Testing
import Wire

@Suite("Keys and sealed frames", .serialized)
struct CryptoTests {
  /// Opens a whole PILS frame as the receiver does; nil when it is refused.
  static func open(_ frame: [UInt8], with context: AEADContext) -> [UInt8]? {
    guard frame.count >= SealedFrame.overhead else { return nil }
    var copy = frame
    let length = SealedFrame.innerCount(ofFrame: frame.count)
    let isOpen = copy.withUnsafeMutableBytes { bytes in
      let base = bytes.baseAddress!
      return AEADContext.open(
        context.raw, nonce: base + SealedFrame.nonceOffset, associated: base + SealedFrame.senderOffset,
        associatedLength: 4, text: base + SealedFrame.bodyOffset, length: length)
    }
    return isOpen ? Array(copy[SealedFrame.bodyOffset..<(SealedFrame.bodyOffset + length)]) : nil
  }

  static func seal(_ inner: [UInt8], sender: UInt32, prefix: UInt32, counter: UInt64, with context: AEADContext)
    -> [UInt8]
  {
    var frame = [UInt8](repeating: 0, count: SealedFrame.headerSize) + inner
    frame += [UInt8](repeating: 0, count: SealedFrame.tagSize)
    frame.withUnsafeMutableBytes { bytes in
      let base = bytes.baseAddress!
      SealedFrame.writeHeader(to: base, sender: sender, prefix: prefix, counter: counter)
      let isSealed = AEADContext.seal(
        context.raw, nonce: base + SealedFrame.nonceOffset, associated: base + SealedFrame.senderOffset,
        associatedLength: 4, text: base + SealedFrame.bodyOffset, length: inner.count)
      #expect(isSealed)
    }
    return frame
  }

  @Test("a seed gives the vector's public key, and its signatures are those of the vector's frames")
  func identities() throws {
    let computed = try Vectors.load("tunnel")["computed"]
    for (index, key) in computed["ed25519"].array.enumerated() {
      let identity = Identity(seed: key["seed"].key)
      #expect(identity.publicKey == key["public"].key)
      let pila = computed["pila"].array[index]
      let frame = KeyExchangeFrame.signed(
        node: UInt32(key["node"].unsigned), x25519: computed["x25519"].array[index]["public"].key, by: identity,
        announcing: nil)
      #expect(frame.encoded() == pila["frame"].bytes)
      #expect(frame.signedText == pila["signed"].bytes)
      #expect(frame.hasValidSignature)
      identity.withSeed { #expect(Array($0) == key["seed"].bytes) }
    }
    let one = Identity.generate()
    #expect(one.publicKey != Identity.generate().publicKey)
    #expect(Ed25519.verify(one.sign([]), of: [], by: one.publicKey))
    #expect(!Ed25519.verify(one.sign([1]), of: [2], by: one.publicKey))
  }

  @Test("frames with a false signature are told from genuine ones")
  func rejectedExchanges() throws {
    let rejected = try Vectors.load("tunnel")["computed"]["pila_rejected"].array
    #expect(rejected.count == 6)
    for vector in rejected {
      let frame = KeyExchangeFrame(vector["frame"].bytes)
      switch vector["name"].text {
      case "135 bytes": #expect(frame == nil)
      case "right node, unregistered ed25519 key", "all-zero x25519, valid signature":
        #expect(frame?.hasValidSignature == true)
      default: #expect(frame?.hasValidSignature == false, "\(vector["name"].text)")
      }
    }
  }

  @Test("both sides derive the vector's key, and seal and open its frames byte for byte")
  func sealedFrames() throws {
    let computed = try Vectors.load("tunnel")["computed"]
    let pairs = computed["x25519"].array.map { X25519KeyPair(privateKey: $0["private"].key) }
    for (pair, vector) in zip(pairs, computed["x25519"].array) { #expect(pair.publicKey == vector["public"].key) }
    let one = try #require(SessionKeys.derive(own: pairs[0], peer: pairs[1].publicKey))
    let two = try #require(SessionKeys.derive(own: pairs[1], peer: pairs[0].publicKey))
    let known = try #require(AEADContext(key: computed["hkdf"]["okm"].key))
    defer { for context in [one, two, known] { context.release() } }
    for vector in computed["pils"].array {
      let frame = vector["frame"].bytes
      let plain = vector["plaintext"].bytes
      for context in [one, two, known] {
        #expect(Self.open(frame, with: context) == plain)
        let sealed = Self.seal(
          plain, sender: UInt32(vector["sender"].unsigned), prefix: UInt32(vector["prefix"].text, radix: 16) ?? 0,
          counter: vector["counter"].unsigned, with: context)
        #expect(sealed == frame)
      }
    }
    for vector in computed["pils_rejected"].array {
      #expect(Self.open(vector["frame"].bytes, with: one) == nil, "\(vector["name"].text)")
    }
  }

  @Test("any flipped bit behind the magic, and any cut, makes a frame fail")
  func malformedTwins() throws {
    let computed = try Vectors.load("tunnel")["computed"]
    let context = try #require(AEADContext(key: computed["hkdf"]["okm"].key))
    defer { context.release() }
    let frame = computed["pils"].array[0]["frame"].bytes
    for bit in 32..<(frame.count * 8) {
      var twin = frame
      twin[bit / 8] ^= 1 << (bit % 8)
      #expect(Self.open(twin, with: context) == nil, "bit \(bit)")
    }
    for length in 0..<frame.count { #expect(Self.open(Array(frame[..<length]), with: context) == nil) }
  }

  @Test("frames recorded from an official daemon open, and its key exchange is genuine")
  func recorded() throws {
    let captured = try Vectors.load("tunnel")["captured"]
    let official = captured["official"]
    let pila = try #require(KeyExchangeFrame(official["pila"].bytes))
    #expect(pila.hasValidSignature)
    #expect(pila.ed25519 == official["registered_ed25519"].key)
    let own = X25519KeyPair(privateKey: captured["test_node"]["x25519_private"].key)
    let context = try #require(SessionKeys.derive(own: own, peer: pila.x25519))
    defer { context.release() }
    for name in ["ping_sent", "pong"] {
      #expect(Self.open(captured[name]["frame"].bytes, with: context) == captured[name]["plaintext"].bytes)
    }
  }

  @Test("a peer key of small order gives no session")
  func smallOrder() {
    let own = X25519KeyPair(privateKey: Bytes32([UInt8](repeating: 0x11, count: 32)) ?? Bytes32())
    #expect(SessionKeys.derive(own: own, peer: Bytes32()) == nil)
    #expect(SessionKeys.derive(own: own, peer: Bytes32([1] + [UInt8](repeating: 0, count: 31)) ?? Bytes32()) == nil)
  }

  @Test("a released context is wiped, refuses to work, and its memory is used again")
  func released() throws {
    let context = try #require(AEADContext(key: Bytes32([UInt8](repeating: 7, count: 32)) ?? Bytes32()))
    let frame = Self.seal([1, 2, 3], sender: 1, prefix: 2, counter: 3, with: context)
    #expect(Self.open(frame, with: context) == [1, 2, 3])
    #expect(Int(bitPattern: context.raw) % 64 == 0)
    context.release()
    #expect(Self.open(frame, with: context) == nil)
    #expect(UnsafeRawBufferPointer(start: context.raw, count: 1000).allSatisfy { $0 == 0 })
    #expect(!AEADContext.memoryLock.reason.isEmpty)
  }
}
