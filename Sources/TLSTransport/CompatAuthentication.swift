// How a client of /v1/compat proves which node it is (wire/tunnel §4.7): three short texts in JSON. Pure; spoken by
// CompatLink and by the rendezvous.

import JSON
package import Wire

package enum CompatAuthentication: Equatable, Sendable {
  /// Server to client, first: what is to be signed. The time is the server's, Unix seconds; 0: it tells none.
  case challenge(nonce: String, time: Int64)
  /// The client's answer.
  case reply(node: UInt32, key: Bytes32, signature: Bytes64)
  /// The server took it.
  case accepted

  /// Longer texts are not read.
  package static let longest = 1024

  /// nil for anything else.
  package init?(_ text: [UInt8]) {
    guard text.count <= Self.longest, let value = try? JSONValue(parsing: text) else { return nil }
    switch value["type"]?.text {
    case "auth_challenge":
      guard let nonce = value["nonce"]?.text, (1...128).contains(nonce.utf8.count),
        nonce.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F })
      else { return nil }
      guard let stamp = value["ts"] else {
        self = .challenge(nonce: nonce, time: 0)
        return
      }
      guard let time = stamp.integer else { return nil }
      self = .challenge(nonce: nonce, time: time)
    case "auth_reply":
      guard let node = value["node_id"]?.node,
        let key = value["public_key"]?.text.flatMap(Base64.decode).flatMap({ Bytes32($0) }),
        let signature = value["sig"]?.text.flatMap(Base64.decode).flatMap({ Bytes64($0) })
      else { return nil }
      self = .reply(node: node, key: key, signature: signature)
    case "auth_ok": self = .accepted
    default: return nil
    }
  }

  package var text: String {
    let value: JSONValue
    switch self {
    case .challenge(let nonce, let time):
      value = .object(["type": .text("auth_challenge"), "nonce": .text(nonce), "ts": .integer(time)])
    case .reply(let node, let key, let signature):
      value = .object([
        "type": .text("auth_reply"), "node_id": .whole(node), "public_key": .text(Base64.encode(key.bytes)),
        "sig": .text(Base64.encode(signature.bytes)),
      ])
    case .accepted: value = .object(["type": .text("auth_ok")])
    }
    return String(decoding: value.encoded, as: UTF8.self)
  }

  /// What is signed.
  package static func signed(node: UInt32, time: Int64, nonce: String) -> [UInt8] {
    Array("compat_auth:\(node):\(time):\(nonce)".utf8)
  }
}
