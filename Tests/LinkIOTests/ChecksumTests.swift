// The vectorised checksum against the definition of RFC 1071.

import SeededRandom
import Shim
import Testing

@Suite struct ChecksumTests {
  /// The obvious one: 16-bit big-endian words, an odd last byte is the high half.
  private func model(_ bytes: some Collection<UInt8>) -> UInt16 {
    var sum: UInt64 = 0
    for (offset, byte) in bytes.enumerated() { sum += offset % 2 == 0 ? UInt64(byte) << 8 : UInt64(byte) }
    while sum > 0xFFFF { sum = (sum & 0xFFFF) + sum >> 16 }
    return UInt16(sum)
  }

  @Test func matchesTheModelForEveryLengthAndAlignment() {
    var generator = SeededGenerator(seed: 42)
    let bytes = (0..<2200).map { _ in UInt8.random(in: 0...255, using: &generator) }
    bytes.withUnsafeBytes { buffer in
      for length in Array(0...300) + [1279, 1280, 1371, 1400, 1401, 2047, 2048] {
        for alignment in [0, 1, 2, 3, 5, 8, 13, 31, 63] {
          let expected = model(bytes[alignment..<(alignment + length)])
          let base = buffer.baseAddress.map { $0 + alignment }
          #expect(pt_checksum_fold(pt_checksum_add(0, base, length)) == expected, "\(length) at \(alignment)")
          #expect(pt_checksum_fold(pt_checksum_add_scalar(0, base, length)) == expected, "\(length) at \(alignment)")
        }
      }
    }
  }

  @Test func matchesTheModelForRandomPieces() {
    let seed = UInt64.random(in: 0...UInt64.max)
    var generator = SeededGenerator(seed: seed)
    for _ in 0..<500 {
      let length = Int.random(in: 0...9000, using: &generator)
      // Many 0xFF bytes: where carries are lost, if they are.
      var bytes = (0..<length).map { _ in UInt8.random(in: 0...255, using: &generator) }
      for index in bytes.indices where Bool.random(using: &generator) { bytes[index] = 0xFF }
      #expect(pt_checksum_fold(pt_checksum_add(0, bytes, length)) == model(bytes), "seed \(seed), length \(length)")
    }
  }

  @Test func sumsOfEvenPiecesAdd() {
    let bytes = (0..<1400).map { UInt8(truncatingIfNeeded: $0 &* 73 &+ 11) }
    var sum: UInt64 = 0
    for start in stride(from: 0, to: 1400, by: 100) {
      sum = pt_checksum_add(sum, Array(bytes[start..<(start + 100)]), 100)
    }
    #expect(pt_checksum_fold(sum) == model(bytes))
  }

  @Test func aSumThatNearlyOverflowsKeepsItsCarry() {
    let bytes: [UInt8] = [0xFF, 0xFE]
    // 2^64-1 is 0 in one's complement arithmetic.
    #expect(pt_checksum_fold(pt_checksum_add(.max, bytes, 2)) == 0xFFFE)
  }

  @Test func theExampleOfTheStandard() {
    // RFC 1071 §3.
    let bytes: [UInt8] = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]
    #expect(pt_checksum_fold(pt_checksum_add(0, bytes, 8)) == 0xddf2)
  }
}
