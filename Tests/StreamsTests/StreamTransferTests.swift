import Testing
import Wire

@testable import Streams

@Suite("Streams over bad lines") struct StreamTransferTests {
  struct Line: CustomTestStringConvertible, Sendable {
    var loss: Double
    var duplication: Double
    var reordering: Double
    var seed: UInt64
    var testDescription: String { "loss \(loss), duplication \(duplication), reordering \(reordering), seed \(seed)" }
  }

  static let lines: [Line] = [0, 0.01, 0.05, 0.2].flatMap { loss in
    [(0.0, 0.0), (0.05, 0.3)].flatMap { pair in
      (1...3).map { Line(loss: loss, duplication: pair.0, reordering: pair.1, seed: $0) }
    }
  }

  @Test("both directions arrive whole, and both ends finish", arguments: lines)
  func transfers(_ line: Line) {
    var link = StreamLink(
      seed: line.seed, first: 0xFFFF_0000, bFirst: 0xFFFF_FF00,
      faults: LineFaults(loss: line.loss, duplication: line.duplication, reordering: line.reordering))
    let (forth, back) = (pattern(400_000), pattern(300_000, seed: 2))
    link.a.toSend = forth
    link.bToSend = back
    let isThere = link.run(seconds: 600) { $0.b?.received.count == forth.count && $0.a.received.count == back.count }
    #expect(isThere, "\(link.b?.received.count ?? -1) and \(link.a.received.count) bytes came")
    #expect(link.b?.received == forth && link.a.received == back)
    link.a.closesWhenDone = true
    let isOver = link.run(seconds: 120) { $0.a.machine.phase == .closed && $0.b?.machine.phase == .closed }
    #expect(isOver)
    #expect(link.a.machine.end == .finished || link.a.machine.end == .timedOut)
    #expect(link.b?.machine.hasRemoteEnded == true || link.b?.machine.end == .timedOut)
  }

  @Test("the counters of both ends agree with the line, and with what they were given")
  func statistics() throws {
    var link = StreamLink(seed: 11, faults: LineFaults(loss: 0.03))
    link.a.toSend = pattern(600_000)
    let isThere = link.run(seconds: 600) { $0.a.machine.isFlushed && $0.b?.received.count == 600_000 }
    #expect(isThere)
    let (a, b) = (link.a.machine.statistics, try #require(link.b).machine.statistics)
    #expect(a.bytesSent == 600_000 && b.bytesReceived == 600_000 && a.bytesReceived == 0 && b.bytesSent == 0)
    // 521 segments, of which about sixteen were lost, and sent again.
    #expect(a.segmentsSent == 521 + a.retransmissions && b.segmentsSent == 0 && a.segmentsReceived == 0)
    #expect((521..<a.segmentsSent).contains(b.segmentsReceived))
    #expect((5...60).contains(a.retransmissions) && a.fastRetransmissions <= a.retransmissions)
    #expect(a.fastRetransmissions > 0 && b.retransmissions == 0)
    #expect(a.selectiveReceived > 0 && a.selectiveReceived <= b.selectiveSent)
    #expect(a.inFlight == 0 && a.unacknowledgedSegments == 0 && !a.isRecovering && b.earlySegments == 0)
    #expect(a.peerWindow > 0 && a.congestionWindow >= 4 * StreamLimits.segmentSize)
    #expect(b.window == StreamLimits.receiveBuffer)
    #expect((10_000_000...40_000_000).contains(a.roundTrip), "the line takes 5 ms each way")
  }

  @Test(
    "when the path takes less than a full segment, what is in flight is cut and all arrives",
    arguments: [256, 607, 1102])
  func smallPath(size: Int) throws {
    var link = StreamLink(seed: 5, faults: LineFaults(loss: 0.01))
    link.keepsSegments = true
    link.lets = { segment, _ in segment.payload.count <= size }
    // Where segments of these sizes are cut stands what reads as a selective acknowledgement.
    var bytes = pattern(300_000)
    let lure = Array("SACK".utf8) + [1] + [UInt8](repeating: 0, count: 8)
    for place in stride(from: 0, to: 11_520, by: 1152) {
      for offset in [0, size] { bytes.replaceSubrange(place + offset..<place + offset + lure.count, with: lure) }
    }
    link.a.toSend = bytes
    let hasBegun = link.run(seconds: 1) { ($0.b?.received.count ?? 0) > 1152 }
    #expect(!hasBegun, "full segments do not pass")
    link.a.machine.setSegmentSize(size)
    let isThere = link.run(seconds: 60) { $0.b?.received.count == bytes.count }
    #expect(isThere, "\(link.b?.received.count ?? -1) bytes came")
    let isWhole = link.b?.received == bytes
    #expect(isWhole)
    let full = link.carried.filter { $0.payload.count == size }.count
    #expect(full >= 300_000 / size - 300, "full segments are of the size that passes: \(full)")
    // And back: a better path is used.
    link.lets = { _, _ in true }
    link.a.machine.setSegmentSize(.max)
    link.a.toSend += pattern(100_000)
    link.carried = []
    let isMoreThere = link.run(seconds: 60) { $0.b?.received.count == bytes.count + 100_000 }
    let large = link.carried.contains { $0.payload.count == StreamLimits.segmentSize }
    #expect(isMoreThere && large)
  }

  @Test("a receiver that does not read shows in both ends' windows")
  func windows() throws {
    var link = StreamLink(seed: 12)
    link.a.toSend = pattern(900_000)
    _ = link.run(seconds: 1) { $0.b != nil }
    link.b?.reads = false
    _ = link.run(seconds: 3)
    let (a, b) = (link.a.machine.statistics, try #require(link.b).machine.statistics)
    #expect(b.window < StreamLimits.segmentSize && a.peerWindow < StreamLimits.segmentSize)
  }

  @Test(
    "a way without losses gets more in flight than a gap may cost; one per cent of loss costs less than half of that")
  func lossSpeed() {
    func seconds(_ loss: Double) -> Double {
      var link = StreamLink(seed: 5, faults: LineFaults(loss: loss))
      link.a.toSend = pattern(4_000_000)
      let start = link.now
      let isThere = link.run(seconds: 600) { $0.b?.received.count == 4_000_000 }
      #expect(isThere)
      return Double(link.now - start) / 1e9
    }
    let (clean, lossy) = (seconds(0), seconds(0.01))
    // 129 segments in every round trip of 10 ms.
    let cautious = 4_000_000 / Double(129 * StreamLimits.segmentSize) * 0.01
    #expect(clean < cautious * 0.75, "\(clean) s against \(cautious) s")
    #expect(lossy < cautious * 2, "\(lossy) s against \(cautious) s")
  }

  @Test("bytes that look like a selective acknowledgement arrive as bytes")
  func lookalikes() {
    var link = StreamLink(seed: 1)
    let trap = SelectiveAcknowledgement(blocks: [.init(left: 1, right: 2)])!.encoded()
    var text: [UInt8] = []
    for number in 0..<200 { text += trap + pattern(number * 7, seed: UInt64(number)) }
    link.a.toSend = text
    link.keepsSegments = true
    let isThere = link.run(seconds: 60) { $0.b?.received.count == text.count }
    #expect(isThere && link.b?.received == text)
    #expect(
      !link.carried.contains {
        $0.sequence != 0 && $0.payload.count > 64 && SelectiveAcknowledgement.matches($0.payload)
      })
  }

  @Test("segments are at most 1152 bytes, those that were lost come again whole, and larger ones of a peer are taken")
  func segments() throws {
    var link = StreamLink(seed: 9, faults: LineFaults(loss: 0.1, reordering: 0.2))
    link.keepsSegments = true
    let text = pattern(300_000)
    link.a.toSend = text
    let isThere = link.run(seconds: 120) { $0.b?.received.count == text.count }
    let isSame = link.b?.received == text
    #expect(isThere && isSame)
    let data = link.carried.filter { !$0.payload.isEmpty && !SelectiveAcknowledgement.matches($0.payload) }
    #expect(data.allSatisfy { $0.payload.count <= 1152 })
    var originals: [UInt32: [UInt8]] = [:]
    var repeated = 0
    for segment in data {
      guard let before = originals[segment.sequence] else {
        originals[segment.sequence] = segment.payload
        continue
      }
      repeated += 1
      let isWhole = before == segment.payload
      #expect(isWhole, "\(segment.sequence) came again with \(segment.payload.count) bytes")
    }
    // Nothing begins inside of another one.
    let ends = originals.map { ($0.key, $0.key &+ UInt32($0.value.count)) }.sorted { $0.0 < $1.0 }
    #expect(zip(ends, ends.dropFirst()).allSatisfy { $0.1 == $1.0 } && repeated > 10)

    var machine = try #require(
      StreamMachine(answering: StreamSegment(flags: .syn, sequence: 0, window: 512), first: 0, now: 0))
    machine.accept(0)
    var expected: [UInt8] = []
    for size in [4096, 1, 8900] {
      let payload = pattern(size)
      machine.receive(
        StreamSegment(flags: .ack, sequence: UInt32(1 + expected.count), payload: payload), now: 1)
      expected += payload
    }
    let read = machine.read(.max, now: 1)
    let isRead = read == expected
    #expect(isRead)
  }

  @Test("never more than the peer's window of 1152-byte segments is under way, and ours is never above 512")
  func window() throws {
    for window in [1, 3, 20] as [UInt16] {
      var machine = try #require(
        StreamMachine(answering: StreamSegment(flags: .syn, sequence: 0, window: window), first: 0, now: 0))
      machine.accept(0)
      let count = machine.write(pattern(200_000))
      #expect(count == 200_000)
      var (sent, acknowledged, now): (Int, Int, UInt64) = (0, 0, 0)
      for _ in 0..<50 {
        while let segment = machine.nextSegment(now) {
          #expect(segment.window <= 512)
          sent = max(sent, Int(segment.sequence) - 1 + segment.payload.count)
          #expect(sent - acknowledged <= Int(window) * 1152)
        }
        #expect(sent > acknowledged || sent == 200_000, "the window is used")
        acknowledged = sent
        now += 1_000_000
        machine.receive(
          StreamSegment(flags: .ack, sequence: 1, acknowledgement: UInt32(sent + 1), window: window), now: now)
      }
    }
  }

  @Test("a program that does not read stops the sender; nothing is lost when it reads again")
  func closedWindow() {
    for isUpdateLost in [false, true] {
      var link = StreamLink(seed: 3)
      let text = pattern(3_000_000)
      link.a.toSend = text
      _ = link.run(seconds: 1) { $0.b != nil }
      link.b?.reads = false
      _ = link.run(seconds: 20)
      let taken = link.a.written
      #expect(taken < StreamLimits.receiveBuffer + StreamLimits.sendBuffer + 300_000, "\(taken) bytes were taken")
      let quiet = link.sent
      _ = link.run(seconds: 20)
      #expect(link.a.written == taken)
      #expect(link.sent.a - quiet.a < 12 && link.sent.b - quiet.b < 12, "a closed window is asked about, not flooded")
      link.b?.reads = true
      let reopened = link.now
      if isUpdateLost {
        // The receiver's first word is lost: it must say it again, or be asked.
        link.lets = { _, toB in toB }
        _ = link.run(seconds: 0.1)
        link.lets = { _, _ in true }
      }
      let isThere = link.run(seconds: 30) { $0.b?.received.count == text.count }
      #expect(isThere && link.b?.received == text)
      #expect(link.now - reopened < 5_000_000_000, "it took \(Double(link.now - reopened) / 1e9) s")
    }
  }
}
