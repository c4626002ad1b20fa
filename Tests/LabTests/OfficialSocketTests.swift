// Sockets of local programs to official agents, and official clients to local servers (docs/interop.md).

import Foundation
import Glibc
import Testing

extension OfficialAgent {
  /// Its Pilot address.
  func address() throws -> String {
    let address = try JSON(parsing: ctl("--json", "info").orThrow().output)["data"]["address"].text
    guard !address.isEmpty else { throw LabError("pilotctl info tells no address") }
    return address
  }

  /// Its overlay address as a node here sees it.
  func ipv6() throws -> String {
    let address = try address()
    let words = address.split(separator: ":").last?.split(separator: ".").compactMap { UInt16($0, radix: 16) } ?? []
    guard words.count == 3 else { throw LabError("no address: \(address)") }
    return "fd50:494c:4f54::" + words.dropFirst().map { String($0, radix: 16) }.joined(separator: ":")
  }

  /// The `data` of a verb that succeeds.
  func data(_ arguments: String...) throws -> JSON {
    let outcome = try namespace.run(
      [Official.folder + "/pilotctl", "--json"] + arguments, environment: environment, within: 60)
    return try JSON(parsing: try outcome.orThrow().output)["data"]
  }

  /// A command of LabTools/streams.py with this daemon's SDK as its transport.
  func streams(_ arguments: [String]) -> [String] {
    [Official.python] + Tools.python("streams").dropFirst() + arguments + ["sdk", socket]
  }
}

extension KernelTests {
  @Suite(
    "Sockets to and from official agents",
    .enabled(if: Official.isThere, "the official programs are not here: scripts/setup --interop installs them"))
  struct OfficialSocketTests {
    /// A node `alpha`, an official agent `official`, and servers on both.
    private func withPair(_ flags: [String], _ body: (LabNode, OfficialAgent, Program, Program) throws -> Void) throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha", flags)
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

    @Test(
      "programs and official agents exchange 64 MB both ways by TCP, whoever dials",
      arguments: [["--public"], ["--public", "--relay-only"]])
    func transfers(flags: [String]) throws {
      try withPair(flags) { node, agent, here, there in
        let octets = flags.contains("--relay-only") ? "16000000" : "64000000"
        let address = try agent.ipv6()
        for (verb, port) in [("put", "8002"), ("get", "8003")] {
          let ours = try node.namespace.run(
            Tools.python("streams", verb, octets, port, "socket", address), within: 90)
          #expect(ours.isSuccess && ours.output.contains("whole"), "\(verb) of a program here: \(ours)")
          let theirs = try agent.namespace.run(
            agent.streams([verb, octets, port]) + [node.address], environment: agent.environment, within: 90)
          #expect(theirs.isSuccess && theirs.output.contains("whole"), "\(verb) of an official agent: \(theirs)")
        }
        try there.waitForLine(containing: "sink \(octets)")
        try here.waitForLine(containing: "sink \(octets)")
        // The server sees the agent's own overlay address.
        #expect(here.transcript.contains("from \(address) "), "\(here.transcript)")
        let echoed = try node.namespace.run(
          Tools.python("streams", "echo", "4000000", "7", "socket", address), within: 60)
        #expect(echoed.isSuccess, "the official echo service: \(echoed)")
        let peer = try #require(try node.status()["peers"].list.first { $0["hostname"].text == "official" })
        #expect(peer["path"].text == (flags.contains("--relay-only") ? "relay" : "direct"))
      }
    }

    @Test("a refused port is refused at once, an agent that is gone is unreachable within 5 s, on either side")
    func refusals() throws {
      try withPair(["--public"]) { node, agent, _, _ in
        let address = try agent.ipv6()
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
      try withPair(["--public"]) { node, agent, _, _ in
        let address = try agent.ipv6()
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
      try withPair(["--public"]) { node, agent, here, there in
        let address = try agent.ipv6()
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
      try withPair(["--public"]) { node, agent, _, _ in
        let address = try agent.ipv6()
        // The program asks an official source for 32 MB and rests before it reads.
        let slow = try node.namespace.run(["python3", "-c", Self.slowScript, address, "32000000"], within: 90).orThrow()
        #expect(slow.output.contains("32000000 octets"), "\(slow)")
        let memory = try SlowReader.residentKilobytes(of: try #require(node.program).pid)
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

private enum SlowReader {
  /// VmRSS of a process.
  static func residentKilobytes(of pid: pid_t) throws -> Int {
    let status = try String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)
    let line = status.split(separator: "\n").first { $0.hasPrefix("VmRSS:") } ?? ""
    return Int(line.split(separator: " ").dropLast().last ?? "") ?? .max
  }
}
