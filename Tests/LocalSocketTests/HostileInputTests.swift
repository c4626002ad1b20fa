// Any bytes of one client: the fuzz corpus, and seeded mutations of it. The properties are those of the fuzz target
// (Fuzz/LocalSocketEntries.swift).

import Testing

@Suite("Local socket: hostile input") struct LocalSocketHostileTests {
  @Test("the fuzz corpus keeps every promise", arguments: LocalSocketEntry.allCases)
  func corpus(entry: LocalSocketEntry) throws {
    let corpus = try Corpus(entry.rawValue)
    #expect(corpus.inputs.count >= 20, "the corpus of \(entry.rawValue) is missing")
    if let fault = corpus.fault(entry.violation) { Issue.record("\(fault)") }
  }

  @Test("damaged inputs keep every promise", arguments: LocalSocketEntry.allCases)
  func mutations(entry: LocalSocketEntry) throws {
    let corpus = try Corpus(entry.rawValue)
    for seed in [1, UInt64.random(in: 2...UInt64.max)] {
      if let fault = corpus.fault(ofMutations: 2000, seed: seed, entry.violation) { Issue.record("\(fault)") }
    }
  }
}
