// The corpus of Fuzz/targets/transport, and damaged copies of it.

import Testing

@Suite("Hostile input to the TLS transport's parsers")
struct HostileInputTests {
  @Test("every input of the corpus, and damaged ones, keep the promises")
  func corpus() throws {
    let corpus = try Corpus(TransportEntry.transport.rawValue)
    #expect(corpus.fault { TransportEntry.transport.violation($0) } == nil)
    for seed in [1, UInt64.random(in: 0...UInt64.max)] {
      #expect(corpus.fault(ofMutations: 20_000, seed: seed) { TransportEntry.transport.violation($0) } == nil)
    }
  }
}
