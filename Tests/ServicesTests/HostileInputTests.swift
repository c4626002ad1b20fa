// Any bytes of one peer: the fuzz corpora, and seeded mutations of them. The properties are those of the fuzz targets
// (Fuzz/ServiceEntries.swift).

import Testing

@Suite("Services: hostile input") struct ServiceHostileTests {
  @Test("the fuzz corpora keep every promise", arguments: ServiceEntry.allCases)
  func corpus(entry: ServiceEntry) throws {
    let corpus = try Corpus(entry.rawValue)
    #expect(corpus.inputs.count >= 20, "the corpus of \(entry.rawValue) is missing")
    if let fault = corpus.fault(entry.violation) { Issue.record("\(fault)") }
  }

  @Test("damaged inputs keep every promise", arguments: ServiceEntry.allCases)
  func mutations(entry: ServiceEntry) throws {
    let corpus = try Corpus(entry.rawValue)
    for seed in [1, UInt64.random(in: 2...UInt64.max)] {
      if let fault = corpus.fault(ofMutations: 300, seed: seed, entry.violation) { Issue.record("\(fault)") }
    }
  }
}
