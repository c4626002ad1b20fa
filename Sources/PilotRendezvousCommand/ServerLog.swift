// Where the server's log goes: lines on standard error, as text or as JSON objects. Used by serve.

import Foundation
import Logging
import Rendezvous
import Synchronization

enum ServerLog {
  static func logger(level: String?, format: String?) throws -> Logger {
    change(try self.level(level))
    switch format ?? "text" {
    case "text": return Logger(label: "pilot-rendezvous") { TextLogHandler(label: $0) }
    case "json": return Logger(label: "pilot-rendezvous") { _ in JSONLogHandler() }
    case let other: throw RendezvousError(.invalidSetting, "“\(other)” is no log format", hint: "text or json")
    }
  }

  static func level(_ text: String?) throws -> Logger.Level {
    let name = text ?? "info"
    guard let level = Logger.Level(rawValue: name.lowercased()) else {
      let levels = Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")
      throw RendezvousError(.invalidSetting, "“\(name)” is no log level", hint: "levels are: \(levels)")
    }
    return level
  }

  private static let place = Atomic<Int>(0)

  /// The level in force, of all loggers.
  static var current: Logger.Level { Logger.Level.allCases[place.load(ordering: .relaxed)] }

  static func change(_ level: Logger.Level) {
    place.store(Logger.Level.allCases.firstIndex(of: level) ?? 0, ordering: .relaxed)
  }
}

/// The usual lines of swift-log, at the level in force.
private struct TextLogHandler: LogHandler {
  private var lines: StreamLogHandler

  init(label: String) {
    lines = StreamLogHandler.standardError(label: label)
    lines.logLevel = .trace
  }

  var logLevel: Logger.Level {
    get { ServerLog.current }
    set {}
  }

  var metadata: Logger.Metadata {
    get { lines.metadata }
    set { lines.metadata = newValue }
  }

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { lines[metadataKey: key] }
    set { lines[metadataKey: key] = newValue }
  }

  func log(event: LogEvent) { lines.log(event: event) }
}

/// One JSON object a line: time, level, message, and the metadata beside them.
private struct JSONLogHandler: LogHandler {
  var metadata: Logger.Metadata = [:]

  var logLevel: Logger.Level {
    get { ServerLog.current }
    set {}
  }

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    var object = metadata.merging(event.metadata ?? [:]) { $1 }.mapValues(\.description)
    object["time"] = Date().formatted(.iso8601)
    object["level"] = event.level.rawValue
    object["message"] = event.message.description
    guard let data = try? JSONSerialization.data(withJSONObject: object, options: [.sortedKeys]) else { return }
    FileHandle.standardError.write(data + Data("\n".utf8))
  }
}
