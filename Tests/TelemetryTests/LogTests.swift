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

@Suite("Log lines for a reader that does not read")
struct LineWriterTests {
  enum Kind: CaseIterable { case pipe, pipeOfOthers, socket, terminal }

  /// Both ends, the first to read from.
  private func ends(_ kind: Kind) throws -> (reader: Int32, writer: Int32) {
    var pair: [Int32] = [-1, -1]
    switch kind {
    case .pipe, .pipeOfOthers: try #require(pipe(&pair) == 0)
    case .socket: try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &pair) == 0)
    case .terminal:
      pair[0] = open("/dev/ptmx", O_RDWR | O_NOCTTY)
      var number: Int32 = 0
      // TIOCSPTLCK: not locked. TIOCGPTN: its number. Both from asm-generic/ioctls.h.
      try #require(pair[0] >= 0 && ioctl(pair[0], 0x4004_5431, &number) == 0)
      try #require(ioctl(pair[0], 0x8004_5430, &number) == 0)
      pair[1] = open("/dev/pts/\(number)", O_RDWR | O_NOCTTY)
      try #require(pair[1] >= 0)
    }
    return (pair[0], pair[1])
  }

  private func drain(_ descriptor: Int32) -> [UInt8] {
    var all: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65_536)
    var question = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    while poll(&question, 1, 0) == 1, question.revents & Int16(POLLIN) != 0 {
      let count = read(descriptor, &chunk, chunk.count)
      guard count > 0 else { break }
      all += chunk[..<count]
    }
    return all
  }

  // A writer that waits would do so for ever: the descriptors are as a program inherits them, blocking.
  @Test(
    "nothing waits, what was taken is whole lines, and the first line that is taken again says how many were not",
    arguments: Kind.allCases)
  func full(kind: Kind) throws {
    let (reader, writer) = try ends(kind)
    defer {
      close(reader)
      close(writer)
    }
    var delivery = LogDelivery(
      .text, identifier: "t", journal: -1, stderr: LineWriter(writer, mayReopen: kind != .pipeOfOthers))
    func line(_ number: Int) -> LogLine {
      // Of all lengths, also such as a pipe does not take at once.
      let rest = String(repeating: "x", count: number % 7 == 0 ? 9000 : number % 300)
      return LogLine(level: .info, label: "t", message: "\(number) \(rest).", metadata: [:], time: 0)
    }
    var number = 0
    while delivery.lost < 3 {
      number += 1
      delivery.put(line(number), text: line(number).text)
      try #require(number < 100_000, "it takes everything")
    }
    let lost = delivery.lost
    let before = drain(reader)
    delivery.put(line(number + 1), text: line(number + 1).text)
    let after = String(decoding: drain(reader), as: UTF8.self)
    let lines = (String(decoding: before, as: UTF8.self) + after).split(whereSeparator: \.isNewline)
    // A note is shorter than most lines: it may fit where they did not.
    let notes = lines.compactMap { $0.firstMatch(of: /lost (\d+) lines.* lost=\1$/).flatMap { UInt64($0.1) } }
    let cut = lines.count { !$0.hasPrefix("1970-01-01T") || !($0.hasSuffix(".") || $0.contains("lost=")) }
    #expect(lines.count > 5 && cut <= lost, "what was cut off is lost")
    #expect(notes.reduce(0, +) == lost, "\(notes)")
    let last = lines.last.map { $0.prefix(60) } ?? ""
    #expect(last.hasPrefix("1970-01-01T") && last.contains(" \(number + 1) "), "\(last)")
    #expect(delivery.lost == lost, "the note is not one of them")
  }

  @Test("a file is written where it ends, not over its beginning")
  func file() throws {
    let path = "/tmp/pilot-line-writer-\(getpid())"
    let descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
    defer {
      close(descriptor)
      unlink(path)
    }
    _ = write(descriptor, "before\n", 7)
    var writer = LineWriter(descriptor)
    let isTaken = writer.write("line")
    #expect(isTaken)
    var bytes = [UInt8](repeating: 0, count: 64)
    let count = pread(descriptor, &bytes, bytes.count, 0)
    #expect(String(decoding: bytes.prefix(max(count, 0)), as: UTF8.self) == "before\nline\n")
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
