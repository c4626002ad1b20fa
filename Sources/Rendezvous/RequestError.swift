// Why a request is refused: the text that the client reads. Used by RegistryState and the requests.

/// A refusal. Texts that official daemons act upon are `node not found` and `signature verification failed`
/// (wire/registry §4.3); the rest is for people.
struct RequestError: Error, Equatable {
  var text: String

  init(_ text: String) { self.text = text }

  static func nodeNotFound(_ id: UInt32) -> RequestError { RequestError("node \(id): node not found") }
  static let badSignature = RequestError("signature verification failed")
  static let signatureRequired = RequestError("signature required")
  static let rateLimited = RequestError("rate limited, try again later")
  static let adminRequired = RequestError("cannot do this: admin token required")
  static let storageFailed = RequestError("cannot store the change, try again later")
  /// One text for a private node that the requester may not reach, as official registries answer (§2.4).
  static let refused = RequestError("request failed")
  static let elsewhere = RequestError("cannot do this from another address than the node registered from")

  var reply: JSONValue { .object([.init("type", .string("error")), .init("error", .string(text))]) }
}
