// The fuzz corpora of the rooms above Session, and seeded mutations of them, without libFuzzer. The properties are
// those of the fuzz targets (Fuzz/EngineEntries.swift, Fuzz/RegistryEntries.swift,
// Fuzz/TrustEntries.swift).

import Testing

@Suite("Fuzz corpora")
struct CorpusTests {
  @Test("every packet and inner frame of the corpus keeps the worker's promises", arguments: EngineEntry.allCases)
  func packets(entry: EngineEntry) throws {
    let corpus = try Corpus(entry.rawValue)
    #expect(corpus.inputs.count >= 20, "the corpus of \(entry.rawValue) is missing")
    expectNone(corpus.fault(entry.violation))
  }

  @Test("damaged ones keep them, too", arguments: EngineEntry.allCases)
  func damagedPackets(entry: EngineEntry) throws {
    let corpus = try Corpus(entry.rawValue)
    for seed in [1, UInt64.random(in: 2...UInt64.max)] {
      expectNone(corpus.fault(ofMutations: 60, seed: seed, entry.violation))
    }
  }

  @Test("every stream of the corpus is cut into frames as a slow model cuts it", arguments: RegistryEntry.allCases)
  func streams(entry: RegistryEntry) throws {
    let corpus = try Corpus(entry.rawValue)
    #expect(corpus.inputs.count >= 15, "the corpus of \(entry.rawValue) is missing")
    expectNone(corpus.fault(entry.violation))
  }

  @Test("damaged ones are, too", arguments: RegistryEntry.allCases)
  func damagedStreams(entry: RegistryEntry) throws {
    let corpus = try Corpus(entry.rawValue)
    for seed in [1, UInt64.random(in: 2...UInt64.max)] {
      expectNone(corpus.fault(ofMutations: 300, seed: seed, entry.violation))
    }
  }

  @Test("every trust message of the corpus is read as what it is, and what is written fits into a segment")
  func trustMessages() throws {
    let corpus = try Corpus(TrustEntry.corpus)
    #expect(corpus.inputs.count >= 20, "the corpus of trust messages is missing")
    expectNone(corpus.fault(TrustEntry.violation))
    for seed in [1, UInt64.random(in: 2...UInt64.max)] {
      expectNone(corpus.fault(ofMutations: 500, seed: seed, TrustEntry.violation))
    }
  }

  private func expectNone(_ fault: String?, location: SourceLocation = #_sourceLocation) {
    if let fault { Issue.record("\(fault)", sourceLocation: location) }
  }
}
