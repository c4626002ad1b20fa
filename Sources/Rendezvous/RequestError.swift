// Why a request is refused: the text that the client reads. Used by RegistryState and the requests.

import JSON

/// A refusal. Texts that official daemons act upon are `node not found` and `signature verification failed`
/// (wire/registry §4.3); the rest is for people.
struct RequestError: Error, Equatable {
  var text: String
  /// What the client signs to be let in after all.
  var nonce: String?

  init(_ text: String) { self.text = text }

  /// The node's key has proven itself with a nonce before, so anybody may have recorded its other signatures.
  static func proofRequired(_ nonce: String) -> RequestError {
    var error = RequestError("signature of the nonce required: this node proves its key on every connection")
    error.nonce = nonce
    return error
  }

  static func nodeNotFound(_ id: UInt32) -> RequestError { RequestError("node \(id): node not found") }
  static let badSignature = RequestError("signature verification failed")
  static let signatureRequired = RequestError("signature required")
  static let rateLimited = RequestError("rate limited, try again later")
  static let adminRequired = RequestError("cannot do this: admin token required")
  static let storageFailed = RequestError("cannot store the change, try again later")
  /// One text for a private node that the requester may not reach, as official registries answer (§2.4).
  static let refused = RequestError("request failed")
  static let elsewhere = RequestError("cannot do this from another address than the node registered from")

  static let connectedElsewhere = RequestError(
    "cannot register: the node is connected from another address, try again when that connection is gone")

  var reply: JSONValue {
    let nonce: [(String, JSONValue)] = nonce.map { [("nonce", .text($0))] } ?? []
    return .object(of: [("type", .text("error")), ("error", .text(text))] + nonce)
  }
}
