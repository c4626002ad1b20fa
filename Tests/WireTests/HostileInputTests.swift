// Every parser of Wire on hostile bytes: the fuzz corpus, and seeded mutations of it. The properties are those of the
// fuzz targets (Fuzz/WireEntries.swift).

import Testing

@Suite("Hostile input")
struct HostileInputTests {
  @Test("the fuzz corpus keeps every promise", arguments: WireEntry.allCases)
  func corpus(entry: WireEntry) throws {
    let inputs = try Source.corpus(entry.rawValue)
    #expect(inputs.count >= 3, "the corpus of \(entry.rawValue) is missing")
    for input in inputs {
      if let fault = entry.violation(input.bytes) { Issue.record("\(entry.rawValue)/\(input.name): \(fault)") }
    }
  }

  @Test("damaged inputs keep every promise", arguments: WireEntry.allCases)
  func mutations(entry: WireEntry) throws {
    let inputs = try Source.corpus(entry.rawValue).map(\.bytes) + [[]]
    for seed in [UInt64(1), UInt64.random(in: 0...UInt64.max)] {
      print("mutations of \(entry.rawValue): seed \(seed)")
      var generator = SeededGenerator(seed: seed)
      for round in 0..<1500 {
        let bytes = generator.mutation(of: inputs[round % inputs.count])
        if let fault = entry.violation(bytes) {
          let text = bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
          Issue.record("\(entry.rawValue), seed \(seed), round \(round): \(fault): \(text)")
          return
        }
      }
    }
  }
}
