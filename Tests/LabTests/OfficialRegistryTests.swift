// Official daemons and pilotctl 1.18.0, unmodified, among themselves on our rendezvous: every verb that reaches the
// registry. Skipped, and said so, where the official programs are missing.

import Foundation
import Glibc
import Testing

/// A fleet whose rendezvous has an administrator.
private struct Registry {
  let fleet: Fleet
  static var token: String { Fleet.adminToken }

  static func with(_ flags: [String] = [], _ body: (Registry) throws -> Void) throws {
    try Fleet.withAdministrator(flags) { try body(Registry(fleet: $0)) }
  }

  /// Daemons, each in a namespace of its own, started together. Each name is followed by its flags.
  func agents(_ commands: [String]...) throws -> [OfficialAgent] {
    let agents = try commands.map {
      try OfficialAgent($0[0], Array($0.dropFirst()), in: fleet, isAwaited: false)
    }
    for agent in agents { try agent.waitUntilRegistered() }
    return agents
  }

  /// Sends recorded requests from a namespace, over one connection, and returns the replies.
  func send(_ requests: [String], from namespace: Namespace) throws -> [JSON] {
    let command = Tools.python("registry_send", Fleet.rendezvousAddress, "9000")
    return try namespace.run(command + requests, within: 40).orThrow().output.split(separator: "\n")
      .map { try JSON(parsing: String($0)) }
  }
}

extension OfficialAgent {
  /// `pilotctl VERB…` with the administrator's token.
  @discardableResult
  fileprivate func admin(_ arguments: String...) throws -> Outcome {
    let environment = environment.merging(["PILOT_ADMIN_TOKEN": Registry.token]) { $1 }
    return try namespace.run([Official.folder + "/pilotctl"] + arguments, environment: environment, within: 30)
  }

  /// Both agents trust each other, by request and approval through the registry.
  fileprivate func agreeOnTrust(with other: OfficialAgent) throws {
    try ctl("handshake", other.id, "hello").orThrow()
    _ = try eventually("the request arrives", within: 10) {
      try other.ctl("pending").output.contains(id) ? true : nil
    }
    try other.ctl("approve", id).orThrow()
    _ = try eventually("the answer arrives", within: 10) { try trusted().contains(other.id) ? true : nil }
  }
}

extension KernelTests {
  @Suite(
    "Official agents on our rendezvous",
    .enabled(if: Official.isThere, "the official programs are not here: scripts/setup --interop installs them"))
  struct OfficialRegistryTests {
    @Test("trust between private agents: found by each other alone, from both ends, until it is withdrawn")
    func trust() throws {
      try Registry.with { registry in
        let agents = try registry.agents(["agent-a"], ["agent-b"], ["agent-c", "--public"])
        let (a, b, c) = (agents[0], agents[1], agents[2])
        let (idA, idB) = (a.id, b.id)
        #expect(try a.ctl("find", "agent-b").isSuccess == false)
        #expect(try a.ctl("ping", idB, "--count", "1").errors.contains("private"))
        #expect(try c.ctl("ping", idB, "--count", "1").errors.contains("private"))
        try a.agreeOnTrust(with: b)
        #expect(try b.trusted() == [idA])
        #expect(try a.data("find", "agent-b")["public"].isTrue == false)
        #expect(try b.data("find", "agent-a")["node_id"].number == Int(idA))
        #expect(try a.pings("agent-b") && b.pings(idA))
        #expect(try a.ctl("bench", idB, "1").orThrow().output.contains("Echoed:"))
        // Of the two, the third learns what a tunnel needs and no more.
        #expect(try c.ctl("find", "agent-b").isSuccess == false)
        let seen = try c.data("lookup", idB)
        #expect(seen["public_key"].text.isEmpty == false && seen["hostname"].isMissing && seen["version"].isMissing)

        #expect(try b.ctl("untrust", idA).orThrow().output.contains("revoked"))
        _ = try eventually("both have forgotten it", within: 10) { try a.trusted().isEmpty ? true : nil }
        #expect(try a.ctl("ping", idB, "--count", "1").errors.contains("private"))
      }
    }

    @Test("what an agent says about itself: visibility, name, tags, key, and giving the address up")
    func identity() throws {
      try Registry.with { registry in
        let agents = try registry.agents(["agent-a"], ["agent-b", "--public"])
        let (a, b) = (agents[0], agents[1])
        let (idA, idB) = (a.id, b.id)
        #expect(try a.data("set-public")["visibility"].text == "public")
        #expect(try b.pings("agent-a"))
        #expect(try a.data("extras", "set-tags", "web", "api")["tags"].list.map(\.text) == ["web", "api"])
        #expect(try b.data("lookup", idA)["tags"].list.map(\.text) == ["web", "api"])
        #expect(try a.data("extras", "clear-tags")["tags"].list.isEmpty)
        #expect(try a.ctl("set-hostname", "agent-b").errors.contains("already in use by node \(idB)"))
        #expect(try a.data("set-hostname", "agent-x")["hostname"].text == "agent-x")
        #expect(try b.data("find", "agent-x")["node_id"].number == Int(idA))
        #expect(try a.data("set-private")["visibility"].text == "private")

        let before = try b.data("lookup", idB)["public_key"].text
        #expect(try b.data("rotate-key")["address"].text == b.data("info")["address"].text)
        let after = try b.data("lookup", idB)["public_key"].text
        #expect(!after.isEmpty && after != before)
        try b.restart()
        #expect(b.id == idB, "the new key has the old id")

        try b.ctl("deregister").orThrow()
        #expect(try a.ctl("lookup", idB).errors.contains("node not found"))
        try b.restart()
        #expect(b.id == idB)
        #expect(try a.ctl("register").errors.contains("invalid public key"))
      }
    }

    @Test("networks: created, joined by token and by invite, administered, left; a broadcast reaches the members")
    func networks() throws {
      try Registry.with { registry in
        let agents = try registry.agents(
          ["agent-a", "--public", "--admin-token", Registry.token], ["agent-b"], ["agent-c"])
        let (a, b, c) = (agents[0], agents[1], agents[2])
        let (idA, idB, idC) = (a.id, b.id, c.id)
        try a.admin(
          "network", "create", "--name", "team", "--join-rule", "token", "--token", "sekrit", "--node-id", idA
        )
        .orThrow()
        #expect(try b.ctl("network", "join", "1").errors.contains("invalid network token"))
        #expect(try b.ctl("network", "join", "1", "--token", "wrong").errors.contains("invalid network token"))
        try b.ctl("network", "join", "1", "--token", "sekrit").orThrow()
        #expect(try b.ctl("network", "join", "1", "--token", "sekrit").errors.contains("already"))
        let members = try eventually("a member sees the members", within: 10) {
          try? b.data("network", "members", "1")["nodes"].list.map { $0["node_id"].number }
        }
        #expect(members.sorted() == [Int(idA) ?? 0, Int(idB) ?? 0].sorted())
        #expect(try c.ctl("network", "members", "1").isSuccess == false)

        #expect(try a.ctl("network", "role", "1", idB).orThrow().output.contains("role=member"))
        try a.admin("network", "promote", "1", idB).orThrow()
        #expect(try b.ctl("network", "role", "1", idB).orThrow().output.contains("role=admin"))
        try a.admin("network", "demote", "1", idB).orThrow()
        #expect(try c.ctl("network", "role", "1", idB).isSuccess == false)
        try a.admin("network", "rename", "1", "crew").orThrow()
        try a.admin("network", "policy", "1", "--allowed-ports", "7,1000", "--max-members", "2").orThrow()
        #expect(try c.data("network", "policy", "1")["allowed_ports"].list.map(\.number) == [7, 1000])
        #expect(try c.ctl("network", "join", "1", "--token", "sekrit").errors.contains("cannot join"))
        try a.admin("extras", "member-tags", "set", "--net", "1", "--node", idB, "--tags", "svc").orThrow()
        #expect(try b.ctl("extras", "member-tags", "get", "--net", "1", "--node", idB).orThrow().output.contains("svc"))

        // Members of a network approve each other by themselves.
        try b.ctl("handshake", idA, "hello").orThrow()
        _ = try eventually("they trust each other", within: 10) { try b.trusted().contains(idA) ? true : nil }
        #expect(try b.pings(idA))
        let listener = try registry.fleet.lab.start(
          in: b.namespace, [Official.folder + "/pilotctl", "listen", "1000", "--count", "1", "--timeout", "20s"],
          environment: b.environment)
        _ = try eventually("the broadcast arrives", within: 15) {
          try a.admin("broadcast", "1", "hello-all").orThrow()
          return listener.outputText.contains("hello-all") ? true : nil
        }
        try a.admin("network", "kick", "1", idB).orThrow()
        #expect(try a.data("network", "members", "1")["nodes"].list.count == 1)

        try a.admin("network", "create", "--name", "club", "--join-rule", "invite", "--node-id", idA).orThrow()
        #expect(try c.ctl("network", "join", "2").errors.contains("requires an invite"))
        try a.ctl("network", "invite", "2", idC).orThrow()
        #expect(try b.ctl("network", "invite", "2", idC).isSuccess == false)
        #expect(try c.ctl("network", "invites").orThrow().output.contains(idA))
        try c.ctl("network", "reject", "2").orThrow()
        #expect(try c.ctl("network", "accept", "2").isSuccess == false)
        try a.ctl("network", "invite", "2", idC).orThrow()
        try c.ctl("network", "accept", "2").orThrow()
        try c.ctl("network", "leave", "2").orThrow()
        #expect(try c.ctl("network", "leave", "2").errors.contains("not a member"))
        try a.admin("network", "delete", "2").orThrow()
        #expect(try c.data("network", "list")["networks"].list.map { $0["name"].text } == ["backbone", "crew"])
      }
    }

    @Test(
      "the rendezvous away, back with its database, and back without it: agents keep talking, then trust, at last ids")
    func restarts() throws {
      try Registry.with { registry in
        let agents = try registry.agents(["agent-a"], ["agent-b"])
        let (a, b) = (agents[0], agents[1])
        try a.agreeOnTrust(with: b)
        let (idA, idB) = (a.id, b.id)
        #expect(try a.pings(idB))
        registry.fleet.killRendezvous()
        #expect(try a.pings(idB), "known peers need no registry")
        #expect(try a.ctl("network", "list").isSuccess == false)
        try registry.fleet.startRendezvous()
        _ = try eventually("the daemon is connected again", within: 20) {
          try a.ctl("network", "list").isSuccess ? true : nil
        }
        #expect(try a.data("lookup", idB)["node_id"].number == Int(idB), "nobody registered again")
        #expect(try a.pings(idB))

        registry.fleet.killRendezvous()
        try FileManager.default.removeItem(atPath: registry.fleet.lab.directory + "/rendezvous")
        try registry.fleet.startRendezvous()
        // In the other order, so that ids by order would swap.
        try b.restart()
        try a.restart()
        #expect([a.id, b.id] == [idA, idB])
      }
    }

    @Test("TLS and plain frames share the port; the pin that the server prints is the one that daemons take")
    func certificate() throws {
      let folder = NSTemporaryDirectory() + "ptlab-certificate-\(getpid())"
      try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
      defer { try? FileManager.default.removeItem(atPath: folder) }
      let (key, certificate) = (folder + "/key.pem", folder + "/certificate.pem")
      try Lab.host(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=rendezvous", "-keyout", key, "-out", certificate
      ).orThrow()
      try Registry.with(["--tls-certificate", certificate, "--tls-key", key]) { registry in
        let ready = try #require(try registry.fleet.rendezvousProgram?.waitForLine(containing: "certificate pin"))
        let pin = try #require(ready.split(separator: " ").last.map(String.init))
        let agents = try registry.agents(
          ["agent-a", "--public", "--registry-tls", "--registry-fingerprint", pin], ["agent-b", "--public"])
        let (a, b) = (agents[0], agents[1])
        #expect(try a.pings("agent-b") && b.pings("agent-a"))
        #expect(try a.data("lookup", b.id)["public"].isTrue, "pilotctl itself speaks plain frames")
      }
    }

    @Test("requests recorded from an official daemon are refused from another host while it is connected")
    func replays() throws {
      try Registry.with { registry in
        let tap = try registry.fleet.lab.start(in: registry.fleet.rendezvous, Tools.python("registry_tap"))
        try tap.waitForLine(containing: "ready")
        let agents = try registry.agents(["agent-a"], ["thief", "--public"])
        let (a, thief) = (agents[0], agents[1])
        let id = a.id
        try a.ctl("set-public").orThrow()
        try a.ctl("set-private").orThrow()
        try a.ctl("pending").orThrow()
        func recorded(_ type: String, _ text: String = "") throws -> String {
          let line = try eventually("\(type) was recorded", within: 5) {
            tap.outputText.split(separator: "\n").first {
              $0.hasPrefix(a.underlay + " ") && $0.contains("\"type\":\"\(type)\"")
                && (text.isEmpty || $0.contains(text))
            }
          }
          return String(line[line.index(after: line.firstIndex(of: " ") ?? line.startIndex)...])
        }
        let requests = try [
          recorded("register"), recorded("set_visibility", "true"), recorded("poll_handshakes"),
          recorded("set_hostname").replacingOccurrences(of: "agent-a", with: "stolen"),
        ]
        let replies = try registry.send(requests, from: thief.namespace)
        #expect(replies.count == 4)
        for reply in replies { #expect(reply["type"].text == "error", "\(reply)") }
        #expect(try thief.data("lookup", id)["public"].isTrue == false)
        #expect(try thief.ctl("find", "agent-a").isSuccess == false)
        #expect(try a.data("set-public")["visibility"].text == "public", "the agent itself is not hindered")
        #expect(try thief.pings("agent-a"))
      }
    }
  }
}
