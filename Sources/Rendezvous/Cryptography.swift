// The two primitives the registry needs, from the one place that has them. Used by node ids and signed requests.

import Foundation
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
    guard text.utf8.count == 44, let data = Data(base64Encoded: text) else { return nil }
    return Bytes32(data)
  }

  static func signature(base64 text: String) -> Bytes64? {
    guard text.utf8.count == 88, let data = Data(base64Encoded: text) else { return nil }
    return Bytes64(data)
  }

  static func base64(_ key: Bytes32) -> String { base64(key.bytes) }

  static func base64(_ bytes: [UInt8]) -> String { Data(bytes).base64EncodedString() }

  static func hexadecimal(_ bytes: [UInt8]) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }
}
