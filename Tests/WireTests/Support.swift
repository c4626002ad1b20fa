// Vectors from Tests/Vectors, hex, and seeded randomness for the tests of Wire.

import Foundation
import Wire

enum Source {
  /// The package's folder.
  static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

  static func vectors<Value: Decodable>(_ name: String) throws -> Value {
    let file = root.appendingPathComponent("Tests/Vectors/\(name).json")
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(Value.self, from: Data(contentsOf: file))
  }

  /// The corpus of one fuzz target, sorted by name.
  static func corpus(_ target: String) throws -> [(name: String, bytes: [UInt8])] {
    let folder = root.appendingPathComponent("Fuzz/corpus/\(target)")
    return try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted().map {
      ($0, Array(try Data(contentsOf: folder.appendingPathComponent($0))))
    }
  }
}

/// Bytes written as hex in a vector file.
struct Hex: Decodable {
  let bytes: [UInt8]

  init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    guard let bytes = Self.parse(try container.decode(String.self)) else {
      throw DecodingError.dataCorruptedError(in: container, debugDescription: "not hex")
    }
    self.bytes = bytes
  }

  static func parse(_ text: String) -> [UInt8]? {
    let digits = text.utf8.filter { $0 != UInt8(ascii: " ") }
    guard digits.count.isMultiple(of: 2) else { return nil }
    var bytes: [UInt8] = []
    for index in stride(from: 0, to: digits.count, by: 2) {
      guard let value = UInt8(String(decoding: digits[index...(index + 1)], as: UTF8.self), radix: 16) else {
        return nil
      }
      bytes.append(value)
    }
    return bytes
  }
}

/// Bytes from hex in a test; blanks are allowed.
func hex(_ text: String) -> [UInt8] {
  guard let bytes = Hex.parse(text) else { fatalError("not hex: \(text)") }
  return bytes
}

extension Array where Element == UInt8 {
  /// The bytes with one of them changed.
  func changing(_ index: Int, to value: UInt8) -> [UInt8] {
    var copy = self
    copy[index] = value
    return copy
  }
}

/// SplitMix64: the same numbers for the same seed, on every machine.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var value = state
    value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
    value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
    return value ^ value >> 31
  }

  mutating func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8.random(in: 0...255, using: &self) } }

  /// A damaged copy: bits flipped, bytes set, runs cut, repeated or appended.
  mutating func mutation(of bytes: [UInt8]) -> [UInt8] {
    var copy = bytes
    for _ in 0...Int.random(in: 0...3, using: &self) {
      let index = copy.isEmpty ? 0 : Int.random(in: 0..<copy.count, using: &self)
      switch Int.random(in: 0..<6, using: &self) {
      case 0 where !copy.isEmpty: copy[index] ^= 1 << UInt8.random(in: 0...7, using: &self)
      case 1 where !copy.isEmpty: copy[index] = [0, 1, 0x3F, 0x7F, 0xC0, 0xFF].randomElement(using: &self) ?? 0
      case 2: copy = Array(copy.prefix(index))
      case 3: copy.insert(contentsOf: copy.suffix(from: index).prefix(24), at: index)
      case 4: copy += bytesToAppend()
      default: if !copy.isEmpty { copy[index] = UInt8.random(in: 0...255, using: &self) }
      }
    }
    return copy
  }

  private mutating func bytesToAppend() -> [UInt8] { bytes(Int.random(in: 1...24, using: &self)) }
}
