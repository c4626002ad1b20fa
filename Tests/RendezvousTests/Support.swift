// A rendezvous on loopback and plain sockets that talk to it. Used by all tests of this target.

import JSON
import Foundation
import Glibc
import Logging
import Session
import Synchronization
import Testing
import Wire

@testable import Rendezvous

/// Wall time that tests move by hand.
final class TestClock: Sendable {
  private let value = Mutex<Int64>(1_800_000_000_000)
  func milliseconds() -> Int64 { value.withLock { $0 } }
  func advance(seconds: Int) { value.withLock { $0 += Int64(seconds) * 1000 } }
}

/// A server with a state directory of its own, removed at the end.
final class Rendezvous: Sendable {
  let directory: String
  let configuration: RendezvousConfiguration
  let server: RendezvousServer
  let bound: RendezvousServer.Bound

  private init(
    _ directory: String, _ configuration: RendezvousConfiguration, _ server: RendezvousServer,
    _ bound: RendezvousServer.Bound
  ) {
    self.directory = directory
    self.configuration = configuration
    self.server = server
    self.bound = bound
  }

  static func start(
    in directory: String? = nil, _ change: (inout RendezvousConfiguration) -> Void = { _ in }
  ) async throws -> Rendezvous {
    let directory = directory ?? temporaryDirectory()
    let any = try #require(Endpoint("127.0.0.1:0"))
    let everywhere = try #require(Endpoint("0.0.0.0:0"))
    var configuration = RendezvousConfiguration(
      stateDirectory: directory, registryListen: everywhere, beaconListen: everywhere, httpListen: any)
    configuration.adminToken = "operator"
    change(&configuration)
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    let server = RendezvousServer(configuration: configuration, logger: logger)
    return Rendezvous(directory, configuration, server, try await server.start())
  }

  /// Runs `body` against a fresh server and cleans up, whatever happens.
  @discardableResult
  static func running<Result>(
    _ change: (inout RendezvousConfiguration) -> Void = { _ in }, _ body: (Rendezvous) async throws -> Result
  ) async throws -> Result {
    let rendezvous = try await start(change)
    do {
      let result = try await body(rendezvous)
      await rendezvous.remove()
      return result
    } catch {
      await rendezvous.remove()
      throw error
    }
  }

  func remove() async {
    await server.shutdown()
    try? FileManager.default.removeItem(atPath: directory)
  }

  static func temporaryDirectory() -> String {
    NSTemporaryDirectory() + "pilot-rendezvous-\(UInt64.random(in: 0...UInt64.max))"
  }

  func connect(from host: String = "127.0.0.1") throws -> RegistrySocket {
    try RegistrySocket(port: bound.registry.port, from: host)
  }

  func count(_ counter: Counter) -> UInt64 { server.counters[counter] }

  /// Waits for something that happens without a reply. Fails after five seconds.
  func eventually(_ what: String, _ condition: () -> Bool) async throws {
    for _ in 0..<500 {
      if condition() { return }
      try await Task.sleep(for: .milliseconds(10))
    }
    Issue.record("never: \(what)")
  }
}

/// A node's key and what it signs.
final class TestNode: Sendable {
  let identity: Identity
  init() { identity = .generate() }

  var key: String { Data(identity.publicKey.bytes).base64EncodedString() }
  func sign(_ text: String) -> JSONValue {
    .text(Data(identity.sign(Array(text.utf8)).bytes).base64EncodedString())
  }
}

struct SocketFailure: Error, CustomStringConvertible {
  var description: String
  init(_ call: String) { description = "\(call): \(String(cString: strerror(errno)))" }
}

/// A `sockaddr_in` as bytes: family, port, address, padding.
private func address(_ host: String, _ port: UInt16) -> [UInt8] {
  let v4 = IPv6Address(host)?.mappedIPv4 ?? 0
  let family = withUnsafeBytes(of: sa_family_t(AF_INET)) { Array($0) }
  let place = withUnsafeBytes(of: port.bigEndian) { Array($0) } + withUnsafeBytes(of: v4.bigEndian) { Array($0) }
  return family + place + [UInt8](repeating: 0, count: 8)
}

private func open(_ type: __socket_type, from host: String) throws -> Int32 {
  let descriptor = socket(AF_INET, Int32(type.rawValue), 0)
  guard descriptor >= 0 else { throw SocketFailure("socket") }
  var patience = timeval(tv_sec: 5, tv_usec: 0)
  setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
  setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
  try withAddress(address(host, 0)) { bind(descriptor, $0, $1) }
  return descriptor
}

private func withAddress(
  _ address: [UInt8], _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
) throws {
  let result = address.withUnsafeBytes { bytes in
    bytes.withMemoryRebound(to: sockaddr.self) { body($0.baseAddress!, socklen_t(bytes.count)) }
  }
  guard result >= 0 else { throw SocketFailure("bind, connect or send") }
}

/// One TCP connection that speaks frames.
final class RegistrySocket: Sendable {
  private let descriptor: Int32

  init(port: UInt16, from host: String) throws {
    descriptor = try open(SOCK_STREAM, from: host)
    try withAddress(address("127.0.0.1", port)) { Glibc.connect(descriptor, $0, $1) }
  }

  deinit { close(descriptor) }

  func send(_ bytes: [UInt8]) throws {
    var rest = bytes[...]
    while !rest.isEmpty {
      let sent = rest.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
      guard sent > 0 else { throw SocketFailure("send") }
      rest = rest.dropFirst(sent)
    }
  }

  static func frame(_ body: [UInt8]) -> [UInt8] {
    withUnsafeBytes(of: UInt32(body.count).bigEndian) { Array($0) } + body
  }

  private func read(_ count: Int) throws -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: count)
    var have = 0
    while have < count {
      let got = bytes.withUnsafeMutableBytes { recv(descriptor, $0.baseAddress! + have, count - have, 0) }
      if got == 0 || (got < 0 && errno == ECONNRESET) { return nil }
      guard got > 0 else { throw SocketFailure("recv") }
      have += got
    }
    return bytes
  }

  /// The next reply; nil when the server closed the connection.
  func reply() throws -> JSONValue? {
    guard let head = try read(4) else { return nil }
    let length = head.reduce(0) { $0 << 8 | Int($1) }
    guard let body = try read(length) else { return nil }
    return try JSONValue(parsing: body, deepest: 64)
  }

  /// Waits until one of the sockets has something to read, be it the end, and says which; nil after five seconds.
  static func firstReadable(_ sockets: [RegistrySocket]) -> Int? {
    var waiting = sockets.map { pollfd(fd: $0.descriptor, events: Int16(POLLIN), revents: 0) }
    guard Glibc.poll(&waiting, nfds_t(waiting.count), 5000) > 0 else { return nil }
    return waiting.firstIndex { $0.revents != 0 }
  }

  func ask(_ request: JSONValue) throws -> JSONValue {
    try send(Self.frame(request.encoded))
    return try #require(try reply(), "the server closed the connection")
  }

  /// Sends a request as it stands, as a recorded one, and returns the text of the reply.
  func ask(bytes text: String) throws -> ReplyText {
    try send(Self.frame(Array(text.utf8)))
    return try #require(try reply(), "the server closed the connection").asText
  }

  func ask(_ type: String, _ members: [(String, JSONValue)] = []) throws -> JSONValue {
    try ask(.object(of: [("type", .text(type))] + members))
  }

  // MARK: What nodes ask

  func register(
    _ node: TestNode, listen: String = "127.0.0.1:4000", _ more: [(String, JSONValue)] = []
  ) throws -> JSONValue {
    try ask(
      "register",
      [
        ("listen_addr", .text(listen)), ("owner", "test@example.com"), ("public_key", .text(node.key)),
        ("version", "1.18.0"), ("signature", node.sign("register:\(listen):\(node.key)")),
      ] + more)
  }

  /// Registers and returns the id.
  func enroll(_ node: TestNode, listen: String = "127.0.0.1:4000") throws -> UInt32 {
    let reply = try register(node, listen: listen)
    try #require(reply.text("type") == "register_ok", "\(reply.written)")
    return reply.id("node_id")
  }

  func signed(
    _ type: String, _ node: TestNode, _ text: String, _ members: [(String, JSONValue)]
  ) throws -> JSONValue {
    try ask(type, members + [("signature", node.sign(text))])
  }

  func heartbeat(_ node: TestNode, _ id: UInt32) throws -> JSONValue {
    try signed("heartbeat", node, "heartbeat:\(id)", [("node_id", .whole(id))])
  }

  func setHostname(_ node: TestNode, _ id: UInt32, _ name: String) throws -> JSONValue {
    try signed("set_hostname", node, "set_hostname:\(id)", [("node_id", .whole(id)), ("hostname", .text(name))])
  }

  func setPublic(_ node: TestNode, _ id: UInt32, _ isPublic: Bool) throws -> JSONValue {
    try signed(
      "set_visibility", node, "set_visibility:\(id)", [("node_id", .whole(id)), ("public", .bool(isPublic))])
  }

  func resolve(_ node: TestNode, _ id: UInt32, _ target: UInt32) throws -> JSONValue {
    try signed(
      "resolve", node, "resolve:\(id):\(target)", [("requester_id", .whole(id)), ("node_id", .whole(target))])
  }

  func reportTrust(_ node: TestNode, _ id: UInt32, in peer: UInt32) throws -> JSONValue {
    try signed(
      "report_trust", node, "report_trust:\(id):\(peer)", [("node_id", .whole(id)), ("peer_id", .whole(peer))])
  }

  func requestHandshake(_ node: TestNode, _ id: UInt32, to peer: UInt32, _ why: String = "hi") throws -> JSONValue {
    try signed(
      "request_handshake", node, "handshake:\(id):\(peer)",
      [("from_node_id", .whole(id)), ("to_node_id", .whole(peer)), ("justification", .text(why))])
  }

  func poll(_ node: TestNode, _ id: UInt32) throws -> JSONValue {
    try signed("poll_handshakes", node, "poll_handshakes:\(id)", [("node_id", .whole(id))])
  }

  func respond(_ node: TestNode, _ id: UInt32, to peer: UInt32, accept: Bool) throws -> JSONValue {
    try signed(
      "respond_handshake", node, "respond:\(id):\(peer)",
      [("node_id", .whole(id)), ("peer_id", .whole(peer)), ("accept", .bool(accept))])
  }

  func join(_ node: TestNode, _ id: UInt32, _ network: UInt16, token: String = "") throws -> JSONValue {
    try signed(
      "join_network", node, "join_network:\(id):\(network)",
      [
        ("node_id", .whole(id)), ("network_id", .whole(network)), ("token", .text(token)),
        ("inviter_id", .integer(0)),
      ])
  }
}

/// A reply that is compared with a recorded text, in whatever order that has its members.
struct ReplyText {
  var value: JSONValue

  func contains(_ text: String) -> Bool { value.written.contains(text) }

  static func == (reply: ReplyText, text: String) -> Bool {
    (try? JSONValue(parsing: Array(text.utf8))) == reply.value
  }
}

extension JSONValue {
  var asText: ReplyText { ReplyText(value: self) }
}

extension JSONValue: ExpressibleByStringLiteral {
  public init(stringLiteral value: String) { self = .text(value) }
}

/// One UDP socket that speaks to the beacon.
final class BeaconSocket: Sendable {
  private let descriptor: Int32
  private let port: UInt16

  convenience init(_ rendezvous: Rendezvous, from host: String = "127.0.0.1") throws {
    try self.init(port: rendezvous.bound.beacon.port, from: host)
  }

  init(port: UInt16, from host: String = "127.0.0.1") throws {
    descriptor = try open(SOCK_DGRAM, from: host)
    self.port = port
  }

  /// Asks for a proof.
  func challenge(_ node: UInt32, _ key: Bytes32) throws -> UInt64? {
    try send(.discover(node: node, key: key))
    guard case .discoverChallenge(_, let challenge)? = try message() else { return nil }
    return challenge
  }

  /// Binds the node to this socket by a proof.
  func prove(_ node: TestNode, _ id: UInt32) throws {
    let key = node.identity.publicKey
    let challenge = try #require(try challenge(id, key))
    let signature = node.identity.sign(BeaconMessage.proofText(node: id, challenge: challenge))
    try send(.provenDiscover(node: id, key: key, challenge: challenge, signature: signature))
    guard case .discoverReply? = try message() else { throw SocketFailure("no reply to a proof") }
  }

  deinit { close(descriptor) }

  var localPort: UInt16 {
    var bytes = [UInt8](repeating: 0, count: 16)
    var length = socklen_t(bytes.count)
    bytes.withUnsafeMutableBytes { bytes in
      _ = bytes.withMemoryRebound(to: sockaddr.self) { getsockname(descriptor, $0.baseAddress!, &length) }
    }
    return UInt16(bytes[2]) << 8 | UInt16(bytes[3])
  }

  func send(_ bytes: [UInt8], to other: UInt16? = nil) throws {
    try withAddress(address("127.0.0.1", other ?? port)) {
      Int32(sendto(descriptor, bytes, bytes.count, 0, $0, $1))
    }
  }

  /// To the beacon, or to the one that took its place at another port.
  func send(_ message: BeaconMessage, to other: UInt16? = nil) throws { try send(message.encoded(), to: other) }

  /// The next datagram; nil after `milliseconds` without one.
  func receive(milliseconds: Int32 = 5000) throws -> [UInt8]? {
    var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    guard Glibc.poll(&waiting, 1, milliseconds) > 0 else { return nil }
    var bytes = [UInt8](repeating: 0, count: 65_536)
    let got = recv(descriptor, &bytes, bytes.count, 0)
    guard got >= 0 else { throw SocketFailure("recv") }
    return Array(bytes.prefix(got))
  }

  func message() throws -> BeaconMessage? { try receive().flatMap { BeaconMessage($0) } }

  /// Sends a discover and returns the endpoint that the beacon saw.
  @discardableResult
  func discover(_ node: UInt32, key: Bytes32? = nil) throws -> Endpoint? {
    try send(.discover(node: node, key: key))
    guard case .discoverReply(let endpoint)? = try message() else { return nil }
    return endpoint
  }
}
