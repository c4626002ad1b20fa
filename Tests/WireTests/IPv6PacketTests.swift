// Views over IPv6, TCP, UDP and ICMPv6 headers, and the Internet checksum.

import Testing
import Wire

/// An IPv6 packet made byte by byte, independent of the code under test.
func makeIPv6(
  next: UInt8, payload: [UInt8], source: String = "fd50:494c:4f54::1", destination: String = "fd50:494c:4f54::2",
  declared: Int? = nil
) -> [UInt8] {
  let length = declared ?? payload.count
  return hex("6b112345") + [UInt8(length >> 8), UInt8(length & 255), next, 63]
    + (IPv6Address(source)?.bytes ?? []) + (IPv6Address(destination)?.bytes ?? []) + payload
}

/// Runs a closure on the view of a packet; nil when there is no view.
private func view<Value>(_ bytes: [UInt8], _ read: (IPv6Packet) -> Value?) -> Value? {
  bytes.withUnsafeBytes { buffer in
    buffer.baseAddress.flatMap { IPv6Packet($0, count: buffer.count) }.flatMap(read)
  }
}

private let tcpSegment = hex("c001 01bb 01020304 05060708 7012 2000 abcd 0000 020405b4 01010402") + Array("data".utf8)

@Suite("IPv6 headers")
struct IPv6PacketTests {
  @Test("the fixed header is read field by field")
  func fixedHeader() {
    let bytes = makeIPv6(next: 17, payload: [1, 2, 3, 4, 5, 6, 7, 8])
    #expect(view(bytes) { $0.totalLength } == 48)
    #expect(view(bytes) { $0.payloadLength } == 8)
    #expect(view(bytes) { $0.nextHeader } == 17)
    #expect(view(bytes) { $0.hopLimit } == 63)
    #expect(view(bytes) { $0.trafficClass } == 0xB1)
    #expect(view(bytes) { $0.source } == IPv6Address("fd50:494c:4f54::1"))
    #expect(view(bytes) { $0.destination } == IPv6Address("fd50:494c:4f54::2"))
    #expect(view(bytes + [0xEE]) { $0.totalLength } == 48)
  }

  @Test("a packet that is cut, of another version, or longer than its bytes is none")
  func malformed() {
    let bytes = makeIPv6(next: 6, payload: tcpSegment)
    for count in 0..<bytes.count { #expect(view(Array(bytes.prefix(count))) { $0.totalLength } == nil) }
    for version in UInt8(0)..<16 where version != 6 {
      #expect(view(bytes.changing(0, to: version << 4)) { $0.totalLength } == nil)
    }
    #expect(view(makeIPv6(next: 6, payload: tcpSegment, declared: 0xFFFF)) { $0.totalLength } == nil)
    #expect(view(makeIPv6(next: 59, payload: [])) { $0.totalLength } == 40)
  }

  @Test("a header written is the header read")
  func writeHeader() throws {
    let source = try #require(IPv6Address("2001:db8::1"))
    var bytes = [UInt8](repeating: 0xAA, count: 43)
    bytes.withUnsafeMutableBytes {
      $0.baseAddress.map {
        IPv6Packet.writeHeader(
          to: $0, payloadLength: 3, nextHeader: 58, hopLimit: 1, source: source, destination: OverlayMapping.resolver)
      }
    }
    #expect(bytes.prefix(8) == hex("60000000 0003 3a 01")[...])
    #expect(view(bytes) { $0.source } == source)
    #expect(view(bytes) { $0.destination } == OverlayMapping.resolver)
  }

  @Test("TCP, UDP and ICMPv6 headers are found right after the fixed one")
  func plainTransport() {
    let tcp = makeIPv6(next: 6, payload: tcpSegment)
    #expect(view(tcp) { $0.transport } == TransportHeader(nextHeader: 6, offset: 40, count: tcpSegment.count))
    #expect(
      view(tcp) { $0.tcp.map { [$0.sourcePort, $0.destinationPort, $0.window, $0.checksum] } }
        == [0xC001, 443, 0x2000, 0xABCD])
    #expect(view(tcp) { $0.tcp.map { [$0.sequence, $0.acknowledgement] } } == [0x0102_0304, 0x0506_0708])
    #expect(view(tcp) { $0.tcp?.flags } == [.syn, .ack])
    #expect(view(tcp) { $0.tcp.map { [$0.headerSize, $0.payloadLength] } } == [28, 4])
    let udp = makeIPv6(next: 17, payload: hex("1234 0035 000a beef 0102"))
    #expect(
      view(udp) { $0.udp.map { [$0.sourcePort, $0.destinationPort, UInt16($0.length), $0.checksum] } }
        == [0x1234, 53, 10, 0xBEEF])
    let echo = makeIPv6(next: 58, payload: hex("80 00 1111 2222 3333"))
    #expect(view(echo) { $0.icmpv6.map { [$0.type, $0.code, $0.isError ? 1 : 0] } } == [128, 0, 0])
    #expect(view(echo) { $0.icmpv6?.identifier } == 0x2222)
    #expect(view(makeIPv6(next: 58, payload: hex("02 00 1111 00000500"))) { $0.icmpv6?.word } == 1280)
    #expect(view(tcp) { $0.udp?.length } == nil)
    #expect(view(udp) { $0.tcp?.sequence } == nil)
  }

  @Test("a TCP header that is cut, or whose data offset lies, is none")
  func malformedTCP() {
    for count in 0..<28 {
      #expect(view(makeIPv6(next: 6, payload: Array(tcpSegment.prefix(count)))) { $0.tcp?.sequence } == nil)
    }
    for offset in UInt8(0)..<16 {
      let isRight = (5...8).contains(offset)
      let bytes = makeIPv6(next: 6, payload: tcpSegment.changing(12, to: offset << 4))
      #expect((view(bytes) { $0.tcp?.headerSize } != nil) == isRight, "data offset \(offset)")
    }
    for count in 0..<8 {
      #expect(view(makeIPv6(next: 17, payload: [UInt8](repeating: 0, count: count))) { $0.udp?.length } == nil)
      #expect(view(makeIPv6(next: 58, payload: [UInt8](repeating: 0, count: count))) { $0.icmpv6?.word } == nil)
    }
  }

  @Test("extension headers are walked over, and only so many")
  func extensionHeaders() {
    func hopByHop(_ next: UInt8, units: UInt8) -> [UInt8] {
      [next, units] + [UInt8](repeating: 0, count: 6 + 8 * Int(units))
    }
    let chain =
      hopByHop(43, units: 0) + hopByHop(60, units: 2) + hopByHop(51, units: 1) + [44, 4]
      + [UInt8](repeating: 0, count: 22) + hex("06 00 0001 00000001") + tcpSegment
    let bytes = makeIPv6(next: 0, payload: chain)
    #expect(view(bytes) { $0.transport?.offset } == 40 + chain.count - tcpSegment.count)
    #expect(view(bytes) { $0.tcp?.destinationPort } == 443)
    for count in 0..<(chain.count - tcpSegment.count) {
      #expect(view(makeIPv6(next: 0, payload: Array(chain.prefix(count)))) { $0.tcp?.sequence } == nil)
    }
    func nested(_ depth: Int) -> [UInt8] {
      var payload = tcpSegment
      for level in 0..<depth { payload = hopByHop(level == 0 ? 6 : 60, units: 0) + payload }
      return makeIPv6(next: depth == 0 ? 6 : 60, payload: payload)
    }
    for depth in 0...12 {
      #expect((view(nested(depth)) { $0.tcp?.sequence } != nil) == (depth <= IPv6Packet.extensionLimit), "\(depth)")
    }
  }

  @Test("a later fragment has no upper-layer header, a first one has")
  func fragments() {
    func fragment(_ offsetAndFlags: String) -> [UInt8] {
      makeIPv6(next: 44, payload: hex("11 00 \(offsetAndFlags) 00000001 1234 0035 0064 beef"))
    }
    #expect(view(fragment("0001")) { $0.udp?.length } == 100)
    #expect(view(fragment("0008")) { $0.transport } == nil)
    #expect(view(fragment("fff8")) { $0.udp?.length } == nil)
  }

  @Test("the checksum equals the 16-bit one by the book, joined runs included")
  func checksum() {
    func slow(_ bytes: [UInt8]) -> UInt16 {
      var sum: UInt32 = 0
      for index in stride(from: 0, to: bytes.count, by: 2) {
        sum += UInt32(bytes[index]) << 8 | (index + 1 < bytes.count ? UInt32(bytes[index + 1]) : 0)
        sum = sum & 0xFFFF + sum >> 16
      }
      return UInt16(sum)
    }
    func fast(_ bytes: [UInt8], initial: UInt64 = 0) -> UInt64 {
      bytes.withUnsafeBytes { buffer in
        buffer.baseAddress.map { InternetChecksum.partial($0, count: buffer.count, initial: initial) } ?? initial
      }
    }
    // RFC 1071 §3.
    #expect(InternetChecksum.fold(fast(hex("0001f203f4f5f6f7"))) == 0xDDF2)
    var generator = SeededGenerator(seed: 1071)
    for count in 0..<300 {
      let bytes = generator.bytes(count)
      #expect(InternetChecksum.fold(fast(bytes)) == slow(bytes), "\(count) bytes")
      let half = count / 4 * 2
      #expect(InternetChecksum.fold(fast(Array(bytes[half...]), initial: fast(Array(bytes[..<half])))) == slow(bytes))
    }
    let full = [UInt8](repeating: 0xFF, count: 65_535)
    #expect(InternetChecksum.fold(fast(full)) == slow(full))
    #expect(InternetChecksum.finish(0) == 0xFFFF && InternetChecksum.finish(0xFFFF) == 0)
    #expect(InternetChecksum.fold(.max) == 0xFFFF)
  }
}
