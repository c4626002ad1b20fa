// The bytes of trust messages: the vectors, what is written is read, and every field has its malformed twins.

import JSON
import Foundation
import Session
import Testing
import Wire

@testable import Directory

/// A message of services.json and who it is for.
struct TrustVector {
  var message: [UInt8]
  var receiver: UInt32

  static func load(_ path: [String]) throws -> TrustVector {
    let file = URL(fileURLWithPath: #filePath).appending(path: "../../Vectors/services.json").standardized
    var value: JSONValue? = try JSONValue(parsing: Array(Data(contentsOf: file)))["handshake"]
    for member in path { value = value?[member] }
    let message = try #require(value?["message"]?.text)
    return TrustVector(message: Array(message.utf8), receiver: try #require(value?["receiver"]?.node))
  }

  static var all: [TrustVector] { get throws { [try load([]), try load(["captured_accept"])] } }
}

@Suite("Trust messages")
struct TrustMessageTests {
  private let good = TrustMessage(
    kind: .request, node: 5, publicKey: Bytes32((0..<32).map { $0 }), justification: "let \"me\" in\n😀",
    signature: Bytes64((0..<64).map { $0 }), reason: "", timestamp: 1_790_000_000)

  @Test("the messages of the vectors are read, and their signatures are those of the sender for the receiver")
  func vectors() throws {
    let request = try TrustVector.load([])
    let message = try TrustMessage(parsing: request.message)
    #expect(message.kind == .request && message.node == 1 && message.justification == "hello there")
    #expect(message.timestamp == 1_790_000_000 && message.reason.isEmpty)
    #expect(try TrustMessage(parsing: try TrustVector.load(["captured_accept"]).message).kind == .accept)
    for vector in try TrustVector.all {
      let message = try TrustMessage(parsing: vector.message)
      let text = TrustMessage.signedText(from: message.node, to: vector.receiver)
      let (key, signature) = (try #require(message.publicKey), try #require(message.signature))
      #expect(Ed25519.verify(signature, of: text, by: key))
      #expect(try TrustMessage(parsing: message.encoded) == message)
    }
  }

  @Test("what is written is read, whatever the kind", arguments: TrustMessage.Kind.allCases)
  func roundTrip(kind: TrustMessage.Kind) throws {
    var message = good
    message.kind = kind
    message.reason = "no\u{1}t now"
    #expect(try TrustMessage(parsing: message.encoded) == message)
    (message.publicKey, message.signature) = (nil, nil)
    #expect(try TrustMessage(parsing: message.encoded) == message)
  }

  @Test("a reason that is too long is cut at a character, and the whole fits into one segment")
  func cut() throws {
    for unit in ["a", "é", "😀", "\"", "\n", "👨‍👩‍👧‍👦"] {
      var message = good
      message.node = .max - 1
      message.justification = String(repeating: unit, count: 1500)
      message.reason = unit
      let bytes = message.encoded
      #expect(bytes.count <= TrustMessage.longest, "\(unit)")
      #expect(bytes.count > TrustMessage.longest - 32, "no more than needed is cut: \(unit), \(bytes.count)")
      let read = try TrustMessage(parsing: bytes)
      #expect(read.justification == String(repeating: unit, count: read.justification.count), "\(unit)")
      #expect(read.reason == unit && read.signature == good.signature)
    }
    var exact = good
    (exact.justification, exact.reason) = ("", "")
    exact.justification = String(repeating: "x", count: TrustMessage.longest - exact.encoded.count)
    #expect(exact.encoded.count == TrustMessage.longest)
    #expect(try TrustMessage(parsing: exact.encoded) == exact)
  }

  @Test("fields that are not known are ignored, and optional ones may be missing or null")
  func optional() throws {
    guard case .object(var members) = try JSONValue(parsing: good.encoded) else { return }
    members["later"] = .object(["a": .list([.null])])
    (members["justification"], members["reason"]) = (nil, .null)
    let read = try TrustMessage(parsing: JSONValue.object(members).encoded)
    #expect(read.justification.isEmpty && read.reason.isEmpty && read.signature == good.signature)
    (members["public_key"], members["signature"]) = (.null, nil)
    let bare = try TrustMessage(parsing: JSONValue.object(members).encoded)
    #expect(bare.publicKey == nil && bare.signature == nil)
    #expect(try TrustMessage(parsing: JSONValue.object(members).encoded + Array(" \n".utf8)) == bare)
  }

  static let twins: [(String, JSONValue?)] = [
    ("type", nil), ("type", .null), ("type", .integer(1)), ("type", .list([.text("handshake_request")])),
    ("node_id", nil), ("node_id", .null), ("node_id", .text("5")), ("node_id", .number(5.5)), ("node_id", .integer(0)),
    ("node_id", .integer(-5)), ("node_id", .integer(0xFFFF_FFFF)), ("node_id", .integer(1 << 32)),
    ("node_id", .bool(true)),
    ("public_key", .integer(1)), ("public_key", .text("AAAA")), ("public_key", .text("!")),
    ("public_key", .text(Base64.encode([UInt8](repeating: 1, count: 31)))),
    ("public_key", .text(Base64.encode([UInt8](repeating: 1, count: 33)))),
    ("public_key", .text(String(Base64.encode([UInt8](repeating: 1, count: 32)).dropLast()))),
    ("justification", .integer(1)), ("justification", .list([])), ("reason", .bool(false)), ("reason", .object([:])),
    ("signature", .bool(true)), ("signature", .text("AAAA")),
    ("signature", .text(Base64.encode([UInt8](repeating: 1, count: 63)))),
    ("signature", .text(Base64.encode([UInt8](repeating: 1, count: 65)))),
    ("timestamp", nil), ("timestamp", .null), ("timestamp", .text("1790000000")), ("timestamp", .number(1.5)),
  ]

  @Test("each field has twins that are refused", arguments: twins.indices)
  func malformed(index: Int) throws {
    let (name, twin) = Self.twins[index]
    guard case .object(var members) = try JSONValue(parsing: good.encoded) else { return }
    members[name] = twin
    #expect(throws: TrustMessage.Fault.malformed, "\(name) \(String(describing: twin))") {
      try TrustMessage(parsing: JSONValue.object(members).encoded)
    }
  }

  @Test("a number with an exponent or beyond its range is none of ours")
  func numbers() throws {
    let text = String(decoding: good.encoded, as: UTF8.self)
    for number in ["1790000000.0", "1.79e9", "17900000000000000000000", "-0.0"] {
      let twin = text.replacingOccurrences(of: "1790000000", with: number)
      #expect(throws: TrustMessage.Fault.malformed, "\(number)") { try TrustMessage(parsing: Array(twin.utf8)) }
    }
    // Far from now is for the checks to refuse.
    let far = text.replacingOccurrences(of: "1790000000", with: "-9223372036854775808")
    #expect(try TrustMessage(parsing: Array(far.utf8)).timestamp == .min)
  }

  @Test("a kind of a later version has a name of its own")
  func unknownKind() throws {
    let text = String(decoding: good.encoded, as: UTF8.self)
    for kind in ["handshake_renew", "", "HANDSHAKE_REQUEST", "handshake_request "] {
      let twin = text.replacingOccurrences(of: "handshake_request", with: kind)
      #expect(throws: TrustMessage.Fault.unknownKind) { try TrustMessage(parsing: Array(twin.utf8)) }
    }
  }

  @Test("what is no object, is cut off, doubled or too long is refused")
  func framing() throws {
    let bytes = good.encoded
    for count in 0..<bytes.count {
      #expect(throws: TrustMessage.Fault.malformed) { try TrustMessage(parsing: Array(bytes.prefix(count))) }
    }
    let long = bytes + [UInt8](repeating: 0x20, count: TrustMessage.longest + 1 - bytes.count)
    for twin in [bytes + bytes, [0] + bytes, bytes + [0], Array("[]".utf8), Array("null".utf8), long] {
      #expect(throws: TrustMessage.Fault.malformed) { try TrustMessage(parsing: twin) }
    }
    #expect(try TrustMessage(parsing: Array(long.dropLast())) == good)
  }
}
