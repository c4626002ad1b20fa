// Log lines on stderr, as text for people and journald or as JSON for collectors. Set up once by each program.

import Directory
import Glibc
import JSON
package import Logging
import Synchronization

package enum LogOutput {
  /// The level in force; SIGHUP changes it at run time.
  private static let severity = Atomic<Int>(Logger.Level.info.severity)

  static var currentSeverity: Int { severity.load(ordering: .relaxed) }

  /// Makes every logger of the process write to stderr in this form. Call it once.
  package static func bootstrap(level: Logger.Level, format: LogFormat) {
    severity.store(level.severity, ordering: .relaxed)
    LoggingSystem.bootstrap { label in LogLineHandler(label: label, format: format) }
  }

  package static func change(level: Logger.Level) { severity.store(level.severity, ordering: .relaxed) }
}

extension Logger.Level {
  var severity: Int { Self.allCases.firstIndex(of: self) ?? 0 }
}

struct LogLineHandler: LogHandler {
  let label: String
  let format: LogFormat
  var metadata: Logger.Metadata = [:]

  var logLevel: Logger.Level {
    get { Logger.Level.allCases[LogOutput.currentSeverity] }
    set {}
  }

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    let all = metadata.merging(event.metadata ?? [:]) { $1 }
    let line = Self.line(
      format: format, level: event.level, label: label, message: event.message.description, metadata: all,
      time: Self.wallClock())
    Self.write(line)
  }

  /// One line, without its newline. `time` in milliseconds since 1970.
  static func line(
    format: LogFormat, level: Logger.Level, label: String, message: String, metadata: Logger.Metadata, time: Int64
  ) -> String {
    switch format {
    case .text:
      let pairs = metadata.sorted { $0.key < $1.key }.map { " \($0.key)=\($0.value)" }.joined()
      // A message from outside must not forge a second line.
      let flat = String((message + pairs).map { $0.isNewline ? " " : $0 })
      return "\(timestamp(time)) \(level.rawValue) \(label): \(flat)"
    case .json:
      var members: [String: JSONValue] = [
        "time": .text(timestamp(time)), "level": .text(level.rawValue), "logger": .text(label),
        "message": .text(message),
      ]
      for (key, value) in metadata { members[members[key] == nil ? key : "field.\(key)"] = .text(value.description) }
      return String(decoding: JSONValue.object(members).encoded, as: UTF8.self)
    }
  }

  /// RFC 3339, UTC, milliseconds.
  static func timestamp(_ milliseconds: Int64) -> String {
    var seconds = time_t(milliseconds / 1000)
    var parts = tm()
    gmtime_r(&seconds, &parts)
    func digits(_ value: some BinaryInteger, _ count: Int) -> String {
      let text = String(value)
      return String(repeating: "0", count: max(0, count - text.utf8.count)) + text
    }
    return "\(parts.tm_year + 1900)-\(digits(parts.tm_mon + 1, 2))-\(digits(parts.tm_mday, 2))T"
      + "\(digits(parts.tm_hour, 2)):\(digits(parts.tm_min, 2)):\(digits(parts.tm_sec, 2))."
      + "\(digits(milliseconds % 1000, 3))Z"
  }

  private static func wallClock() -> Int64 {
    var now = timespec()
    clock_gettime(CLOCK_REALTIME, &now)
    return Int64(now.tv_sec) * 1000 + Int64(now.tv_nsec) / 1_000_000
  }

  /// One write per line, so that lines of several threads do not mix. What stderr does not take is lost.
  private static func write(_ line: String) {
    let bytes = Array(line.utf8) + [UInt8(ascii: "\n")]
    _ = bytes.withUnsafeBytes { Glibc.write(STDERR_FILENO, $0.baseAddress, $0.count) }
  }
}
