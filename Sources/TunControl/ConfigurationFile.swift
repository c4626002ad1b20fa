// Reads the configuration file: flat TOML, one key per setting. Unknown keys and wrong types are errors, because a
// misspelt key that is silently ignored is the worst kind of configuration.

import TOMLKit

package enum ConfigurationFile {
  package static let defaultPath = "/etc/pilot-tun/config.toml"
  package static let environmentName = "PILOT_TUN_CONFIG"
  /// No configuration is longer; keeps a wrong path (a disk image, say) from being read whole.
  static let sizeLimit = 256 * 1024

  /// Reads the file. A missing file is an error only when it was asked for by name.
  package static func load(path: String, isExplicit: Bool) throws(ControlError) -> [Setting: SettingValue] {
    let bytes: [UInt8]
    do {
      bytes = try SmallFile.read(path, limit: sizeLimit)
    } catch {
      if error.isMissing, !isExplicit { return [:] }
      throw ControlError(
        "configuration_unreadable", "cannot read \(path): \(error.reason)",
        hint: "check the path and its permissions, or leave out --config", isUsage: true)
    }
    return try parse(String(decoding: bytes, as: UTF8.self), path: path)
  }

  package static func parse(_ text: String, path: String) throws(ControlError) -> [Setting: SettingValue] {
    let table: TOMLTable
    do {
      table = try TOMLTable(string: text)
    } catch {
      var place = ""
      if let error = error as? TOMLParseError {
        place = ":\(error.source.begin.line):\(error.source.begin.column)"
      }
      throw ControlError(
        "configuration_invalid", "\(path)\(place) is not valid TOML",
        hint: "one `key = value` per line; texts in double quotes", isUsage: true)
    }
    var settings: [Setting: SettingValue] = [:]
    for key in table.keys {
      guard let setting = setting(for: key) else {
        let near = nearest(to: key).map { "did you mean `\($0)`? " } ?? ""
        throw ControlError(
          "configuration_unknown_key", "\(path): unknown key `\(key)`",
          hint: near + "known keys: " + Setting.allCases.map(\.rawValue).joined(separator: ", "), isUsage: true)
      }
      guard settings[setting] == nil else {
        throw ControlError("configuration_invalid", "\(path): `\(setting.rawValue)` is given twice", isUsage: true)
      }
      settings[setting] = SettingValue(
        try texts(of: table[key], setting: setting, path: path), origin: "\(path), key `\(key)`")
    }
    return settings
  }

  /// `state_dir` and `state-dir` are the same key; lists may be written in the plural.
  private static func setting(for key: String) -> Setting? {
    let name = key.split(separator: "_", omittingEmptySubsequences: false).joined(separator: "-")
    if name == "networks" || name == "tags" || name == "beacons" { return Setting(rawValue: String(name.dropLast())) }
    return Setting(rawValue: name)
  }

  private static func texts(
    of value: (any TOMLValueConvertible)?, setting: Setting, path: String
  ) throws(ControlError) -> [String] {
    if let single = value.flatMap(scalar(_:)) { return [single] }
    if setting.isList, let array = value?.array {
      let texts = array.compactMap { scalar($0) }
      if texts.count == array.count { return texts }
    }
    let expected = setting.isList ? "a list of values" : setting.isSwitch ? "true or false" : "a text or a number"
    throw ControlError(
      "configuration_invalid", "\(path): `\(setting.rawValue)` must be \(expected)", isUsage: true)
  }

  private static func scalar(_ value: any TOMLValueConvertible) -> String? {
    if let text = value.string { return text }
    if let flag = value.bool { return flag ? "true" : "false" }
    if let number = value.int { return String(number) }
    return nil
  }

  /// The known key with the smallest edit distance, when that is at most 2.
  private static func nearest(to key: String) -> String? {
    let scored = Setting.allCases.map { ($0.rawValue, distance(Array(key.utf8), Array($0.rawValue.utf8))) }
    return scored.filter { $0.1 <= 2 }.min { $0.1 < $1.1 }?.0
  }

  private static func distance(_ a: [UInt8], _ b: [UInt8]) -> Int {
    guard a.count <= 64 else { return .max }
    var row = Array(0...b.count)
    for (i, x) in a.enumerated() {
      var diagonal = row[0]
      row[0] = i + 1
      for (j, y) in b.enumerated() {
        let above = row[j + 1]
        row[j + 1] = min(above + 1, row[j] + 1, diagonal + (x == y ? 0 : 1))
        diagonal = above
      }
    }
    return row[b.count]
  }
}
