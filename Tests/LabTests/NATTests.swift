// Pairs of nodes behind NATs of each kind, in the networks that scripts/lab makes: the rules of the NATs are there and
// nowhere else. The whole matrix is measured by `scripts/lab matrix`; here are cells that must not break.

import Foundation
import Testing

/// A rendezvous and two nodes, `a` and `b`, in a topology of scripts/lab.
final class NATFleet {
  let lab: Lab
  let a: LabNode
  let b: LabNode
  private let machines: [String: Namespace]
  /// `rendezvous` and `beacon2`, each a whole one.
  private(set) var servers: [String: Program] = [:]

  /// `isStarted`: the nodes are up.
  static func with(_ topology: String, isStarted: Bool = true, _ body: (NATFleet) throws -> Void) throws {
    try Lab.with { lab in
      let fleet = try NATFleet(lab, topology, isStarted)
      do {
        try body(fleet)
      } catch {
        let transcripts = [fleet.a, fleet.b].compactMap { $0.program?.transcript.suffix(4000) }
        throw LabError("\(topology): \(error)\n\(transcripts.joined(separator: "\n---\n"))")
      }
    }
  }

  private init(_ lab: Lab, _ topology: String, _ isStarted: Bool) throws {
    self.lab = lab
    let made = try Self.script(lab, "up", topology)
    guard let list = made.split(separator: "\n").last(where: { $0.hasPrefix("up: ") }) else { throw LabError(made) }
    let names = list.dropFirst(4).split(separator: " ").map(String.init)
    let machines = try Dictionary(uniqueKeysWithValues: names.map { ($0, try lab.adopt($0)) })
    self.machines = machines
    for name in ["rendezvous", "beacon2"] {
      let server = try lab.start(
        in: Self.machine(name, of: machines), [Tools.rendezvous, "serve", "--state-dir", "\(lab.directory)/\(name)"])
      try server.waitForLine(containing: "ready")
      servers[name] = server
    }
    func node(_ name: String) throws -> LabNode {
      let namespace = try Self.machine(name, of: machines)
      let hasIPv4 = try !namespace.command("ip -4 -o address show dev eth0").isEmpty
      return try LabNode(
        name, namespace, rendezvous: hasIPv4 ? "203.0.113.2" : "[2001:db8::2]", lab: lab,
        flags: ["--public"])
    }
    a = try node("a")
    b = try node("b")
    if isStarted {
      try a.start()
      try b.start()
    }
  }

  private static func machine(_ name: String, of machines: [String: Namespace]) throws -> Namespace {
    guard let machine = machines[name] else { throw LabError("no \(name) among \(machines.keys.sorted())") }
    return machine
  }

  /// `a`, `nat-a`, `core` and so on.
  func machine(_ name: String) throws -> Namespace { try Self.machine(name, of: machines) }

  @discardableResult
  static func script(_ lab: Lab, _ arguments: String..., within seconds: Double = 60) throws -> String {
    var root = URL(fileURLWithPath: #filePath)
    for _ in 0..<3 { root = root.deletingLastPathComponent() }
    let program = try Program(
      ["python3", root.appendingPathComponent("scripts/lab").path, "--prefix", lab.prefix] + arguments)
    return try program.wait(within: seconds).orThrow().output
  }

  /// The router forgets every connection and mapping.
  func flush(_ router: String) throws { try Self.script(lab, "flush", router) }

  /// Waits until both ends say that the path between them is of this kind.
  func waitForPath(_ wanted: String, within seconds: Double) throws {
    _ = try eventually("the path is \(wanted) at both ends", within: seconds) {
      let paths = try [a.peer(b), b.peer(a)].map { $0["path"].text }
      return paths == [wanted, wanted] ? true : nil
    }
  }

  /// Moves octets from b to a and compares their hash.
  func transfer(octets: Int) throws {
    let server = try b.helper(Tools.python("tcp_serve", b.ipv6, "5001", "\(octets)"))
    let fetch = try a.run(Tools.python("tcp_fetch", b.ipv6, "5001"), within: 60).orThrow()
    guard fetch.output.contains("the content is right") else { throw LabError("\(fetch)") }
    server.end()
  }
}

extension KernelTests {
  @Suite("NATs")
  struct NATTests {
    @Test("the laboratory's NATs are what they are called")
    func laboratory() throws {
      try Lab.with { lab in
        let facts = try NATFleet.script(lab, "check", within: 200)
        #expect(facts.contains("ok    symmetric: mapping, filtering"))
      }
    }

    @Test(
      "a pair reaches the best path that its NATs allow, and moves data on it",
      arguments: [
        ("restricted:cgnat", "direct"), ("port-restricted:port-restricted", "direct"),
        ("full-cone:symmetric", "direct"),
        ("symmetric:symmetric", "relay"), ("ipv6:ipv6", "direct"), ("ipv6:port-restricted", "relay"),
      ])
    func pairs(topology: String, path: String) throws {
      try NATFleet.with(topology) { fleet in
        try fleet.a.waitForPing(fleet.b.ipv6)
        try fleet.waitForPath(path, within: 40)
        let ping = try fleet.a.tun("ping", "b", "--until-direct", "--interval", "0.1", "--count", "3", "--json")
        let isDirect = path == "direct"
        #expect(ping.isSuccess == isDirect, "\(ping)")
        if isDirect {
          #expect(try JSON(parsing: ping.output)["data"]["direct"].isTrue)
        } else {
          #expect(try JSON(parsing: ping.errors)["code"].text == "not_direct")
        }
        try fleet.transfer(octets: 4 << 20)
      }
    }

    @Test(
      "a symmetric NAT against one that filters by port: direct through a port that was opened, and moves data on it")
    func hardPair() throws {
      // One opening in fifty misses, and the next is two minutes later.
      var isDirect = false
      for _ in 0..<2 where !isDirect {
        try NATFleet.with("port-restricted:symmetric") { fleet in
          try fleet.a.waitForPing(fleet.b.ipv6)
          guard (try? fleet.waitForPath("direct", within: 15)) != nil else { return }
          isDirect = true
          let counters = try fleet.b.status()["counters"]
          #expect(counters["ports-met"].number == 1 && counters["punch-symmetric"].number > 0, "\(counters)")
          #expect(try fleet.a.status()["counters"]["ports-tried"].number == 1)
          #expect(try fleet.b.status()["nat"]["mapping"].text == "endpoint-dependent")
          try fleet.transfer(octets: 4 << 20)
        }
      }
      #expect(isDirect)
    }

    @Test("with hard-nat = off at either end, such a pair stays relayed", arguments: [0, 1])
    func hardPairOff(end: Int) throws {
      try NATFleet.with("port-restricted:symmetric", isStarted: false) { fleet in
        let nodes = [fleet.a, fleet.b]
        nodes[end].flags += ["--hard-nat", "off"]
        for node in nodes { try node.start() }
        try fleet.a.waitForPing(fleet.b.ipv6)
        let tried = try eventually("a punch is given up", within: 20) { () throws -> JSON? in
          let counters = try fleet.b.status()["counters"]
          return counters["punch-symmetric"].number > 0 ? counters : nil
        }
        #expect(tried["ports-met"].isMissing && tried["ports-opened"].isMissing == (end == 1))
        try fleet.waitForPath("relay", within: 5)
      }
    }

    @Test("a lossy link carries a transfer")
    func lossy() throws {
      try NATFleet.with("port-restricted+loss2:open") { fleet in
        try fleet.a.waitForPing(fleet.b.ipv6)
        try fleet.transfer(octets: 2 << 20)
      }
    }

    @Test("netcheck tells what the NATs in front of a machine do, with no node running")
    func netcheck() throws {
      let independent = "endpoint-independent"
      let both = "address-and-port-dependent"
      let kinds = [
        ("full-cone+mtu1360", independent, independent, true), ("restricted", independent, "address-dependent", false),
        ("port-restricted", independent, both, false), ("symmetric", both, both, false),
      ]
      for (first, second) in [(kinds[0], kinds[1]), (kinds[2], kinds[3])] {
        try NATFleet.with("\(first.0):\(second.0)", isStarted: false) { fleet in
          for (node, kind) in [(fleet.a, first), (fleet.b, second)] {
            let flags = ["netcheck", "--json", "--beacon", "203.0.113.2", "--beacon", "203.0.113.6"]
            let found = try JSON(parsing: node.run([Tools.tun] + flags).orThrow().output)["data"]
            let network = found["ipv4"]
            #expect(network["mapping"].text == kind.1, "\(kind.0)")
            #expect(network["filtering"].text == kind.2, "\(kind.0)")
            #expect(network["hairpin"].isTrue == kind.3, "\(kind.0)")
            #expect(network["translated"].isTrue)
            #expect(found["ipv6"].isMissing)
            let mtu = kind.0.contains("mtu1360") ? 1360 : 1500
            #expect(found["beacons"].list.map { $0["mtu"].number } == [mtu, mtu], "\(kind.0)")
          }
        }
      }
      try NATFleet.with("port-restricted+blocked:dual", isStarted: false) { fleet in
        let flags = ["netcheck", "--json", "--rendezvous"]
        let blocked = try fleet.a.run([Tools.tun] + flags + ["203.0.113.2"])
        #expect(blocked.status == 1)
        #expect(try JSON(parsing: blocked.errors)["code"].text == "udp_blocked")
        let found = try JSON(parsing: fleet.b.run([Tools.tun] + flags + ["[2001:db8::2]"]).orThrow().output)["data"]
        #expect(found["ipv6"]["filtering"].text == "address-and-port-dependent")
        #expect(!found["ipv6"]["translated"].isTrue && !found["ipv6"].isMissing)
      }
    }

    @Test("a NAT that forgets its table in mid flow interrupts a node by seconds only")
    func flush() throws {
      try NATFleet.with("symmetric:open") { fleet in
        try fleet.a.waitForPing(fleet.b.ipv6)
        try fleet.waitForPath("direct", within: 40)
        try fleet.flush("nat-a")
        try fleet.a.waitForPing(fleet.b.ipv6, within: 5)
        try fleet.waitForPath("direct", within: 40)
      }
    }
  }
}
