// What a node leaves behind, what it says when it cannot start, and the command line of the official tools.

import Foundation
import Glibc
import Testing

extension KernelTests {
  @Suite("Life of a node")
  struct LifecycleTests {
    /// Everything in the namespace that a node may have made.
    private func traces(_ node: LabNode) throws -> [String] {
      var found: [String] = []
      for command in ["ip -o link show", "ip -o -6 address show", "ip -6 route show table all", "ip -6 rule show"] {
        let lines = try node.namespace.command(command).split(separator: "\n")
        found += lines.filter { $0.contains("pilot0") || $0.contains("fd50:494c:4f54") }.map { "\(command): \($0)" }
      }
      if access(node.socket, F_OK) == 0 { found.append("socket \(node.socket)") }
      let sockets = try node.namespace.command("ss -Hlnptu").split(separator: "\n")
      found += sockets.filter { $0.contains("pilot-tun") }.map(String.init)
      if try FileMark(node.namespace.resolverFile) != node.resolverMark { found.append(node.namespace.resolverFile) }
      return found
    }

    /// The code of the error that a program with `--json` ended with: its last line, behind the log.
    private func failure(_ outcome: Outcome) throws -> String {
      let last = try #require(outcome.errors.split(separator: "\n").last, "\(outcome)")
      let error = try JSON(parsing: String(last))
      #expect(outcome.status == 1 && error["status"].text == "error" && !error["message"].text.isEmpty, "\(outcome)")
      return error["code"].text
    }

    @Test("SIGTERM, SIGKILL and down leave nothing behind", arguments: ["SIGTERM", "SIGINT", "SIGKILL", "down"])
    func leavesNothing(way: String) throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let beta = try fleet.node("beta")
        try alpha.waitForPing("beta.pilot")
        #expect(try !traces(beta).isEmpty, "the check sees a running node")
        switch way {
        case "down":
          try beta.tun("down").orThrow()
          let outcome = try #require(beta.program).wait(within: 10)
          #expect(outcome.status == 0, "\(outcome)")
        case "SIGKILL":
          beta.stop(SIGKILL)
        default:
          beta.program?.send(way == "SIGINT" ? SIGINT : SIGTERM)
          let outcome = try #require(beta.program).wait(within: 10)
          #expect(outcome.status == 0, "\(outcome)")
        }
        _ = try? eventually("nothing is left", within: 3) { try traces(beta).isEmpty ? true : nil }
        #expect(try traces(beta) == [])
        try beta.start()
        try alpha.waitForPing("beta.pilot")
      }
    }

    @Test("with IPv6 disabled in the namespace it works on its own interface, and says what does not")
    func disabledIPv6() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha", isStarted: false)
        let beta = try fleet.node("beta")
        try alpha.namespace.command("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")
        try alpha.start()
        try alpha.waitForPing(beta.ipv6)
        try beta.waitForPing("alpha.pilot")
        let status = try alpha.tun("status").orThrow().output
        #expect(status.contains("IPv6 is disabled on lo") && status.contains("net.ipv6.conf.lo.disable_ipv6=0"))
        let others = ["all", "default", "eth0", "lo"].map { "net.ipv6.conf.\($0).disable_ipv6" }
        let settings = try alpha.namespace.run(["sysctl", "-n"] + others).orThrow().output
        #expect(settings == "1\n1\n1\n1\n", "nobody else's settings are touched")
      }
    }

    @Test("an interface name that is taken is refused with the reason")
    func interfaceTaken() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha", isStarted: false)
        try alpha.namespace.command("ip link add pilot0 type veth peer name other")
        let outcome = try alpha.launch().wait(within: 15)
        #expect(outcome.status == 1 && outcome.errors.contains("pilot0"), "\(outcome)")
        #expect(try failure(alpha.namespace.run(alpha.upCommand + ["--json"], within: 15)) == "interface_name_taken")
        try alpha.namespace.command("ip link delete pilot0")
        try alpha.start()
      }
    }

    @Test("a second node with the same control socket is refused; a stale socket file is not in the way")
    func controlSocket() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        // Everything else is the second one's own.
        let apart = ["--interface", "pilot1", "--listen", "4001", "--json"]
        let elsewhere = fleet.lab.directory + "/second"
        let sameSocket = try alpha.namespace.run(alpha.upCommand + apart + ["--state-dir", elsewhere], within: 15)
        #expect(try failure(sameSocket) == "already_running", "\(sameSocket)")
        let sameState = try alpha.namespace.run(
          alpha.upCommand + apart + ["--control-socket", elsewhere + ".sock"], within: 15)
        #expect(try failure(sameState) == "state_directory_locked", "\(sameState)")
        #expect(try alpha.tun("status").isSuccess, "the first one is not disturbed")
        #expect(try !alpha.namespace.command("ip -o link show").contains("pilot1"), "the second one leaves nothing")

        alpha.stop()
        let bind = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])"
        try alpha.run(["python3", "-c", bind, alpha.socket]).orThrow()
        #expect(access(alpha.socket, F_OK) == 0, "a socket file without a program behind it")
        try alpha.start()
      }
    }

    @Test("without a rendezvous configured it runs its own, and another node joins by the line it prints")
    func embeddedRendezvous() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha", isStarted: false)
        let beta = try fleet.node("beta", isStarted: false)
        let alone = try fleet.lab.start(
          in: alpha.namespace,
          [
            Tools.tun, "up", "--hostname", "alpha", "--public", "--state-dir", alpha.stateDirectory,
            "--control-socket", alpha.socket,
          ])
        try alone.waitForLine(containing: "ready")
        #expect(alone.outputText.contains("pilot-tun up --rendezvous"), "\(alone.transcript)")
        let joined = try fleet.lab.start(
          in: beta.namespace,
          [
            Tools.tun, "up", "--hostname", "beta", "--public", "--rendezvous", alpha.underlay, "--state-dir",
            beta.stateDirectory, "--control-socket", beta.socket,
          ])
        try joined.waitForLine(containing: "ready")
        try beta.waitForPing("alpha.pilot")
        try alpha.waitForPing("beta.pilot")
      }
    }

    @Test("pilot-tun ping, peers and status tell what is going on, in text and in JSON")
    func commands() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let beta = try fleet.node("beta")
        try alpha.waitForPing("beta.pilot")
        let ping = try alpha.tun("ping", "beta", "--count", "2", "--interval", "0.1").orThrow().output
        #expect(ping.contains("✓ reply from \(beta.address) · "))
        #expect(ping.contains(" ms · direct \(beta.underlay):4000"))
        for target in [beta.address, beta.ipv6, "\(beta.nodeID)", "beta.pilot"] {
          #expect(try alpha.tun("ping", target, "--count", "1").isSuccess, "by \(target)")
        }
        let nobody = try alpha.tun("ping", "nobody-has-this-name", "--count", "1", "--json")
        #expect(try failure(nobody) == "not_found")

        let status = try alpha.status()
        #expect(status["hostname"].text == "alpha" && status["interface"].text == "pilot0")
        #expect(status["mtu"].number == 1400)
        #expect(!status["version"].text.isEmpty && !status["rendezvous"]["state"].text.isEmpty)
        let peer = try alpha.peer(beta)
        #expect(peer["path"].text == "direct" && peer["hostname"].text == "beta", "\(peer)")
        #expect(peer["tx_bytes"].number > 0 && peer["rx_bytes"].number > 0)
        #expect(try alpha.tun("status").orThrow().output.contains(alpha.address))
        #expect(try alpha.tun("peers").orThrow().output.contains("beta"))
        #expect(try alpha.tun("version").isSuccess)
        #expect(try alpha.tun("frobnicate").status == 2)
      }
    }

    @Test("pilotctl daemon start --hostname and pilotctl ping work as their users know them")
    func pilotctl() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let beta = try fleet.node("beta", isStarted: false)
        // A home of its own: pilotctl keeps its pid file and logs there.
        let home = fleet.lab.directory + "/home"
        try FileManager.default.createDirectory(atPath: home, withIntermediateDirectories: true)
        let environment = [
          "HOME": home, "PILOT_REGISTRY": "\(Fleet.rendezvousAddress):9000",
          "PILOT_BEACON": "\(Fleet.rendezvousAddress):9001", "PILOT_SOCKET": beta.socket,
          "PILOT_TUN_CONTROL_SOCKET": beta.socket, "PILOT_TUN_STATE_DIR": beta.stateDirectory,
        ]
        func pilotctl(_ arguments: String...) throws -> Outcome {
          try beta.namespace.run([Tools.pilotctl] + arguments, environment: environment, within: 40)
        }
        let started = try pilotctl("daemon", "start", "--hostname", "beta", "--public").orThrow()
        #expect(started.output.contains("Daemon running (pid "), "\(started)")
        #expect(started.output.contains("Hostname: beta"), "\(started)")
        let ping = try pilotctl("ping", "alpha", "--count", "2").orThrow()
        #expect(ping.output.contains("PING \(alpha.address)"), "\(ping)")
        #expect(ping.output.contains("seq=1 bytes="), "\(ping)")
        let json = try JSON(parsing: pilotctl("--json", "ping", "alpha", "--count", "1").orThrow().output)
        #expect(json["status"].text == "ok" && json["data"]["target"].text == alpha.address, "\(json)")
        #expect(json["data"]["results"].list.count == 1)
        #expect(try pilotctl("ping", "nobody-has-this-name").status == 1)
        let stopped = try pilotctl("daemon", "stop").orThrow()
        #expect(stopped.output.contains("daemon stopped (pid "), "\(stopped)")
        #expect(try traces(beta) == [])
      }
    }

    @Test("a rendezvous starts on a host whose only address is one of IPv4")
    func rendezvousWithoutIPv6() throws {
      try Lab.with { lab in
        let (host, other) = (try lab.namespace("host"), try lab.namespace("other"))
        try lab.cable(host, "eth0", other, "eth0")
        try host.command("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1")
        try host.command("ip address add 10.77.1.2/24 dev eth0")
        let program = try lab.start(
          in: host, [Tools.rendezvous, "serve", "--state-dir", lab.directory + "/rendezvous"])
        try program.waitForLine(containing: "ready")
      }
    }
  }
}
