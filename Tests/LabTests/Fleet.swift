// A rendezvous and nodes behind a router: what most kernel tests start from. The programs are those that were built
// together with this test bundle.

import Foundation
import Glibc

/// The programs under test, and the small helpers written in Python.
enum Tools {
  /// PILOT_TUN_BIN_DIR, else the folder of the test bundle.
  static let folder: String = {
    if let folder = ProcessInfo.processInfo.environment["PILOT_TUN_BIN_DIR"] { return folder }
    let bundle = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
    let candidates = [bundle] + CommandLine.arguments.filter { $0.contains(".xctest") }
    for candidate in candidates {
      var url = URL(fileURLWithPath: candidate).deletingLastPathComponent()
      for _ in 0..<4 {
        if access(url.appendingPathComponent("pilot-tun").path, X_OK) == 0 { return url.path }
        url = url.deletingLastPathComponent()
      }
    }
    return "/nonexistent"
  }()

  static var tun: String { folder + "/pilot-tun" }
  static var rendezvous: String { folder + "/pilot-rendezvous" }
  static var pilotctl: String { folder + "/pilotctl" }

  static func python(_ script: String, _ arguments: String...) -> [String] {
    let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    return ["python3", "-u", folder.appendingPathComponent("LabTools/\(script).py").path] + arguments
  }
}

/// A rendezvous (10.77.1.2), a router, and nodes in subnets of their own (10.77.2.2, 10.77.3.2, …).
final class Fleet {
  let lab: Lab
  let router: Namespace
  let rendezvous: Namespace
  private(set) var rendezvousProgram: Program?
  private(set) var nodes: [LabNode] = []
  private var subnets = 0
  var rendezvousFlags: [String]

  static let rendezvousAddress = "10.77.1.2"
  static let resolver = "fd50:494c:4f54:ffff::53"

  /// Runs the closure with a fleet whose rendezvous is up.
  static func with(rendezvousFlags: [String] = [], _ body: (Fleet) throws -> Void) throws {
    try Lab.with { lab in
      let fleet = try Fleet(lab, rendezvousFlags: rendezvousFlags)
      do {
        try body(fleet)
      } catch {
        throw LabError("\(error)\n\(fleet.transcripts)")
      }
    }
  }

  static let adminToken = "operator-of-the-fleet"

  /// The same with an administrator, whose token this is.
  static func withAdministrator(_ flags: [String] = [], _ body: (Fleet) throws -> Void) throws {
    let folder = NSTemporaryDirectory() + "ptlab-registry-\(getpid())-\(UInt32.random(in: 0...(.max)))"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    try "admin_token = \"\(adminToken)\"\n".write(toFile: folder + "/settings", atomically: true, encoding: .utf8)
    try with(rendezvousFlags: ["--config", folder + "/settings"] + flags, body)
  }

  private init(_ lab: Lab, rendezvousFlags: [String]) throws {
    self.lab = lab
    self.rendezvousFlags = rendezvousFlags
    router = try lab.namespace("router")
    rendezvous = try lab.namespace("rendezvous")
    try router.command("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    _ = try connect(rendezvous)
    try startRendezvous()
  }

  /// Gives a namespace a subnet behind the router and returns its IPv4 address.
  func connect(_ namespace: Namespace) throws -> String {
    subnets += 1
    let n = subnets
    try lab.cable(router, "net\(n)", namespace, "eth0")
    try router.command("ip address add 10.77.\(n).1/24 dev net\(n)")
    try router.command("ip address add fd77:0:0:\(n)::1/64 dev net\(n) nodad")
    try namespace.command("ip address add 10.77.\(n).2/24 dev eth0")
    try namespace.command("ip address add fd77:0:0:\(n)::2/64 dev eth0 nodad")
    try namespace.command("ip route add default via 10.77.\(n).1")
    try namespace.command("ip route add default via fd77:0:0:\(n)::1")
    return "10.77.\(n).2"
  }

  func startRendezvous() throws {
    let program = try lab.start(
      in: rendezvous, [Tools.rendezvous, "serve", "--state-dir", lab.directory + "/rendezvous"] + rendezvousFlags)
    rendezvousProgram = program
    try program.waitForLine(containing: "ready")
  }

  /// SIGKILL: the hard way.
  func killRendezvous() { rendezvousProgram?.end(SIGKILL) }

  /// Makes a namespace with a node that is up. `--public` lets every registered node in; private ones pass `[]`.
  func node(
    _ name: String, _ flags: [String] = ["--public"], environment: [String: String] = [:], isStarted: Bool = true
  ) throws -> LabNode {
    let namespace = try lab.namespace(name)
    let underlay = try connect(namespace)
    let node = try LabNode(name, namespace, underlay: underlay, lab: lab, flags: flags, environment: environment)
    nodes.append(node)
    if isStarted { try node.start() }
    return node
  }

  /// The router lets nothing through between two addresses from now on.
  func block(_ a: String, _ b: String) throws {
    try router.command("nft add table inet lab")
    try router.run(["nft", "add chain inet lab forward { type filter hook forward priority 0 ; }"]).orThrow()
    for (from, to) in [(a, b), (b, a)] {
      try router.command("nft add rule inet lab forward ip saddr \(from) ip daddr \(to) drop")
    }
  }

  func unblock() throws { try router.command("nft delete table inet lab") }

  /// What every node and the rendezvous have said, shortened.
  var transcripts: String {
    ([rendezvousProgram] + nodes.map(\.program)).compactMap { $0?.transcript.suffix(4000) }.joined(separator: "\n---\n")
  }
}

/// One node of a fleet. Its state directory survives restarts.
final class LabNode {
  let name: String
  let namespace: Namespace
  /// IPv4 address of its only cable; empty behind a NAT.
  let underlay: String
  let rendezvous: String
  let stateDirectory: String
  let socket: String
  /// The namespace's resolv.conf before the node ran.
  let resolverMark: FileMark
  var flags: [String]
  var environment: [String: String]
  let lab: Lab
  private(set) var program: Program?
  /// Words before each command in this node's machine; see ResolvedRoom.
  var prefix: [String] = []
  /// Programs of the machine that serve others, see MatrixEnd.
  var services: Program?
  /// Overlay addresses, known once it was up.
  private(set) var ipv6 = ""
  private(set) var address = ""
  private(set) var nodeID: UInt32 = 0

  init(
    _ name: String, _ namespace: Namespace, underlay: String = "", rendezvous: String = Fleet.rendezvousAddress,
    lab: Lab, flags: [String], environment: [String: String] = [:]
  ) throws {
    self.name = name
    self.namespace = namespace
    self.underlay = underlay
    self.rendezvous = rendezvous
    self.lab = lab
    self.flags = flags
    self.environment = environment
    stateDirectory = "\(lab.directory)/\(name)"
    socket = "\(lab.directory)/\(name).sock"
    resolverMark = try FileMark(namespace.resolverFile)
  }

  var upCommand: [String] {
    [
      Tools.tun, "up", "--hostname", name, "--rendezvous", rendezvous, "--listen", "4000",
      "--state-dir", stateDirectory, "--control-socket", socket,
    ] + flags
  }

  /// Starts it and waits until it says that it is ready.
  func start() throws {
    try launch().waitForLine(containing: "ready", within: 30)
    try adopt()
  }

  /// Reads the addresses of a node that was launched and is ready.
  func adopt() throws {
    let status = try self.status()
    ipv6 = status["ipv6"].text
    address = status["address"].text
    nodeID = UInt32(status["node_id"].number)
  }

  /// Starts it without waiting.
  @discardableResult
  func launch() throws -> Program {
    let program = try lab.start(in: namespace, prefix + upCommand, environment: environment)
    self.program = program
    return program
  }

  func stop(_ signal: Int32 = SIGTERM) { program?.end(signal) }

  /// `pilot-tun VERB…` against this node.
  func tun(_ arguments: String..., within seconds: Double = 30) throws -> Outcome {
    try namespace.run(
      [Tools.tun] + arguments, environment: ["PILOT_TUN_CONTROL_SOCKET": socket], within: seconds)
  }

  func status() throws -> JSON {
    let outcome = try tun("status", "--json").orThrow()
    return try JSON(parsing: outcome.output)["data"]
  }

  /// The node's count of drops for a reason.
  func drops(_ reason: String) throws -> Int { try status()["drops"][reason].number }

  /// The node's count of something that happened as it should.
  func counter(_ name: String) throws -> Int { try status()["counters"][name].number }

  /// What the node's status says about a peer.
  func peer(_ other: any MatrixEnd) throws -> JSON {
    try status()["peers"].list.first { $0["address"].text == other.address } ?? JSON(nil)
  }

  func run(_ arguments: [String], within seconds: Double = 30) throws -> Outcome {
    try namespace.run(prefix + arguments, within: seconds)
  }

  /// Starts a helper of LabTools inside and waits for its "ready".
  func helper(_ command: [String]) throws -> Program {
    let program = try lab.start(in: namespace, prefix + command)
    try program.waitForLine(containing: "ready")
    return program
  }

  /// Asks the other node until it answers an echo request: tunnels are up, trust is in place.
  func waitForPing(_ target: String, within seconds: Double = 15) throws {
    _ = try eventually("\(name) reaches \(target)", within: seconds) {
      try run(["ping", "-c", "1", "-W", "1", target]).isSuccess ? true : nil
    }
  }
}

/// A parsed JSON value; missing members read as empty ones.
struct JSON: CustomStringConvertible {
  private let value: Any?

  init(_ value: Any?) { self.value = value }
  init(parsing text: String) throws {
    guard let value = try? JSONSerialization.jsonObject(with: Data(text.utf8), options: [.fragmentsAllowed]) else {
      throw LabError("not JSON: \(text)")
    }
    self.value = value
  }

  subscript(key: String) -> JSON { JSON((value as? [String: Any])?[key]) }
  var text: String { value as? String ?? "" }
  var number: Int { (value as? NSNumber)?.intValue ?? 0 }
  var isTrue: Bool { (value as? NSNumber)?.boolValue ?? false }
  var list: [JSON] { (value as? [Any])?.map { JSON($0) } ?? [] }
  var members: [String: JSON] { (value as? [String: Any])?.mapValues { JSON($0) } ?? [:] }
  var isMissing: Bool { value == nil || value is NSNull }
  var description: String { value.map { "\($0)" } ?? "nothing" }
}
