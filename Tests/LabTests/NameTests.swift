// Names as ordinary programs see them: dig, curl and getent through the node's own resolver.

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
