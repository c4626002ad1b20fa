// The JSON reader and writer, and the frame reader, without a network.

import SeededRandom
import Foundation
import NIOCore
import Testing

@testable import Rendezvous

@Suite struct JSONTests {
  private func parse(_ text: String, depth: Int = 64) -> JSONValue? {
    try? JSONParser.parse(Array(text.utf8), maximumDepth: depth)
  }

  @Test("values read as what they are")
  func values() {
    #expect(parse(" {} ") == .object([]))
    #expect(parse(#"{"a":[1,-2,3.5,1e2,true,false,null,"x"]}"#)?["a"]?.text == #"[1,-2,3.5,100.0,true,false,null,"x"]"#)
    #expect(parse(#""\u00e9\ud83d\ude00\n\/\"\\""#) == .string("é😀\n/\"\\"))
    #expect(parse(#""\ud83d""#) == .string("\u{FFFD}"))
    #expect(parse(#""\ud83d\u0041""#) == .string("\u{FFFD}A"))
    #expect(parse("9223372036854775807") == .integer(.max))
    #expect(parse("4294967295")?.text == "4294967295")
    #expect(parse(#"{"a":1,"a":2}"#)?["a"] == .integer(2))
  }

  @Test(
    "what is no JSON is refused",
    arguments: [
      "", " ", "{", "}", "[1,]", "{\"a\":1,}", "{\"a\" 1}", "{a:1}", "01", "-", "1.", ".5", "1e", "+1", "tru", "nul",
      "\"",
      "\"\\x\"", "\"\\u12\"", "\"\u{1}\"", "1 2", "[1 2]", "{\"a\":1 \"b\":2}", "NaN", "Infinity", "'a'", "[1]]",
      "1" + String(repeating: "0", count: 100),
    ])
  func malformed(_ text: String) { #expect(parse(text) == nil) }

  @Test("invalid UTF-8 is refused")
  func encoding() {
    for bytes: [UInt8] in [
      [0x22, 0xFF, 0x22], [0x22, 0xC0, 0x80, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22], [0xEF, 0xBB, 0xBF],
    ] {
      #expect((try? JSONParser.parse(bytes, maximumDepth: 4)) == nil)
    }
  }

  @Test("depth is bounded exactly")
  func depth() {
    #expect(parse("[[[]]]", depth: 2) != nil)
    #expect(parse("[[[[]]]]", depth: 2) == nil)
    #expect(parse(#"{"a":{"a":{"a":1}}}"#, depth: 3) != nil)
    #expect(parse(#"{"a":{"a":{"a":{"a":1}}}}"#, depth: 3) == nil)
  }

  @Test("what is written reads back, for random values")
  func roundTrip() {
    var random = SeededGenerator(seed: 3)
    func value(_ depth: Int) -> JSONValue {
      switch Int.random(in: 0..<(depth > 4 ? 4 : 6), using: &random) {
      case 0: .null
      case 1: .bool(Bool.random(using: &random))
      case 2: .integer(Int64.random(in: .min ... .max, using: &random))
      case 3:
        .string(
          String(
            String.UnicodeScalarView(
              (0..<Int.random(in: 0..<20, using: &random)).map { _ in
                Unicode.Scalar(UInt32.random(in: 0..<0xD800, using: &random)) ?? "x"
              })))
      case 4: .array((0..<Int.random(in: 0..<5, using: &random)).map { _ in value(depth + 1) })
      default: .object((0..<Int.random(in: 0..<5, using: &random)).map { .init("k\($0)", value(depth + 1)) })
      }
    }
    for _ in 0..<500 {
      let original = value(0)
      #expect(try! JSONParser.parse(original.bytes, maximumDepth: 64) == original)
    }
  }

  @Test("the fuzz corpus is read or refused, and what is read survives writing")
  func corpus() throws {
    let folder = URL(fileURLWithPath: #filePath).appending(path: "../../../Fuzz/corpus/registryjson").standardized
    let files = try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
    #expect(files.count >= 10, "the corpus is missing")
    var readable = 0
    for file in files {
      guard let value = try? JSONParser.parse(Array(Data(contentsOf: file)), maximumDepth: 64) else { continue }
      readable += 1
      #expect(try JSONParser.parse(value.bytes, maximumDepth: 64).bytes == value.bytes, "\(file.lastPathComponent)")
    }
    #expect(readable >= 6)
  }

  @Test("flipped bytes of a request are read or refused, never worse")
  func mutations() {
    let request = #"{"type":"register","listen_addr":"127.0.0.1:42526","tags":["a",{"b":[1,2.5e3,"\u00e9"]}],"x":null}"#
    var random = SeededGenerator(seed: 11)
    for _ in 0..<20_000 {
      var bytes = Array(request.utf8)
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        let index = Int.random(in: 0..<bytes.count, using: &random)
        bytes[index] = UInt8.random(in: 0...255, using: &random)
      }
      if Bool.random(using: &random) { bytes.removeLast(Int.random(in: 0..<bytes.count, using: &random)) }
      if let value = try? JSONParser.parse(bytes, maximumDepth: 8) {
        #expect((try? JSONParser.parse(value.bytes, maximumDepth: 8)) != nil)
      }
    }
  }

  @Test("frames come out whole however the stream is cut")
  func framing() {
    var random = SeededGenerator(seed: 5)
    for _ in 0..<200 {
      let bodies = (0..<5).map { _ in
        (0..<Int.random(in: 1..<300, using: &random)).map { UInt8(truncatingIfNeeded: $0) }
      }
      var stream = bodies.flatMap { RegistrySocket.frame($0) }[...]
      var reader = FrameReader(limit: 300)
      var seen: [[UInt8]] = []
      while !stream.isEmpty {
        let count = Int.random(in: 1...min(stream.count, 97), using: &random)
        var piece = ByteBuffer(bytes: stream.prefix(count))
        stream = stream.dropFirst(count)
        reader.append(&piece)
        while case .frame(let frame) = reader.next(reserve: { _ in true }) {
          seen.append(Array(frame.readableBytesView))
        }
      }
      #expect(seen == bodies)
      #expect(!reader.isUnfinished)
    }
  }

  @Test("a frame above the limit is refused as soon as its length is known")
  func tooLong() {
    var reader = FrameReader(limit: 1 << 20)
    var head = ByteBuffer(bytes: [0x00, 0x10, 0x00, 0x01])
    reader.append(&head)
    #expect(reader.next(reserve: { _ in true }) == .malformed)
  }
}
