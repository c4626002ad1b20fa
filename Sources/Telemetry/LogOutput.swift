// Where log records go: to journald with their fields, or as lines to stderr; the last ones stay in memory. Set up once
// by each program. Callers are actors and event loops: nothing here waits.

import Glibc
package import Logging
import Shim
import Synchronization
import Wire

package enum LogOutput {
  /// The level in force; `change(level:)` sets it at run time.
  private static let severity = Atomic<Int>(Logger.Level.info.severity)
  private static let state = Mutex(State())
  /// Nothing waits under its lock. It keeps lines of several threads apart.
  private static let delivery = Mutex(
    LogDelivery(.text, identifier: "", journal: -1, stderr: LineWriter(STDERR_FILENO)))

  private struct State {
    var limiter = LogLimiter()
    var ring = LogRing()
    var suppressed: UInt64 = 0
  }

  static let journalSocket = "/run/systemd/journal/socket"

  package static var level: Logger.Level { Logger.Level.allCases[severity.load(ordering: .relaxed)] }
  package static func change(level: Logger.Level) { severity.store(level.severity, ordering: .relaxed) }
  package static var lostCount: UInt64 { delivery.withLock { $0.lost } }
  package static var suppressedCount: UInt64 { state.withLock { $0.suppressed } }
  /// The last lines, oldest first.
  package static func recentLines() -> [String] { state.withLock { Array($0.ring.all) } }

  /// Makes every logger of the process write in this form. Call it once.
  /// - identifier: the program's name in the journal.
  package static func bootstrap(
    level: Logger.Level, format: LogFormat, identifier: String, environment: [String: String]
  ) {
    change(level: level)
    var format = format
    if format == .auto { format = isInJournal(environment) ? .journal : .text }
    var journal: Int32 = -1
    if format == .journal {
      journal = pt_journal_open()
      if journal < 0 { format = .text }
    }
    let (form, socket) = (format, journal)
    delivery.withLock {
      $0 = LogDelivery(form, identifier: identifier, journal: socket, stderr: LineWriter(STDERR_FILENO))
    }
    LoggingSystem.bootstrap { label in LogRecorder(label: label) }
  }

  /// Whether stderr is the stream that $JOURNAL_STREAM (systemd.exec(5)) names: `DEVICE:INODE`.
  static func isInJournal(_ environment: [String: String]) -> Bool {
    let parts = (environment["JOURNAL_STREAM"] ?? "").split(separator: ":").compactMap { UInt64($0) }
    return parts.count == 2 && pt_is_stderr(parts[0], parts[1]) != 0
  }

  static func write(_ line: LogLine) {
    // What is asked for in detail comes whole.
    guard line.level >= .info else { return put([line]) }
    func text(_ key: String) -> String? { line.metadata[key]?.description }
    let key = LogLimiter.Key(cause: text("cause") ?? line.message, peer: text("peer") ?? text("address") ?? "")
    let now = monotonic()
    let lines = state.withLock { state -> [LogLine] in
      var lines = state.limiter.due(now: now).map { due in
        var metadata: Logger.Metadata = ["cause": "\(due.key.cause)", "suppressed": "\(due.suppressed)"]
        if !due.key.peer.isEmpty { metadata["peer"] = "\(due.key.peer)" }
        return LogLine(
          level: .notice, label: line.label, message: "suppressed \(due.suppressed) lines", metadata: metadata,
          time: line.time)
      }
      switch state.limiter.admit(key, now: now) {
      case .leaveOut: state.suppressed += 1
      case .write(let suppressed):
        var line = line
        if suppressed > 0 { line.metadata["suppressed"] = "\(suppressed)" }
        lines.append(line)
      }
      return lines
    }
    put(lines)
  }

  private static func put(_ lines: [LogLine]) {
    for line in lines {
      let text = line.text
      state.withLock { $0.ring.append(text) }
      delivery.withLock { $0.put(line, text: text) }
    }
  }

  private static func monotonic() -> UInt64 {
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
  }
}

/// The handler that swift-log calls.
private struct LogRecorder: LogHandler {
  let label: String
  var metadata: Logger.Metadata = [:]

  var logLevel: Logger.Level {
    get { LogOutput.level }
    set {}
  }

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    var all = metadata.merging(event.metadata ?? [:]) { $1 }
    if let error = event.error { all.merge(Logger.Metadata(describing: error)) { own, _ in own } }
    var now = timespec()
    clock_gettime(CLOCK_REALTIME, &now)
    LogOutput.write(
      LogLine(
        level: event.level, label: label, message: event.message.description, metadata: all,
        time: Int64(now.tv_sec) * 1000 + Int64(now.tv_nsec) / 1_000_000))
  }
}

extension Logger.Metadata {
  /// The fields of an error: `code`, `reason`, and `hint` where there is advice.
  package init(describing error: any Error) {
    self = [:]
    guard let error = error as? any ExplainedError else {
      self["reason"] = "\(error)"
      return
    }
    self["code"] = "\(error.code)"
    self["reason"] = "\(error.message)"
    if let hint = error.hint { self["hint"] = "\(hint)" }
  }
}
