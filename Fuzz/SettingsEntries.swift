// One entry point per parser of Settings, as Fuzz/WireEntries.swift has them for Wire. SettingsTests replays the corpus
// and seeded mutations of it.

import Settings

typealias RoomEntry = SettingsEntry

/// A parser, by the name of its corpus folder.
enum SettingsEntry: String, CaseIterable {
  case settings

  /// Of each seed, in the room's tests.
  static let mutations = 60

  /// nil: it held what it promises; else the promise that was broken.
  func violation(_ bytes: [UInt8]) -> String? {
    let text = String(decoding: bytes, as: UTF8.self)
    let lines = text.unicodeScalars.split(separator: "\n", omittingEmptySubsequences: false).map(\.count)
    let places = KeyPlaces(text)
    for (key, entry) in places.entries {
      for place in [entry.key, entry.value ?? entry.key] {
        guard (1...lines.count).contains(place.line), (1...lines[place.line - 1] + 1).contains(place.column) else {
          return "\(key) is said to stand at \(place), which is not in the file"
        }
      }
      let near = NearestKey.of(key, among: ["hostname", "mtu", "log-level", "log-format", "admin-token-file"])
      guard near == nil || key.utf8.count <= 64 else { return "a long key is led to \(near ?? "")" }
    }
    return nil
  }
}
