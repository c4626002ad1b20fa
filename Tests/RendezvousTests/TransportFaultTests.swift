// Whom a node may meet on its way to a rendezvous by TLS: proxies and servers that are slow, mute, hostile or mistaken,
// and certificates that are no good. Each is a clear error in bounded time, and costs the other end one connection.

import JSON
import Foundation
import Glibc
import NIOCore
import NIOPosix
import Synchronization
import TLSTransport
import Testing
import Wire

@testable import Rendezvous

/// A TCP server that answers the first bytes of each connection with what a test wants, and counts.
private final class Oddity: Sendable {
  enum Manner: Sendable {
    case mute
    case closes
    case says([UInt8])
    /// Says the first, and the second to the next bytes.
    case saysThen([UInt8], [UInt8])
    /// Says the first, then the second again and again.
    case floods([UInt8], [UInt8])
  }

  private let manner: Manner
  private let taken = Mutex(0)
  var connections: Int { taken.withLock { $0 } }

  private init(_ manner: Manner) { self.manner = manner }

  static func with(_ manner: Manner, _ body: (Oddity, UInt16) async throws -> Void) async throws {
    let oddity = Oddity(manner)
    let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .childChannelInitializer { channel in
        oddity.taken.withLock { $0 += 1 }
        return channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(Speaker(manner))
        }
      }
      .bind(host: "127.0.0.1", port: 0).get()
    try await body(oddity, UInt16(listener.localAddress?.port ?? 0))
    try await listener.close()
  }

  private final class Speaker: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer
    private let manner: Manner
    private var turns = 0
    init(_ manner: Manner) { self.manner = manner }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
      turns += 1
      switch manner {
      case .mute: break
      case .closes: context.close(promise: nil)
      case .says(let bytes): if turns == 1 { say(bytes, context) }
      case .saysThen(let first, let second): if turns <= 2 { say(turns == 1 ? first : second, context) }
      case .floods(let first, let rest):
        guard turns == 1 else { break }
        say(first, context)
        flood(rest, context)
      }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func say(_ bytes: [UInt8], _ context: ChannelHandlerContext) {
      context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: bytes)), promise: nil)
    }

    private func flood(_ bytes: [UInt8], _ context: ChannelHandlerContext) {
      guard context.channel.isActive else { return }
      let eventLoop = context.eventLoop
      let bound = NIOLoopBound((self, context), eventLoop: eventLoop)
      context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: bytes))).whenSuccess {
        eventLoop.execute {
          let (speaker, context) = bound.value
          speaker.flood(bytes, context)
        }
      }
    }
  }
}

@Suite("On the way to a rendezvous by TLS", .timeLimit(.minutes(1)))
struct TransportFaultTests {
  private static let eventLoop = MultiThreadedEventLoopGroup.singleton.next()

  /// What a dial that must fail fails with, within three seconds.
  private static func fault(_ dialer: TLSDialer) async -> TransportError? {
    let start = ContinuousClock.now
    do {
      let channel = try await dialer.connect(on: eventLoop) { _ in }
      channel.close(promise: nil)
      return nil
    } catch {
      #expect(ContinuousClock.now - start < .seconds(3), "\(error)")
      #expect(!error.message.isEmpty && error.message.count < 200, "\(error)")
      return error
    }
  }

  @Test("proxies that misbehave")
  func proxies() async throws {
    let established = Array("HTTP/1.1 200 OK\r\n\r\n".utf8)
    let garbage = Array("this is no TLS at all\r\n".utf8)
    let cases: [(what: String, Oddity.Manner, TransportError.Code)] = [
      ("says nothing", .mute, .proxyUnreachable), ("hangs up", .closes, .proxyRefused),
      ("is no proxy", .says(garbage), .proxyRefused),
      ("sends it elsewhere", .says(Array("HTTP/1.1 302 Found\r\nLocation: http://x/\r\n\r\n".utf8)), .proxyRefused),
      (
        "sends a head without end",
        .floods(established.dropLast(2), Array("X: \(String(repeating: "x", count: 4000))\r\n".utf8)),
        .proxyRefused
      ),
      (
        "sends one line without end", .floods(Array("HTTP/1.1 200 ".utf8), [UInt8](repeating: 0x78, count: 60_000)),
        .proxyRefused
      ),
      (
        "says that it will, for ever",
        .floods([], Array(String(repeating: "HTTP/1.1 100 Continue\r\n\r\n", count: 1000).utf8)), .proxyRefused
      ),
      ("connects to something mute", .says(established), .tlsFailed),
      ("connects to something else", .saysThen(established, garbage), .tlsFailed),
    ]
    for (what, manner, expected) in cases {
      try await Oddity.with(manner) { oddity, port in
        var settings = TLSSettings(host: "home.example", port: 443)
        settings.proxy = ProxyAddress(host: "127.0.0.1", port: port)
        settings.patience = .milliseconds(700)
        let error = await Self.fault(try TLSDialer(settings))
        #expect(error?.reason == expected, "a proxy that \(what): \(error.map { "\($0)" } ?? "no error")")
        #expect(oddity.connections == 1, "a proxy that \(what)")
      }
    }
  }

  @Test("a proxy that always answers 407 costs one connection and one run of the command for each dial")
  func refusedForEver() async throws {
    let folder = Rendezvous.temporaryDirectory()
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
    try await Oddity.with(.says(Array(answer.utf8))) { oddity, port in
      var settings = TLSSettings(host: "home.example", port: 443)
      settings.proxy = ProxyAddress(host: "127.0.0.1", port: port)
      settings.credentialsCommand = "echo x >> \(folder)/runs; echo me:secret"
      settings.environment = ["PATH": "/usr/bin:/bin"]
      let dialer = try TLSDialer(settings)
      for _ in 0..<3 {
        let error = await Self.fault(dialer)
        #expect(error?.reason == .proxyCredentials && error?.hint != nil)
        #expect(error?.description.contains("secret") == false)
      }
      #expect(try String(contentsOfFile: folder + "/runs", encoding: .utf8) == "x\nx\nx\n")
      #expect(oddity.connections == 3)
    }
  }

  @Test("servers that are none: mute, closing, in plain text; and what nothing listens on")
  func servers() async throws {
    for (manner, expected) in [
      (Oddity.Manner.mute, TransportError.Code.tlsFailed), (.closes, .tlsFailed),
      (.says(Array("SSH-2.0-OpenSSH_9.2\r\n".utf8)), .tlsFailed),
    ] {
      try await Oddity.with(manner) { _, port in
        var settings = TLSSettings(host: "127.0.0.1", port: port)
        settings.patience = .milliseconds(500)
        let error = await Self.fault(try TLSDialer(settings))
        #expect(error?.reason == expected && error?.hint != nil || error?.reason == expected, "\(manner)")
      }
    }
    let nobody = await Self.fault(try TLSDialer(TLSSettings(host: "127.0.0.1", port: 1)))
    #expect(nobody?.reason == .tlsUnreachable && nobody?.message.contains("refused") == true)
    var settings = TLSSettings(host: "home.example", port: 443)
    settings.proxy = ProxyAddress(host: "127.0.0.1", port: 1)
    #expect(await Self.fault(try TLSDialer(settings))?.reason == .proxyUnreachable)
  }

  private static func serving(
    _ certificate: TestCertificate, _ body: (TLSSettings) async throws -> Void
  ) async throws {
    let any = try #require(Endpoint("127.0.0.1:0"))
    try await Rendezvous.running {
      $0.tlsCertificate = certificate.certificate
      $0.tlsKey = certificate.key
      $0.tlsListen = (endpoint: any, isDefault: false)
    } _: { rendezvous in
      var settings = TLSSettings(host: "127.0.0.1", port: try #require(rendezvous.bound.tls?.port))
      settings.authoritiesFile = certificate.certificate
      try await body(settings)
    }
  }

  @Test("a certificate that is out of date, and one that is not valid yet, are told apart from one that nobody signed")
  func outOfDate() async throws {
    for (from, to, words) in [
      ("20200101000000Z", "20200201000000Z", "was valid until 2020-02-01"),
      ("20990101000000Z", "20991231000000Z", "is valid from 2099-01-01 on"),
    ] {
      try await TestCertificate.with(from: from, to: to) { certificate in
        try await Self.serving(certificate) { settings in
          let error = await Self.fault(try TLSDialer(settings))
          #expect(
            error?.reason == .certificateExpired && error?.message.contains(words) == true,
            "\(String(describing: error))")
          #expect(error?.hint?.contains("clock") == true)
        }
      }
    }
  }

  @Test("a file of authorities that is mended, spoilt and mended again is read each time, by the same dialer")
  func authorities() async throws {
    try await TestCertificate.with { other in
      try await TestCertificate.with { certificate in
        try await Self.serving(certificate) { settings in
          let file = certificate.certificate + ".trusted"
          func trust(_ text: String) throws { try text.write(toFile: file, atomically: true, encoding: .utf8) }
          let good = try String(contentsOfFile: certificate.certificate, encoding: .utf8)
          try trust(try String(contentsOfFile: other.certificate, encoding: .utf8))
          var settings = settings
          settings.authoritiesFile = file
          let dialer = try TLSDialer(settings)
          #expect(await Self.fault(dialer)?.reason == .certificateUntrusted)
          try trust(good)
          #expect(await Self.fault(dialer) == nil)
          try trust("-----BEGIN NOTHING-----")
          #expect(await Self.fault(dialer)?.reason == .authoritiesUnusable)
          try trust(good + "\n")
          #expect(await Self.fault(dialer) == nil)
        }
      }
    }
  }
}
