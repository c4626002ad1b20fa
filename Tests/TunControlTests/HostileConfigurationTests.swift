// The configuration's parser on hostile bytes: the fuzz corpus, and seeded mutations of it. The properties are those of
// the fuzz target (Fuzz/ConfigurationEntries.swift).

import Testing

@Suite("Hostile configuration", .serialized)
struct HostileConfigurationTests {
  @Test("the fuzz corpus keeps every promise", arguments: ConfigurationEntry.allCases)
  func corpus(entry: ConfigurationEntry) throws {
    let corpus = try Corpus(entry.rawValue)
    #expect(corpus.inputs.count >= 10, "the corpus of \(entry.rawValue) is missing")
    if let fault = corpus.fault(entry.violation) { Issue.record("\(fault)") }
  }

  @Test("damaged inputs keep every promise", arguments: ConfigurationEntry.allCases)
  func mutations(entry: ConfigurationEntry) throws {
    let corpus = try Corpus(entry.rawValue)
    for seed in [1, UInt64.random(in: 2...UInt64.max)] {
      if let fault = corpus.fault(ofMutations: 60, seed: seed, entry.violation) { Issue.record("\(fault)") }
    }
  }
}
