// Unmodified official clients (pilotctl, the Python SDK) at the socket of `pilot-tun up --ipc`.

import Foundation
import Testing

extension LabNode {
  var ipcSocket: String { stateDirectory + ".ipc" }

  private var clientEnvironment: [String: String] {
    [
      "HOME": lab.directory, "PILOT_HOME": lab.directory, "PILOT_SOCKET": ipcSocket, "PILOT_TELEMETRY_URL": "",
      "PILOT_MOTD_URL": "", "PILOT_REGISTRY": "\(Fleet.rendezvousAddress):9000",
    ]
  }

  /// The official `pilotctl VERB…` against this node.
  func ctl(_ arguments: String..., within seconds: Double = 60) throws -> Outcome {
    try namespace.run(
      [Official.folder + "/pilotctl"] + arguments, environment: clientEnvironment, within: seconds)
  }

  /// The official SDK against this node, by LabTools/streams.py.
  func sdk(_ arguments: String...) -> [String] {
    [Official.python] + Tools.python("streams").dropFirst() + arguments.dropLast() + ["sdk", ipcSocket]
      + [arguments.last ?? ""]
  }
}

extension KernelTests {
  @Suite(
    "Official clients of a node",
    .enabled(if: Official.isThere, "the official programs are not here: scripts/setup --interop installs them"))
  struct OfficialClientTests {
    private func withNode(_ body: (LabNode, OfficialAgent, Fleet) throws -> Void) throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha", isStarted: false)
        node.flags = ["--public", "--ipc", node.ipcSocket]
        try node.start()
        let agent = try OfficialAgent("official", ["--public"], in: fleet)
        _ = try eventually("the socket is there", within: 5) {
          FileManager.default.fileExists(atPath: node.ipcSocket) ? true : nil
        }
        try body(node, agent, fleet)
      }
    }

    @Test("pilotctl shows, finds, pings, dials, sends and names, as against its own daemon")
    func verbs() throws {
      try withNode { node, agent, _ in
        let address = agent.address
        func says(_ text: String, _ arguments: String...) throws {
          let outcome = try node.namespace.run(
            [Official.folder + "/pilotctl"] + arguments,
            environment: [
              "HOME": node.lab.directory, "PILOT_SOCKET": node.ipcSocket,
              "PILOT_REGISTRY": "\(Fleet.rendezvousAddress):9000",
            ], within: 40)
          #expect(outcome.isSuccess && outcome.output.contains(text), "\(text): \(outcome)")
        }
        try says(node.address, "info")
        try says("pilot-daemon ok", "health")
        try says(address, "find", "official")
        try says("time=", "ping", "official", "--count", "2")
        try says("rtt=", "traceroute", address)
        try says("Echoed:", "bench", address, "8")
        try says("1 encrypted+authenticated", "peers")
        try says("ACK", "send-message", address, "--data", "hello")
        try says("sent 5 byte(s)", "dgram", address, "5000", "--data", "hello")
        try says("no trusted peers", "trust")
        try says("no pending", "pending")
        try says("#one", "extras", "set-tags", "one")
        try says("beta", "set-hostname", "beta")
        try says("set_visibility_ok", "set-public")
        try says("backbone", "network", "list")
        try says("envelope", "--json", "sign-request", "--audience", "somebody", "--body", "text")
        try says("handshake request sent", "handshake", address, "please")
        _ = try eventually("the agent has the request", within: 30) {
          try agent.ctl("pending").orThrow().output.contains("please") ? true : nil
        }
        _ = try agent.ctl("approve", "\(node.nodeID)").orThrow()
        _ = try eventually("pilotctl shows the trust", within: 20) {
          try node.ctl("trust").orThrow().output.contains(" approved ") ? true : nil
        }
        try says("trust revoked", "untrust", address)
      }
    }

    @Test("an SDK program dials, listens and moves 32 MB both ways over a node, also to a node of our own kind")
    func sdk() throws {
      try withNode { node, agent, fleet in
        let address = agent.address
        let there = try fleet.lab.start(
          in: agent.namespace, agent.streams(["serve"]), environment: agent.environment)
        let here = try fleet.lab.start(
          in: node.namespace,
          [Official.python] + Tools.python("streams").dropFirst() + ["serve", "sdk", node.ipcSocket])
        try there.waitForLine(containing: "ready")
        try here.waitForLine(containing: "ready")
        for (verb, port) in [("put", "8002"), ("get", "8003")] {
          let ours = try node.namespace.run(node.sdk(verb, "32000000", port, address), within: 90)
          #expect(ours.isSuccess, "\(verb) of the SDK here: \(ours)")
          let theirs = try agent.namespace.run(
            agent.streams([verb, "32000000", port]) + [node.address], environment: agent.environment, within: 90)
          #expect(theirs.isSuccess, "\(verb) of an official agent from the SDK here: \(theirs)")
        }
        let other = try fleet.node("gamma")
        let server = try fleet.lab.start(in: other.namespace, Tools.python("streams", "serve", "socket", "::"))
        try server.waitForLine(containing: "ready")
        let across = try node.namespace.run(node.sdk("get", "8000000", "8003", other.address), within: 60)
        #expect(across.isSuccess, "an SDK program to a socket of another node: \(across)")
        let itself = try node.namespace.run(node.sdk("get", "1000000", "8003", node.address), within: 60)
        #expect(itself.isSuccess, "an SDK program to its own node: \(itself)")
      }
    }

    @Test("datagrams reach pilotctl listen at a node, another user is turned away, and the socket goes with the node")
    func socket() throws {
      try withNode { node, agent, fleet in
        let listener = try fleet.lab.start(
          in: node.namespace, [Official.folder + "/pilotctl", "listen", "5454", "--count", "1"],
          environment: ["HOME": node.lab.directory, "PILOT_SOCKET": node.ipcSocket])
        _ = try eventually("the listener hears a datagram", within: 20) {
          _ = try agent.ctl("dgram", node.address, "5454", "--data", "over here").orThrow()
          return listener.transcript.contains("over here") ? true : nil
        }
        #expect(try FileManager.default.attributesOfItem(atPath: node.ipcSocket)[.posixPermissions] as? Int == 0o600)
        let foreign = try node.namespace.run(
          [
            "setpriv", "--reuid", "65534", "--clear-groups", "curl", "-sS", "--max-time", "5", "--unix-socket",
            node.ipcSocket, "http://node/",
          ], within: 10)
        #expect(foreign.status == 7, "could not connect: \(foreign)")
        node.stop()
        _ = try eventually("the socket is gone", within: 5) {
          FileManager.default.fileExists(atPath: node.ipcSocket) ? nil : true
        }
      }
    }
  }
}
