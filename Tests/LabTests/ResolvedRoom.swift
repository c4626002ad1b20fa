// A machine with systemd-resolved, for one node: the unpacked Debian package on a system bus of its own, in a mount
// namespace of its own (Tests/LabTools/resolved-room). Nothing of it is installed. Used by ResolvedTests.

import Foundation
import Glibc

final class ResolvedRoom {
  let node: LabNode
  private let fleet: Fleet
  private var bus: Program?
  private var resolved: Program?
  /// Who is asked for names that are not ours.
  let upstream: Program

  /// The package's files, fetched by `scripts/setup --interop`; nil when it could not.
  static let tree: String? = {
    let folder = URL(fileURLWithPath: Official.folder).deletingLastPathComponent().appendingPathComponent("resolved")
      .path
    return access(folder + "/lib/systemd/systemd-resolved", X_OK) == 0 ? folder : nil
  }()

  /// The node's machine; the node itself is not started.
  init(_ fleet: Fleet, _ name: String, _ flags: [String] = ["--public"]) throws {
    guard let tree = Self.tree else { throw LabError("systemd-resolved was not fetched") }
    self.fleet = fleet
    node = try fleet.node(name, flags, isStarted: false)
    let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .appendingPathComponent("LabTools/resolved-room").path
    let holder = try fleet.lab.start(in: node.namespace, [script, tree])
    try holder.waitForLine(containing: "ready")
    node.prefix = ["nsenter", "-t", "\(holder.pid)", "-m", "--"]
    upstream = try node.helper(Tools.python("dns_upstream", "127.0.0.99"))
    try startBus()
  }

  func startBus() throws {
    let words = ["dbus-daemon", "--config-file=/run/room/bus.conf", "--nofork", "--nopidfile", "--print-address"]
    let program = try fleet.lab.start(in: node.namespace, node.prefix + words)
    try program.waitForLine(containing: "system_bus_socket")
    bus = program
  }

  func startResolved() throws {
    guard let tree = Self.tree else { return }
    let program = try fleet.lab.start(in: node.namespace, node.prefix + [tree + "/lib/systemd/systemd-resolved"])
    resolved = program
    _ = try eventually("systemd-resolved is on the bus") { try resolvectl("status").isSuccess ? true : nil }
  }

  func killResolved() { resolved?.end(SIGKILL) }
  func freezeResolved() { resolved?.send(SIGSTOP) }
  func killBus() { bus?.end(SIGKILL) }

  func resolvectl(_ words: String...) throws -> Outcome {
    try node.run([(Self.tree ?? "") + "/usr/bin/resolvectl"] + words)
  }

  /// The section `names` of the node's status.
  func names() throws -> JSON { try node.status()["names"] }

  /// Waits until programs find the node's own name.
  func waitForNames(within seconds: Double = 10) throws {
    _ = try eventually("names resolve in \(node.name)", within: seconds) {
      try names()["state"].text == "configured" && node.run(["getent", "ahosts", "\(node.name).pilot"]).isSuccess
        ? true : nil
    }
  }
}
