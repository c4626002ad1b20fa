// DNS messages: queries of all kinds of malice, answers, compression, truncation.

import Testing
import Wire

private let zone = DNSName("pilot") ?? .root
private let node = DNSName("node-a.pilot") ?? .root
/// A query for AAAA of NODE-A.pilot with OPT, as `dig` sends it: id 0x1234, RD, AD, UDP size 1232, DO, a cookie.
private let plainQuery = hex("1234 0120 0001 0000 0000 0000") + hex("06 4e4f44452d41 05 70696c6f74 00 001c 0001")
private let digQuery =
  hex("1234 0120 0001 0000 0000 0001") + plainQuery.dropFirst(12)
  + hex("00 0029 04d0 00 00 8000 000c 000a 0008 0102030405060708")

private func verdict(_ bytes: [UInt8]) -> DNSError? {
  do {
    _ = try DNSQuery(bytes)
    return nil
  } catch {
    return error
  }
}

private func responseCode(_ bytes: [UInt8]) -> DNSResponseCode? {
  guard case .answered(let answer)? = verdict(bytes) else { return nil }
  return answer.responseCode
}

@Suite("DNS queries")
struct DNSQueryTests {
  @Test("a query as dig sends it is read")
  func digSends() throws {
    let query = try DNSQuery(digQuery)
    #expect(query.question == DNSQuestion(name: node, type: .aaaa))
    #expect(query.question.name.labels.first == Array("NODE-A".utf8))
    #expect(query.message.id == 0x1234 && query.message.recursionDesired && !query.message.checkingDisabled)
    #expect(query.message.edns == DNSExtension(udpSize: 1232, version: 0, wantsDNSSEC: true))
    #expect(query.udpLimit == 1232)
    let plain = try DNSQuery(plainQuery)
    #expect(plain.message.edns == nil && plain.udpLimit == 512)
  }

  @Test("the UDP limit follows the client between 512 and 1232", arguments: [(0, 512), (600, 600), (65_535, 1232)])
  func udpLimit(size: UInt16, limit: Int) throws {
    let query = DNSMessage.query(id: 1, node, .aaaa, edns: DNSExtension(udpSize: size))
    #expect(try DNSQuery(query.encoded()).udpLimit == limit)
  }

  @Test("what is too short for a header and what is a response is dropped")
  func dropped() {
    for count in 0..<12 { #expect(verdict(Array(digQuery.prefix(count))) == .dropped, "\(count) bytes") }
    #expect(verdict(digQuery.changing(2, to: 0x81)) == .dropped)
  }

  @Test("an opcode other than 0 is not implemented, whatever follows")
  func opcodes() {
    for opcode in UInt8(1)..<16 {
      let bytes = digQuery.changing(2, to: opcode << 3 | 1)
      #expect(
        verdict(bytes)
          == .answered(
            DNSMessage(
              id: 0x1234, isResponse: true, opcode: opcode, recursionDesired: true, responseCode: .notImplemented)))
      #expect(responseCode(Array(bytes.prefix(12))) == .notImplemented)
    }
  }

  @Test("a query cut anywhere behind its header, or with bytes behind its end, is a format error")
  func cut() throws {
    for bytes in [plainQuery, digQuery] {
      for count in 12..<bytes.count {
        let expected = DNSMessage(id: 0x1234, isResponse: true, recursionDesired: true, responseCode: .formatError)
        #expect(verdict(Array(bytes.prefix(count))) == .answered(expected), "\(count) bytes")
      }
      #expect(responseCode(bytes + [0]) == .formatError)
    }
    guard case .answered(let answer)? = verdict(Array(digQuery.prefix(20))) else { return }
    #expect(answer.encoded() == hex("1234 8101 0000 0000 0000 0000"))
  }

  @Test("no question, two questions, and records that no query has are format errors")
  func counts() {
    let question = Array(plainQuery.dropFirst(12))
    #expect(responseCode(plainQuery.changing(5, to: 0)) == .formatError)
    #expect(responseCode(hex("1234 0100 0000 0000 0000 0000")) == .formatError)
    #expect(responseCode(plainQuery.changing(5, to: 2) + question) == .formatError)
    let record = question.prefix(18) + hex("00000001 0000")
    for index in [7, 9] { #expect(responseCode(plainQuery.changing(index, to: 1) + record) == .formatError) }
    let opt = hex("00 0029 0200 00000000 0000")
    #expect(responseCode(plainQuery.changing(11, to: 1) + opt) == nil)
    #expect(responseCode(plainQuery.changing(11, to: 2) + opt + opt) == .formatError)
    #expect(responseCode(plainQuery.changing(11, to: 1) + hex("0161 00 0029 0200 00000000 0000")) == .formatError)
    #expect(responseCode(plainQuery.changing(11, to: 1) + hex("00 0029 0200 00000000 0003 000a00")) == .formatError)
    #expect(responseCode(plainQuery.changing(11, to: 1) + hex("00 0029 0200 00000000 0005 000a000200")) == .formatError)
    // Something signed comes with a record nobody here reads.
    let unknown = hex("00 00fa 00ff 00000000 0002 abcd")
    #expect(responseCode(plainQuery.changing(11, to: 2) + opt + unknown) == nil)
    #expect(responseCode(plainQuery.changing(11, to: 5) + (0..<5).flatMap { _ in unknown }) == .formatError)
  }

  @Test("bad labels in the question are format errors")
  func badLabels() {
    func query(_ name: String) -> [UInt8] { hex("1234 0100 0001 0000 0000 0000 \(name) 001c 0001") }
    #expect(responseCode(query("00")) == nil)
    // Pointers: to itself, to the header, forwards; reserved label types; a length that leads past the end.
    for name in ["c00c", "c000", "c012", "01 61 c00c", "01 61 c00e", "40 61 00", "80 61 00", "3f 61 00", "ff", "c0"] {
      #expect(responseCode(query(name)) == .formatError, "\(name)")
    }
    let label = "3f" + String(repeating: "61", count: 63)
    let longest = label + label + label + "3d" + String(repeating: "61", count: 61) + "00"
    #expect(responseCode(query(longest)) == nil)
    let tooLong = label + label + label + "3e" + String(repeating: "61", count: 62) + "00"
    #expect(responseCode(query(tooLong)) == .formatError)
    #expect(responseCode(query(String(repeating: "0161", count: 200) + "00")) == .formatError)
  }

  @Test("a version of EDNS we do not speak is answered with BADVERS in the OPT record")
  func badVersion() throws {
    let query = try DNSQuery(
      DNSMessage.query(id: 7, node, .aaaa, edns: DNSExtension(udpSize: 4096, version: 1)).encoded())
    #expect(query.message.edns?.version == 1)
    let answer = query.answer(.badVersion, isAuthoritative: false)
    let bytes = answer.encoded(limit: query.udpLimit)
    #expect(bytes[3] & 15 == 0 && bytes.suffix(11) == hex("00 0029 04d0 01 00 0000 0000")[...])
    #expect(DNSMessage(bytes)?.responseCode == .badVersion)
  }
}

@Suite("DNS answers")
struct DNSAnswerTests {
  private let address = OverlayMapping.address(for: PilotAddress(network: 0, node: 0x00A3_F291))

  @Test("an AAAA answer is what resolvers expect, byte by byte")
  func addressAnswer() throws {
    let query = try DNSQuery(digQuery)
    let record = DNSRecord(name: query.question.name, ttl: 30, data: .aaaa(address))
    let bytes = query.answer(answers: [record]).encoded(limit: query.udpLimit)
    let expected =
      hex("1234 8500 0001 0001 0000 0001") + plainQuery.dropFirst(12)
      + hex("c00c 001c 0001 0000001e 0010 fd50494c4f540000 0000000000a3f291") + hex("00 0029 04d0 00 00 8000 0000")
    #expect(bytes == expected)
  }

  @Test("a negative answer carries the SOA, compressed against the question")
  func negativeAnswer() throws {
    let query = try DNSQuery(plainQuery)
    let soa = DNSStartOfAuthority(
      primary: try #require(DNSName("ns.pilot")), mailbox: try #require(DNSName("hostmaster.pilot")), serial: 1,
      refresh: 3600, retry: 600, expire: 86_400, minimum: 5)
    let answer = query.answer(.nameError, authority: [DNSRecord(name: zone, ttl: 5, data: .soa(soa))])
    let bytes = answer.encoded()
    #expect(
      Array(bytes.dropFirst(plainQuery.count))
        == hex("c013 0006 0001 00000005 0026") + hex("02 6e73 c013 0a 686f73746d6173746572 c013")
        + hex("00000001 00000e10 00000258 00015180 00000005"))
    #expect(DNSMessage(bytes) == answer)
  }

  @Test("every kind of record survives writing and reading")
  func roundTrip() throws {
    let soa = DNSStartOfAuthority(
      primary: node, mailbox: .root, serial: .max, refresh: 1, retry: 2, expire: 3, minimum: 4)
    let records: [DNSRecordData] = [
      .a(0xC000_0207), .aaaa(address), .ns(node), .ptr(node), .soa(soa), .txt([Array("v=1".utf8), []]),
      .txt([[UInt8](repeating: 0xFE, count: 255)]), .other(DNSRecordType(rawValue: 64), [0, 1, 0, 0xC0]),
      .other(DNSRecordType(rawValue: 99), []),
    ]
    let all = records.map { DNSRecord(name: node, ttl: 7, data: $0) }
    var message = DNSMessage(
      id: 0xFFFF, isResponse: true, opcode: 0, isAuthoritative: true, recursionDesired: true, recursionAvailable: true,
      checkingDisabled: true, responseCode: DNSResponseCode(rawValue: 0xABC),
      questions: [DNSQuestion(name: node, type: .any, recordClass: DNSClass(rawValue: 3))], answers: all,
      authority: all.reversed(), additional: all, edns: DNSExtension(udpSize: 600, version: 3, wantsDNSSEC: true))
    message.additional.append(
      DNSRecord(name: zone, recordClass: DNSClass(rawValue: 3), ttl: .max, data: .other(.aaaa, [1, 2])))
    #expect(DNSMessage(message.encoded()) == message)
    // Cut anywhere, it is no message.
    let bytes = message.encoded()
    for count in 0..<bytes.count { #expect(DNSMessage(bytes.prefix(count)) == nil, "\(count) bytes") }
    #expect(DNSMessage(bytes + [0]) == nil)
  }

  @Test("an extended error travels in OPT, byte for byte as RFC 8914 §2 has it, and malformed ones are ignored")
  func extendedErrors() throws {
    let query = try DNSQuery(DNSMessage.query(id: 1, zone, .soa).encoded())
    let answer = query.answer(.refused, reason: DNSExtendedError(code: 20, "no"))
    let bytes = answer.encoded()
    #expect(DNSMessage(bytes) == answer)
    let option = hex("00 0029 04D0 00000000 0008 000F 0004 0014 6E6F")
    #expect(Array(bytes.suffix(option.count)) == option)
    // Shorter than its code, and longer than anyone reads.
    let head = hex("0001 8000 0000 0000 0000 0001")
    for (length, text) in [("0001", [0]), ("0103", [UInt8](repeating: 65, count: 259))] as [(String, [UInt8])] {
      let size = UInt16(text.count + 4)
      let data = [UInt8(size >> 8), UInt8(truncatingIfNeeded: size)] + hex("000F" + length) + text
      let message = try #require(DNSMessage(head + hex("00 0029 0200 00000000") + data))
      #expect(message.edns?.reason == nil)
      #expect(DNSMessage(message.encoded()) == message)
    }
    // The longest one leaves room for the longest question.
    let longest = try #require(DNSExtendedError(code: 0, text: [UInt8](repeating: 65, count: 128)))
    #expect(DNSExtendedError(code: 0, text: [UInt8](repeating: 65, count: 129)) == nil)
    let labels = [[UInt8]](repeating: [UInt8](repeating: 97, count: 61), count: 4)
    let long = DNSMessage.query(id: 1, try #require(DNSName(labels: labels)), .aaaa)
    let full = try DNSQuery(long.encoded()).answer(.serverFailure, reason: longest).encoded(limit: 512)
    let read = try #require(DNSMessage(full))
    #expect(full.count <= 512 && read.edns?.reason == longest && read.questions == long.questions)
  }

  @Test("records whose data has a wrong size are refused")
  func wrongDataSizes() {
    let head = hex("0001 8000 0000 0001 0000 0000 00")
    for data in [
      "001c 0001 00000000 000f 000102030405060708090a0b0c0d0e",
      "001c 0001 00000000 0011 000102030405060708090a0b0c0d0e0f10",
      "0001 0001 00000000 0003 010203", "0010 0001 00000000 0000", "0010 0001 00000000 0002 0261",
      "0010 0001 00000000 0003 016102", "000c 0001 00000000 0000", "000c 0001 00000000 0002 0000",
      "000c 0001 00000000 0002 0161", "0006 0001 00000000 0002 0000", "001c 0001 00000000 ffff",
      "0029 0200 00000000 0000",
    ] {
      #expect(DNSMessage(head + hex(data)) == nil, "\(data)")
    }
    #expect(DNSMessage(head + hex("000c 0001 00000000 0001 00")) != nil)
  }

  @Test("compression pointers lead backwards only; loops and bombs are refused")
  func pointers() {
    func answer(_ names: String, count: String = "0001") -> [UInt8] {
      hex("0001 8000 0000 \(count) 0000 0000 \(names)")
    }
    let tail = "00ff 0001 00000000 0000"
    // Two names of "a." and a pointer to the first; then pointers to themselves, into the header, forwards.
    #expect(DNSMessage(answer("0161 00 \(tail) c00c \(tail)", count: "0002"))?.answers.last?.name == DNSName("a"))
    for name in ["c00c", "c000", "c00b", "c00e", "0161 c00c", "0161 c00e", "c0ff", "ffff"] {
      #expect(DNSMessage(answer("\(name) \(tail)")) == nil, "\(name)")
    }
    // A pointer into the middle of a name, and through another pointer, are fine.
    let chain = DNSMessage(answer("0161 0162 00 \(tail) 0163 c00e \(tail) 0164 c01b \(tail)", count: "0003"))
    #expect(chain?.answers.map(\.name.description) == ["a.b.", "c.b.", "d.c.b."])
    // Names that grow by pointing to the one before stop at 255 bytes.
    func growing(_ count: Int) -> [UInt8] {
      var bytes = hex("0001 8000 0000 00ff 0000 0000").changing(7, to: UInt8(count))
      var last = 0
      for index in 0..<count {
        let start = bytes.count
        bytes += [1, 0x61] + (index == 0 ? [0] : [0xC0 | UInt8(last >> 8), UInt8(last & 255)]) + hex(tail)
        last = start
      }
      return bytes
    }
    #expect(DNSMessage(growing(127))?.answers.last?.name.wireSize == 255)
    #expect(DNSMessage(growing(128)) == nil)
  }

  @Test("an answer above the limit is truncated at a whole record and says so; OPT stays")
  func truncation() throws {
    let query = try DNSQuery(digQuery)
    let records = (0..<60).map { DNSRecord(name: node, ttl: 1, data: .aaaa(IPv6Address(high: 0, low: $0))) }
    let whole = query.answer(answers: records)
    #expect(DNSMessage(whole.encoded())?.answers.count == 60)
    for limit in [0, 512, 513, 540, 1232] {
      let bytes = whole.encoded(limit: limit)
      #expect(bytes.count <= max(limit, 512) && bytes.count > max(limit, 512) - 28)
      let read = try #require(DNSMessage(bytes))
      #expect(read.isTruncated && read.edns != nil && read.questions == [query.question])
      #expect(read.answers == Array(records.prefix(read.answers.count)))
    }
    // Additional records may be left out in silence; authority records may not.
    let extra = query.answer(answers: Array(records.prefix(3)), additional: records).encoded(limit: 512)
    #expect(DNSMessage(extra)?.isTruncated == false)
    #expect(DNSMessage(extra)?.answers.count == 3)
    #expect(DNSMessage(query.answer(authority: records).encoded(limit: 512))?.isTruncated == true)
  }

  @Test("nothing but OPT follows a record that did not fit, even if it would fit itself")
  func nothingAfterTheCut() throws {
    let query = try DNSQuery(digQuery)
    let long = try #require(DNSName("long-name-that-comes-late.elsewhere"))
    let filler = DNSRecord(name: node, ttl: 1, data: .txt([[UInt8](repeating: 1, count: 200)]))
    let late = DNSRecord(name: long, ttl: 1, data: .txt([[UInt8](repeating: 2, count: 200)]))
    let message = query.answer(
      answers: [filler, filler, late], authority: [DNSRecord(name: node, ttl: 1, data: .a(1))],
      additional: [DNSRecord(name: node, ttl: 1, data: .a(1))])
    let read = try #require(DNSMessage(message.encoded(limit: 512)))
    #expect(read.isTruncated && read.answers == [filler, filler])
    #expect(read.authority.isEmpty && read.additional.isEmpty && read.edns != nil)
  }

  @Test("names beyond the reach of a pointer are written whole")
  func pointerReach() throws {
    let far = try #require(DNSName("far.pilot"))
    let data = DNSRecordData.other(DNSRecordType(rawValue: 999), [UInt8](repeating: 0, count: 17_000))
    let filler = DNSRecord(name: .root, ttl: 1, data: data)
    let message = DNSMessage(
      id: 1, isResponse: true,
      answers: [filler, DNSRecord(name: far, ttl: 1, data: .a(1)), DNSRecord(name: far, ttl: 1, data: .a(2))])
    let bytes = message.encoded()
    #expect(DNSMessage(bytes) == message)
    #expect(bytes.count == 12 + 11 + 17_000 + 2 * (11 + 14))
  }
}
