// Names as ordinary programs see them: dig, curl and getent through the node's own resolver.

import Foundation
import Testing
import Wire

extension KernelTests {
  @Suite("Names")
  struct NameTests {
    /// Runs dig against the resolver and returns everything it prints.
    private func dig(_ node: LabNode, _ words: String) throws -> String {
      try node.run(["dig", "@\(Fleet.resolver)", "+tries=2", "+time=2"] + words.split(separator: " ").map(String.init))
        .orThrow().output
    }

    @Test("the resolver answers AAAA, A, PTR, SOA, unknown names and foreign zones as a name server should")
    func resolver() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let beta = try fleet.node("beta")
        let aaaa = try dig(alpha, "AAAA beta.pilot")
        #expect(aaaa.contains("status: NOERROR") && aaaa.contains(beta.ipv6))
        #expect(aaaa.contains(" aa "), "the answer is authoritative: \(aaaa)")
        #expect(aaaa.contains("EDNS: version: 0"))
        #expect(try dig(alpha, "AAAA alpha.pilot +short").contains(alpha.ipv6), "its own name")
        #expect(try dig(alpha, "AAAA BeTa.PiLoT +short").contains(beta.ipv6), "letter case does not matter")

        let a = try dig(alpha, "A beta.pilot")
        #expect(a.contains("status: NOERROR") && a.contains("ANSWER: 0") && a.contains("SOA"), "NODATA: \(a)")

        let ptr = try dig(alpha, "-x \(beta.ipv6)")
        #expect(ptr.contains("status: NOERROR") && ptr.contains("beta.pilot."))

        let soa = try dig(alpha, "SOA pilot")
        #expect(soa.contains("status: NOERROR") && soa.contains("IN\tSOA"))

        let unknown = try dig(alpha, "AAAA nobody-has-this-name.pilot")
        #expect(unknown.contains("status: NXDOMAIN"))
        let negative = try #require(unknown.split(separator: "\n").first { $0.contains("\tSOA\t") })
        let fields = negative.split { $0 == "\t" || $0 == " " }
        let minimum = try #require(fields.last.flatMap { Int($0) })
        let ttl = try #require(Int(fields[1]))
        #expect(ttl <= minimum && minimum <= 60, "negative answers are kept a minute at most: \(negative)")

        #expect(try dig(alpha, "AAAA example.org").contains("status: REFUSED"))
        #expect(try dig(alpha, "AAAA beta.pilot +tcp +short").contains(beta.ipv6))
        #expect(try dig(alpha, "AAAA beta.pilot +noedns +short").contains(beta.ipv6))
        #expect(try alpha.run(["getent", "ahosts", "beta.pilot"]).orThrow().output.contains(beta.ipv6))
        #expect(try alpha.run(["cat", "/etc/resolv.conf"]).output.contains(Fleet.resolver), "programs see this file")
        #expect(try FileMark(alpha.namespace.resolverFile) == alpha.resolverMark, "and the node leaves it alone")
      }
    }

    @Test("names within a group lead to the address there and back; groups one is not in have no names")
    func groups() throws {
      try Fleet.with(rendezvousFlags: ["--network", "papers:open", "--network", "others:open"]) { fleet in
        let alpha = try fleet.node("alpha", ["--network", "1"])
        let beta = try fleet.node("beta", ["--network", "1", "--network", "2", "--public"])
        let gamma = try fleet.node("gamma")
        let address = beta.ipv6.replacing("4f54::", with: "4f54:1::")
        #expect(address != beta.ipv6)
        #expect(try dig(alpha, "AAAA Beta.Papers.pilot +short") == address + "\n")
        #expect(try dig(alpha, "-x \(address) +short") == "beta.papers.pilot.\n")
        #expect(try alpha.run(["ping", "-c", "1", "-W", "5", "beta.papers.pilot"]).isSuccess)
        let group = try dig(alpha, "AAAA papers.pilot")
        #expect(group.contains("status: NOERROR") && group.contains("ANSWER: 0") && group.contains("SOA"), "\(group)")
        for name in ["gamma.papers.pilot", "beta.others.pilot", "www.beta.pilot", "nobody.papers.pilot"] {
          #expect(try dig(alpha, "AAAA \(name)").contains("status: NXDOMAIN"), "\(name)")
        }
        #expect(try dig(gamma, "AAAA beta.papers.pilot").contains("status: NXDOMAIN"))

        // The rendezvous goes: what is known stays, marked by its short life; what is not is no lie.
        fleet.killRendezvous()
        _ = try eventually("the loss is noticed", within: 30) {
          try alpha.status()["rendezvous"]["state"].text == "registered" ? nil : true
        }
        #expect(try dig(alpha, "AAAA beta.papers.pilot +short") == address + "\n")
        let unknown = try dig(alpha, "AAAA never-asked.pilot")
        #expect(unknown.contains("status: SERVFAIL") && unknown.contains("EDE: 22"), "\(unknown)")
        #expect(try dig(alpha, "AAAA beta.pilot.localdomain").contains("EDE: 20"))
      }
    }

    @Test("only programs of the machine are answered: another one that routes to the resolver gets nothing")
    func localOnly() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let hop = alpha.underlay.split(separator: ".")[2]
        try fleet.router.command("ip -6 route add \(Fleet.resolver)/128 via fd77:0:0:\(hop)::2")
        // The packets arrive: the kernel answers the ping.
        #expect(try fleet.router.run(["ping", "-c", "1", "-W", "2", Fleet.resolver]).isSuccess)
        for flag in ["+notcp", "+tcp"] {
          let words = ["dig", "@\(Fleet.resolver)", "+tries=1", "+time=1", flag, "AAAA", "alpha.pilot"]
          let outcome = try fleet.router.run(words)
          #expect(!outcome.isSuccess && !outcome.output.contains("status:"), "\(outcome)")
          #expect(try alpha.run(words).output.contains(alpha.ipv6))
          let other = words + ["-b", "fd77:0:0:\(hop)::2"]
          #expect(try alpha.run(other).output.contains(alpha.ipv6), "a program that asks from another address of ours")
        }
      }
    }

    @Test("--dns file: the file serves programs, and is as before after the end, a crash, and a wrong path")
    func resolverFile() throws {
      try Fleet.with { fleet in
        // As in a container: the file names others, and is a mount of its own.
        let path = "\(fleet.lab.directory)/resolv.conf"
        let before = "nameserver 127.0.0.99\noptions timeout:1 attempts:1\n"
        try before.write(toFile: path, atomically: true, encoding: .utf8)
        let alpha = try fleet.node("alpha", ["--public", "--dns", "file:/etc/resolv.conf"], isStarted: false)
        alpha.prefix = ["unshare", "-m", "sh", "-c", "mount --bind \(path) /etc/resolv.conf && exec \"$@\"", "sh"]
        let upstream = try fleet.lab.start(in: alpha.namespace, Tools.python("dns_upstream", "127.0.0.99"))
        try upstream.waitForLine(containing: "ready")
        try alpha.start()
        let names = try alpha.status()["names"]
        #expect(names["mechanism"].text == "file" && names["proof"]["ok"].isTrue, "\(names)")
        #expect(try alpha.run(["getent", "ahosts", "alpha.pilot"]).orThrow().output.contains(alpha.ipv6))
        #expect(try alpha.run(["getent", "ahostsv4", "example.org"]).orThrow().output.contains("192.0.2.1"))
        alpha.stop()
        #expect(try String(contentsOfFile: path, encoding: .utf8) == before)

        try alpha.start()
        alpha.stop(SIGKILL)
        #expect(try String(contentsOfFile: path, encoding: .utf8) != before, "the check sees our lines")
        // Another way is asked for now: the lines go all the same.
        alpha.flags = ["--public", "--dns", "auto"]
        try alpha.start()
        #expect(try String(contentsOfFile: path, encoding: .utf8) == before)
        alpha.stop()

        alpha.flags = ["--dns", "file:/etc/no/such/file", "--json"]
        let outcome = try alpha.launch().wait(within: 10)
        #expect(outcome.status == 2 && outcome.errors.contains("resolver_file_unusable"), "\(outcome)")
      }
    }

    @Test("pilot-tun resolve and address agree with the resolver")
    func commandLine() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let beta = try fleet.node("beta")
        let resolved = try alpha.tun("resolve", "beta", "--json").orThrow().output
        #expect(resolved.contains(beta.ipv6) && resolved.contains(beta.address))
        #expect(try alpha.tun("address", beta.address).orThrow().output.contains(beta.ipv6))
        #expect(try alpha.tun("address", beta.ipv6).orThrow().output.contains(beta.address))
        let unknown = try alpha.tun("resolve", "nobody-has-this-name", "--json")
        #expect(unknown.status == 1 && unknown.output.isEmpty)
        let failure = try JSON(parsing: unknown.errors)
        #expect(failure["status"].text == "error" && !failure["code"].text.isEmpty && !failure["hint"].text.isEmpty)
        let pilot = try #require(PilotAddress(beta.address))
        #expect("\(OverlayMapping.address(for: pilot))" == beta.ipv6)
      }
    }

    @Test("a node keeps its address and its name over a restart")
    func restartKeepsAddress() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let beta = try fleet.node("beta")
        let before = (beta.ipv6, beta.address, beta.nodeID)
        beta.stop()
        try beta.start()
        #expect((beta.ipv6, beta.address, beta.nodeID) == before)
        try alpha.waitForPing("beta.pilot")
      }
    }
  }
}
