// Official agents as peers of nodes: what is particular about it. What every pair of ends has to do is in
// OfficialMatrixTests.

import Foundation
import Testing

extension KernelTests {
  @Suite(
    "Official agents",
    .enabled(if: Official.isThere, "the official programs are not here: scripts/setup --interop installs them"))
  struct OfficialTests {
    @Test(
      "official ping, traceroute and bench work against a node, directly and through the relay",
      arguments: [["--public"], ["--public", "--relay-only"]])
    func echo(flags: [String]) throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha", flags)
        let agent = try OfficialAgent("official", ["--public"], in: fleet)
        let byName = try agent.ctl("ping", "alpha", "--count", "3").orThrow()
        #expect(OfficialAgent.answers(byName) == 3, "\(byName)")
        let traced = try agent.ctl("traceroute", node.address).orThrow()
        #expect(traced.output.contains("rtt="), "\(traced)")
        let bench = try agent.ctl("bench", node.address, "4", within: 120).orThrow()
        let echoed = bench.output.split(separator: "\n").first { $0.contains("Echoed:") } ?? ""
        #expect(echoed.contains("4.0 MB"), "\(bench)")
        let status = try node.status()
        let peer = try #require(status["peers"].list.first { $0["hostname"].text == "official" })
        #expect(peer["path"].text == (flags.contains("--relay-only") ? "relay" : "direct"))
        #expect(!peer["raw_ipv6"].isTrue, "no raw packet may go to an official daemon")
        for reason in ["inner-over-limit", "event-queue-full", "authentication-failed", "stream-over-limit"] {
          #expect(status["drops"][reason].number == 0, "\(reason)")
        }
      }
    }

    @Test("with the direct way blocked both ends use the relay, and the direct way when it is free again")
    func blocked() throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha")
        let agent = try OfficialAgent("official", ["--public"], in: fleet)
        try fleet.block(node.underlay, agent.underlay)
        try agent.reaches(node, within: 40)
        try node.reaches(agent)
        #expect(try node.isRelayed() && agent.isRelayed())
        try fleet.unblock()
        // Each goes on speaking: who is not used needs no better way.
        _ = try eventually("both are direct again", within: 60) { () -> Bool? in
          guard try node.pings(agent), try agent.pings(node), try !node.isRelayed() else { return nil }
          return try agent.isRelayed() ? nil : true
        }
      }
    }

    @Test("trust between public ones changes nothing that passes, and its withdrawal is known within 2 s")
    func publicTrust() throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha")
        let agent = try OfficialAgent("official", ["--public"], in: fleet)
        try agent.asks(node, "let me in")
        _ = try eventually("the request is there", within: 20) { try node.isAsked(by: agent) ? true : nil }
        try node.approves(agent)
        _ = try eventually("both know it", within: 20) { try agent.trusts(node) && node.trusts(agent) ? true : nil }
        try agent.withdraws(from: node)
        _ = try eventually("the withdrawal is known here", within: 2) { try node.trusts(agent) ? nil : true }
        try agent.reaches(node)
        try node.reaches(agent)
      }
    }

    @Test("our key exchange leaves an official daemon undisturbed, and so does the quiet after it")
    func undisturbed() throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha")
        let agent = try OfficialAgent("official", ["--public", "--log-level", "debug"], in: fleet)
        let tap = try node.helper(Tools.python("frame_tap", "PILS"))
        try node.reaches(agent)
        // No program speaks: what leaves after a while is what keeps the path.
        func framesSent() -> Int { tap.outputText.split(separator: "\n").count { $0.hasPrefix(node.underlay + " ") } }
        var (frames, since) = (framesSent(), ContinuousClock.now)
        let silence = try eventually("a frame after a silence", within: 40) { () -> Duration? in
          let (count, now) = (framesSent(), ContinuousClock.now)
          guard count != frames else { return nil }
          defer { (frames, since) = (count, now) }
          return now - since > .seconds(10) ? now - since : nil
        }
        #expect(silence < .milliseconds(25_500), "\(silence)")
        try node.reaches(agent)

        let log = agent.program.transcript.split(separator: "\n")
        let start = try #require(log.firstIndex { $0.contains("daemon running") })
        // What it says of pilotctl's connections is not about us.
        let lines = log[start...].filter { $0.contains("level=") && !$0.contains("msg=\"IPC ") }
        #expect(lines.count { $0.contains("encrypted tunnel established") } == 1, "\(agent.program.transcript)")
        for line in lines {
          let isTrouble =
            line.contains("level=WARN") || line.contains("level=ERROR")
            || ["reset", "silent", "watchdog", "decrypt", "replay", "malformed"].contains { line.contains($0) }
          #expect(!isTrouble, "\(line)")
        }
        #expect(lines.contains { $0.contains("level=DEBUG") }, "this is what would tell")
        #expect(try node.drops("pilot-packet-unexpected") == 0)
      }
    }

    @Test("an official stranger reaches nothing of a private node, and is refused a port that nobody serves")
    func strangers() throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha", [])
        let agent = try OfficialAgent("official", ["--public"], in: fleet)
        let refused = try agent.ctl("ping", node.address, "--count", "1", "--timeout", "5s", "--no-auto-handshake")
        #expect(OfficialAgent.answers(refused) == 0, "\(refused)")
        // Official daemons send nothing to private nodes that they do not trust; that ours would be silent is tested
        // with StreamTable.

        let open = try fleet.node("beta")
        let connected = try agent.ctl("connect", open.address, "81", "--message", "hello", "--timeout", "5s")
        #expect(!connected.isSuccess, "\(connected)")
      }
    }
  }
}
