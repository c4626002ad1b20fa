// The last step of a log record: to journald or stderr, in the form asked for, without waiting. What is not taken is
// counted, and told with the next record that is. Used by LogOutput under a lock.

import Glibc
import Logging
import Shim

struct LogDelivery: ~Copyable {
  private let format: LogFormat
  private let identifier: String
  /// A socket for journald, or -1.
  private let journal: Int32
  private var stderr: LineWriter

  /// Records that neither journald nor stderr took.
  private(set) var lost: UInt64 = 0
  /// Of these, those that no record told of yet.
  private var untold: UInt64 = 0

  init(_ format: LogFormat, identifier: String, journal: Int32, stderr: consuming LineWriter) {
    self.format = format
    self.identifier = identifier
    self.journal = journal
    self.stderr = stderr
  }

  /// - text: the line's own, made before the lock was taken.
  mutating func put(_ line: LogLine, text: String) {
    if untold > 0 {
      let note = LogLine(
        level: .warning, label: line.label, message: "lost \(untold) lines: whoever takes the log was behind",
        metadata: ["cause": "log-lost", "lost": "\(untold)"], time: line.time)
      if send(note, text: note.text) { untold = 0 }
    }
    guard untold == 0, send(line, text: text) else {
      lost += 1
      untold += 1
      return
    }
  }

  private mutating func send(_ line: LogLine, text: String) -> Bool {
    switch format {
    case .json: return stderr.write(line.json)
    case .journal:
      let entry = line.journalEntry(identifier: identifier)
      let result = pt_journal_send(journal, LogOutput.journalSocket, entry, entry.count)
      if result == 0 { return true }
      // Journald restarts, or is not there: stderr leads to it, or to whoever looks.
      return result == -EAGAIN ? false : stderr.write(text)
    case .auto, .text: return stderr.write(text)
    }
  }
}
