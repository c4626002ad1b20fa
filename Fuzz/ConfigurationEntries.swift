// One entry point per parser of TunControl's configuration, as Fuzz/WireEntries.swift has them for Wire. TunControlTests
// replays the corpus and seeded mutations of it.

import Settings

#if canImport(TunControl)
  @testable import TunControl
#endif

typealias RoomEntry = ConfigurationEntry

/// A parser, by the name of its corpus folder.
enum ConfigurationEntry: String, CaseIterable {
  case toml

  /// Of each seed, in the room's tests.
  static let mutations = 60

  /// nil: it held what it promises; else the promise that was broken.
  func violation(_ bytes: [UInt8]) -> String? {
    let text = String(decoding: bytes, as: UTF8.self)
    let table: TOMLTable
    do throws(TOMLProblem) {
      table = try TOMLTable(text)
    } catch {
      // What is said of a mistake leads a person to it.
      let lines = text.unicodeScalars.split(separator: "\n", omittingEmptySubsequences: false).map(\.count)
      guard (1...lines.count).contains(error.line), (1...lines[error.line - 1] + 2).contains(error.column) else {
        return "line \(error.line), column \(error.column) is not in the text: \(error.cause)"
      }
      return error.cause.isEmpty ? "a mistake without a cause" : nil
    }
    // Two readers of the same text: the one for values and the one for places.
    let places = KeyPlaces(text)
    return table.values.keys.first { places[$0] == nil }.map { "\($0) is read and stands nowhere" }
  }
}
