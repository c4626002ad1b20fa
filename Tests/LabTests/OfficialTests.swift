// The official agents, unmodified, as peers: what `scripts/setup --interop` installs (the wheel pilotprotocol 1.18.0).
// Without it these tests are skipped, and say so.

import Foundation
import Glibc
import Testing

/// The official programs.
enum Official {
  /// PILOT_OFFICIAL_DIR, else where `scripts/setup --interop` puts them.
  static let folder: String = {
    let environment = ProcessInfo.processInfo.environment
    if let folder = environment["PILOT_OFFICIAL_DIR"] { return folder }
    var root = URL(fileURLWithPath: #filePath)
    for _ in 0..<3 { root = root.deletingLastPathComponent() }
    return root.appendingPathComponent(environment["PILOT_TUN_SCRATCH"] ?? ".build")
      .appendingPathComponent("interop/programs").path
  }()

  /// The interpreter that has the official SDK.
  static var python: String {
    let environment = URL(fileURLWithPath: folder).deletingLastPathComponent()
    return environment.appendingPathComponent("venv/bin/python").path
  }

  static var isThere: Bool {
    ["pilot-daemon", "pilotctl"].allSatisfy { access(folder + "/" + $0, X_OK) == 0 }
  }
}

/// An official daemon in a namespace of a fleet, with its own home. Nothing of it reaches outside: its feeds are off,
/// and the fleet's router leads nowhere.
final class OfficialAgent {
  let namespace: Namespace
  private(set) var program: Program
  private let command: [String]
  private let lab: Lab
  let socket: String
  let environment: [String: String]

  init(_ name: String, _ flags: [String], in fleet: Fleet) throws {
    namespace = try fleet.lab.namespace(name)
    let underlay = try fleet.connect(namespace)
    // With a default route the official daemon waits at its start for something outside.
    let router = underlay.dropLast() + "1"
    try namespace.command("ip route add 10.77.0.0/16 via \(router)")
    for family in ["-4", "-6"] { try namespace.command("ip \(family) route del default") }
    let home = "\(fleet.lab.directory)/\(name)-home"
    try FileManager.default.createDirectory(atPath: home, withIntermediateDirectories: true)
    socket = "\(fleet.lab.directory)/\(name)-official.sock"
    environment = [
      "HOME": home, "PILOT_HOME": home, "PILOT_SOCKET": socket, "PILOT_TELEMETRY_URL": "", "PILOT_MOTD_URL": "",
      "PILOT_NO_SKILLINJECT": "1", "PILOT_REGISTRY": "\(Fleet.rendezvousAddress):9000",
    ]
    command =
      [
        Official.folder + "/pilot-daemon", "--registry", "\(Fleet.rendezvousAddress):9000", "--beacon",
        "\(Fleet.rendezvousAddress):9001", "--listen", ":4000", "--socket", socket, "--identity",
        "\(home)/identity.json",
        "--hostname", name,
      ] + flags
    lab = fleet.lab
    program = try lab.start(in: namespace, command, environment: environment)
    try waitUntilRegistered()
  }

  /// SIGKILL, and the same again.
  func restart() throws {
    program.end(SIGKILL)
    try? FileManager.default.removeItem(atPath: socket)
    program = try lab.start(in: namespace, command, environment: environment)
    try waitUntilRegistered()
  }

  private func waitUntilRegistered() throws {
    _ = try eventually("the official daemon is registered", within: 20) {
      (try? ctl("info", within: 5))?.isSuccess == true ? true : nil
    }
  }

  /// `pilotctl VERB…` against this daemon.
  func ctl(_ arguments: String..., within seconds: Double = 60) throws -> Outcome {
    try namespace.run([Official.folder + "/pilotctl"] + arguments, environment: environment, within: seconds)
  }
}

extension KernelTests {
  @Suite(
    "Official agents",
    .enabled(if: Official.isThere, "the official programs are not here: scripts/setup --interop installs them"))
  struct OfficialTests {
    /// Lines of `pilotctl ping` that report an answer.
    private func answers(_ outcome: Outcome) -> Int {
      outcome.output.split(separator: "\n").count { $0.contains("bytes=") && $0.contains("time=") }
    }

    @Test(
      "official ping, traceroute and bench work against a node, directly and through the relay",
      arguments: [["--public"], ["--public", "--relay-only"]])
    func echo(flags: [String]) throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha", flags)
        let agent = try OfficialAgent("official", ["--public"], in: fleet)
        let byName = try agent.ctl("ping", "alpha", "--count", "3").orThrow()
        #expect(answers(byName) == 3, "\(byName)")
        let traced = try agent.ctl("traceroute", node.address).orThrow()
        #expect(traced.output.contains("rtt="), "\(traced)")
        let bench = try agent.ctl("bench", node.address, "4", within: 120).orThrow()
        let echoed = bench.output.split(separator: "\n").first { $0.contains("Echoed:") } ?? ""
        #expect(echoed.contains("4.0 MB"), "\(bench)")
        let status = try node.status()
        let peer = try #require(status["peers"].list.first { $0["hostname"].text == "official" })
        #expect(peer["path"].text == (flags.contains("--relay-only") ? "relay" : "direct"))
        #expect(!peer["raw_ipv6"].isTrue, "no raw packet may go to an official daemon")
        for reason in ["inner-over-limit", "event-queue-full", "authentication-failed", "stream-over-limit"] {
          #expect(status["drops"][reason].number == 0, "\(reason)")
        }
      }
    }

    @Test("either side killed and started again is reached again")
    func restarts() throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha")
        let agent = try OfficialAgent("official", ["--public"], in: fleet)
        #expect(answers(try agent.ctl("ping", node.address, "--count", "1").orThrow()) == 1)
        node.stop(SIGKILL)
        try node.start()
        _ = try eventually("the official daemon reaches the node that came back", within: 40) {
          answers(try agent.ctl("ping", node.address, "--count", "1", "--timeout", "5s")) == 1 ? true : nil
        }
        try agent.restart()
        _ = try eventually("the official daemon that came back reaches the node", within: 40) {
          answers(try agent.ctl("ping", node.address, "--count", "1", "--timeout", "5s")) == 1 ? true : nil
        }
      }
    }

    @Test("an official stranger reaches nothing of a private node, and is refused a port that nobody serves")
    func strangers() throws {
      try Fleet.with { fleet in
        let node = try fleet.node("alpha", [])
        let agent = try OfficialAgent("official", ["--public"], in: fleet)
        let refused = try agent.ctl("ping", node.address, "--count", "1", "--timeout", "5s", "--no-auto-handshake")
        #expect(answers(refused) == 0, "\(refused)")
        // Official daemons send nothing to private nodes that they do not trust; that ours would be silent is tested
        // with StreamTable.

        let open = try fleet.node("beta")
        let connected = try agent.ctl("connect", open.address, "81", "--message", "hello", "--timeout", "5s")
        #expect(!connected.isSuccess, "\(connected)")
      }
    }
  }
}
