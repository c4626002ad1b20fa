// The shim's primitives against published vectors and those of Tests/Vectors/tunnel.json.

import Foundation
import Shim
import Testing

private struct Vectors: Decodable {
  struct Computed: Decodable {
    struct Signer: Decodable { var seed, `public`: String }
    struct Pair: Decodable { var `private`, `public`: String }
    struct Derivation: Decodable { var salt, info, okm: String }
    struct Announcement: Decodable { var node: Int, signed, frame: String }
    var ed25519: [Signer]
    var x25519: [Pair]
    var sharedSecret: String
    var hkdf: Derivation
    var pila: [Announcement]
  }
  var computed: Computed

  static func load() throws -> Computed {
    let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .appendingPathComponent("Vectors/tunnel.json")
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(Vectors.self, from: Data(contentsOf: file)).computed
  }
}

/// A context in aligned memory, wiped and freed at the end.
private final class Context {
  let memory = UnsafeMutableRawPointer.allocate(byteCount: Int(PT_AEAD_CONTEXT_SIZE), alignment: 64)
  init(key: [UInt8]) { #expect(pt_aead_init(memory, key) == 0) }
  deinit {
    pt_aead_wipe(memory)
    memory.deallocate()
  }

  func seal(_ text: [UInt8], nonce: [UInt8], associated: [UInt8]) -> [UInt8] {
    var bytes = text + [UInt8](repeating: 0xEE, count: 16)
    #expect(pt_aead_seal(memory, nonce, associated, associated.count, &bytes, text.count) == 0)
    return bytes
  }

  func open(_ sealed: [UInt8], nonce: [UInt8], associated: [UInt8]) -> [UInt8]? {
    var bytes = sealed
    guard pt_aead_open(memory, nonce, associated, associated.count, &bytes, sealed.count - 16) == 0 else { return nil }
    return Array(bytes.prefix(sealed.count - 16))
  }
}

@Suite struct CryptoPrimitiveTests {
  // McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 13, 14 and 16.
  static let cases: [(key: String, nonce: String, associated: String, text: String, sealed: String)] = [
    (
      String(repeating: "00", count: 32), String(repeating: "00", count: 12), "", "",
      "530f8afbc74536b9a963b4f1c4cb738b"
    ),
    (
      String(repeating: "00", count: 32), String(repeating: "00", count: 12), "", String(repeating: "00", count: 16),
      "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
    ),
    (
      "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
      "feedfacedeadbeeffeedfacedeadbeefabaddad2",
      "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        + "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
      "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        + "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b"
    ),
  ]

  @Test(arguments: 0..<3) func aes256GCMMatchesTheSpecification(number: Int) {
    let vector = Self.cases[number]
    let context = Context(key: unhex(vector.key))
    let (nonce, associated, text) = (unhex(vector.nonce), unhex(vector.associated), unhex(vector.text))
    let sealed = context.seal(text, nonce: nonce, associated: associated)
    #expect(hex(sealed) == vector.sealed)
    #expect(context.open(sealed, nonce: nonce, associated: associated) == text)
  }

  @Test func aChangedBitAnywhereDoesNotOpen() {
    let context = Context(key: [UInt8](repeating: 7, count: 32))
    let nonce = [UInt8](repeating: 1, count: 12)
    let sealed = context.seal(Array(0..<100), nonce: nonce, associated: [1, 2, 3, 4])
    for position in sealed.indices {
      var changed = sealed
      changed[position] ^= 0x10
      #expect(context.open(changed, nonce: nonce, associated: [1, 2, 3, 4]) == nil)
    }
    #expect(context.open(sealed, nonce: nonce, associated: [1, 2, 3, 5]) == nil)
    #expect(context.open(sealed, nonce: [UInt8](repeating: 2, count: 12), associated: [1, 2, 3, 4]) == nil)
    #expect(context.open(Array(sealed.dropLast()), nonce: nonce, associated: [1, 2, 3, 4]) == nil)
  }

  @Test func everySizeUpToASuperpacketTrainComesBack() {
    let context = Context(key: [UInt8](repeating: 9, count: 32))
    let nonce = [UInt8](repeating: 3, count: 12)
    for size in Array(0...70) + [127, 128, 129, 1371, 1372, 1400, 9000, 65_000] {
      let text = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31) }
      let sealed = context.seal(text, nonce: nonce, associated: [0, 0, 0, 1])
      #expect(context.open(sealed, nonce: nonce, associated: [0, 0, 0, 1]) == text)
    }
  }

  @Test func aWipedContextHoldsNothingAndOpensNothing() {
    let context = Context(key: [UInt8](repeating: 5, count: 32))
    let sealed = context.seal([1, 2, 3], nonce: [UInt8](repeating: 1, count: 12), associated: [])
    pt_aead_wipe(context.memory)
    let bytes = UnsafeRawBufferPointer(start: context.memory, count: Int(PT_AEAD_CONTEXT_SIZE))
    #expect(bytes.allSatisfy { $0 == 0 })
    #expect(context.open(sealed, nonce: [UInt8](repeating: 1, count: 12), associated: []) == nil)
    var text: [UInt8] = [1] + [UInt8](repeating: 0, count: 16)
    #expect(pt_aead_seal(context.memory, [UInt8](repeating: 1, count: 12), nil, 0, &text, 1) < 0)
  }

  @Test func ed25519MakesKeysSignsAndVerifiesAsTheVectorsSay() throws {
    let vectors = try Vectors.load()
    for (signer, announcement) in zip(vectors.ed25519, vectors.pila) {
      var publicKey = [UInt8](repeating: 0, count: 32)
      var privateKey = [UInt8](repeating: 0, count: 64)
      pt_ed25519_from_seed(unhex(signer.seed), &publicKey, &privateKey)
      #expect(hex(publicKey) == signer.public)
      #expect(hex(privateKey) == signer.seed + signer.public)

      let message = unhex(announcement.signed)
      var signature = [UInt8](repeating: 0, count: 64)
      #expect(pt_ed25519_sign(privateKey, message, message.count, &signature) == 0)
      #expect(announcement.frame.hasSuffix(hex(signature)))
      #expect(pt_ed25519_verify(publicKey, message, message.count, signature) == 0)
      signature[63] ^= 1
      #expect(pt_ed25519_verify(publicKey, message, message.count, signature) < 0)
      signature[63] ^= 1
      #expect(pt_ed25519_verify(publicKey, Array(message.dropLast()), message.count - 1, signature) < 0)
    }
    #expect(vectors.pila.count == 2)
  }

  @Test func x25519AndHKDFMatchTheVectors() throws {
    let vectors = try Vectors.load()
    let pairs = vectors.x25519
    try #require(pairs.count == 2)
    var publicKey = [UInt8](repeating: 0, count: 32)
    var shared = [UInt8](repeating: 0, count: 32)
    for (own, peer) in [(pairs[0], pairs[1]), (pairs[1], pairs[0])] {
      pt_x25519_public(unhex(own.private), &publicKey)
      #expect(hex(publicKey) == own.public)
      #expect(pt_x25519(unhex(own.private), unhex(peer.public), &shared) == 0)
      #expect(hex(shared) == vectors.sharedSecret)
    }
    var key = [UInt8](repeating: 0, count: 32)
    let (salt, info) = (unhex(vectors.hkdf.salt), unhex(vectors.hkdf.info))
    #expect(pt_hkdf_sha256(shared, 32, salt, salt.count, info, info.count, &key, 32) == 0)
    #expect(hex(key) == vectors.hkdf.okm)
  }

  @Test func aSmallOrderPublicKeyGivesNoSecret() {
    var shared = [UInt8](repeating: 0, count: 32)
    #expect(pt_x25519([UInt8](repeating: 0x11, count: 32), [UInt8](repeating: 0, count: 32), &shared) < 0)
  }

  @Test func sha256AndHKDFMatchTheirStandards() {
    var digest = [UInt8](repeating: 0, count: 32)
    pt_sha256(Array("abc".utf8), 3, &digest)
    #expect(hex(digest) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    // RFC 5869 A.1.
    let secret = [UInt8](repeating: 0x0b, count: 22)
    var out = [UInt8](repeating: 0, count: 42)
    let status = pt_hkdf_sha256(secret, 22, Array(0...12), 13, Array(0xf0...0xf9), 10, &out, 42)
    #expect(status == 0)
    #expect(
      hex(out) == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
    var tooMuch = [UInt8](repeating: 0, count: 255 * 32 + 1)
    #expect(pt_hkdf_sha256(secret, 22, nil, 0, nil, 0, &tooMuch, tooMuch.count) < 0)
  }

  @Test func randomBytesDiffer() {
    var first = [UInt8](repeating: 0, count: 300)
    var second = first
    #expect(pt_random(&first, first.count) == 0)
    #expect(pt_random(&second, second.count) == 0)
    #expect(first != second)
  }
}
