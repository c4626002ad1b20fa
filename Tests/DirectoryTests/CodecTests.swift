// JSON, base64, frames: what comes off the wire before anybody believes it.

import Foundation
import JSON
import NIOCore
import SeededRandom
import Testing
import Wire

@testable import Directory

@Suite("JSON")
struct JSONTests {
  @Test(
    "what is written is read back",
    arguments: [
      JSONValue.null, .bool(true), .integer(-7), .integer(.max), .number(1.5), .text("a\"\\\n\u{1}é😀"), .list([]),
      .object(["a": .list([.integer(1), .null]), "b": .object([:])]),
    ])
  func roundTrip(value: JSONValue) throws {
    #expect(try JSONValue(parsing: value.encoded) == value)
  }

  @Test(
    "texts of other writers are read",
    arguments: [
      (" {\"a\" : [ 1 , 2.5e1, -0 ] }\n", JSONValue.object(["a": .list([.integer(1), .number(25), .integer(0)])])),
      ("\"\\u00e9\\ud83d\\ude00\\/\\b\"", .text("é😀/\u{8}")),
      ("\"\\ud800\"", .text("\u{FFFD}")), ("\"\\ud800\\u0041\"", .text("\u{FFFD}A")),
      ("\"\\udc00\"", .text("\u{FFFD}")),
      ("\"\\ud83d\\ud83d\\ude00\"", .text("\u{FFFD}😀")), ("{\"a\":1,\"a\":2}", .object(["a": .integer(2)])),
      ("18446744073709551615", .number(18_446_744_073_709_551_616)),
    ])
  func otherWriters(text: String, value: JSONValue) throws {
    #expect(try JSONValue(parsing: Array(text.utf8)) == value)
  }

  @Test(
    "broken texts are refused",
    arguments: [
      "", " ", "{", "[1,]", "{\"a\":1,}", "{a:1}", "01", "1.", "-", "1e", "+1", ".5", "tru", "nul", "\"", "\"\\x\"",
      "\"\\u12g4\"", "\"\n\"", "1 2", "{} x", "NaN", "1e999", "\"\\ud800\\u00\"", "\"\\ud800\\",
      "1" + String(repeating: "0", count: 100),
      "[1 2]",
      "{\"a\" 1}", "{\"a\":1 \"b\":2}", "\u{FEFF}{}",
    ])
  func broken(text: String) {
    #expect(throws: JSONFault.self) { try JSONValue(parsing: Array(text.utf8)) }
  }

  @Test("invalid UTF-8 in a string is refused")
  func invalidUTF8() {
    #expect(throws: JSONFault.self) { try JSONValue(parsing: [0x22, 0xC3, 0x28, 0x22]) }
  }

  @Test("nesting is read to the limit and refused beyond, without a deep stack")
  func depth() throws {
    func nested(_ depth: Int) -> [UInt8] {
      [UInt8](repeating: UInt8(ascii: "["), count: depth) + [UInt8](repeating: UInt8(ascii: "]"), count: depth)
    }
    _ = try JSONValue(parsing: nested(JSONValue.deepest))
    #expect(throws: JSONFault.self) { try JSONValue(parsing: nested(JSONValue.deepest + 1)) }
    #expect(throws: JSONFault.self) { try JSONValue(parsing: [UInt8](repeating: UInt8(ascii: "["), count: 1 << 20)) }
    _ = try JSONValue(parsing: nested(3), deepest: 3)
    #expect(throws: JSONFault.self) { try JSONValue(parsing: nested(4), deepest: 3) }
    #expect(throws: JSONFault.self) { try JSONValue(parsing: Array(#"{"a":{"a":{"a":{"a":1}}}}"#.utf8), deepest: 3) }
  }

  @Test(
    "node ids are unsigned 32-bit numbers, neither 0 nor broadcast",
    arguments: [
      (JSONValue.integer(1), UInt32?(1)), (.integer(0xFFFF_FFFE), 0xFFFF_FFFE), (.number(3), 3), (.integer(0), nil),
      (.integer(-1), nil), (.integer(0xFFFF_FFFF), nil), (.integer(1 << 32), nil), (.number(1.5), nil),
      (.text("1"), nil),
    ])
  func nodes(value: JSONValue, node: UInt32?) {
    #expect(value.node == node)
  }

  @Test("the fuzz corpus is read or refused, and what is read survives writing")
  func corpus() throws {
    let folder = URL(fileURLWithPath: #filePath).appending(path: "../../../Fuzz/corpus/json").standardized
    let files = try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
    #expect(files.count >= 10, "the corpus is missing")
    var readable = 0
    for file in files {
      guard let value = try? JSONValue(parsing: Array(Data(contentsOf: file))) else { continue }
      readable += 1
      #expect(try JSONValue(parsing: value.encoded).encoded == value.encoded, "\(file.lastPathComponent)")
    }
    #expect(readable >= 6)
  }

  @Test("mutated texts never trap", arguments: [1, UInt64.random(in: 2..<99_999)])
  func mutations(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let text = Array("{\"type\":\"lookup_ok\",\"n\":[1,-2.5e3,\"\\u00e9\\ud83d\\ude00\"],\"x\":{\"y\":null}}".utf8)
    for _ in 0..<5000 {
      var bytes = text
      for _ in 0..<Int.random(in: 1...4, using: &generator) {
        let index = Int.random(in: 0..<bytes.count, using: &generator)
        bytes[index] = UInt8.random(in: 0...255, using: &generator)
      }
      if Bool.random(using: &generator) { bytes.removeLast(Int.random(in: 0..<bytes.count, using: &generator)) }
      if let value = try? JSONValue(parsing: bytes) { #expect((try? JSONValue(parsing: value.encoded)) != nil) }
    }
  }
}

@Suite("Base64")
struct Base64Tests {
  @Test(
    "the vectors of RFC 4648 hold in both directions",
    arguments: [
      ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="),
      ("foobar", "Zm9vYmFy"),
    ])
  func vectors(plain: String, text: String) {
    #expect(Base64.encode(Array(plain.utf8)) == text)
    #expect(Base64.decode(text) == Array(plain.utf8))
  }

  @Test(
    "anything but the exact form is refused",
    arguments: [
      "Z", "Zg", "Zg=", "Zh==", "Zm9=", "Z===", "====", "Zg==Zg==", "Zm 9v", "Zm9v\n", "Zm9-", "=Zg=",
    ])
  func refused(text: String) {
    #expect(Base64.decode(text) == nil)
  }
}

@Suite("Registry frames")
struct RegistryFrameTests {
  private let example: [UInt8] = [0, 0, 0, 0x1d] + Array("{\"type\":\"lookup\",\"node_id\":1}".utf8)

  @Test("the documented example is read, byte by byte as well")
  func documented() throws {
    var buffer = ByteBuffer()
    for byte in example.dropLast() {
      buffer.writeInteger(byte)
      #expect(try RegistryFrame.decode(from: &buffer) == nil)
    }
    buffer.writeBytes(example.suffix(1) + example)
    #expect(try RegistryFrame.decode(from: &buffer) == .object(["type": .text("lookup"), "node_id": .integer(1)]))
    #expect(try RegistryFrame.decode(from: &buffer) != nil)
    #expect(buffer.readableBytes == 0)
  }

  @Test("a frame that is written has the length in front")
  func encoding() throws {
    var buffer = ByteBuffer()
    try RegistryFrame.encode(.object(["type": .text("x")]), into: &buffer)
    #expect(Array(buffer.readableBytesView) == [0, 0, 0, 12] + Array("{\"type\":\"x\"}".utf8))
  }

  private static func framed(_ text: String) -> [UInt8] { [0, 0, 0, UInt8(text.utf8.count)] + Array(text.utf8) }

  static let faults: [([UInt8], RegistryFrame.Fault)] = [
    ([0, 0, 0, 0], .length(0)),
    ([0, 0x10, 0, 1], .length(0x100001)),
    ([0xFF, 0xFF, 0xFF, 0xFF], .length(0xFFFF_FFFF)),
    (framed("null"), .notAnObject),
    (framed("[]"), .notAnObject),
    (framed("{x"), .malformed(offset: 1)),
  ]

  @Test("lengths out of bounds, no JSON and no object are faults", arguments: faults)
  func broken(bytes: [UInt8], fault: RegistryFrame.Fault) {
    var buffer = ByteBuffer(bytes: bytes)
    #expect(throws: fault) { try RegistryFrame.decode(from: &buffer) }
  }

  @Test("a request above the limit is not sent")
  func oversized() {
    var buffer = ByteBuffer()
    let value = JSONValue.object(["x": .text(String(repeating: "a", count: RegistryFrame.longest))])
    #expect(throws: RegistryFrame.Fault.self) { try RegistryFrame.encode(value, into: &buffer) }
    #expect(buffer.readableBytes == 0)
  }
}
