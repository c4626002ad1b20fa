// The message of the trust handshake on stream port 444 (wire/tunnel §7.1) as bytes: one JSON object in one segment.
// Written and read by Directory; what a received one must prove is in TrustChecks.swift.

import JSON
package import Wire

/// One message between two nodes about their trust.
package struct TrustMessage: Sendable, Equatable {
  package enum Kind: String, Sendable, CaseIterable {
    case request = "handshake_request"
    case accept = "handshake_accept"
    case reject = "handshake_reject"
    case revoke = "handshake_revoke"
  }

  /// A receiver reads once, so the whole object has to fit into one segment of a stream.
  package static let longest = 1152

  package var kind: Kind
  /// Who says so.
  package var node: UInt32
  /// The sender's; nil when the message names none, which a receiver refuses.
  package var publicKey: Bytes32?
  /// Why trust is asked for; shown to the operator.
  package var justification: String
  /// Of `signedText`; nil when the message has none, which a receiver refuses.
  package var signature: Bytes64?
  /// Why it is refused or withdrawn.
  package var reason: String
  /// Unix seconds.
  package var timestamp: Int64

  package init(
    kind: Kind, node: UInt32, publicKey: Bytes32?, justification: String = "", signature: Bytes64?,
    reason: String = "", timestamp: Int64
  ) {
    self.kind = kind
    self.node = node
    self.publicKey = publicKey
    self.justification = justification
    self.signature = signature
    self.reason = reason
    self.timestamp = timestamp
  }

  /// What the signature covers: the two ids only, so that it is the one of the registry's relay as well. It proves
  /// neither kind nor time; the tunnel that the message comes by does.
  package static func signedText(from sender: UInt32, to receiver: UInt32) -> [UInt8] {
    Array("handshake:\(sender):\(receiver)".utf8)
  }
}

// MARK: - Writing

extension TrustMessage {
  /// The JSON object, at most `longest` bytes: justification and reason are cut, at a character, to what fits.
  package var encoded: [UInt8] {
    var cut = self
    (cut.justification, cut.reason) = ("", "")
    // A reason stands in messages that have no justification; both share what the rest leaves.
    cut.reason = Self.prefix(of: reason, quoted: Self.longest - cut.object.encoded.count)
    cut.justification = Self.prefix(of: justification, quoted: Self.longest - cut.object.encoded.count)
    return cut.object.encoded
  }

  private var object: JSONValue {
    .object([
      "type": .text(kind.rawValue), "node_id": .whole(node),
      "public_key": .text(publicKey.map { Base64.encode($0.bytes) } ?? ""), "justification": .text(justification),
      "signature": .text(signature.map { Base64.encode($0.bytes) } ?? ""), "reason": .text(reason),
      "timestamp": .integer(timestamp),
    ])
  }

  /// The longest beginning that takes at most `room` bytes between the quotes of a JSON string.
  private static func prefix(of text: String, quoted room: Int) -> String {
    let quotes = JSONValue.text("").encoded.count
    if JSONValue.text(text).encoded.count - quotes <= room { return text }
    var kept = ""
    var used = 0
    for character in text {
      used += JSONValue.text(String(character)).encoded.count - quotes
      guard used <= room else { break }
      kept.append(character)
    }
    return kept
  }
}

// MARK: - Reading

extension TrustMessage {
  /// Why bytes are no message.
  package enum Fault: Error, Equatable {
    /// Too long, no JSON object, a field that is missing or of another type than it has.
    case malformed
    /// A kind of a later version.
    case unknownKind
  }

  /// Strict about the types of the fields it knows; others are ignored. `null` is as good as missing.
  package init(parsing bytes: [UInt8]) throws(Fault) {
    guard bytes.count <= Self.longest, let value = try? JSONValue(parsing: bytes), value.object != nil else {
      throw .malformed
    }
    guard let type = try Self.text(value, "type"), let sender = value["node_id"]?.wholeNumber,
      let time = value["timestamp"]?.wholeNumber,
      let node = JSONValue.integer(sender).node
    else { throw .malformed }
    guard let kind = Kind(rawValue: type) else { throw .unknownKind }
    let key = try Self.bytes(value, "public_key").map { Bytes32($0) }
    let signature = try Self.bytes(value, "signature").map { Bytes64($0) }
    // Present, but not of the length that it has.
    guard key != .some(nil), signature != .some(nil) else { throw .malformed }
    self.init(
      kind: kind, node: node, publicKey: key ?? nil, justification: try Self.text(value, "justification") ?? "",
      signature: signature ?? nil, reason: try Self.text(value, "reason") ?? "", timestamp: time)
  }

  private static func text(_ value: JSONValue, _ name: String) throws(Fault) -> String? {
    switch value[name] {
    case nil, .null: return nil
    case .text(let text): return text
    default: throw .malformed
    }
  }

  /// The bytes of a base64 text; nil when it is missing or empty.
  private static func bytes(_ value: JSONValue, _ name: String) throws(Fault) -> [UInt8]? {
    guard let text = try text(value, name), !text.isEmpty else { return nil }
    guard let bytes = Base64.decode(text) else { throw .malformed }
    return bytes
  }
}

extension JSONValue {
  /// A number written without fraction or exponent.
  fileprivate var wholeNumber: Int64? {
    if case .integer(let value) = self { value } else { nil }
  }
}
