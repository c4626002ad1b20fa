// What a node and a rendezvous write into a WebSocket is what others read, and neither holds much for a mute reader.

import NIOCore
import NIOEmbedded
import NIOWebSocket
import SeededRandom
import Synchronization
import Testing
import Wire

@testable import TLSTransport

@Suite("WebSocket")
struct WebSocketTests {
  @Test("frames of every length are read back by NIO's decoder, masked and not")
  func frames() throws {
    var random = SeededGenerator(seed: 3)
    for length in [0, 1, 125, 126, 127, 1400, 65_534, 65_535, 65_536] {
      for masks in [false, true] {
        let payload = ByteBuffer(bytes: (0..<length).map { _ in UInt8.random(in: 0...255, using: &random) })
        var bytes = ByteBuffer()
        WebSocketOutlet.append(payload, .binary, masks ? .random(in: 1...(.max), using: &random) : nil, to: &bytes)
        WebSocketOutlet.append(payload, .ping, nil, to: &bytes)
        let channel = EmbeddedChannel(handler: ByteToMessageHandler(WebSocketFrameDecoder(maxFrameSize: 1 << 20)))
        if length > 125 {
          bytes = ByteBuffer(
            bytes: bytes.readableBytesView.prefix(length + (masks ? 4 : 0) + (length > 65_535 ? 10 : 4)))
        }
        try channel.writeInbound(bytes)
        let frame = try #require(try channel.readInbound(as: WebSocketFrame.self))
        let isSame = frame.unmaskedData == payload
        #expect(isSame && frame.fin && frame.opcode == .binary && (frame.maskKey != nil) == masks, "\(length)")
      }
    }
  }

  @Test("a reader that stops costs its own messages, counted, and no memory")
  func bounded() throws {
    let channel = EmbeddedChannel()
    try channel.pipeline.syncOperations.addHandler(WebSocketFrameEncoder())
    let outlet = WebSocketOutlet(channel: channel, masks: false, limit: 10_000)
    let message = ByteBuffer(repeating: 7, count: 1000)
    // The event loop does not run: nothing leaves.
    let taken = (0..<100).count { _ in outlet.send(message) }
    #expect(taken == 9 || taken == 10)
    channel.embeddedEventLoop.run()
    #expect(outlet.send(message), "what has left makes room")
    var written = 0
    while let part = try channel.readOutbound(as: ByteBuffer.self) { written += part.readableBytes }
    #expect(written == taken * 1004, "one write for all, a header of four bytes for each")
  }

  @Test("what was sent as counted is told once: written, or lost with the connection; nothing follows the end")
  func settled() throws {
    struct Told: Equatable {
      var messages = 0
      var bytes = 0
      var lost = 0
    }
    let told = Mutex(Told())
    let channel = EmbeddedChannel()
    try channel.pipeline.syncOperations.addHandler(WebSocketFrameEncoder())
    let outlet = WebSocketOutlet(channel: channel, masks: true) { batch, isWritten in
      told.withLock { told in
        guard isWritten else { return told.lost += batch.messages }
        told.messages += batch.messages
        told.bytes += batch.bytes
      }
    }
    for size in [100, 200, 300] { #expect(outlet.send(ByteBuffer(repeating: 1, count: size), isCounted: true)) }
    outlet.send(ByteBuffer(), as: .ping)
    outlet.send(ByteBuffer(string: "not counted"))
    #expect(told.withLock { $0 } == Told(), "nothing is written yet")
    channel.embeddedEventLoop.run()
    #expect(told.withLock { $0 } == Told(messages: 3, bytes: 600))

    _ = try channel.finish()
    #expect(outlet.send(ByteBuffer(string: "late"), isCounted: true))
    channel.embeddedEventLoop.run()
    #expect(told.withLock { $0 } == Told(messages: 3, bytes: 600, lost: 1))
    outlet.close(.goingAway)
    #expect(!outlet.send(ByteBuffer(string: "after the end"), isCounted: true) && outlet.isClosing)
  }

  @Test("masks are drawn in blocks, none twice, and undo themselves at every length and place")
  func masks() {
    var source = MaskSource()
    let drawn = (0..<10_000).map { _ in source.next() }
    // 10,000 numbers of 32 bits: a pair is the same in one of 86 runs, three pairs in one of 10^6.
    #expect(Set(drawn).count >= 9_998)
    for length in 0..<40 {
      let plain = (0..<length).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ 3) }
      var bytes = plain
      bytes.withUnsafeMutableBytes { MaskSource.apply(0x0102_0304, to: $0) }
      let expected = plain.enumerated().map { $1 ^ UInt8($0 % 4 + 1) }
      #expect(bytes == expected, "\(length)")
    }
  }

  @Test("the texts of the authentication are read back, and their malformed twins are not")
  func authentication() throws {
    let key = try #require(Bytes32((0..<32).map { UInt8($0) }))
    let signature = try #require(Bytes64((0..<64).map { UInt8($0) }))
    let all: [CompatAuthentication] = [
      .challenge(nonce: "00ff", time: 0), .reply(node: 7, key: key, signature: signature), .accepted,
    ]
    for message in all {
      let text = Array(message.text.utf8)
      #expect(CompatAuthentication(text) == message)
      for length in 0..<text.count { #expect(CompatAuthentication(Array(text.prefix(length))) == nil) }
    }
    let reply = all[1].text
    for (part, twin) in [
      ("\"node_id\":7", "\"node_id\":0"), ("\"node_id\":7", "\"node_id\":4294967295"),
      ("\"node_id\":7", "\"node_id\":-1"),
      ("\"node_id\":7", "\"node_id\":\"7\""), ("AAEC", "AAE"), ("auth_reply", "auth_yes"), ("\"sig\"", "\"sign\""),
    ] {
      let (before, after) = try #require(
        reply.firstRange(of: part).map { (reply[..<$0.lowerBound], reply[$0.upperBound...]) })
      #expect(CompatAuthentication(Array((before + twin + after).utf8)) == nil, "\(twin)")
    }
    let short = CompatAuthentication(Array("{\"type\":\"auth_challenge\",\"nonce\":\"ab\"}".utf8))
    #expect(short == .challenge(nonce: "ab", time: 0), "a server may tell no time")
    for text in [
      "{\"type\":\"auth_challenge\",\"nonce\":\"ab\",\"ts\":\"1\"}", "{\"type\":\"auth_challenge\"}",
      "{\"type\":\"auth_challenge\",\"nonce\":\"\"}",
      "{\"type\":\"auth_challenge\",\"nonce\":\"a b\"}",
      "{\"type\":\"auth_challenge\",\"nonce\":\"" + String(repeating: "a", count: 129) + "\"}",
      "[\"auth_ok\"]", "null", "{\"type\":\"auth_ok\",\"x\":\"" + String(repeating: "a", count: 1024) + "\"}",
    ] {
      #expect(CompatAuthentication(Array(text.utf8)) == nil, "\(text)")
    }
    // As the official daemon 1.18.0 writes it.
    let recorded =
      #"{"type":"auth_reply","node_id":3934529062,"public_key":"A3uRAlSzNlMi8LmyOH9oHns0qDURR931MK+bVrGjc4A=","#
      + #""sig":"WHXNTiVekA6rxz6EZjY01f3g7Jz5uOanDerqz5RNnAH2yzmms59wJssoBRTMaygIc0Nh5I+LdH9X5qqiU+KPAQ=="}"#
    guard case .reply(3_934_529_062, _, _)? = CompatAuthentication(Array(recorded.utf8)) else {
      Issue.record("the recorded reply is not read")
      return
    }
    #expect(CompatAuthentication.signed(node: 7, time: 9, nonce: "ab") == Array("compat_auth:7:9:ab".utf8))
  }
}
