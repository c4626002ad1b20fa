// What Session can check of Tests/Vectors/services.json: the signatures of the trust handshake (wire/tunnel §7.1) and
// the keys, frames and signature of the secure channel (§8.4). Neither service has a codec yet; the layouts are read here.

import Session
import Testing
import Wire

@Suite("Signatures and seals of services")
struct ServiceVectorTests {
  private let services: Vectors
  private let tunnel: Vectors

  init() throws {
    services = try Vectors.load("services")
    tunnel = try Vectors.load("tunnel")["computed"]
  }

  private func identity(_ node: UInt64) throws -> Identity {
    let vector = try #require(tunnel["ed25519"].array.first { $0["node"].unsigned == node })
    return Identity(seed: vector["seed"].key)
  }

  private func pair(_ node: UInt64) throws -> X25519KeyPair {
    let vector = try #require(tunnel["x25519"].array.first { $0["node"].unsigned == node })
    return X25519KeyPair(privateKey: vector["private"].key)
  }

  // MARK: - Trust handshake

  private func handshakeText(_ node: UInt64, _ receiver: UInt64) -> [UInt8] {
    Array("handshake:\(node):\(receiver)".utf8)
  }

  @Test("a trust request is signed as the vector has it, and its message shows that key and signature")
  func request() throws {
    let vector = services["handshake"]
    let message = vector["message"].embedded
    let node = message["node_id"].unsigned
    #expect(message["type"].text == "handshake_request" && node == 1)
    let text = handshakeText(node, vector["receiver"].unsigned)
    #expect(Array(vector["signed_text"].text.utf8) == text)
    let identity = try identity(node)
    #expect(identity.sign(text).bytes == vector["signature"].base64)
    #expect(message["signature"].base64 == vector["signature"].base64)
    #expect(message["public_key"].base64 == identity.publicKey.bytes)
  }

  @Test("an official daemon's acceptance is genuine for the two nodes that it names, and for no others")
  func acceptance() throws {
    let vector = services["handshake"]["captured_accept"]
    let message = vector["message"].embedded
    #expect(message["type"].text == "handshake_accept")
    #expect(message["public_key"].base64 == vector["signer_ed25519"].bytes)
    let key = try #require(Bytes32(message["public_key"].base64))
    let signature = try #require(Bytes64(message["signature"].base64))
    let (node, receiver) = (message["node_id"].unsigned, vector["receiver"].unsigned)
    #expect((node, receiver) == (1, 82))
    #expect(Ed25519.verify(signature, of: handshakeText(node, receiver), by: key))
    #expect(!Ed25519.verify(signature, of: handshakeText(receiver, node), by: key))
    #expect(!Ed25519.verify(signature, of: handshakeText(node, receiver + 1), by: key))
    #expect(!Ed25519.verify(signature, of: handshakeText(node, receiver), by: try identity(1).publicKey))
    for bit in stride(from: 0, to: 512, by: 7) {
      var bytes = signature.bytes
      bytes[bit / 8] ^= 1 << (bit % 8)
      let twin = try #require(Bytes64(bytes))
      #expect(!Ed25519.verify(twin, of: handshakeText(node, receiver), by: key), "bit \(bit)")
    }
  }

  // MARK: - Secure channel

  /// Opens `length u32 | nonce 12 | ciphertext | tag`; nil when it is refused.
  private func open(_ wire: [UInt8], with context: AEADContext) -> (role: UInt32, counter: UInt64, text: [UInt8])? {
    var reader = ByteReader(wire)
    guard let length = reader.u32(), let sealed = reader.take(Int(length)), reader.remaining == 0 else { return nil }
    var fields = ByteReader(sealed)
    guard let role = fields.u32(), let counter = fields.u64(), fields.remaining >= SealedFrame.tagSize else {
      return nil
    }
    var bytes = Array(sealed)
    let count = fields.remaining - SealedFrame.tagSize
    let isOpen = bytes.withUnsafeMutableBytes { bytes in
      let base = bytes.baseAddress!
      return AEADContext.open(
        context.raw, nonce: base, associated: base, associatedLength: 4, text: base + 12, length: count)
    }
    return isOpen ? (role, counter, Array(bytes[12..<(12 + count)])) : nil
  }

  @Test("the hellos are the nodes' X25519 keys, and the channel's key is not the tunnel's")
  func hellos() throws {
    let channel = services["secure_443"]
    let (client, server) = (try pair(1), try pair(2))
    #expect(client.publicKey == channel["client_hello"].key)
    #expect(server.publicKey == channel["server_hello"].key)
    let tunnelKey = try #require(SessionKeys.derive(own: client, peer: channel["server_hello"].key))
    defer { tunnelKey.release() }
    for name in ["server_message", "client_message"] {
      #expect(open(channel[name]["wire"].bytes, with: tunnelKey) == nil, "\(name)")
    }
  }

  @Test("messages of both sides open, and no changed or cut one does")
  func messages() throws {
    let channel = services["secure_443"]
    let context = try #require(AEADContext(key: channel["key"].key))
    defer { context.release() }
    for (name, role) in [("server_message", UInt32(1)), ("client_message", 2)] {
      let vector = channel[name]
      let wire = vector["wire"].bytes
      let opened = try #require(open(wire, with: context), "\(name)")
      #expect(opened == (role, vector["counter"].unsigned, vector["plaintext"].bytes))
      for bit in 0..<(wire.count * 8) {
        var twin = wire
        twin[bit / 8] ^= 1 << (bit % 8)
        if open(twin, with: context) != nil { Issue.record("\(name), bit \(bit)") }
      }
      for count in 0..<wire.count where open(Array(wire.prefix(count)), with: context) != nil {
        Issue.record("\(name), \(count) bytes")
      }
    }
  }

  @Test("the authentication is what node 1 signs for its key, time and random bytes")
  func authentication() throws {
    let vector = services["secure_443"]["auth_frame"]
    let plaintext = vector["plaintext"].bytes
    #expect(plaintext.count == 92)
    var head: [UInt8] = []
    head.appendBig(UInt32(vector["node"].unsigned))
    head.appendBig(vector["timestamp"].unsigned)
    head += vector["nonce"].bytes
    #expect(plaintext.starts(with: head))
    var text = Array("pilot-secure-auth:".utf8) + head[..<4]
    text += try pair(1).publicKey.bytes + head[4...]
    let identity = try identity(1)
    #expect(Array(plaintext[28...]) == identity.sign(text).bytes)
    let signature = try #require(Bytes64(plaintext[28...]))
    #expect(Ed25519.verify(signature, of: text, by: identity.publicKey))
    for index in text.indices {
      var twin = text
      twin[index] ^= 1
      #expect(!Ed25519.verify(signature, of: twin, by: identity.publicKey), "byte \(index)")
    }
  }
}
