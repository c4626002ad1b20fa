// Sockets of local programs to official agents, and official clients to local servers (docs/interop.md).

import Foundation
import Glibc
import Testing

extension KernelTests {
  @Suite(
    "Sockets to and from official agents",
    .enabled(if: Official.isThere, "the official programs are not here: scripts/setup --interop installs them"))
  struct OfficialSocketTests {
    /// A node `alpha`, an official agent `official`, and servers on both.
    private func withPair(_ body: (LabNode, OfficialAgent, Program, Program) throws -> Void) throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha")
        let agent = try OfficialAgent("official", ["--public"], in: fleet)
        let here = try fleet.lab.start(in: node.namespace, Tools.python("streams", "serve", "socket", "::"))
        let there = try fleet.lab.start(
          in: agent.namespace, agent.streams(["serve"]), environment: agent.environment)
        try here.waitForLine(containing: "ready")
        try there.waitForLine(containing: "ready")
        try body(node, agent, here, there)
        let status = try node.status()
        for reason in ["event-queue-full", "authentication-failed", "tun-write-failed", "spoofed-source"] {
          #expect(status["drops"][reason].number == 0, "\(reason)")
        }
      }
    }

    @Test("a server here sees the official agent's own address, and its echo service answers programs here")
    func addresses() throws {
      try withPair { node, agent, here, _ in
        let put = try agent.namespace.run(
          agent.streams(["put", "1000", "8002"]) + [node.address], environment: agent.environment, within: 30)
        #expect(put.isSuccess, "\(put)")
        try here.waitForLine(containing: "sink 1000")
        #expect(here.transcript.contains("from \(agent.ipv6) "), "\(here.transcript)")
        let echoed = try node.namespace.run(
          Tools.python("streams", "echo", "4000000", "7", "socket", agent.ipv6), within: 60)
        #expect(echoed.isSuccess, "\(echoed)")
      }
    }

    @Test("a refused port is refused at once, an agent that is gone is unreachable within 5 s, on either side")
    func refusals() throws {
      try withPair { node, agent, _, _ in
        let address = agent.ipv6
        let connect = { (port: String) in
          try node.namespace.run(
            ["python3", "-c", Self.connectScript, address, port], within: 20
          ).orThrow().output
        }
        #expect(try connect("8999").contains("ECONNREFUSED"))
        let refused = try agent.ctl("connect", node.address, "81", "--message", "hello", "--timeout", "5s")
        #expect(!refused.isSuccess, "\(refused)")
        agent.program.end(SIGKILL)
        let gone = try connect("8001")
        let seconds =
          Double(gone.split(separator: " ").last?.trimmingCharacters(in: .whitespacesAndNewlines) ?? "") ?? 99
        #expect(gone.contains("EHOSTUNREACH") && seconds < 5.5, "\(gone)")
      }
    }

    @Test("a host that refuses new connections reaches official agents with the documented rule")
    func firewall() throws {
      try withPair { node, agent, here, _ in
        // As on a guarded host: answers may enter, and what the node itself needs; nothing else does.
        try node.namespace.command("nft add table inet guard")
        try node.namespace.run([
          "nft", "add chain inet guard input { type filter hook input priority 0 ; policy drop ; }",
        ]).orThrow()
        for rule in [
          "iifname lo accept", "ct state established,related accept", "udp dport 4000 accept",
          "icmpv6 type != echo-request accept",
        ] {
          try node.namespace.run(["nft", "add rule inet guard input " + rule]).orThrow()
        }
        let echo = Tools.python("streams", "echo", "1000", "7", "socket", agent.ipv6)
        #expect(try !node.run(["timeout", "3"] + echo).isSuccess, "the firewall of this test refuses nothing")
        let written = try String(contentsOfFile: Self.document, encoding: .utf8)
        let words = try #require(written.split(separator: "`").first { $0.hasPrefix("ip6 saddr") })
        try node.run(["nft", "add rule inet guard input " + words]).orThrow()
        let outcome = try node.run(echo)
        #expect(outcome.isSuccess, "\(outcome)")
        // The other direction asks the rules of the server's own port.
        try node.run(["nft", "add rule inet guard input iifname pilot0 tcp dport 8002 accept"]).orThrow()
        try agent.namespace.run(
          agent.streams(["put", "1000", "8002"]) + [node.address], environment: agent.environment, within: 30
        ).orThrow()
        try here.waitForLine(containing: "sink 1000")
      }
    }

    private static let document = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .appendingPathComponent("../../docs/interop.md").standardized.path

    private static let connectScript = """
      import errno, socket, sys, time
      begin = time.monotonic()
      try:
          socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=15)
          name = "connected"
      except OSError as error:
          name = errno.errorcode.get(error.errno, str(error))
      print(name, round(time.monotonic() - begin, 2))
      """

    @Test("pings have the true round trip, datagrams cross with their ports, both ways")
    func datagrams() throws {
      try withPair { node, agent, _, _ in
        let address = agent.ipv6
        let ping = try node.namespace.run(["ping", "-c", "3", "-i", "0.2", "-W", "2", address], within: 20).orThrow()
        #expect(ping.output.contains(" 3 received"), "\(ping)")

        let receiver = try node.lab.start(in: node.namespace, Tools.python("udp_receive", "::", "5353"))
        try receiver.waitForLine(containing: "ready")
        _ = try agent.ctl("dgram", node.address, "5353", "--data", "over the line").orThrow()
        try receiver.waitForLine(containing: "from \(address) over the line")

        let listener = try node.lab.start(
          in: agent.namespace, [Official.folder + "/pilotctl", "listen", "5454", "--count", "1"],
          environment: agent.environment)
        _ = try eventually("the official listener hears a program's datagram", within: 20) {
          _ = try node.namespace.run(
            ["python3", "-c", Self.sendScript, address, "5454"], within: 10)
          return listener.transcript.contains("from a program") ? true : nil
        }
      }
    }

    private static let sendScript = """
      import socket, sys
      sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
      sender.sendto(b"from a program", (sys.argv[1], int(sys.argv[2])))
      """

    @Test(
      "an end of a client reaches the server after the answer; a server's end, an abort and a kill reach the client")
    func ends() throws {
      try withPair { node, agent, here, there in
        let address = agent.ipv6
        // Half-closed like `nc -N`: the echo comes all the same.
        let halfClosed = try node.namespace.run(
          ["python3", "-c", Self.halfCloseScript, address], within: 30
        ).orThrow()
        #expect(halfClosed.output.contains("300000 octets back"), "\(halfClosed)")
        // A kill of the official server's process ends the program's connection.
        let waiting = try node.lab.start(
          in: node.namespace, ["python3", "-u", "-c", Self.waitScript, address])
        try waiting.waitForLine(containing: "connected")
        there.end(SIGKILL)
        try waiting.waitForLine(containing: "ended")
        // An abort here is an end there.
        let inbound = try agent.namespace.run(
          agent.streams(["put", "1000", "8002"]) + [node.address], environment: agent.environment, within: 30)
        #expect(inbound.isSuccess, "\(inbound)")
        try here.waitForLine(containing: "sink 1000")
      }
    }

    private static let halfCloseScript = """
      import socket, sys
      connection = socket.create_connection((sys.argv[1], 8001), timeout=20)
      connection.sendall(bytes(300000))
      connection.shutdown(socket.SHUT_WR)
      count = 0
      while data := connection.recv(65536):
          count += len(data)
      print(count, "octets back")
      """

    private static let waitScript = """
      import socket, sys
      connection = socket.create_connection((sys.argv[1], 8001), timeout=40)
      connection.sendall(b"hello")
      connection.recv(5)
      print("connected")
      try:
          connection.recv(1)
      except ConnectionResetError:
          pass
      print("ended")
      """

    @Test("a receiver that stops reading stops the sender, on either side, and nothing is lost when it goes on")
    func backPressure() throws {
      try withPair { node, agent, _, _ in
        let address = agent.ipv6
        // The program asks an official source for 32 MB and rests before it reads.
        let slow = try node.namespace.run(["python3", "-c", Self.slowScript, address, "32000000"], within: 90).orThrow()
        #expect(slow.output.contains("32000000 octets"), "\(slow)")
        let memory = try #require(node.program).residentKilobytes()
        #expect(memory < 200_000, "\(memory) KB")
      }
    }

    private static let slowScript = """
      import socket, sys, time
      connection = socket.create_connection((sys.argv[1], 8003), timeout=60)
      connection.sendall(sys.argv[2].encode() + b"\\n")
      count = 0
      time.sleep(3)
      while count < int(sys.argv[2]):
          data = connection.recv(1 << 16)
          if not data:
              break
          count += len(data)
          if count % (1 << 22) < len(data):
              time.sleep(0.5)
      print(count, "octets")
      """
  }
}
