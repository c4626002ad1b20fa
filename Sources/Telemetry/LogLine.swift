// The forms of one log record: a line of text, a line of JSON, an entry of the journal. Pure; used by LogOutput.

import Glibc
import JSON
package import Logging

package enum LogFormat: String, CaseIterable, Sendable {
  /// The journal when standard error leads there, text otherwise.
  case auto
  case text
  case json
  case journal
}

/// One record, complete.
package struct LogLine: Sendable {
  package var level: Logger.Level
  package var label: String
  package var message: String
  package var metadata: Logger.Metadata
  /// Milliseconds since 1970.
  package var time: Int64

  package init(level: Logger.Level, label: String, message: String, metadata: Logger.Metadata, time: Int64) {
    self.level = level
    self.label = label
    self.message = message
    self.metadata = metadata
    self.time = time
  }

  /// The message and its fields, on one line: a message from outside must not forge a second one.
  private var flat: String {
    let pairs = metadata.sorted { $0.key < $1.key }.map { " \($0.key)=\($0.value)" }.joined()
    return String((message + pairs).map { $0.isNewline ? " " : $0 })
  }

  /// Without a newline at its end.
  package var text: String { "\(Self.timestamp(time)) \(level.rawValue) \(label): \(flat)" }

  package var json: String {
    var members: [String: JSONValue] = [
      "time": .text(Self.timestamp(time)), "level": .text(level.rawValue), "logger": .text(label),
      "message": .text(message),
    ]
    for (key, value) in metadata { members[members[key] == nil ? key : "field.\(key)"] = .text(value.description) }
    return String(decoding: JSONValue.object(members).encoded, as: UTF8.self)
  }

  /// An entry in the journal's export form (systemd.io/JOURNAL_NATIVE_PROTOCOL): `NAME=value` lines; a value with a
  /// newline goes as its name, a newline, its length in 8 bytes little-endian, and itself.
  package func journalEntry(identifier: String) -> [UInt8] {
    var entry: [UInt8] = []
    func field(_ name: String, _ value: String) {
      let bytes = Array(value.utf8)
      entry += name.utf8
      if bytes.contains(UInt8(ascii: "\n")) {
        entry.append(UInt8(ascii: "\n"))
        withUnsafeBytes(of: UInt64(bytes.count).littleEndian) { entry += $0 }
      } else {
        entry.append(UInt8(ascii: "="))
      }
      entry += bytes
      entry.append(UInt8(ascii: "\n"))
    }
    field("MESSAGE", flat)
    field("PRIORITY", "\(level.priority)")
    field("SYSLOG_IDENTIFIER", identifier)
    field("PILOT_LOGGER", label)
    field("PILOT_TEXT", message)
    for (key, value) in metadata.sorted(by: { $0.key < $1.key }) {
      if let name = Self.fieldName(key) { field(name, value.description) }
    }
    return entry
  }

  /// `PILOT_PEER` for `peer`. Names of fields are upper case letters, digits and underscores, at most 64.
  static func fieldName(_ key: String) -> String? {
    let name = key.utf8.map { byte -> Character in
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"): Character(Unicode.Scalar(byte - 32))
      case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"): Character(Unicode.Scalar(byte))
      default: "_"
      }
    }
    return name.isEmpty || name.count > 58 ? nil : "PILOT_" + String(name)
  }

  /// RFC 3339, UTC, milliseconds.
  package static func timestamp(_ milliseconds: Int64) -> String {
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
}

extension Logger.Level {
  /// As written by people: any case, `warn` for `warning`.
  package init?(named text: String) {
    self.init(rawValue: text.lowercased() == "warn" ? "warning" : text.lowercased())
  }

  package var severity: Int { Self.allCases.firstIndex(of: self) ?? 0 }

  /// Of syslog(3).
  package var priority: Int {
    switch self {
    case .trace, .debug: 7
    case .info: 6
    case .notice: 5
    case .warning: 4
    case .error: 3
    case .critical: 2
    }
  }
}
