// Unmodified official clients (pilotctl, the Python SDK) at the socket of `pilot-tun up --ipc`.

import Foundation
import Testing

extension LabNode {
  var ipcSocket: String { stateDirectory + ".ipc" }

  /// Of the node's user: pilotctl looks there for messages.
  var home: String { stateDirectory + "-home" }

  var clientEnvironment: [String: String] {
    [
      "HOME": home, "PILOT_HOME": home, "PILOT_SOCKET": ipcSocket, "PILOT_TELEMETRY_URL": "",
      "PILOT_MOTD_URL": "", "PILOT_REGISTRY": "\(Fleet.rendezvousAddress):9000",
      "PILOT_ADMIN_TOKEN": Fleet.adminToken,
    ]
  }

  /// Starts it with a local socket for official clients, which is there when this returns.
  func startForClients(_ flags: [String]) throws {
    try FileManager.default.createDirectory(atPath: home, withIntermediateDirectories: true)
    environment["HOME"] = home
    self.flags = flags + ["--ipc", ipcSocket]
    try start()
    _ = try eventually("the socket is there", within: 5) {
      FileManager.default.fileExists(atPath: ipcSocket) ? true : nil
    }
  }

  /// The official `pilotctl VERB…` against this node.
  func ctl(_ arguments: String..., within seconds: Double = 60) throws -> Outcome {
    try namespace.run(
      [Official.folder + "/pilotctl"] + arguments, environment: clientEnvironment, within: seconds)
  }

  /// The `data` of a verb that succeeds.
  func data(_ arguments: String...) throws -> JSON {
    let outcome = try namespace.run(
      [Official.folder + "/pilotctl", "--json"] + arguments, environment: clientEnvironment, within: 60)
    return try JSON(parsing: try outcome.orThrow().output)["data"]
  }

  /// One call of the official SDK against this node: LabTools/sdk_calls.py.
  func call(_ arguments: String..., within seconds: Double = 40) throws -> Outcome {
    try namespace.run(callCommand(arguments), environment: clientEnvironment, within: seconds)
  }

  func callCommand(_ arguments: [String]) -> [String] {
    [Official.python] + Tools.python("sdk_calls").dropFirst() + [ipcSocket] + arguments
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
        try node.startForClients(["--public"])
        let agent = try OfficialAgent("official", ["--public"], in: fleet)
        try body(node, agent, fleet)
      }
    }

    @Test("pilotctl shows, finds, pings, dials, sends and names, as against its own daemon")
    func verbs() throws {
      try withNode { node, agent, _ in
        let address = agent.address
        func says(_ text: String, _ arguments: String...) throws {
          let outcome = try node.namespace.run(
            [Official.folder + "/pilotctl"] + arguments, environment: node.clientEnvironment, within: 40)
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

    @Test("names, tags, requests for trust, streams and refusals, by pilotctl")
    func moreVerbs() throws {
      try withNode { node, agent, fleet in
        let address = agent.address
        let official = try agent.data("info")["node_id"].number
        #expect(try node.data("daemon", "status")["responsive"].isTrue)
        #expect(try node.data("lookup", "alpha")["node_id"].number == Int(node.nodeID))
        #expect(try node.data("clear-hostname")["hostname"].text.isEmpty)
        #expect(try node.data("set-hostname", "alpha")["hostname"].text == "alpha")
        #expect(try node.data("extras", "clear-tags")["tags"].list.isEmpty)
        #expect(try node.data("prefer-direct", address)["resolve_error"].text.isEmpty)
        #expect(try node.data("clear-webhook")["webhook"].text.isEmpty)
        let webhook = try node.ctl("--json", "set-webhook", "http://127.0.0.1:1/")
        #expect(webhook.output.contains(#""applied":false"#), "\(webhook)")
        #expect(try node.ctl("managed", "status", "--net", "7").errors.contains("no active managed networks"))
        let signed = try node.data("sign-request", "--audience", "somebody", "--body", "text")
        let verified = try agent.data(
          "verify-request", "--envelope", signed["envelope"].text, "--signature", signed["signature"].text)
        #expect(verified["valid"].isTrue && verified["node_id"].number == Int(node.nodeID), "\(verified)")
        let theirs = try agent.data("sign-request", "--audience", "somebody", "--body", "text")
        let here = try node.data(
          "verify-request", "--envelope", theirs["envelope"].text, "--signature", theirs["signature"].text)
        #expect(here["valid"].isTrue && here["node_id"].number == official, "\(here)")

        _ = try agent.ctl("handshake", node.address, "first").orThrow()
        _ = try eventually("the request is pending", within: 30) {
          try node.data("pending")["pending"].list.contains { $0["node_id"].number == official } ? true : nil
        }
        _ = try node.ctl("reject", address, "not yet").orThrow()
        #expect(try node.data("pending")["pending"].list.isEmpty)
        let waiting = try fleet.lab.start(
          in: node.namespace, node.callCommand(["wait", "\(official)"]), environment: node.clientEnvironment)
        // Requests within the same second are one request.
        _ = try eventually("asked again and approved", within: 30) {
          _ = try agent.ctl("handshake", node.address, "again").orThrow()
          return try node.ctl("approve", address).isSuccess ? true : nil
        }
        let waited = try waiting.wait(within: 20).orThrow()
        #expect(waited.output.contains("true"), "\(waited)")
        #expect(try node.call("trusted").orThrow().output.contains("\(official)"))
        _ = try eventually("the agent sees the trust", within: 20) {
          try agent.data("trust")["trusted"].list.contains { $0["node_id"].number == Int(node.nodeID) } ? true : nil
        }

        let receiver = try fleet.lab.start(
          in: agent.namespace, [Official.folder + "/pilotctl", "recv", "2000", "--timeout", "20s"],
          environment: agent.environment)
        _ = try eventually("the agent receives", within: 15) {
          _ = try node.ctl("send", address, "2000", "--data", "over there", "--timeout", "2s")
          return receiver.outputText.contains("over there") ? true : nil
        }
        #expect(try node.ctl("connect", address, "7", "--message", "echo me").orThrow().output.contains("echo me"))
        #expect(try node.ctl("connect", address, "81", "--message", "nobody").errors.contains("cannot connect"))
        #expect(try node.data("disconnect", "9999")["conn_id"].number == 9999)
      }
    }

    @Test("datagrams of the SDK, both ways, between a node, an official daemon and another node")
    func datagrams() throws {
      try withNode { node, agent, fleet in
        let other = try fleet.node("gamma", isStarted: false)
        try other.startForClients(["--public"])
        for target in [node, other] {
          let receiver = try fleet.lab.start(
            in: target.namespace, target.callCommand(["recv-from", "1"]), environment: target.clientEnvironment)
          try receiver.waitForLine(containing: "ready")
          _ = try eventually("\(target.name) receives", within: 15) {
            _ =
              try target === node
              ? agent.ctl("dgram", target.address, "5000", "--data", "one")
              : node.call("send-to", target.address + ":5000", "one")
            return receiver.isRunning ? nil : true
          }
          #expect(receiver.outputText.contains("\"dst_port\": \"5000\""), "\(receiver.transcript)")
        }
        let listener = try fleet.lab.start(
          in: agent.namespace, [Official.folder + "/pilotctl", "listen", "5001", "--count", "1", "--timeout", "20s"],
          environment: agent.environment)
        _ = try eventually("the agent receives", within: 15) {
          _ = try node.call("send-to", agent.address + ":5001", "from the SDK").orThrow()
          return listener.outputText.contains("from the SDK") ? true : nil
        }
      }
    }

    @Test("the other calls of the SDK are answered as by an official daemon")
    func calls() throws {
      try withNode { node, agent, _ in
        let address = agent.address
        let official = try agent.data("info")["node_id"].number
        func says(_ text: String, _ arguments: String...) throws {
          let outcome = try node.namespace.run(
            node.callCommand(arguments), environment: node.clientEnvironment, within: 40)
          #expect(outcome.output.contains(text), "\(text): \(outcome)")
        }
        try says("\"address\": \"\(node.address)\"", "info")
        try says("\"status\": \"ok\"", "health")
        try says("\"address\": \"\(address)\"", "resolve", "official")
        try says("\"hostname\": \"beta\"", "hostname", "beta")
        try says("\"visibility\": \"public\"", "visibility", "public")
        try says("[\"one\", \"two\"]", "tags", "one", "two")
        try says("\"webhook\": \"\"", "webhook", "")
        try says("error", "webhook", "http://127.0.0.1:1/")
        try says("\"networks\"", "networks")
        try says("error", "reject", "\(official)")
        try says("\"pending\": []", "pending")
        try says("\"status\": \"sent\"", "handshake", "\(official)", "please")
        _ = try eventually("the agent has the request", within: 30) {
          try agent.ctl("approve", "\(node.nodeID)").isSuccess ? true : nil
        }
        try says("true", "wait", "\(official)")
        try says("\"status\": \"revoked\"", "revoke", "\(official)")
        try says("disconnect: null", "disconnect", "77")
        try says("\"type\": \"deregister_ok\"", "deregister")
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
          environment: node.clientEnvironment)
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
