// Names through a real systemd-resolved 252, as every program on the machine sees them.

import Foundation
import Glibc
import Testing

extension KernelTests {
  @Suite("Names through systemd-resolved", .enabled(if: ResolvedRoom.tree != nil, "systemd-resolved was not fetched"))
  struct ResolvedTests {
    /// Runs a command if it is there; the outcome says what it found.
    private func expect(_ node: LabNode, finds text: String, _ command: [String]) throws {
      guard try node.run(["sh", "-c", "command -v \(command[0])"]).isSuccess else {
        return print("\(command[0]) is not installed: not tried")
      }
      let outcome = try node.run(command)
      #expect((outcome.output + outcome.errors).contains(text), "\(outcome)")
    }

    @Test("after `up` every program finds names, and only names under pilot come to the node")
    func everyProgram() throws {
      try Fleet.with { fleet in
        let room = try ResolvedRoom(fleet, "alpha")
        let alpha = room.node
        let beta = try fleet.node("beta")
        _ = try beta.helper(Tools.python("http_serve", "::", "80", "hello"))
        try room.startResolved()
        try alpha.start()
        let names = try room.names()
        #expect(names["mechanism"].text == "resolved" && names["state"].text == "configured", "\(names)")
        #expect(names["proof"]["ok"].isTrue && names["proof"]["name"].text == "alpha.pilot", "\(names)")
        #expect(names["error"].isMissing && names["advice"].list.isEmpty, "\(names)")

        let link = try room.resolvectl("status", "pilot0").orThrow().output
        #expect(link.contains("Current Scopes: DNS") && link.contains("-DefaultRoute"), "\(link)")
        #expect(link.contains("~pilot ~4.5.f.4.c.4.9.4.0.5.d.f.ip6.arpa"), "\(link)")
        #expect(link.contains("-LLMNR") && link.contains("-mDNS") && link.contains("DNSSEC=no"), "\(link)")

        let address = beta.ipv6
        #expect(try room.resolvectl("query", "beta.pilot").orThrow().output.contains(address))
        #expect(try room.resolvectl("query", address).orThrow().output.contains("beta.pilot"))
        try expect(alpha, finds: address, ["getent", "ahosts", "beta.pilot"])
        try expect(alpha, finds: "beta.pilot", ["getent", "hosts", address])
        try expect(alpha, finds: address, ["ping", "-c", "1", "beta.pilot"])
        try expect(alpha, finds: "hello", ["curl", "-sS", "-m", "5", "http://beta.pilot/"])
        try expect(
          alpha, finds: address, ["python3", "-c", "import socket; print(socket.getaddrinfo('beta.pilot', 80))"])
        let script = "require('dns').resolve6('beta.pilot', (e, r) => console.log(e, r))"
        try expect(alpha, finds: address, ["node", "-e", script])
        try expect(alpha, finds: address, ["node", "-e", script.replacing("resolve6", with: "lookup")])
        try expect(alpha, finds: address, ["dig", "+short", "AAAA", "beta.pilot"])
        // The zone is signed by nobody: no chain from the root leads to it.
        try expect(alpha, finds: address, ["delv", "-i", "AAAA", "beta.pilot"])
        try expect(alpha, finds: address, ["drill", "AAAA", "beta.pilot"])
        try expect(
          alpha, finds: "connect to host beta.pilot port 22: Connection refused",
          ["ssh", "-o", "ConnectTimeout=5", "-o", "BatchMode=yes", "beta.pilot", "true"])
        try expect(alpha, finds: "192.0.2.1", ["getent", "ahostsv4", "www.example.org"])
        #expect(try !alpha.run(["getent", "ahosts", "nobody-has-this-name.pilot"]).isSuccess)

        // What came to whom: our stub refused nothing, for nothing foreign came; the other server saw nothing of ours.
        #expect(try alpha.counter("dns-answers-refused") == 0)
        #expect(room.upstream.outputText.contains("asked www.example.org"))
        #expect(!room.upstream.outputText.contains("pilot"), "\(room.upstream.outputText)")
      }
    }

    @Test("a program in Go finds names", .enabled(if: Official.isThere, "the official programs are not here"))
    func programInGo() throws {
      try Fleet.with { fleet in
        let room = try ResolvedRoom(fleet, "alpha")
        let beta = try fleet.node("beta")
        try room.startResolved()
        try room.node.start()
        let agent = try fleet.lab.start(
          in: room.node.namespace,
          room.node.prefix + [
            "env", "HOME=\(fleet.lab.directory)", Official.folder + "/pilot-daemon", "-registry", "beta.pilot:9000",
            "-beacon", "127.0.0.1:9", "-socket", fleet.lab.directory + "/go.sock",
          ])
        defer { agent.end(SIGKILL) }
        // Nothing listens there: it says where it tried.
        try agent.waitForLine(containing: "[\(beta.ipv6)]:9000", within: 15)
      }
    }

    @Test("a resolved that restarts, a bus that restarts and settings that are taken away: names are back in seconds")
    func comesBack() throws {
      try Fleet.with { fleet in
        let room = try ResolvedRoom(fleet, "alpha")
        try room.startResolved()
        // As under the unit file: it may not look into resolved's process.
        room.node.prefix += ["setpriv", "--bounding-set", "-sys_ptrace", "--"]
        try room.node.start()
        try room.waitForNames()

        room.killResolved()
        _ = try eventually("the loss is noticed") { try room.names()["state"].text == "absent" ? true : nil }
        try room.startResolved()
        try room.waitForNames(within: 5)

        try room.resolvectl("revert", "pilot0").orThrow()
        _ = try eventually("the settings are set again", within: 5) {
          try room.names()["losses"].number >= 1 ? true : nil
        }
        try room.waitForNames(within: 5)
        #expect(try room.resolvectl("domain", "pilot0").orThrow().output.contains("~pilot"))

        room.killBus()
        _ = try eventually("the loss is noticed") { try room.names()["state"].text == "no-bus" ? true : nil }
        room.killResolved()
        try room.startBus()
        try room.startResolved()
        try room.waitForNames(within: 5)

        try room.node.tun("down").orThrow()
        let outcome = try #require(room.node.program).wait(within: 10)
        #expect(outcome.status == 0, "\(outcome)")
        let left = try room.resolvectl("status").orThrow().output
        #expect(!left.contains("pilot") && !left.contains("fd50"), "\(left)")
        #expect(try room.node.run(["getent", "ahostsv4", "www.example.org"]).isSuccess, "others' names go on")
      }
    }

    @Test("without resolved `up` goes on, says once what to add, and uses resolved when it comes")
    func startsLater() throws {
      try Fleet.with { fleet in
        let room = try ResolvedRoom(fleet, "alpha")
        try room.node.start()
        let before = try room.names()
        #expect(before["state"].text == "absent" && before["mechanism"].text == "none", "\(before)")
        #expect(!before["proof"]["ok"].isTrue && before["advice"].list.count == 4, "\(before)")
        let said = try #require(room.node.program).errorText
        #expect(said.components(separatedBy: "add one of these").count == 2, "once: \(said)")
        #expect(said.contains("server=/pilot/fd50:494c:4f54:ffff::53"), "\(said)")
        try room.startResolved()
        try room.waitForNames(within: 5)
        _ = try eventually("the proof is made again", within: 5) {
          try room.names()["proof"]["ok"].isTrue ? true : nil
        }
        #expect(try room.names()["advice"].list.isEmpty)
      }
    }

    @Test("a resolved that hangs holds up neither the start of a node nor its end")
    func hangs() throws {
      try Fleet.with { fleet in
        let room = try ResolvedRoom(fleet, "alpha")
        try room.startResolved()
        room.freezeResolved()
        try room.node.start()
        let names = try room.names()
        #expect(names["state"].text == "failed" && !names["proof"]["ok"].isTrue, "\(names)")
        room.node.program?.send(SIGTERM)
        let outcome = try #require(room.node.program).wait(within: 10)
        #expect(outcome.status == 0, "\(outcome)")
        room.killResolved()
      }
    }

    @Test("a node that goes on where it was is ready when its names were tried, without a rendezvous, too")
    func readyAfterNames() throws {
      try Fleet.with { fleet in
        let room = try ResolvedRoom(fleet, "alpha")
        try room.startResolved()
        try room.node.start()
        let beta = try fleet.node("beta")
        let ask = ["getent", "ahostsv6", "beta.pilot"]
        #expect(try room.node.run(ask).orThrow().output.contains(beta.ipv6))
        fleet.killRendezvous()
        room.node.program?.end(SIGTERM)
        try room.node.start()
        // At once: who starts after the node, or because of it, finds the names that worked before.
        #expect(try room.node.run(ask).orThrow().output.contains(beta.ipv6))
        #expect(try room.names()["proof"]["ok"].isTrue)
        // So slow that nothing but waiting helps.
        room.node.program?.end(SIGTERM)
        room.freezeResolved()
        try room.node.start()
        let names = try room.names()
        #expect(names["state"].text == "failed" && !names["proof"].isMissing, "\(names)")
        room.node.program?.end(SIGTERM)
        room.killResolved()
      }
    }

    @Test("a node that insists on resolved fails without it, and leaves nothing")
    func insists() throws {
      try Fleet.with { fleet in
        let room = try ResolvedRoom(fleet, "alpha", ["--public", "--dns", "resolved", "--json"])
        let outcome = try room.node.launch().wait(within: 20)
        #expect(outcome.status == 1 && outcome.errors.contains("resolved_unavailable"), "\(outcome)")
        #expect(outcome.errors.contains(#""hint":"#), "\(outcome)")
        #expect(try !room.node.run(["ip", "link", "show", "pilot0"]).isSuccess)
      }
    }

    @Test("a resolved of another network namespace is not told of our interface")
    func otherNamespace() throws {
      try Fleet.with { fleet in
        let room = try ResolvedRoom(fleet, "alpha")
        try room.startResolved()
        try room.node.start()
        let before = try room.resolvectl("status").orThrow().output
        // The same bus, another network: interfaces have the same numbers there.
        let beta = try fleet.node("beta", isStarted: false)
        beta.prefix = room.node.prefix
        try beta.start()
        let names = try beta.status()["names"]
        #expect(names["state"].text == "elsewhere" && names["mechanism"].text == "none", "\(names)")
        #expect(try room.resolvectl("status").orThrow().output == before)
      }
    }
  }
}
