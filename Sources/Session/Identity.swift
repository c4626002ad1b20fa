// The node's long-term Ed25519 key, and checking the signatures of others. The directory signs requests with it,
// HandshakeMachine signs key exchanges.

import Shim
package import Wire

/// An Ed25519 key pair. The private half stays in locked memory and is wiped at the end.
package final class Identity: Sendable {
  /// What the directory knows the node by, and what peers pin.
  package let publicKey: Bytes32
  /// `seed || public key`, 64 bytes.
  private let secret: LockedSecret

  /// From the 32-byte seed (RFC 8032 §5.1.5). The caller wipes what it read the seed from.
  package init(seed: Bytes32) {
    // Out of memory ends the program, as any Swift allocation does.
    guard let secret = LockedSecret() else { fatalError("no memory for the identity") }
    var publicKey = Bytes32()
    withUnsafeBytes(of: seed.words) { seed in
      withUnsafeMutableBytes(of: &publicKey.words) { key in
        pt_ed25519_from_seed(
          seed.baseAddress!.assumingMemoryBound(to: UInt8.self), key.baseAddress!.assumingMemoryBound(to: UInt8.self),
          secret.bytes)
      }
    }
    self.publicKey = publicKey
    self.secret = secret
  }

  /// A new identity from the kernel's generator.
  package static func generate() -> Identity {
    var seed = Bytes32()
    withUnsafeMutableBytes(of: &seed.words) { bytes in
      let result = pt_random(bytes.baseAddress!.assumingMemoryBound(to: UInt8.self), 32)
      precondition(result == 0, "the kernel gives no random bytes")
    }
    defer { withUnsafeMutableBytes(of: &seed.words) { pt_wipe($0.baseAddress!, 32) } }
    return Identity(seed: seed)
  }

  /// Signs a message of any length.
  package func sign(_ message: [UInt8]) -> Bytes64 {
    var signature = [UInt8](repeating: 0, count: 64)
    let result = message.withUnsafeBufferPointer { message in
      signature.withUnsafeMutableBufferPointer { out in
        withUnsafeBase(message) { pt_ed25519_sign(secret.bytes, $0, message.count, out.baseAddress!) }
      }
    }
    // Fails only when BoringSSL cannot allocate.
    precondition(result == 0, "signing failed")
    return signature.withUnsafeBytes { Bytes64($0.baseAddress!, at: 0) }
  }

  /// The seed, for the store that writes it to the identity file. The caller wipes it.
  package func withSeed<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
    try body(UnsafeRawBufferPointer(start: secret.raw, count: 32))
  }
}

package enum Ed25519 {
  /// Whether `signature` is the key's signature of the message. About 50 µs.
  package static func verify(_ signature: Bytes64, of message: [UInt8], by key: Bytes32) -> Bool {
    let signatureBytes = signature.bytes
    return message.withUnsafeBufferPointer { message in
      signatureBytes.withUnsafeBufferPointer { signature in
        withUnsafeBytes(of: key.words) { key in
          withUnsafeBase(message) {
            pt_ed25519_verify(
              key.baseAddress!.assumingMemoryBound(to: UInt8.self), $0, message.count, signature.baseAddress!) == 0
          }
        }
      }
    }
  }
}

/// The buffer's start, or a valid pointer when it is empty: BoringSSL wants no NULL.
private func withUnsafeBase<Result>(_ buffer: UnsafeBufferPointer<UInt8>, _ body: (UnsafePointer<UInt8>) -> Result)
  -> Result
{
  if let base = buffer.baseAddress { return body(base) }
  var nothing: UInt8 = 0
  return withUnsafePointer(to: &nothing, body)
}
