// The two primitives the registry needs, from the one place that has them. Used by node ids and signed requests.

import Session
import Shim
import Wire

enum Cryptography {
  static func sha256(_ bytes: [UInt8]) -> [UInt8] {
    var digest = [UInt8](repeating: 0, count: 32)
    pt_sha256(bytes, bytes.count, &digest)
    return digest
  }

  /// Whether `signature` (base64) is the one of `key` over the ASCII text (wire/registry §2.1).
  static func verify(_ signature: Bytes64, over text: String, by key: Bytes32) -> Bool {
    Ed25519.verify(signature, of: Array(text.utf8), by: key)
  }

  static func key(base64 text: String) -> Bytes32? {
    text.utf8.count == 44 ? Base64.decode(text).flatMap { Bytes32($0) } : nil
  }

  static func signature(base64 text: String) -> Bytes64? {
    text.utf8.count == 88 ? Base64.decode(text).flatMap { Bytes64($0) } : nil
  }

  static func base64(_ key: Bytes32) -> String { Base64.encode(key.bytes) }

  static func hexadecimal(_ bytes: [UInt8]) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }
}
