// Every parser of a room on hostile bytes: the fuzz corpora, and seeded mutations of them. The properties are those of the
// fuzz targets. Part of the tests of each room whose entries file names itself `RoomEntry`.

import Testing

@Suite("Hostile input", .serialized)
struct HostileInputTests {
  @Test("the fuzz corpus keeps every promise", arguments: RoomEntry.allCases)
  func corpus(entry: RoomEntry) throws {
    let corpus = try Corpus(entry.rawValue)
    #expect(corpus.inputs.count >= 10, "the corpus of \(entry.rawValue) is missing")
    if let fault = corpus.fault(entry.violation) { Issue.record("\(fault)") }
  }

  @Test("damaged inputs keep every promise", arguments: RoomEntry.allCases)
  func mutations(entry: RoomEntry) throws {
    let corpus = try Corpus(entry.rawValue)
    for seed in [1, UInt64.random(in: 2...UInt64.max)] {
      if let fault = corpus.fault(ofMutations: RoomEntry.mutations, seed: seed, entry.violation) {
        Issue.record("\(fault)")
      }
    }
  }
}
