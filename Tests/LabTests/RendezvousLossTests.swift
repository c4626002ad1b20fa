// The rendezvous dies, stays away, comes back, or comes back without its memory. Nothing that worked stops.

import Foundation
import Glibc
import Testing

extension KernelTests {
  @Suite("Loss of the rendezvous")
  struct RendezvousLossTests {
    @Test("tunnels, known names and new sessions go on without it; the nodes are back within 10 s of its return")
    func lossAndReturn() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let beta = try fleet.node("beta")
        let gamma = try fleet.node("gamma")
        _ = try beta.helper(Tools.python("http_serve", beta.ipv6, "80", "hello from beta"))
        _ = try gamma.helper(Tools.python("http_serve", gamma.ipv6, "80", "hello from gamma"))
        for name in ["beta", "gamma"] {
          try alpha.run(["curl", "-sS", "--max-time", "10", "http://\(name).pilot/"]).orThrow()
        }

        fleet.killRendezvous()
        #expect(
          try alpha.run(["curl", "-sS", "--max-time", "10", "http://beta.pilot/"]).orThrow().output
            == "hello from beta\n", "an existing tunnel, a known name")
        // Gamma loses all its sessions: alpha and gamma make a new one by what both remember on disk.
        _ = try eventually("gamma has saved what it knows of alpha", within: 5) {
          try String(contentsOfFile: gamma.stateDirectory + "/peers.json", encoding: .utf8).contains("\(alpha.nodeID)")
            ? true : nil
        }
        gamma.stop(SIGKILL)
        try gamma.start()
        _ = try gamma.helper(Tools.python("http_serve", gamma.ipv6, "81", "gamma again"))
        try alpha.waitForPing("gamma.pilot")
        #expect(
          try alpha.run(["curl", "-sS", "--max-time", "10", "http://gamma.pilot:81/"]).orThrow().output
            == "gamma again\n", "a new session with a peer seen before")
        let gone = try eventually("status notices", within: 90) {
          let state = try alpha.status()["rendezvous"]["state"].text
          return state != "registered" ? state : nil
        }
        #expect(gone == "unreachable")

        try fleet.startRendezvous()
        // One deadline for all of them, counted from now.
        let returned = ContinuousClock.now
        for node in [alpha, beta, gamma] {
          let left = Duration.seconds(10) - (ContinuousClock.now - returned)
          _ = try eventually("\(node.name) is back within 10 s of the return", within: max(0, left / .seconds(1))) {
            try node.status()["rendezvous"]["state"].text == "registered" ? true : nil
          }
        }
        let delta = try fleet.node("delta")
        try delta.waitForPing("alpha.pilot")
      }
    }

    @Test("a name that worked before works after a restart without the rendezvous, also that of a node renamed back")
    func namesAfterRestart() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let beta = try fleet.node("beta")
        try beta.waitForPing("alpha.pilot")
        alpha.stop()
        for name in ["gamma", "alpha"] {
          let command = alpha.upCommand.map { $0 == "alpha" ? name : $0 }
          let program = try fleet.lab.start(in: alpha.namespace, command)
          try program.waitForLine(containing: "ready", within: 30)
          try beta.waitForPing("\(name).pilot")
          if name == "gamma" { program.end(SIGTERM) }
        }
        fleet.killRendezvous()
        beta.stop()
        try beta.start()
        #expect(try beta.tun("resolve", "alpha").orThrow().output.contains(alpha.ipv6))
        try beta.waitForPing("alpha.pilot")
      }
    }

    @Test("a rendezvous that lost its database gives every node its old address back")
    func lostDatabase() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let beta = try fleet.node("beta")
        let before = (alpha.address, beta.address)
        fleet.killRendezvous()
        try FileManager.default.removeItem(atPath: fleet.lab.directory + "/rendezvous")
        // They return in the other order.
        beta.stop()
        alpha.stop()
        try fleet.startRendezvous()
        try beta.start()
        try alpha.start()
        #expect((alpha.address, beta.address) == before)
        try alpha.waitForPing("beta.pilot")
      }
    }

    @Test("kill -9 of the rendezvous loses nothing that it acknowledged")
    func killedRendezvous() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let beta = try fleet.node("beta")
        fleet.killRendezvous()
        beta.stop()
        try fleet.startRendezvous()
        // Beta is not running: its name can only come from the database.
        let resolved = try eventually("alpha finds beta's name", within: 10) {
          let outcome = try alpha.tun("resolve", "beta", "--json")
          return outcome.isSuccess ? outcome.output : nil
        }
        #expect(resolved.contains(beta.ipv6))
      }
    }

    @Test("two nodes whose direct path is blocked talk through the relay, and status says so")
    func relay() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let beta = try fleet.node("beta")
        try fleet.block(alpha.underlay, beta.underlay)
        try alpha.waitForPing("beta.pilot", within: 30)
        let peer = try alpha.peer(beta)
        #expect(peer["path"].text == "relay", "\(peer)")
        #expect(try alpha.tun("ping", "beta", "--count", "1").orThrow().output.contains("relay"))
        _ = try beta.helper(Tools.python("tcp_serve", beta.ipv6, "5001", "1048576"))
        let fetch = try alpha.run(Tools.python("tcp_fetch", beta.ipv6, "5001"), within: 40)
        #expect(fetch.isSuccess, "\(fetch)")
      }
    }
  }
}
