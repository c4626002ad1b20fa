// Bytes that are no honest query: none of them may trap, loop, or draw more than it sent by much.
import SeededRandom
import Naming
import Testing
import Wire

@Suite struct HostileQueryTests {
  @Test("responses and fragments of a header are never answered")
  func notQueries() async throws {
    let good = query("specialist-papers.pilot", .aaaa)
    for length in 0..<12 {
      guard case .drop = NameAnswerer.begin(Array(good.prefix(length)), by: .udp) else {
        Issue.record("answered \(length) bytes")
        continue
      }
    }
    var response = good
    response[2] |= 0x80
    guard case .drop = NameAnswerer.begin(response, by: .udp) else {
      Issue.record("answered a response")
      return
    }
  }

  @Test("every cut of a query is a format error")
  func cuts() async throws {
    let good = query("specialist-papers.pilot", .aaaa, edns: DNSExtension(udpSize: 1232))
    for length in 12..<good.count {
      #expect(await answer(Array(good.prefix(length)))?.responseCode == .formatError, "\(length) bytes")
    }
    #expect(await answer(good + [0])?.responseCode == .formatError)
  }

  @Test("no question, two questions, a pointer as question, two OPT records: format errors")
  func malformed() async throws {
    let header: [UInt8] = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    var none = header
    none[5] = 0
    #expect(await answer(none)?.responseCode == .formatError)
    let question: [UInt8] = [5] + Array("pilot".utf8) + [0, 0, 6, 0, 1]
    var two = header
    two[5] = 2
    #expect(await answer(two + question + question)?.responseCode == .formatError)
    #expect(await answer(header + [0xC0, 0x0C, 0, 28, 0, 1])?.responseCode == .formatError)
    let option: [UInt8] = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]
    var double = header
    double[11] = 2
    #expect(await answer(double + question + option + option)?.responseCode == .formatError)
    double[11] = 1
    #expect(await answer(double + question + option)?.responseCode == .noError)
  }

  @Test("random and damaged bytes neither trap nor draw answers much longer than themselves")
  func noise() async throws {
    var random = SeededGenerator(seed: 0x5EED)
    let good = query("specialist-papers.pilot", .aaaa, edns: DNSExtension(udpSize: 1232))
    for round in 0..<20_000 {
      var bytes: [UInt8]
      if round.isMultiple(of: 2) {
        bytes = (0..<Int.random(in: 0...80, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
      } else {
        bytes = good
        for _ in 0..<Int.random(in: 1...6, using: &random) {
          bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
        }
      }
      guard let reply = await answer(bytes) else { continue }
      #expect(reply.isResponse)
      #expect(reply.encoded().count <= bytes.count + 120)
    }
  }
}
