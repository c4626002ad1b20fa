// The dialogue with a proxy, and proxies that misbehave.

import NIOCore
import NIOEmbedded
import Testing

@testable import TLSTransport

@Suite("CONNECT")
struct ProxyConnectTests {
  /// A channel whose other end is the test: what was asked, and what came of the answers.
  private struct Dialogue {
    let channel = EmbeddedChannel()
    let outcome: EventLoopFuture<Void>
    let result: Box

    final class Box {
      var value: Result<Void, any Error>?
    }

    init(_ credentials: ProxyCredentials? = nil) throws {
      let promise = channel.eventLoop.makePromise(of: Void.self)
      outcome = promise.futureResult
      let box = Box()
      result = box
      outcome.assumeIsolated().whenComplete { box.value = $0 }
      try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
      try ProxyConnectHandler.install(
        on: channel, authority: "home.example:443", proxy: try ProxyAddress(parsing: "http://proxy:3128"),
        credentials: credentials, patience: .seconds(8), outcome: promise)
    }

    func request() throws -> String {
      var text = ""
      while let part = try channel.readOutbound(as: ByteBuffer.self) { text += String(buffer: part) }
      return text
    }

    func answer(_ text: String) throws { _ = try? channel.writeInbound(ByteBuffer(string: text)) }

    var error: TransportError? {
      if case .failure(let error)? = result.value { return error as? TransportError }
      return nil
    }

    var isDone: Bool { if case .success? = result.value { true } else { false } }
  }

  @Test("asks once, with credentials when there are some, and leaves nothing behind")
  func works() throws {
    let dialogue = try Dialogue(ProxyCredentials(user: "me", password: "word"))
    let request = try dialogue.request()
    #expect(request.hasPrefix("CONNECT home.example:443 HTTP/1.1\r\n"))
    #expect(request.lowercased().contains("host: home.example:443\r\n"))
    #expect(request.contains("Proxy-Authorization: Basic bWU6d29yZA==\r\n"))
    try dialogue.answer("HTTP/1.1 200 Connection established\r\n")
    #expect(!dialogue.isDone)
    try dialogue.answer("X-Proxy: yes\r\n\r\n")
    dialogue.channel.embeddedEventLoop.run()
    #expect(dialogue.isDone)
    // From here on the pipeline is the caller's: bytes pass as they are.
    try dialogue.answer("\u{16}raw")
    #expect(try dialogue.channel.readInbound(as: ByteBuffer.self).map { String(buffer: $0) } == "\u{16}raw")
    try dialogue.channel.writeOutbound(ByteBuffer(string: "hello"))
    #expect(try dialogue.request() == "hello")
  }

  @Test(
    "refusals are told apart",
    arguments: [
      (
        "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
        TransportError.Code.proxyCredentials
      ),
      ("HTTP/1.0 403 Forbidden\r\n\r\n", .proxyRefused), ("HTTP/1.1 502 Bad Gateway\r\n\r\n", .proxyRefused),
      ("HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\n\r\n", .proxyRefused),
      ("SSH-2.0-OpenSSH_9.2\r\n", .proxyRefused), ("\u{0}\u{1}\u{2}\u{3}\r\n\r\n", .proxyRefused),
    ])
  func refusals(answer: String, code: TransportError.Code) throws {
    let dialogue = try Dialogue()
    #expect(try !dialogue.request().contains("Proxy-Authorization"))
    try dialogue.answer(answer)
    dialogue.channel.embeddedEventLoop.run()
    #expect(dialogue.error?.reason == code)
    #expect(!dialogue.channel.isActive)
  }

  @Test("an endless head, silence and an early end are no tunnels")
  func hostile() throws {
    let endless = try Dialogue()
    try endless.answer("HTTP/1.1 200 OK\r\n")
    for _ in 0..<400 where endless.error == nil {
      try endless.answer("X-Filler: " + String(repeating: "x", count: 1000) + "\r\n")
    }
    #expect(endless.error?.reason == .proxyRefused)

    let mute = try Dialogue()
    mute.channel.embeddedEventLoop.advanceTime(by: .seconds(9))
    #expect(mute.error?.reason == .proxyUnreachable)

    let short = try Dialogue()
    try short.answer("HTTP/1.1 200")
    short.channel.pipeline.fireChannelInactive()
    short.channel.embeddedEventLoop.run()
    #expect(short.error?.reason == .proxyRefused)
  }
}
