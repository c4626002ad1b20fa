// ICMPv6 errors against a slow model that is written from RFC 4443 alone.

import Testing
import Wire

/// The error a plain reading of RFC 4443 makes, or nil when it forbids one.
private func model(
  type: UInt8, code: UInt8, word: UInt32, to packet: [UInt8], from source: IPv6Address, room: Int = 1280
) -> [UInt8]? {
  guard packet.count >= 40, packet[0] >> 4 == 6 else { return nil }
  let total = 40 + Int(packet[4]) * 256 + Int(packet[5])
  guard total <= packet.count, room >= 48 else { return nil }
  let (from, to) = (Array(packet[8..<24]), Array(packet[24..<40]))
  if from[0] == 0xFF || from.allSatisfy({ $0 == 0 }) || (to[0] == 0xFF && type != 2) { return nil }
  if packet[6] == 58 {
    guard total > 40, packet[40] >= 128, packet[40] != 137 else { return nil }
  }
  let quote = Array(packet[..<min(total, 1280 - 48, room - 48)])
  var body = [type, code, 0, 0] + (0..<4).map { UInt8(truncatingIfNeeded: word >> UInt32(24 - 8 * $0)) } + quote
  let length = [UInt8(body.count >> 8), UInt8(body.count & 255)]
  let summed = source.bytes + from + [0, 0] + length + [0, 0, 0, 58] + body
  var sum = 0
  for (index, byte) in summed.enumerated() { sum += index % 2 == 0 ? Int(byte) << 8 : Int(byte) }
  while sum > 0xFFFF { sum = sum & 0xFFFF + sum >> 16 }
  body[2] = UInt8(~sum >> 8 & 255)
  body[3] = UInt8(~sum & 255)
  return hex("60000000") + length + [58, 64] + source.bytes + from + body
}

private func build(
  _ message: ICMPv6.Message, to packet: [UInt8], from source: IPv6Address, room: Int = 1280
) -> [UInt8]? {
  var buffer = [UInt8](repeating: 0xAA, count: room)
  let size = packet.withUnsafeBytes { packet in
    buffer.withUnsafeMutableBytes { buffer in
      packet.baseAddress.map {
        ICMPv6.writeError(message, inReplyTo: $0, count: packet.count, from: source, to: buffer)
      } ?? 0
    }
  }
  #expect(buffer[size...].allSatisfy { $0 == 0xAA }, "wrote past its own length")
  return size == 0 ? nil : Array(buffer[..<size])
}

@Suite("ICMPv6 errors")
struct ICMPv6Tests {
  private let source = OverlayMapping.address(for: PilotAddress(network: 0, node: 9))
  private let messages: [(ICMPv6.Message, UInt8, UInt8, UInt32)] = [
    (.unreachable(.noRoute), 1, 0, 0), (.unreachable(.prohibited), 1, 1, 0), (.unreachable(.address), 1, 3, 0),
    (.unreachable(.port), 1, 4, 0), (.packetTooBig(mtu: 1400), 2, 0, 1400), (.hopLimitExceeded, 3, 0, 0),
  ]

  @Test("an error equals the model's for packets of every size, quoting what fits 1280 bytes")
  func sizes() throws {
    var generator = SeededGenerator(seed: 4443)
    for size in [0, 1, 2, 7, 8, 100, 1191, 1192, 1193, 1232, 1360, 9000, 65_535] {
      let packet = makeIPv6(next: 17, payload: generator.bytes(size))
      for (message, type, code, word) in messages {
        let answer = try #require(build(message, to: packet, from: source))
        #expect(answer == model(type: type, code: code, word: word, to: packet, from: source), "\(size) bytes")
        #expect(answer.count == min(48 + 40 + size, 1280))
      }
    }
  }

  @Test("bytes after the declared length are not quoted")
  func trailingBytes() throws {
    let packet = makeIPv6(next: 17, payload: hex("0102030405060708"))
    #expect(
      build(.unreachable(.noRoute), to: packet + [9, 9, 9], from: source)
        == build(.unreachable(.noRoute), to: packet, from: source))
  }

  @Test("a small buffer gets a shorter quote, one without room for the header nothing")
  func smallBuffer() {
    let packet = makeIPv6(next: 17, payload: [UInt8](repeating: 1, count: 100))
    for room in [0, 1, 47, 48, 49, 90, 187, 188, 189] {
      #expect(
        build(.unreachable(.noRoute), to: packet, from: source, room: room)
          == model(type: 1, code: 0, word: 0, to: packet, from: source, room: room), "room \(room)")
    }
  }

  @Test("an ICMPv6 error is never answered by an error; an echo is")
  func errorsAreNotAnswered() {
    for type in UInt8.min...UInt8.max {
      let packet = makeIPv6(next: 58, payload: [type, 0, 0, 0, 0, 0, 0, 0])
      let isAnswered = build(.unreachable(.address), to: packet, from: source) != nil
      #expect(isAnswered == (type >= 128 && type != 137), "type \(type)")
    }
    #expect(build(.unreachable(.address), to: makeIPv6(next: 58, payload: []), from: source) == nil)
    // Behind an extension header, too.
    let hidden = makeIPv6(next: 60, payload: hex("3a00000000000000 0100000000000000"))
    #expect(build(.unreachable(.address), to: hidden, from: source) == nil)
    // Where the chain is broken, nobody knows what it hides.
    #expect(build(.unreachable(.address), to: makeIPv6(next: 60, payload: hex("3aff")), from: source) == nil)
  }

  @Test("a later fragment is answered only when it says that it is no ICMPv6")
  func fragments() {
    func fragment(_ next: String) -> [UInt8] { makeIPv6(next: 44, payload: hex("\(next) 00 0008 00000001 01020304")) }
    #expect(build(.unreachable(.address), to: fragment("11"), from: source) != nil)
    #expect(build(.unreachable(.address), to: fragment("06"), from: source) != nil)
    #expect(build(.unreachable(.address), to: fragment("3a"), from: source) == nil)
    #expect(build(.unreachable(.address), to: fragment("3c"), from: source) == nil)
  }

  @Test("multicast and unspecified addresses get no error, but a multicast packet may be too big")
  func multicast() {
    for from in ["::", "ff02::1"] {
      for (message, _, _, _) in messages {
        #expect(build(message, to: makeIPv6(next: 17, payload: [1], source: from), from: source) == nil, "\(from)")
      }
    }
    let group = makeIPv6(next: 17, payload: [1], destination: "ff02::fb")
    for (message, type, code, word) in messages {
      let expected = model(type: type, code: code, word: word, to: group, from: source)
      #expect(build(message, to: group, from: source) == expected)
      #expect((build(message, to: group, from: source) != nil) == (type == 2))
    }
  }

  @Test("random packets get the model's answer", arguments: [UInt64(2463), UInt64.random(in: 0...UInt64.max)])
  func random(seed: UInt64) {
    print("ICMPv6 random seed \(seed)")
    var generator = SeededGenerator(seed: seed)
    for _ in 0..<500 {
      // No extension headers: the model does not know them.
      let next: UInt8 = ([6, 17, 58, 59] as [UInt8]).randomElement(using: &generator) ?? 6
      let payload = generator.bytes(Int.random(in: 0...200, using: &generator))
      let declared = Bool.random(using: &generator) ? payload.count : Int.random(in: 0...220, using: &generator)
      var packet = makeIPv6(next: next, payload: payload, declared: declared)
      if Bool.random(using: &generator) { packet[Bool.random(using: &generator) ? 8 : 24] = 0xFF }
      packet = Array(packet.prefix(Int.random(in: 38...300, using: &generator)))
      for (message, type, code, word) in messages {
        #expect(
          build(message, to: packet, from: source)
            == model(type: type, code: code, word: word, to: packet, from: source))
      }
    }
  }
}
