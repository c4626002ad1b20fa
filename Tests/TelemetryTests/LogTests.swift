// Forms of log records, what is left out as repetition, what stays in memory, and the text of metrics.

import Glibc
import Logging
import Testing

@testable import Telemetry

@Suite("Logs")
struct LogTests {
  let time: Int64 = 1_795_370_321_045
  let second: UInt64 = 1_000_000_000

  @Test("a log line is one line, in text and JSON, whatever the message holds")
  func lines() {
    var line = LogLine(
      level: .warning, label: "pilot-tun", message: "a\nforged line", metadata: ["peer": "x"], time: time)
    #expect(line.text == "2026-11-22T17:58:41.045Z warning pilot-tun: a forged line peer=x")
    line.message = "a\n\"b\""
    line.level = .info
    line.metadata["level"] = "evil"
    #expect(
      line.json
        == #"{"field.level":"evil","level":"info","logger":"pilot-tun","message":"a\u000a\"b\"","peer":"x","time":"2026-11-22T17:58:41.045Z"}"#
    )
  }

  @Test("an entry of the journal has the fields, and a newline in a value forges none")
  func journal() {
    let line = LogLine(
      level: .error, label: "node", message: "m", metadata: ["peer": "0:1", "path-mtu": "9", "x": "a\nMESSAGE=evil"],
      time: time)
    let entry = line.journalEntry(identifier: "pilot-tun")
    let text = String(decoding: entry, as: UTF8.self)
    #expect(text.hasPrefix("MESSAGE=m path-mtu=9 peer=0:1 x=a MESSAGE=evil\nPRIORITY=3\nSYSLOG_IDENTIFIER=pilot-tun\n"))
    #expect(text.contains("\nPILOT_PEER=0:1\n") && text.contains("\nPILOT_PATH_MTU=9\n"))
    let framed = Array("PILOT_X\n".utf8) + [14, 0, 0, 0, 0, 0, 0, 0] + Array("a\nMESSAGE=evil\n".utf8)
    #expect(String(decoding: entry, as: UTF8.self).hasSuffix(String(decoding: framed, as: UTF8.self)))
    #expect(LogLine.fieldName(String(repeating: "a", count: 59)) == nil && LogLine.fieldName("") == nil)
  }

  @Test("five lines of a cause and peer go out, then one each half minute with the count of the others")
  func limiter() {
    var limiter = LogLimiter()
    let key = LogLimiter.Key(cause: "c", peer: "p")
    var written = 0
    for tick in 0..<100 where limiter.admit(key, now: UInt64(tick)) != .leaveOut { written += 1 }
    #expect(written == 5)
    #expect(limiter.admit(LogLimiter.Key(cause: "c", peer: "q"), now: 100) == .write(suppressed: 0), "another peer")
    #expect(limiter.admit(LogLimiter.Key(cause: "d", peer: "p"), now: 100) == .write(suppressed: 0), "another cause")
    let later = limiter.admit(key, now: 31 * second)
    #expect(later == .write(suppressed: 95))
    let again = limiter.admit(key, now: 31 * second + 1)
    #expect(again == .leaveOut)
    let early = limiter.due(now: 40 * second)
    #expect(early.isEmpty)
    let due = limiter.due(now: 65 * second)
    #expect(due.count == 1 && due.first?.suppressed == 1 && due.first?.key == key, "a cause that went quiet is told of")
  }

  @Test("ten thousand causes neither fill the log nor the memory")
  func manyKeys() {
    var limiter = LogLimiter()
    var written = 0
    for number in 0..<10_000 {
      if limiter.admit(LogLimiter.Key(cause: "\(number)", peer: ""), now: second) != .leaveOut { written += 1 }
    }
    #expect(written == 400)
    let next = limiter.admit(LogLimiter.Key(cause: "new", peer: ""), now: 3 * second)
    #expect(next == .write(suppressed: 0))
  }

  @Test("the ring keeps the last lines within its bytes")
  func ring() {
    var ring = LogRing()
    for number in 0..<5000 { ring.append("\(number)") }
    #expect(ring.all.count == LogRing.lineLimit && ring.all.last == "4999" && ring.all.first == "3000")
    for _ in 0..<200 { ring.append(String(repeating: "x", count: 100_000)) }
    let bytes = ring.all.reduce(0) { $0 + $1.utf8.count }
    #expect(bytes <= LogRing.byteLimit && ring.all.count > 50)
  }

  @Test("stderr is the journal's only when $JOURNAL_STREAM names it")
  func journalStream() {
    var status = stat()
    fstat(2, &status)
    #expect(LogOutput.isInJournal(["JOURNAL_STREAM": "\(status.st_dev):\(status.st_ino)"]))
    for text in ["\(status.st_dev):\(status.st_ino + 1)", "", "1", "a:b", "1:2:3"] {
      #expect(!LogOutput.isInJournal(["JOURNAL_STREAM": text]), "\(text)")
    }
  }
}

@Suite("Exposition")
struct ExpositionTests {
  let families = [
    MetricFamily(MetricDeclaration("a_bytes", .counter, ["path"], help: "b \"c\" \\ d\ne"), [(["x\"\n\\"], 3)]),
    MetricFamily(MetricDeclaration("b_seconds", .gauge, help: "h"), [([], 1.5)]),
  ]

  @Test("the text that Prometheus reads, and OpenMetrics")
  func forms() {
    #expect(
      Exposition.text(families, .text) == """
        # HELP a_bytes_total b "c" \\\\ d\\ne
        # TYPE a_bytes_total counter
        a_bytes_total{path="x\\"\\n\\\\"} 3
        # HELP b_seconds h
        # TYPE b_seconds gauge
        b_seconds 1.5

        """)
    #expect(
      Exposition.text(families, .openMetrics) == """
        # HELP a_bytes b \\"c\\" \\\\ d\\ne
        # TYPE a_bytes counter
        a_bytes_total{path="x\\"\\n\\\\"} 3
        # HELP b_seconds h
        # TYPE b_seconds gauge
        b_seconds 1.5
        # EOF

        """)
    #expect(Exposition.Format(accept: "application/openmetrics-text;version=1.0.0,text/plain;q=0.5") == .openMetrics)
    #expect(Exposition.Format(accept: "*/*") == .text)
    #expect(Exposition.number(.infinity) == "+Inf" && Exposition.number(.nan) == "NaN" && Exposition.number(-2) == "-2")
  }
}
