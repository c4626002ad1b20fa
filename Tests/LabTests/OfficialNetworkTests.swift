// Networks, broadcast and identity by official clients at nodes of ours, with an official daemon as a member.

import Foundation
import Testing

extension KernelTests {
  @Suite(
    "Networks and identity by official clients",
    .enabled(if: Official.isThere, "the official programs are not here: scripts/setup --interop installs them"))
  struct OfficialNetworkTests {
    /// Nodes `alpha`, which has the administrator's token, and `beta`; an official agent.
    private func withMembers(_ body: (LabNode, LabNode, OfficialAgent, Fleet) throws -> Void) throws {
      try Fleet.withAdministrator { fleet in
        let token = fleet.lab.directory + "/token"
        _ = FileManager.default.createFile(
          atPath: token, contents: Data((Fleet.adminToken + "\n").utf8), attributes: [.posixPermissions: 0o600])
        let (alpha, beta) = (try fleet.node("alpha", isStarted: false), try fleet.node("beta", isStarted: false))
        try alpha.startForClients(["--public", "--admin-token-file", token])
        try beta.startForClients(["--public"])
        try body(alpha, beta, try OfficialAgent("official", ["--public"], in: fleet), fleet)
      }
    }

    private func nodes(_ members: JSON) -> [Int] { members["nodes"].list.map { $0["node_id"].number }.sorted() }

    @Test("networks are joined by token and by invite, shown and left, by pilotctl and by the SDK")
    func networks() throws {
      try withMembers { alpha, beta, agent, _ in
        let official = try agent.data("info")["node_id"].number
        _ = try alpha.ctl(
          "network", "create", "--name", "team", "--join-rule", "token", "--token", "sekrit", "--node-id",
          "\(alpha.nodeID)"
        ).orThrow()
        #expect(try beta.ctl("network", "join", "1").errors.contains("invalid network token"))
        _ = try beta.ctl("network", "join", "1", "--token", "sekrit").orThrow()
        _ = try agent.ctl("network", "join", "1", "--token", "sekrit").orThrow()
        let team = [Int(alpha.nodeID), Int(beta.nodeID), official].sorted()
        _ = try eventually("every member sees all members", within: 10) {
          try [
            alpha.data("network", "members", "1"), beta.data("network", "members", "1"),
            agent.data("network", "members", "1"),
          ]
          .allSatisfy { nodes($0) == team } ? true : nil
        }
        #expect(try beta.data("info")["networks"].list.map { $0["network_id"].number } == [1])
        #expect(try beta.data("network", "list")["networks"].list.map { $0["name"].text } == ["backbone", "team"])
        // Members reach each other in their network.
        #expect(try beta.ctl("ping", "1:0001" + alpha.address.dropFirst(6), "--count", "1").output.contains("time="))
        #expect(try beta.call("members", "1").orThrow().output.contains("\(official)"))
        #expect(try alpha.call("set-member-tags", "1", "\(beta.nodeID)", "svc").orThrow().output.contains("svc"))
        #expect(try beta.call("member-tags", "1", "\(beta.nodeID)").orThrow().output.contains("svc"))
        #expect(try beta.call("set-member-tags", "1", "\(beta.nodeID)", "x").output.contains("no admin token"))
        #expect(try beta.call("policy", "1").orThrow().output.contains("none"))
        for verb in ["managed", "cycle"] {
          #expect(try beta.call(verb, "1").output.contains("no active managed networks"))
        }
        #expect(try beta.call("reconcile", "1").output.contains("no active policy runner"))
        _ = try beta.call("leave", "1").orThrow()
        #expect(try beta.ctl("network", "leave", "1").errors.contains("not a member"))
        #expect(try beta.call("join", "1", "sekrit").orThrow().output.contains("\"network_id\": 1"))
        _ = try beta.ctl("network", "leave", "1").orThrow()

        _ = try alpha.ctl(
          "network", "create", "--name", "club", "--join-rule", "invite", "--node-id", "\(alpha.nodeID)"
        ).orThrow()
        #expect(try beta.ctl("network", "join", "2").errors.contains("requires an invite"))
        _ = try alpha.ctl("network", "invite", "2", "\(beta.nodeID)").orThrow()
        #expect(try beta.ctl("network", "invites").orThrow().output.contains("\(alpha.nodeID)"))
        _ = try beta.ctl("network", "reject", "2").orThrow()
        #expect(try beta.ctl("network", "accept", "2").isSuccess == false)
        _ = try alpha.call("invite", "2", "\(beta.nodeID)").orThrow()
        #expect(try beta.call("invites").orThrow().output.contains("\"inviter_id\": \(alpha.nodeID)"))
        #expect(try beta.call("respond", "2", "yes").orThrow().output.contains("\"accepted\": true"))
        #expect(try nodes(beta.data("network", "members", "2")) == [Int(alpha.nodeID), Int(beta.nodeID)].sorted())
        _ = try alpha.ctl("network", "invite", "2", "\(official)").orThrow()
        _ = try agent.ctl("network", "accept", "2").orThrow()
      }
    }

    @Test("a broadcast reaches every member, of either kind, from either kind, and needs the token")
    func broadcast() throws {
      try withMembers { alpha, beta, agent, fleet in
        _ = try alpha.ctl("network", "create", "--name", "team", "--join-rule", "open", "--node-id", "\(alpha.nodeID)")
          .orThrow()
        _ = try beta.ctl("network", "join", "1").orThrow()
        _ = try agent.ctl("network", "join", "1").orThrow()
        let official = try fleet.lab.start(
          in: agent.namespace, [Official.folder + "/pilotctl", "listen", "1000", "--count", "1", "--timeout", "30s"],
          environment: agent.environment)
        let ours = try fleet.lab.start(
          in: beta.namespace, beta.callCommand(["recv-from", "1"]), environment: beta.clientEnvironment)
        try ours.waitForLine(containing: "ready")
        _ = try eventually("the broadcast arrives", within: 20) {
          _ = try alpha.ctl("broadcast", "1", "hello-all").orThrow()
          return official.isRunning || ours.isRunning ? nil : true
        }
        #expect(official.outputText.contains("[1:0001.") && official.outputText.contains("hello-all"))
        #expect(ours.outputText.contains("1:0001" + alpha.address.dropFirst(6)), "\(ours.transcript)")
        _ = try alpha.call("broadcast", "1", "1000", "more", Fleet.adminToken).orThrow()
        #expect(try alpha.call("broadcast", "1", "1000", "more", "guess").output.contains("invalid admin token"))
        #expect(try alpha.call("broadcast", "0", "1000", "more", Fleet.adminToken).output.contains("backbone"))
        #expect(try beta.ctl("broadcast", "1", "hello").errors.contains("no admin token configured"))
      }
    }

    @Test("keys are rotated, the node deregistered and back, visibility changes at once")
    func identity() throws {
      try withMembers { alpha, beta, agent, fleet in
        let address = agent.address
        let before = try alpha.data("info")["public_key"].text
        #expect(try agent.ctl("ping", alpha.address, "--count", "1").output.contains("time="))
        _ = try alpha.ctl("rotate-key").orThrow()
        let rotated = try alpha.data("info")
        #expect(rotated["public_key"].text != before && rotated["node_id"].number == Int(alpha.nodeID))
        _ = try eventually("the agent reaches the node under its new key", within: 40) {
          try agent.ctl("ping", alpha.address, "--count", "1", "--timeout", "5s").output.contains("time=") ? true : nil
        }
        #expect(try beta.call("rotate-key").orThrow().output.contains("public_key"))
        _ = try beta.ctl("deregister").orThrow()
        _ = try eventually("the node is back under its id", within: 90) {
          (try? agent.data("find", "beta"))?["node_id"].number == Int(beta.nodeID) ? true : nil
        }

        let echo = try fleet.lab.start(
          in: agent.namespace, agent.streams(["echo", "2000000000", "7"]) + [alpha.address],
          environment: agent.environment)
        let row = try eventually("the stream shows, with its counters", within: 20) {
          try alpha.data("connections")["connections"].list.first {
            $0["local_port"].number == 7 && $0["bytes_recv"].number > 1_000_000 && $0["bytes_sent"].number > 1_000_000
          }
        }
        #expect(row["state"].text == "ESTABLISHED" && row["remote_addr"].text == address, "\(row)")
        for counter in ["segs_sent", "segs_recv", "cong_win", "peer_recv_win", "recv_win"] {
          #expect(row[counter].number > 0, "\(counter): \(row)")
        }
        _ = try alpha.ctl("set-private").orThrow()
        _ = try eventually("the stranger's stream is gone", within: 3) {
          try alpha.data("connections")["connections"].list.contains { $0["local_port"].number == 7 } ? nil : true
        }
        echo.end()
        let outside = try agent.ctl("traceroute", alpha.address)
        #expect(!outside.output.contains("rtt="), "\(outside)")
        #expect(try agent.data("find", "beta")["public"].isTrue)
        _ = try alpha.call("visibility", "public").orThrow()
        _ = try eventually("the agent is let in again", within: 40) {
          try agent.ctl("traceroute", alpha.address).isSuccess ? true : nil
        }
      }
    }
  }
}
