// Where the server's log goes: lines on standard error, as text or as JSON objects. Used by serve.

import Foundation
import Logging
import Rendezvous

enum ServerLog {
  static func logger(level: String?, format: String?) throws -> Logger {
    let name = level ?? "info"
    guard let level = Logger.Level(rawValue: name.lowercased()) else {
      let levels = Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")
      throw RendezvousError(.invalidSetting, "“\(name)” is no log level", hint: "levels are: \(levels)")
    }
    var logger: Logger
    switch format ?? "text" {
    case "text": logger = Logger(label: "pilot-rendezvous", factory: StreamLogHandler.standardError(label:))
    case "json": logger = Logger(label: "pilot-rendezvous") { _ in JSONLogHandler() }
    case let other: throw RendezvousError(.invalidSetting, "“\(other)” is no log format", hint: "text or json")
    }
    logger.logLevel = level
    return logger
  }
}

/// One JSON object a line: time, level, message, and the metadata beside them.
private struct JSONLogHandler: LogHandler {
  var metadata: Logger.Metadata = [:]
  var logLevel = Logger.Level.info

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
