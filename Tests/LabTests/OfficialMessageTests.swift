// Messages, files and events of official clients (ports 1001 and 1002) between an official daemon and nodes of ours:
// what the daemon serves at the receiving end, the node serves too.

import Foundation
import Testing

/// Somebody with a pilotctl: an official daemon, or a node with a local socket.
private struct Party {
  let name: String
  let address: String
  let namespace: Namespace
  let environment: [String: String]
  let lab: Lab

  init(_ agent: OfficialAgent, _ fleet: Fleet) throws {
    (name, address, namespace, environment) = ("official", agent.address, agent.namespace, agent.environment)
    lab = fleet.lab
  }

  init(_ node: LabNode) {
    (name, address, namespace, environment) = (node.name, node.address, node.namespace, node.clientEnvironment)
    lab = node.lab
  }

  private func command(_ arguments: [String]) -> [String] { [Official.folder + "/pilotctl", "--json"] + arguments }

  func data(_ arguments: String...) throws -> JSON {
    let outcome = try namespace.run(command(arguments), environment: environment, within: 60)
    return try JSON(parsing: try outcome.orThrow().output)["data"]
  }

  func start(_ arguments: String...) throws -> Program {
    try lab.start(in: namespace, command(arguments), environment: environment)
  }

  /// Messages of this text in the inbox.
  func messages(_ text: String) throws -> [JSON] {
    try data("inbox", "--full", "--limit", "100")["messages"].list.filter { $0["data"].text == text }
  }
}

extension KernelTests {
  @Suite(
    "Messages, files and events of official clients",
    .enabled(if: Official.isThere, "the official programs are not here: scripts/setup --interop installs them"))
  struct OfficialMessageTests {
    /// An official agent and two nodes; each pair with a node in it, in both directions.
    private func withPairs(_ body: (Party, Party) throws -> Void) throws {
      try Fleet.with { fleet in
        let nodes = try ["alpha", "beta"].map { name in
          let node = try fleet.node(name, isStarted: false)
          try node.startForClients(["--public"])
          return Party(node)
        }
        let official = try Party(OfficialAgent("official", ["--public"], in: fleet), fleet)
        for (from, to) in [(official, nodes[0]), (nodes[0], official), (nodes[0], nodes[1]), (nodes[1], nodes[1])] {
          do {
            try body(from, to)
          } catch {
            throw LabError("\(from.name) to \(to.name): \(error)")
          }
        }
      }
    }

    @Test("send-message of every type arrives in the inbox, once, and is answered with --wait and --reply-to")
    func messages() throws {
      try withPairs { from, to in
        for (type, text) in [("text", "hello from \(from.name)"), ("json", #"{"from":"\#(from.name)"}"#)] {
          let sent = try from.data("send-message", to.address, "--data", text, "--type", type)
          #expect(sent["ack"].text == "ACK \(type.uppercased()) \(text.utf8.count) bytes", "\(sent)")
          let kept = try to.messages(text)
          #expect(kept.count == 1 && kept[0]["from"].text == from.address, "\(kept)")
          #expect(kept[0]["type"].text == type.uppercased() && kept[0]["message_id"].text == sent["message_id"].text)
        }
        let traced = try from.data(
          "send-message", to.address, "--data", "traced by \(from.name)", "--trace", "--count", "2")
        #expect(try traced["results"].list.count == 2 && to.messages("traced by \(from.name)").count == 2, "\(traced)")

        // Who asks itself finds its own question for an answer.
        guard from.address != to.address else { return }
        let question = "what is \(from.name) to you?"
        let asking = try from.start("send-message", to.address, "--data", question, "--wait", "30s")
        let id = try eventually("the question is there", within: 20) {
          try to.messages(question).first?["message_id"].text
        }
        _ = try to.data("send-message", from.address, "--data", "a friend", "--reply-to", id)
        let outcome = try asking.wait(within: 40).orThrow()
        #expect(outcome.output.contains("a friend") && outcome.output.contains(id), "\(outcome)")
      }
    }

    @Test("send-file arrives whole, in pieces and in one frame, and shows in received")
    func files() throws {
      try withPairs { from, to in
        let path = "\(from.lab.directory)/\(from.name)-\(to.name).bin"
        let content = Data((0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 9) })
        try content.write(to: URL(fileURLWithPath: path))
        let sent = try from.data("send-file", to.address, path)
        #expect(sent["verified"].isTrue && sent["transport"].text == "filestream", "\(sent)")
        let whole = try from.data("send-file", to.address, path, "--no-stream")
        #expect(whole["ack"].text == "ACK FILE 3000000 bytes", "\(whole)")
        let files = try to.data("received")["files"].list.filter {
          $0["name"].text.hasPrefix("\(from.name)-\(to.name)-")
        }
        #expect(files.count == 2, "\(files)")
        for file in files {
          let isWhole = try Data(contentsOf: URL(fileURLWithPath: file["path"].text)) == content
          #expect(isWhole && file["name"].text.hasSuffix(".bin"), "\(file)")
        }
      }
    }

    @Test("subscribers get what is published, whoever runs the broker, and topics are kept apart")
    func events() throws {
      try withPairs { from, to in
        let subscribers = try [("news", from), ("*", from), ("other", to)].map { topic, party in
          try party.start("subscribe", to.address, topic, "--count", "1", "--timeout", "20s")
        }
        // A subscription is not acknowledged: published until both have it.
        _ = try eventually("the event arrives", within: 15) {
          _ = try from.data("publish", to.address, "news", "--data", "extra")
          return subscribers[0].isRunning || subscribers[1].isRunning ? nil : true
        }
        for subscriber in subscribers.prefix(2) {
          let events = try JSON(parsing: try subscriber.wait(within: 5).orThrow().output)["data"]["events"].list
          #expect(events.map { $0["data"].text } == ["extra"] && events[0]["topic"].text == "news", "\(events)")
        }
        #expect(subscribers[2].isRunning, "another topic's event came: \(subscribers[2].transcript)")
        subscribers[2].end()
      }
    }

    @Test("the SDK sends messages, files and events to a node, and hears events of it")
    func sdk() throws {
      try Fleet.with { fleet in
        let (node, other) = (try fleet.node("alpha", isStarted: false), try fleet.node("beta", isStarted: false))
        for each in [node, other] { try each.startForClients(["--public"]) }
        let path = "\(fleet.lab.directory)/note.txt"
        try "by the SDK".write(toFile: path, atomically: true, encoding: .utf8)
        #expect(try node.call("send-message", other.address, "hi").orThrow().output.contains("ACK TEXT 2 bytes"))
        #expect(try node.call("send-json", "beta", "{}").orThrow().output.contains("ACK JSON 2 bytes"))
        #expect(try node.call("send-file", other.address, path).orThrow().output.contains("ACK FILE 10 bytes"))
        #expect(try other.data("inbox")["total"].number == 2)
        let file = try #require(try other.data("received")["files"].list.first)
        #expect(try String(contentsOfFile: file["path"].text, encoding: .utf8) == "by the SDK")
        let subscriber = try fleet.lab.start(
          in: node.namespace, node.callCommand(["subscribe", other.address, "news", "20"]),
          environment: node.clientEnvironment)
        _ = try eventually("the event arrives", within: 20) {
          _ = try other.call("publish", other.address, "news", "extra").orThrow()
          return subscriber.isRunning ? nil : true
        }
        #expect(subscriber.outputText.contains(#"["news", "extra"]"#), "\(subscriber.transcript)")
      }
    }

    @Test("a stranger leaves nothing at a private node, but an answer to what was sent to it")
    func strangers() throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha", isStarted: false)
        try node.startForClients([])
        let agent = try OfficialAgent("official", ["--public"], in: fleet)
        // The SDK asks no registry whether it may.
        let refused = try agent.namespace.run(
          [Official.python] + Tools.python("sdk_calls").dropFirst() + [
            agent.socket, "send-message", node.address, "let me in",
          ], environment: agent.environment, within: 60)
        #expect(!refused.isSuccess && refused.output.contains("error"), "\(refused)")
        #expect(try node.data("inbox")["total"].number == 0)
        _ = try node.data("send-message", agent.address, "--data", "answer me")
        _ = try eventually("the answer is there", within: 30) {
          let outcome = try agent.ctl(
            "send-message", node.address, "--data", "gladly", "--no-auto-handshake", "--timeout", "10s")
          return try outcome.isSuccess && node.data("inbox", "--full")["total"].number > 0 ? true : nil
        }
      }
    }

    @Test(
      "a program that binds port 1001 has it, and the inbox has it again afterwards; `inbox off` leaves it to sockets")
    func ports() throws {
      try Fleet.with { fleet in
        let (node, other) = (try fleet.node("alpha", isStarted: false), try fleet.node("beta", isStarted: false))
        try node.startForClients(["--public"])
        try other.startForClients(["--public", "--inbox", "off"])
        #expect(try node.data("info")["ports"].number == 4 && other.data("info")["ports"].number == 2)
        let listener = try fleet.lab.start(
          in: node.namespace, [Official.folder + "/pilotctl", "recv", "1001", "--timeout", "20s"],
          environment: node.clientEnvironment)
        _ = try eventually("the program has the port", within: 10) {
          _ = try other.ctl("send", node.address, "1001", "--data", "raw bytes", "--timeout", "2s")
          return listener.isRunning ? nil : true
        }
        #expect(listener.outputText.contains("raw bytes"), "\(listener.transcript)")
        let acknowledged = try eventually("the inbox has the port", within: 10) {
          try? other.data("send-message", node.address, "--data", "hello")["ack"].text
        }
        #expect(acknowledged == "ACK TEXT 5 bytes")
        let refused = try node.ctl("send-message", other.address, "--data", "hello", "--timeout", "5s")
        #expect(!refused.isSuccess, "\(refused)")
      }
    }
  }
}
