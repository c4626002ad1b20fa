// Nodes without UDP: the TLS port with real TLS, a WebSocket as a way of the beacon, and clients that misbehave.

import JSON
import Foundation
import Glibc
import NIOCore
import NIOPosix
import Session
import Synchronization
import TLSTransport
import Testing
import Wire

@testable import Rendezvous

/// A certificate for 127.0.0.1 and localhost, made by openssl and removed at the end of the process' first use of it.
struct TestCertificate: Sendable {
  let certificate: String
  let key: String

  static func with<Result>(
    _ names: String = "IP:127.0.0.1,DNS:localhost", _ body: (TestCertificate) async throws -> Result
  ) async throws -> Result {
    try await inFolder { made in
      try made.openssl([
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
        "/CN=rendezvous", "-addext", "subjectAltName=\(names)", "-keyout", made.key, "-out", made.certificate,
      ])
      return try await body(made)
    }
  }

  /// One of another time, `YYYYMMDDHHMMSSZ`.
  static func with(from: String, to: String, _ body: (TestCertificate) async throws -> Void) async throws {
    try await inFolder { made in
      let folder = URL(fileURLWithPath: made.key).deletingLastPathComponent().path
      let settings = """
        [ca]
        default_ca = own
        [own]
        database = \(folder)/database
        new_certs_dir = \(folder)
        rand_serial = yes
        default_md = sha256
        policy = any
        x509_extensions = names
        [any]
        commonName = supplied
        [names]
        subjectAltName = IP:127.0.0.1
        [req]
        distinguished_name = none
        [none]

        """
      try settings.write(toFile: folder + "/settings", atomically: true, encoding: .utf8)
      try "".write(toFile: folder + "/database", atomically: true, encoding: .utf8)
      try made.openssl([
        "req", "-config", folder + "/settings", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-subj", "/CN=rendezvous", "-keyout", made.key, "-out", folder + "/request",
      ])
      try made.openssl([
        "ca", "-config", folder + "/settings", "-batch", "-selfsign", "-notext", "-in", folder + "/request", "-keyfile",
        made.key, "-startdate", from, "-enddate", to, "-out", made.certificate,
      ])
      try await body(made)
    }
  }

  private static func inFolder<Result>(_ body: (TestCertificate) async throws -> Result) async throws -> Result {
    let folder = NSTemporaryDirectory() + "pilot-certificate-\(UInt64.random(in: 0...UInt64.max))"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    return try await body(TestCertificate(certificate: folder + "/certificate.pem", key: folder + "/key.pem"))
  }

  private func openssl(_ arguments: [String]) throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/openssl")
    process.arguments = arguments
    process.standardError = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    try #require(process.terminationStatus == 0)
  }
}

/// What came over a link.
private final class Heard: Sendable {
  private let state = Mutex<(messages: [[UInt8]], end: TransportError?)>(([], nil))
  func take(_ bytes: ByteBuffer) { state.withLock { $0.messages.append(Array(bytes.readableBytesView)) } }
  func end(_ error: TransportError) { state.withLock { $0.end = error } }
  var messages: [[UInt8]] { state.withLock { $0.messages } }
  var end: TransportError? { state.withLock { $0.end } }

  func wait(_ rendezvous: Rendezvous, for count: Int = 1) async throws -> [[UInt8]] {
    try await rendezvous.eventually("\(count) messages come") { messages.count >= count }
    return messages
  }

  /// The last message once that many have come.
  func message(_ rendezvous: Rendezvous, _ count: Int = 1) async throws -> BeaconMessage? {
    try await wait(rendezvous, for: count).last.flatMap { BeaconMessage($0) }
  }
}

@Suite struct CompatTests {
  private static func running<Result>(
    _ body: (Rendezvous, TLSSettings) async throws -> Result
  ) async throws -> Result {
    try await TestCertificate.with { certificate in
      let any = try #require(Endpoint("127.0.0.1:0"))
      return try await Rendezvous.running {
        $0.tlsCertificate = certificate.certificate
        $0.tlsKey = certificate.key
        $0.tlsListen = (endpoint: any, isDefault: false)
      } _: { rendezvous in
        var settings = TLSSettings(host: "127.0.0.1", port: try #require(rendezvous.bound.tls?.port))
        settings.authoritiesFile = certificate.certificate
        return try await body(rendezvous, settings)
      }
    }
  }

  private static let eventLoop = MultiThreadedEventLoopGroup.singleton.next()

  private static func link(
    _ settings: TLSSettings, _ id: UInt32, _ node: TestNode, _ heard: Heard
  ) async throws -> CompatLink {
    let identity = node.identity
    return try await CompatLink.open(
      try TLSDialer(settings),
      as: CompatLink.Credentials(node: id, key: identity.publicKey, sign: { identity.sign($0) }),
      on: eventLoop, deliver: { heard.take($0) }, flush: {}, ended: { heard.end($0) })
  }

  /// A connection behind whose TLS the test speaks for itself.
  private static func raw(_ settings: TLSSettings, _ heard: Heard) async throws -> any Channel {
    final class Reader: ChannelInboundHandler {
      typealias InboundIn = ByteBuffer
      let heard: Heard
      init(_ heard: Heard) { self.heard = heard }
      func channelRead(context: ChannelHandlerContext, data: NIOAny) { heard.take(unwrapInboundIn(data)) }
      func channelInactive(context: ChannelHandlerContext) {
        heard.end(TransportError(.connectionEnded, "closed"))
        context.fireChannelInactive()
      }
      func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }
    return try await TLSDialer(settings).connect(on: eventLoop) { channel in
      try channel.pipeline.syncOperations.addHandler(Reader(heard))
    }
  }

  private static func request(_ settings: TLSSettings, _ text: String, _ rendezvous: Rendezvous) async throws -> String
  {
    let heard = Heard()
    let channel = try await raw(settings, heard)
    try await channel.writeAndFlush(ByteBuffer(string: text))
    try await rendezvous.eventually("an answer comes, and the end") { heard.end != nil }
    return String(decoding: heard.messages.joined(), as: UTF8.self)
  }

  @Test("frames of UDP and WebSocket clients reach each other, and two of the latter each other")
  func relay() async throws {
    try await Self.running { rendezvous, settings in
      let (a, b, c) = (TestNode(), TestNode(), TestNode())
      let client = try rendezvous.connect()
      let (x, y, z) = (try client.enroll(a), try client.enroll(b), try client.enroll(c))
      let (fromA, fromB) = (Heard(), Heard())
      let linkA = try await Self.link(settings, x, a, fromA)
      let linkB = try await Self.link(settings, y, b, fromB)
      let socket = try BeaconSocket(rendezvous)
      try socket.discover(z)
      #expect(rendezvous.count(.compatAccepted) == 2)

      let frame: [UInt8] = Array("PILS".utf8) + (0..<1300).map { UInt8(truncatingIfNeeded: $0) }
      #expect(linkA.send(ByteBuffer(bytes: BeaconMessage.relay(source: x, destination: z, frame: frame).encoded())))
      #expect(try socket.message() == .relayDeliver(source: x, frame: frame))
      try socket.send(.relay(source: z, destination: x, frame: frame))
      #expect(try await fromA.message(rendezvous) == .relayDeliver(source: z, frame: frame))
      #expect(linkA.send(ByteBuffer(bytes: BeaconMessage.relay(source: x, destination: y, frame: frame).encoded())))
      #expect(try await fromB.message(rendezvous) == .relayDeliver(source: x, frame: frame))

      // Nobody speaks for another, and nobody is told to punch to who has no UDP.
      #expect(linkA.send(ByteBuffer(bytes: BeaconMessage.relay(source: y, destination: z, frame: frame).encoded())))
      #expect(linkA.send(ByteBuffer(bytes: BeaconMessage.punchRequest(requester: x, target: z, grant: nil).encoded())))
      try socket.send(.punchRequest(requester: z, target: x, grant: nil))
      try await rendezvous.eventually("all three are refused") {
        rendezvous.count(.relaySpoofed) == 1 && rendezvous.count(.punchesRefused) == 2
      }

      // A discover says which way the node wants to be reached.
      let other = try BeaconSocket(rendezvous)
      try other.discover(x, key: a.identity.publicKey)
      try socket.send(.relay(source: z, destination: x, frame: frame))
      #expect(try other.message() == .relayDeliver(source: z, frame: frame))
      #expect(linkA.send(ByteBuffer(bytes: BeaconMessage.discover(node: x, key: nil).encoded())))
      _ = try await fromA.wait(rendezvous, for: 2)
      try socket.send(.relay(source: z, destination: x, frame: frame))
      #expect(try await fromA.message(rendezvous, 3) == .relayDeliver(source: z, frame: frame))
      linkA.close()
      linkB.close()
      try await rendezvous.eventually("both are forgotten") {
        rendezvous.server.compatClients == 0
      }
    }
  }

  @Test("the registry speaks on the TLS port, and not without TLS")
  func registry() async throws {
    try await Self.running { rendezvous, settings in
      let heard = Heard()
      let channel = try await Self.raw(settings, heard)
      try await channel.writeAndFlush(
        ByteBuffer(bytes: RegistrySocket.frame(Array(#"{"type":"lookup","node_id":77}"#.utf8))))
      let reply = try await heard.wait(rendezvous).joined()
      #expect(String(decoding: reply, as: UTF8.self).contains("\"error\""))
      try await channel.close()
      let plain = try RegistrySocket(port: settings.port, from: "127.0.0.1")
      try plain.send(RegistrySocket.frame(Array(#"{"type":"lookup","node_id":77}"#.utf8)))
      #expect(try plain.reply() == nil)
    }
  }

  @Test("requests that are no upgrade are told what they are")
  func refusals() async throws {
    try await Self.running { rendezvous, settings in
      for (request, status) in [
        ("GET /v1/compat HTTP/1.1\r\nHost: x\r\n\r\n", "426"), ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("POST /v1/compat HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "405"),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "404"),
        (
          "GET /other HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", "404"
        ),
        ("GARBAGE\r\n\r\n", "400"),
      ] {
        let answer = try await Self.request(settings, request, rendezvous)
        #expect(answer.hasPrefix("HTTP/1.1 \(status) "), "\(request): \(answer)")
      }
      #expect(try await Self.request(settings, "\u{1}\u{2}\u{3}", rendezvous).isEmpty)
      try await CompatLink.check(TLSDialer(settings), on: Self.eventLoop)
    }
  }

  @Test("who cannot prove which node he is, is shown out")
  func identity() async throws {
    try await Self.running { rendezvous, settings in
      let (a, thief) = (TestNode(), TestNode())
      let x = try rendezvous.connect().enroll(a)
      for (id, node) in [(x, thief), (x &+ 1, thief)] {
        do {
          _ = try await Self.link(settings, id, node, Heard())
          Issue.record("\(id) was taken")
        } catch let error as TransportError {
          #expect(error.reason == .identityRefused)
        }
      }
      #expect(rendezvous.count(.compatRefused) == 2)
      // A second connection of the node itself takes the place of the first.
      let (first, second) = (Heard(), Heard())
      _ = try await Self.link(settings, x, a, first)
      let link = try await Self.link(settings, x, a, second)
      try await rendezvous.eventually("the first one ends") { first.end != nil }
      #expect(second.end == nil)
      link.close()
    }
  }

  @Test("a connection ends at the next discover once its key is not the directory's: rotated, or deregistered")
  func revoked() async throws {
    try await Self.running { rendezvous, settings in
      let (a, b, other) = (TestNode(), TestNode(), TestNode())
      let client = try rendezvous.connect()
      let (x, y) = (try client.enroll(a), try client.enroll(b))
      let (fromA, fromB) = (Heard(), Heard())
      let linkA = try await Self.link(settings, x, a, fromA)
      let linkB = try await Self.link(settings, y, b, fromB)
      #expect(linkA.send(ByteBuffer(bytes: BeaconMessage.discover(node: x, key: nil).encoded())))
      _ = try await fromA.wait(rendezvous)
      let rotated = try client.signed(
        "rotate_key", a, "rotate:\(x):\(other.key)", [("node_id", .whole(x)), ("new_public_key", .text(other.key))])
      #expect(rotated.id("node_id") == x)
      let gone = try client.signed("deregister", b, "deregister:\(y)", [("node_id", .whole(y))])
      #expect(gone.text("type") == "deregister_ok")
      for (link, heard, id) in [(linkA, fromA, x), (linkB, fromB, y)] {
        let before = heard.messages.count
        #expect(link.send(ByteBuffer(bytes: BeaconMessage.discover(node: id, key: nil).encoded())))
        try await rendezvous.eventually("the connection of \(id) ends") { heard.end != nil }
        #expect(heard.messages.count == before, "and is not answered")
      }
      #expect(rendezvous.count(.compatRevoked) == 2 && rendezvous.server.compatClients == 0)
      // With the new key the node is taken again.
      let again = try await Self.link(settings, x, other, Heard())
      again.close()
    }
  }

  @Test("why a connection ended is counted by cause, and what was relayed when it was written")
  func causes() async throws {
    try await Self.running { rendezvous, settings in
      let (a, b) = (TestNode(), TestNode())
      let client = try rendezvous.connect()
      let (x, y) = (try client.enroll(a), try client.enroll(b))
      let socket = try BeaconSocket(rendezvous)
      try socket.discover(y)
      func frame(_ size: Int) -> [UInt8] { Array("PILS".utf8) + [UInt8](repeating: 1, count: size - 4) }

      // To a WebSocket, to UDP, and to a node that is nowhere.
      let heard = Heard()
      let link = try await Self.link(settings, x, a, heard)
      try socket.send(.relay(source: y, destination: x, frame: frame(1000)))
      _ = try await heard.wait(rendezvous)
      #expect(link.send(ByteBuffer(bytes: BeaconMessage.relay(source: x, destination: y, frame: frame(500)).encoded())))
      #expect(try socket.message() == .relayDeliver(source: x, frame: frame(500)))
      try await rendezvous.eventually("both are counted") { rendezvous.count(.relayed) == 2 }
      #expect(rendezvous.count(.relayedBytes) == 1500)
      try socket.send(.relay(source: y, destination: 77, frame: frame(100)))
      try await rendezvous.eventually("the third has its cause") { rendezvous.count(.relayUnknownTarget) == 1 }
      // Larger than a UDP datagram over IPv4: the kernel takes it not.
      let huge = frame(65_526)
      #expect(link.send(ByteBuffer(bytes: BeaconMessage.relay(source: x, destination: y, frame: huge).encoded())))
      try await rendezvous.eventually("what the kernel refuses has its own") { rendezvous.count(.relayNotWritten) == 1 }
      #expect(rendezvous.count(.relayed) == 2 && rendezvous.count(.relayedBytes) == 1500)

      // Replaced by another connection of the node, which then breaks off.
      let second = try await Self.taken(settings, x, a, rendezvous)
      try await rendezvous.eventually("the first is replaced") {
        heard.end != nil && rendezvous.count(.compatReplaced) == 1
      }
      try await second.close()
      try await rendezvous.eventually("the second is lost") { rendezvous.count(.compatLost) == 1 }
      // A reserved opcode.
      let third = try await Self.taken(settings, x, a, rendezvous)
      try await third.writeAndFlush(ByteBuffer(bytes: [0x83, 0x80, 0, 0, 0, 0]))
      try await rendezvous.eventually("the third breaks the rules") { rendezvous.count(.compatMalformed) == 1 }
      try await third.closeFuture.get()
      #expect(rendezvous.count(.compatLost) == 1 && rendezvous.count(.datagramsMalformed) == 0)
    }
  }

  private static let upgrade =
    "GET /v1/compat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

  /// A connection whose WebSocket the test speaks for itself, once it has proven who it is.
  private static func taken(
    _ settings: TLSSettings, _ id: UInt32, _ node: TestNode, _ rendezvous: Rendezvous
  ) async throws -> any Channel {
    let heard = Heard()
    let accepted = rendezvous.count(.compatAccepted)
    let channel = try await raw(settings, heard)
    try await channel.writeAndFlush(ByteBuffer(string: upgrade))
    try await rendezvous.eventually("the challenge comes") {
      String(decoding: heard.messages.joined(), as: UTF8.self).contains("auth_challenge")
    }
    let text = String(decoding: heard.messages.joined(), as: UTF8.self)
    let nonce = try #require(text.split(separator: "\"").first { $0.count == 64 }.map(String.init))
    let stamp = try #require(text.split(separator: "\"ts\":").last?.prefix { $0.isNumber })
    let time = try #require(Int64(stamp))
    let signature = node.identity.sign(CompatAuthentication.signed(node: id, time: time, nonce: nonce))
    let reply = Array(
      CompatAuthentication.reply(node: id, key: node.identity.publicKey, signature: signature).text.utf8)
    try await channel.writeAndFlush(
      ByteBuffer(bytes: [0x81, 0xFE, UInt8(reply.count >> 8), UInt8(reply.count & 0xFF), 0, 0, 0, 0] + reply))
    try await rendezvous.eventually("it is taken") { rendezvous.count(.compatAccepted) == accepted + 1 }
    return channel
  }

  @Test("binary messages before the proof, unmasked frames and endless messages end the connection")
  func hostile() async throws {
    try await Self.running { rendezvous, settings in
      for bytes: [UInt8] in [
        [0x82, 0x81, 0, 0, 0, 0, 0x05], [0x81, 0x02, 0x7B, 0x7D],
        [0x82, 0xFF, 0, 0, 0, 0, 0x10, 0, 0, 0], [0x82, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        [0x81, 0x82, 0, 0, 0, 0, 0x7B, 0x7D], [0xF2, 0x80, 0, 0, 0, 0], [0x83, 0x80, 0, 0, 0, 0],
      ] {
        let heard = Heard()
        let channel = try await Self.raw(settings, heard)
        try await channel.writeAndFlush(ByteBuffer(string: Self.upgrade))
        try await rendezvous.eventually("the challenge comes") {
          String(decoding: heard.messages.joined(), as: UTF8.self).contains("auth_challenge")
        }
        try await channel.writeAndFlush(ByteBuffer(bytes: bytes))
        try await rendezvous.eventually("\(bytes) end the connection") { heard.end != nil }
      }
    }
  }

  @Test("a node that does not read loses its own frames and holds up nobody")
  func mute() async throws {
    try await Self.running { rendezvous, settings in
      let (a, b) = (TestNode(), TestNode())
      let client = try rendezvous.connect()
      let (x, y) = (try client.enroll(a), try client.enroll(b))
      let channel = try await Self.taken(settings, x, a, rendezvous)
      try await channel.setOption(ChannelOptions.autoRead, value: false).get()

      let socket = try BeaconSocket(rendezvous)
      try socket.discover(y)
      let frame = [UInt8](repeating: 1, count: 1400)
      let before = try memory()
      for round in 0..<40_000 where rendezvous.count(.compatNotWritten) < 1000 {
        try socket.send(.relay(source: y, destination: x, frame: frame))
        if round % 64 == 0 { try await Task.sleep(for: .milliseconds(1)) }
      }
      #expect(rendezvous.count(.compatNotWritten) >= 1000)
      #expect(try memory() - before < 64 << 10, "kilobytes")
      #expect(try socket.discover(y) != nil, "others are served")
      try await channel.close()
    }
  }

  /// Resident kilobytes of this process.
  private func memory() throws -> Int {
    let status = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
    let line = status.split(separator: "\n").first { $0.hasPrefix("VmRSS:") } ?? ""
    return Int(line.split(separator: " ").dropLast().last ?? "") ?? 0
  }

  @Test("certificates are checked: the authority, the name, the address")
  func certificates() async throws {
    try await Self.running { rendezvous, settings in
      let cases: [(what: String, code: TransportError.Code?, change: (inout TLSSettings) -> Void)] = [
        ("as it is", nil, { _ in }), ("a name", nil, { $0.host = "localhost" }),
        ("a mapped address", nil, { $0.host = "::ffff:127.0.0.1" }),
        ("another host", .tlsUnreachable, { $0.host = "127.0.0.2" }),
        ("the system's authorities", .certificateUntrusted, { $0.authoritiesFile = nil }),
        ("no file", .authoritiesUnusable, { $0.authoritiesFile = "/nonexistent" }),
        ("no certificates", .authoritiesUnusable, { $0.authoritiesFile = "/etc/hostname" }),
        ("HTTP", .tlsFailed, { $0.port = rendezvous.bound.http?.port ?? 0 }),
        ("nobody", .tlsUnreachable, { $0.port = 1 }),
        ("no such name", .tlsUnreachable, { $0.host = "no-such-host.invalid" }),
      ]
      for (what, expected, change) in cases {
        var changed = settings
        change(&changed)
        var code: TransportError.Code?
        do {
          try await CompatLink.check(try TLSDialer(changed), on: Self.eventLoop)
        } catch {
          code = (error as? TransportError)?.reason
        }
        #expect(code == expected, "\(what)")
      }
    }
    try await TestCertificate.with("DNS:elsewhere.example") { certificate in
      let any = try #require(Endpoint("127.0.0.1:0"))
      try await Rendezvous.running {
        $0.tlsCertificate = certificate.certificate
        $0.tlsKey = certificate.key
        $0.tlsListen = (endpoint: any, isDefault: false)
      } _: { rendezvous in
        for host in ["127.0.0.1", "localhost"] {
          var settings = TLSSettings(host: host, port: try #require(rendezvous.bound.tls?.port))
          settings.authoritiesFile = certificate.certificate
          let dialer = try TLSDialer(settings)
          do {
            try await CompatLink.check(dialer, on: Self.eventLoop)
            Issue.record("\(host) was taken for elsewhere.example")
          } catch {
            #expect((error as? TransportError)?.reason == .certificateNameMismatch, "\(error)")
          }
        }
      }
    }
  }
}
