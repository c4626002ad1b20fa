// From two X25519 keys to the AES key of a session (wire/tunnel §3.3). HandshakeMachine makes the pairs and asks.

import Shim
package import Wire

/// An X25519 key pair of our own, for one peer. The private half stays in locked memory and is wiped at the end; it is
/// never persisted.
package final class X25519KeyPair: Sendable {
  package let publicKey: Bytes32
  fileprivate let secret: LockedSecret

  /// A new pair. Entropy is passed in: the system's generator at run time, a seeded one in simulations.
  package convenience init(using generator: inout some RandomNumberGenerator) {
    var bytes = Bytes32()
    bytes.words = (generator.next(), generator.next(), generator.next(), generator.next())
    self.init(privateKey: bytes)
    withUnsafeMutableBytes(of: &bytes.words) { pt_wipe($0.baseAddress!, 32) }
  }

  /// From 32 private bytes (clamped as RFC 7748 §5 says when used): test vectors.
  package init(privateKey: Bytes32) {
    guard let secret = LockedSecret() else { fatalError("no memory for a key pair") }
    withUnsafeBytes(of: privateKey.words) { secret.raw.copyMemory(from: $0.baseAddress!, byteCount: 32) }
    var publicKey = Bytes32()
    withUnsafeMutableBytes(of: &publicKey.words) { key in
      pt_x25519_public(secret.bytes, key.baseAddress!.assumingMemoryBound(to: UInt8.self))
    }
    self.publicKey = publicKey
    self.secret = secret
  }
}

package enum SessionKeys {
  private static let info = Array("pilot-tunnel-v1".utf8)

  /// The AES-256-GCM context of the session between our pair and the peer's key:
  /// HKDF-SHA-256(X25519(own, peer), no salt, "pilot-tunnel-v1"), 32 bytes. The same on both sides.
  ///
  /// Nil when the shared secret is all zero (a peer key of small order), or there is no memory.
  package static func derive(own: X25519KeyPair, peer: Bytes32) -> AEADContext? {
    guard let shared = LockedSecret(), let key = LockedSecret() else { return nil }
    let isAgreed = withUnsafeBytes(of: peer.words) {
      pt_x25519(own.secret.bytes, $0.baseAddress!.assumingMemoryBound(to: UInt8.self), shared.bytes) == 0
    }
    guard isAgreed else { return nil }
    let isExpanded = info.withUnsafeBufferPointer { info in
      var noSalt: UInt8 = 0
      return withUnsafePointer(to: &noSalt) { salt in
        pt_hkdf_sha256(shared.bytes, 32, salt, 0, info.baseAddress!, info.count, key.bytes, 32) == 0
      }
    }
    guard isExpanded else { return nil }
    return AEADContext(keyBytes: UnsafeRawPointer(key.raw))
  }
}
