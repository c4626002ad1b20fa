// Replays the corpus of a fuzz target, and seeded mutations of it, in the tests of rooms (HostileInputTests)
// and in CorpusTests. No Foundation: the tests of the lower rooms do without.

import Glibc

struct Corpus {
  let target: String
  let inputs: [(name: String, bytes: [UInt8])]

  struct Missing: Error { var path: String }

  /// Reads Fuzz/corpus/TARGET beside the Tests folder of the calling file, sorted by name.
  init(_ target: String, file: String = #filePath) throws {
    self.target = target
    let root = file.split(separator: "/").dropLast(3).joined(separator: "/")
    let folder = "/\(root)/Fuzz/corpus/\(target)"
    var names: [String] = []
    guard let directory = opendir(folder) else { throw Missing(path: folder) }
    defer { closedir(directory) }
    while let entry = readdir(directory) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
        pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if !name.hasPrefix(".") { names.append(name) }
    }
    inputs = try names.sorted().map { ($0, try Self.read("\(folder)/\($0)")) }
  }

  private static func read(_ path: String) throws -> [UInt8] {
    guard let stream = fopen(path, "r") else { throw Missing(path: path) }
    defer { fclose(stream) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while true {
      let count = fread(&chunk, 1, chunk.count, stream)
      if count == 0 { return bytes }
      bytes += chunk[..<count]
    }
  }

  /// The first broken promise of the corpus, with the input's name.
  func fault(_ violation: ([UInt8]) -> String?) -> String? {
    for input in inputs {
      if let fault = violation(input.bytes) { return "\(target)/\(input.name): \(fault)" }
    }
    return nil
  }

  /// The first broken promise among damaged inputs, with what it takes to see it again.
  func fault(ofMutations rounds: Int, seed: UInt64, _ violation: ([UInt8]) -> String?) -> String? {
    var generator = Generator(state: seed)
    for round in 0..<rounds {
      let bytes = generator.mutation(of: inputs[round % inputs.count].bytes)
      guard let fault = violation(bytes) else { continue }
      let text = bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
      return "\(target), seed \(seed), round \(round): \(fault): \(text)"
    }
    return nil
  }

  /// SplitMix64: the same numbers for the same seed, on every machine.
  private struct Generator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
      state &+= 0x9E37_79B9_7F4A_7C15
      var value = state
      value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
      value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
      return value ^ value >> 31
    }

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
        case 4: for _ in 0..<Int.random(in: 1...24, using: &self) { copy.append(.random(in: 0...255, using: &self)) }
        default: if !copy.isEmpty { copy[index] = .random(in: 0...255, using: &self) }
        }
      }
      return copy
    }
  }
}
