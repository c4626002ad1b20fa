// What every pair of ends has to do, whichever of them is an official agent, directly and through the relay: trust asked
// for, given and withdrawn, pings, datagrams, 64 MB each way, and either end killed and started again in mid traffic.
// The first end asks for trust and dials; so each mixed pair is here in both orders. Two nodes of ours on a direct path
// are in TransferTests, TrustTests and LifecycleTests.

import Glibc
import Testing

extension KernelTests {
  @Suite(
    "Every pair of official agents and nodes",
    .enabled(if: Official.isThere, "the official programs are not here: scripts/setup --interop installs them"))
  struct OfficialMatrixTests {
    enum Kind: String, Sendable { case official, node }

    struct Cell: CustomTestStringConvertible, Sendable {
      var first: Kind
      var second: Kind
      var isRelayed: Bool
      var testDescription: String {
        "\(first.rawValue) dials \(second.rawValue), \(isRelayed ? "relayed" : "direct")"
      }
    }

    static let cells = [
      Cell(first: .official, second: .node, isRelayed: false), Cell(first: .node, second: .official, isRelayed: false),
      Cell(first: .official, second: .official, isRelayed: false),
      Cell(first: .official, second: .node, isRelayed: true), Cell(first: .node, second: .official, isRelayed: true),
      Cell(first: .official, second: .official, isRelayed: true), Cell(first: .node, second: .node, isRelayed: true),
    ]

    private static let large = 64_000_000
    /// More than any of these lines carries before the kill.
    private static let endless = 1_000_000_000

    @Test("trust, ping, datagrams, 64 MB each way, and restarts in mid traffic", arguments: cells)
    func pair(_ cell: Cell) throws {
      try Fleet.with { fleet in
        let flags = cell.isRelayed ? ["--relay-only"] : []
        func end(_ kind: Kind, _ name: String) throws -> any MatrixEnd {
          kind == .official ? try OfficialAgent(name, flags, in: fleet) : try fleet.node(name, flags)
        }
        let (a, b) = (try end(cell.first, "alpha"), try end(cell.second, "beta"))
        let isOfficial = cell.first == .official && cell.second == .official

        try a.asks(b, "a pair")
        _ = try eventually("the request is there", within: 20) { try b.isAsked(by: a) ? true : nil }
        try b.approves(a)
        _ = try eventually("both know it", within: 20) { try a.trusts(b) && b.trusts(a) ? true : nil }

        try a.reaches(b)
        try b.reaches(a)
        for (from, to) in [(a, b), (b, a)] {
          let listener = try to.listener("5454")
          _ = try eventually("\(to.name) hears a datagram", within: 20) {
            try from.sendDatagram("to \(to.name)", to: to, "5454")
            return listener.transcript.contains("to \(to.name)") ? true : nil
          }
          listener.end(SIGKILL)
        }

        _ = try b.serveAnew()
        if isOfficial {
          try benches(a, b, "64")
        } else {
          try a.moves("put", Self.large, b)
          try a.moves("get", Self.large, b)
        }
        #expect(try a.isRelayed() == cell.isRelayed)
        #expect(try b.isRelayed() == cell.isRelayed)

        for one in [b, a] { try restarts(one, amid: a, b) }

        try b.withdraws(from: a)
        _ = try eventually("it is known there within 2 s", within: 2) { try a.trusts(b) ? nil : true }
        #expect(try !b.trusts(a) && !a.pings(b) && !b.pings(a))
      }
    }

    /// Between two official daemons a stream of the SDK ends at a closed window (docs/interop.md); the echo that they
    /// measure with does not, and compares what comes back.
    private func benches(_ a: any MatrixEnd, _ b: any MatrixEnd, _ megabytes: String) throws {
      let agent = try #require(a as? OfficialAgent)
      let bench = try agent.ctl("bench", b.address, megabytes, within: 90).orThrow()
      let echoed = bench.output.split(separator: "\n").first { $0.contains("Echoed:") } ?? ""
      #expect(echoed.contains("\(megabytes).0 MB"), "\(bench)")
    }

    /// Kills and starts `one` again while bytes flow from `a` to `b`.
    private func restarts(_ one: any MatrixEnd, amid a: any MatrixEnd, _ b: any MatrixEnd) throws {
      let sink = try b.serveAnew()
      let flow = try a.start("put", Self.endless, b)
      try sink.waitForLine(containing: "flowing")
      try one.restart()
      try a.reaches(b, within: 40)
      _ = try b.serveAnew()
      if a is OfficialAgent, b is OfficialAgent {
        try benches(a, b, "1")
      } else {
        try a.moves("put", 4_000_000, b)
      }
      // A stream went with the memory of either end. Who sends learns it from its own end at once, from the other one
      // by its silence, here in one of the cells; TCP between nodes goes on (TransferTests).
      let isStream = a is OfficialAgent || b is OfficialAgent
      let isWaitedFor = try one === a || a is LabNode && !a.isRelayed()
      if isStream, isWaitedFor {
        let outcome = try flow.wait(within: 60)
        #expect(!outcome.isSuccess, "\(outcome)")
      }
      flow.end(SIGKILL)
      #expect(!flow.outputText.contains("whole"), "\(flow.transcript)")
    }
  }
}
