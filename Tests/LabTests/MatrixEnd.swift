// One end of a pair in OfficialMatrixTests: the same questions to an official agent, by pilotctl and the SDK, and to a
// node of ours, by pilot-tun and programs that know nothing of tunnels.

import Glibc
import Testing

protocol MatrixEnd: AnyObject {
  var name: String { get }
  var namespace: Namespace { get }
  var lab: Lab { get }
  var address: String { get }
  var ipv6: String { get }
  var nodeID: UInt32 { get }
  /// Its echo, sink and source (LabTools/streams.py) while they run.
  var services: Program? { get set }

  func pings(_ other: any MatrixEnd) throws -> Bool
  /// A command that moves bytes to (`put`) or from (`get`) the other's services.
  func moving(_ verb: String, _ octets: Int, _ other: any MatrixEnd) -> [String]
  func startServices() throws -> Program
  /// A program that prints the next datagram for the port.
  func listener(_ port: String) throws -> Program
  func sendDatagram(_ text: String, to other: any MatrixEnd, _ port: String) throws
  func asks(_ other: any MatrixEnd, _ reason: String) throws
  func isAsked(by other: any MatrixEnd) throws -> Bool
  func approves(_ other: any MatrixEnd) throws
  func withdraws(from other: any MatrixEnd) throws
  func trusts(_ other: any MatrixEnd) throws -> Bool
  /// Whether its frames to its only peer go through the relay.
  func isRelayed() throws -> Bool
  /// SIGKILL, and the same again.
  func restart() throws
  var environment: [String: String] { get }
}

extension MatrixEnd {
  /// Services from now on, other ones than before.
  func serveAnew() throws -> Program {
    services?.end(SIGKILL)
    let program = try startServices()
    services = program
    try program.waitForLine(containing: "ready")
    return program
  }

  /// Begins to move bytes.
  func start(_ verb: String, _ octets: Int, _ other: any MatrixEnd) throws -> Program {
    try lab.start(in: namespace, moving(verb, octets, other), environment: environment)
  }

  /// Moves bytes, which must arrive with the right hash.
  func moves(_ verb: String, _ octets: Int, _ other: any MatrixEnd) throws {
    let outcome = try start(verb, octets, other).wait(within: 90)
    #expect(outcome.isSuccess && outcome.output.contains("whole"), "\(name) \(verb) \(other.name): \(outcome)")
    if verb == "put" { try other.services?.waitForLine(containing: "sink \(octets)") }
  }

  func reaches(_ other: any MatrixEnd, within seconds: Double = 20) throws {
    _ = try eventually("\(name) reaches \(other.name)", within: seconds) { try pings(other) ? true : nil }
  }
}

extension OfficialAgent: MatrixEnd {
  func pings(_ other: any MatrixEnd) throws -> Bool { try pings(other.address) }

  func moving(_ verb: String, _ octets: Int, _ other: any MatrixEnd) -> [String] {
    streams([verb, "\(octets)", verb == "put" ? "8002" : "8003"]) + [other.address]
  }

  func startServices() throws -> Program {
    try lab.start(in: namespace, streams(["serve"]), environment: environment)
  }

  func listener(_ port: String) throws -> Program {
    try lab.start(
      in: namespace, [Official.folder + "/pilotctl", "listen", port, "--count", "1"], environment: environment)
  }

  func sendDatagram(_ text: String, to other: any MatrixEnd, _ port: String) throws {
    try ctl("dgram", other.address, port, "--data", text).orThrow()
  }

  func asks(_ other: any MatrixEnd, _ reason: String) throws { try ctl("handshake", other.address, reason).orThrow() }

  func isAsked(by other: any MatrixEnd) throws -> Bool {
    try ctl("pending").orThrow().output.contains("\(other.nodeID)")
  }

  func approves(_ other: any MatrixEnd) throws { try ctl("approve", "\(other.nodeID)").orThrow() }

  func withdraws(from other: any MatrixEnd) throws { try ctl("untrust", other.address).orThrow() }

  func trusts(_ other: any MatrixEnd) throws -> Bool { try trusted().contains("\(other.nodeID)") }

  func isRelayed() throws -> Bool {
    let peers = try ctl("peers", "--all").orThrow().output
    guard peers.contains("1 relay · 0 direct") || peers.contains("0 relay · 1 direct") else {
      throw LabError("not one peer: \(peers)")
    }
    return peers.contains("1 relay")
  }
}

extension LabNode: MatrixEnd {
  func pings(_ other: any MatrixEnd) throws -> Bool { try run(["ping", "-c", "1", "-W", "2", other.ipv6]).isSuccess }

  func moving(_ verb: String, _ octets: Int, _ other: any MatrixEnd) -> [String] {
    Tools.python("streams", verb, "\(octets)", verb == "put" ? "8002" : "8003", "socket", other.ipv6)
  }

  func startServices() throws -> Program {
    try lab.start(in: namespace, Tools.python("streams", "serve", "socket", "::"))
  }

  func listener(_ port: String) throws -> Program { try helper(Tools.python("udp_receive", "::", port)) }

  func sendDatagram(_ text: String, to other: any MatrixEnd, _ port: String) throws {
    let script = """
      import socket, sys
      sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
      sender.sendto(sys.argv[1].encode(), (sys.argv[2], int(sys.argv[3])))
      """
    try run(["python3", "-c", script, text, other.ipv6, port]).orThrow()
  }

  func asks(_ other: any MatrixEnd, _ reason: String) throws {
    try tun("trust", "request", other.address, reason).orThrow()
  }

  func isAsked(by other: any MatrixEnd) throws -> Bool {
    try tun("trust", "pending").orThrow().output.contains(other.address)
  }

  func approves(_ other: any MatrixEnd) throws { try tun("trust", "approve", other.address).orThrow() }

  func withdraws(from other: any MatrixEnd) throws { try tun("trust", "revoke", other.address).orThrow() }

  func trusts(_ other: any MatrixEnd) throws -> Bool {
    try tun("trust", "list").orThrow().output.split(separator: "\n").contains {
      $0.contains(other.address) && $0.contains("trusted")
    }
  }

  func isRelayed() throws -> Bool {
    let peers = try status()["peers"].list
    guard let path = peers.first?["path"].text, peers.count == 1 else { throw LabError("not one peer: \(peers)") }
    return path == "relay"
  }

  func restart() throws {
    stop(SIGKILL)
    try start()
  }
}
