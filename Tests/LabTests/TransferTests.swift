// Programs that know nothing of tunnels move data: TCP with hashes compared, HTTP, and UDP and ping of every size.

import Glibc
import Testing

extension KernelTests {
  @Suite("Transfers")
  struct TransferTests {
    /// 64 MiB.
    private static let large = "67108864"

    @Test("64 MiB over TCP arrive unchanged in both directions")
    func largeTransfer() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let beta = try fleet.node("beta")
        for (server, client) in [(beta, alpha), (alpha, beta)] {
          let program = try server.helper(Tools.python("tcp_serve", server.ipv6, "5001", Self.large))
          let fetch = try client.run(Tools.python("tcp_fetch", "\(server.name).pilot", "5001"), within: 60).orThrow()
          #expect(fetch.output.contains("the content is right"))
          program.end()
        }
        #expect(try alpha.drops("authentication-failed") == 0)
        #expect(try beta.drops("authentication-failed") == 0)
      }
    }

    @Test("UDP datagrams of 1 to 1372 octets come back unchanged, both ways")
    func datagramSizes() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let beta = try fleet.node("beta")
        for (server, client) in [(beta, alpha), (alpha, beta)] {
          let echo = try server.helper(Tools.python("udp_echo", server.ipv6, "5002"))
          let sweep = try client.run(Tools.python("udp_sweep", server.ipv6, "5002", "1", "1372"), within: 60)
          #expect(sweep.isSuccess, "\(sweep)")
          echo.end()
        }
      }
    }

    @Test("ping of every size up to the MTU is answered; one octet more is refused with the MTU")
    func pingSizes() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let beta = try fleet.node("beta")
        // 1400 octets of MTU are 1352 of payload; beyond, the sending kernel fragments.
        let sweep = try alpha.run(Tools.python("ping_sweep", beta.ipv6, "0", "1400"), within: 60)
        #expect(sweep.isSuccess, "\(sweep)")
        let largest = try alpha.run(["ping", "-M", "do", "-c", "1", "-W", "2", "-s", "1352", beta.ipv6])
        #expect(largest.isSuccess, "\(largest)")
        let above = try alpha.run(["ping", "-M", "do", "-c", "1", "-W", "2", "-s", "1353", beta.ipv6])
        #expect(!above.isSuccess)
        let words = above.output + above.errors
        #expect(words.contains("mtu: 1400") || words.contains("mtu=1400"), "\(above)")
      }
    }

    @Test("curl fetches by name, and 200 short connections in a row are served")
    func http() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let beta = try fleet.node("beta")
        _ = try beta.helper(Tools.python("http_serve", beta.ipv6, "80", "hello from beta"))
        let curl = try alpha.run(["curl", "-sS", "--max-time", "10", "http://beta.pilot/"]).orThrow()
        #expect(curl.output == "hello from beta\n")
        let many = try alpha.run(Tools.python("http_many", "beta.pilot", "80", "/", "200"), within: 60)
        #expect(many.isSuccess, "\(many)")
      }
    }

    @Test(
      "a transfer survives when one side restarts in the middle",
      arguments: [("the sending side", SIGTERM), ("the sending side", SIGKILL), ("the receiving side", SIGKILL)])
    func restartInTransfer(side: String, signal: Int32) throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let beta = try fleet.node("beta")
        // 16 MiB in pieces of 256 KiB with pauses: at least three seconds.
        _ = try beta.helper(Tools.python("tcp_serve", beta.ipv6, "5001", "16777216", "0.05"))
        let fetch = try fleet.lab.start(
          in: alpha.namespace, Tools.python("tcp_fetch", beta.ipv6, "5001"))
        try fetch.waitForLine(containing: "received 3 MiB", within: 20)
        let restarted = side == "the sending side" ? beta : alpha
        restarted.stop(signal)
        try restarted.start()
        let outcome = try fetch.wait(within: 60)
        #expect(outcome.isSuccess, "\(outcome)")
      }
    }
  }
}
