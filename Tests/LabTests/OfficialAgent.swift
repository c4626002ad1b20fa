// The official agents, unmodified: what `scripts/setup --interop` installs (the wheel pilotprotocol 1.18.0), and a
// daemon of them in a namespace. Used by all Official*Tests, which are skipped, and say so, where it is missing.

import Foundation
import Glibc
import Wire

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
  let name: String
  let namespace: Namespace
  /// IPv4 address of its only cable.
  let underlay: String
  private(set) var program: Program
  let socket: String
  let environment: [String: String]
  let lab: Lab
  private let command: [String]
  /// Its Pilot address, the overlay address of nodes for it, and its number; known once it is registered.
  private(set) var address = ""
  private(set) var ipv6 = ""
  private(set) var nodeID: UInt32 = 0
  /// Its SDK program that serves others, see MatrixEnd.
  var services: Program?

  /// `isAwaited`: false for several that start together; then wait with `waitUntilRegistered`.
  init(
    _ name: String, _ flags: [String], in fleet: Fleet, environment more: [String: String] = [:], isAwaited: Bool = true
  ) throws {
    self.name = name
    lab = fleet.lab
    namespace = try lab.namespace(name)
    underlay = try fleet.connect(namespace)
    // With a default route the official daemon waits at its start for something outside.
    let router = underlay.dropLast() + "1"
    try namespace.command("ip route add 10.77.0.0/16 via \(router)")
    for family in ["-4", "-6"] { try namespace.command("ip \(family) route del default") }
    let home = "\(lab.directory)/\(name)-home"
    try FileManager.default.createDirectory(atPath: home, withIntermediateDirectories: true)
    socket = "\(lab.directory)/\(name)-official.sock"
    let own = [
      "HOME": home, "PILOT_HOME": home, "PILOT_SOCKET": socket, "PILOT_TELEMETRY_URL": "", "PILOT_MOTD_URL": "",
      "PILOT_NO_SKILLINJECT": "1", "PILOT_REGISTRY": "\(Fleet.rendezvousAddress):9000",
    ]
    environment = own.merging(more) { $1 }
    command =
      [
        Official.folder + "/pilot-daemon", "--registry", "\(Fleet.rendezvousAddress):9000", "--beacon",
        "\(Fleet.rendezvousAddress):9001", "--listen", ":4000", "--socket", socket, "--identity",
        "\(home)/identity.json", "--hostname", name,
      ] + flags
    program = try lab.start(in: namespace, command, environment: environment)
    if isAwaited { try waitUntilRegistered() }
  }

  func waitUntilRegistered() throws {
    try program.waitForLine(containing: "daemon running")
    let info = try data("info")
    address = info["address"].text
    nodeID = UInt32(info["node_id"].number)
    guard let own = PilotAddress(address) else { throw LabError("pilotctl info tells no address: \(info)") }
    ipv6 = OverlayMapping.address(for: own).description
  }

  /// SIGKILL, and the same again.
  func restart() throws {
    program.end(SIGKILL)
    try? FileManager.default.removeItem(atPath: socket)
    program = try lab.start(in: namespace, command, environment: environment)
    try waitUntilRegistered()
  }

  /// `pilotctl VERB…` against this daemon.
  @discardableResult
  func ctl(_ arguments: String..., within seconds: Double = 60) throws -> Outcome {
    try namespace.run([Official.folder + "/pilotctl"] + arguments, environment: environment, within: seconds)
  }

  /// The `data` of a verb that succeeds.
  func data(_ arguments: String...) throws -> JSON {
    let outcome = try namespace.run(
      [Official.folder + "/pilotctl", "--json"] + arguments, environment: environment, within: 30)
    return try JSON(parsing: try outcome.orThrow().output)["data"]
  }

  /// Its number as text, as pilotctl takes it.
  var id: String { String(nodeID) }

  /// Lines of `pilotctl ping` that report an answer.
  static func answers(_ outcome: Outcome) -> Int {
    outcome.output.split(separator: "\n").count { $0.contains("bytes=") && $0.contains("time=") }
  }

  func pings(_ peer: String) throws -> Bool {
    Self.answers(try ctl("ping", peer, "--count", "1", "--timeout", "5s")) == 1
  }

  /// The numbers of those that it trusts.
  func trusted() throws -> [String] { try data("trust")["trusted"].list.map { String($0["node_id"].number) } }

  /// A command of LabTools/streams.py with this daemon's SDK as its transport.
  func streams(_ arguments: [String]) -> [String] {
    [Official.python] + Tools.python("streams").dropFirst() + arguments + ["sdk", socket]
  }
}
