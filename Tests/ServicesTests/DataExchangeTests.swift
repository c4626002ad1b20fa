// The data exchange of port 1001: what frames ask for, how they are answered, and what ends a stream.

import Services
import Testing
import Wire

@Suite("Data exchange")
struct DataExchangeTests {
  private func frame(_ type: UInt32, _ payload: [UInt8]) -> [UInt8] {
    var frame: [UInt8] = []
    frame.appendBig(type)
    frame.appendBig(UInt32(payload.count))
    return frame + payload
  }

  private func tagged(_ header: String, _ inner: UInt32, _ payload: [UInt8]) -> [UInt8] {
    var body: [UInt8] = []
    body.appendBig(UInt16(header.utf8.count))
    body += header.utf8
    body.appendBig(inner)
    return frame(10, body + payload)
  }

  private func file(_ name: [UInt8], _ content: [UInt8]) -> [UInt8] {
    var body: [UInt8] = []
    body.appendBig(UInt16(name.count))
    return frame(4, body + name + content)
  }

  /// What one frame asks for.
  private func step(_ bytes: [UInt8]) -> DataExchange.Step {
    var exchange = DataExchange()
    exchange.received(bytes)
    return exchange.next(wall: 7)
  }

  private func text(_ answer: [UInt8]) -> String { String(decoding: answer.dropFirst(8), as: UTF8.self) }

  @Test("messages and files are kept and acknowledged with their own size")
  func messages() {
    for (type, label) in [(UInt32(1), "TEXT"), (2, "BINARY"), (3, "JSON")] {
      var exchange = DataExchange()
      exchange.received(frame(type, [0x68, 0x69]))
      guard case .keep(.message(let kind, let bytes, let tag)) = exchange.next(wall: 0) else {
        Issue.record("type \(type) asks for nothing")
        continue
      }
      #expect(kind.rawValue == type && bytes == [0x68, 0x69] && tag == MessageTag())
      let answer = exchange.answered(.kept(isRepeated: false), wall: 0)
      #expect(text(answer) == "ACK \(label) 2 bytes" && Array(answer.prefix(4)) == [0, 0, 0, 1])
    }
    var exchange = DataExchange()
    exchange.received(file(Array("notes.txt".utf8), [1, 2, 3]))
    #expect(exchange.next(wall: 0) == .keep(.file(name: "notes.txt", content: [1, 2, 3], MessageTag())))
    let answer = exchange.answered(.kept(isRepeated: false), wall: 0)
    #expect(text(answer) == "ACK FILE 3 bytes")
  }

  @Test("a tagged message carries its ids, and a repetition is acknowledged as one")
  func tags() {
    var exchange = DataExchange()
    exchange.received(tagged(#"{"message_id":"a.1","reply_to":"b:2","later":3}"#, 1, [0x68]))
    #expect(exchange.next(wall: 0) == .keep(.message(.text, [0x68], MessageTag(id: "a.1", replyTo: "b:2"))))
    let answer = exchange.answered(.kept(isRepeated: true), wall: 0)
    #expect(text(answer) == "ACK TEXT 1 bytes (duplicate)")
  }

  @Test("a trace is answered with its times")
  func trace() {
    var body: [UInt8] = []
    body.appendBig(UInt32(1))
    body.appendBig(UInt64(5))
    var exchange = DataExchange()
    exchange.received(frame(5, body + [0x68]))
    #expect(exchange.next(wall: 10) == .keep(.message(.text, [0x68], MessageTag())))
    let answer = exchange.answered(.kept(isRepeated: false), wall: 12)
    let times =
      #"{"ack_sent_at_ns":12,"inbox_written_at_ns":12,"inner_ack":"ACK TEXT 1 bytes","received_at_ns":10,"sent_at_ns":5}"#
    #expect(Array(answer.prefix(4)) == [0, 0, 0, 3] && text(answer) == times)
  }

  @Test("what cannot be kept is answered with the reason, and so is an unknown type; the stream goes on")
  func refusals() {
    var exchange = DataExchange()
    exchange.received(frame(1, [0x68]) + frame(6, [1]) + frame(1, [0x69]))
    #expect(exchange.next(wall: 0) == .keep(.message(.text, [0x68], MessageTag())))
    #expect(exchange.isWaitingForAnswer && exchange.next(wall: 0) == .wait)
    let answer = exchange.answered(.failed("the inbox is full"), wall: 0)
    #expect(text(answer) == "ERR TEXT save failed: the inbox is full")
    let next = exchange.next(wall: 0)
    guard case .send(let refusal) = next else {
      Issue.record("\(next)")
      return
    }
    #expect(text(refusal) == "ERR UNKNOWN(6) save failed: unsupported frame type 6")
    #expect(exchange.next(wall: 0) == .keep(.message(.text, [0x69], MessageTag())))
  }

  @Test("frames may come byte by byte, and many at once")
  func pieces() {
    var exchange = DataExchange()
    let bytes = frame(1, [1, 2]) + frame(2, [])
    var kept: [ExchangeRequest] = []
    for byte in bytes {
      exchange.received([byte])
      while case .keep(let request) = exchange.next(wall: 0) {
        kept.append(request)
        _ = exchange.answered(.kept(isRepeated: false), wall: 0)
      }
    }
    #expect(kept == [.message(.text, [1, 2], MessageTag()), .message(.binary, [], MessageTag())])
  }

  @Test(
    "names that lead out of the folder end the stream",
    arguments: ["", ".", "..", "a/b", "/etc/passwd", "a\\b", "a\u{0}b", "a\nb", String(repeating: "x", count: 256)])
  func names(name: String) {
    #expect(step(file(Array(name.utf8), [1])) == .close)
  }

  @Test("a malformed frame ends the stream, for good")
  func malformed() {
    #expect(step([0, 0, 0, 1, 4, 0, 0, 1]) == .close)
    #expect(step(file([0xFF, 0xFE], [1])) == .close)
    #expect(step(frame(4, [0])) == .close && step(frame(4, [0, 9, 1])) == .close)
    #expect(step(frame(5, [0, 0, 0, 1])) == .close)
    #expect(step(frame(7, [1, 2, 3])) == .close)
    #expect(step(frame(10, [0, 9, 1])) == .close)
    #expect(step(tagged("{}", 10, tagged("{}", 1, []))) == .close)
    for header in [
      "[]", "{", #"{"message_id":1}"#, #"{"message_id":"a b"}"#,
      #"{"reply_to":"\#(String(repeating: "x", count: 129))"}"#,
    ] {
      #expect(step(tagged(header, 1, [1])) == .close, "\(header)")
    }
    var exchange = DataExchange()
    exchange.received([0, 0, 0, 1, 0xFF, 0, 0, 0])
    #expect(exchange.next(wall: 0) == .close)
    exchange.received(frame(1, [1]))
    #expect(exchange.next(wall: 0) == .close)
  }

  @Test("a long frame is known by its header, before its bytes are there")
  func declared() {
    var exchange = DataExchange()
    #expect(exchange.frameBytes == 0)
    exchange.received([0, 0, 0, 2, 4, 0, 0, 0])
    #expect(exchange.frameBytes == 64 << 20 && exchange.next(wall: 0) == .wait)
  }

  @Test("a file in pieces: offer, pieces, end, and their answers")
  func fileStream() {
    let id = [UInt8](repeating: 9, count: 16)
    let transfer = TransferIDProbe.make(id)
    var offer: [UInt8] = [1] + id
    offer.appendBig(UInt64(5))
    offer += [UInt8](repeating: 3, count: 32)
    offer.appendBig(UInt32(49_152))
    offer.appendBig(UInt16(1))
    var exchange = DataExchange()
    exchange.received(frame(7, offer + [0x66]))
    let begin = FileStreamRequest.begin(
      transfer, FileOffer(size: 5, digest: [UInt8](repeating: 3, count: 32), name: "f"))
    #expect(exchange.next(wall: 0) == .keep(.fileStream(begin)))
    let started = exchange.answered(.fileStream(.begins(at: 2)), wall: 0)
    #expect(started == frame(7, [5] + id + [0, 0, 0, 0, 0, 0, 0, 2]))
    exchange.received(frame(7, [2] + id + [0, 0, 0, 0, 0, 0, 0, 2, 8, 8, 8]))
    #expect(exchange.next(wall: 0) == .keep(.fileStream(.chunk(transfer, offset: 2, [8, 8, 8]))))
    let taken = exchange.answered(.fileStream(.has(upTo: 5)), wall: 0)
    #expect(taken == frame(7, [3] + id + [0, 0, 0, 0, 0, 0, 0, 5]))
    exchange.received(frame(7, [4] + id))
    #expect(exchange.next(wall: 0) == .keep(.fileStream(.done(transfer))))
    let complete = exchange.answered(.fileStream(.complete), wall: 0)
    #expect(complete == frame(7, [6] + id + [0]))
    exchange.received(frame(7, offer + [0x2F]))
    #expect(exchange.next(wall: 0) == .keep(.fileStream(.malformed(transfer, "malformed file offer"))))
    let refused = exchange.answered(.failed("no"), wall: 0)
    #expect(refused == frame(7, [6] + id + [1, 0x6E, 0x6F]))
    exchange.received(frame(7, [4] + id))
    _ = exchange.next(wall: 0)
    let aborted = exchange.answered(.fileStream(.aborted("no")), wall: 0)
    #expect(aborted == frame(7, [7] + id + [0x6E, 0x6F]))
  }
}

/// Ids of transfers are read, never made: by way of a frame.
private enum TransferIDProbe {
  static func make(_ bytes: [UInt8]) -> TransferID {
    var exchange = DataExchange()
    exchange.received([0, 0, 0, 7, 0, 0, 0, 17, 4] + bytes)
    guard case .keep(.fileStream(let request)) = exchange.next(wall: 0) else { fatalError("no transfer") }
    return request.transfer
  }
}
