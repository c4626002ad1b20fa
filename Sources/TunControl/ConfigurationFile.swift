// Reads the configuration file: flat TOML, one key per setting. Unknown keys and wrong types are errors, because a
// misspelt key that is silently ignored is the worst kind of configuration.

import Settings

package enum ConfigurationFile {
  package static let defaultPath = "/etc/pilot-tun/config.toml"
  package static let environmentName = "PILOT_TUN_CONFIG"
  /// No configuration is longer; keeps a wrong path (a disk image, say) from being read whole.
  static let sizeLimit = 256 * 1024

  /// What was understood of a file, and everything that is wrong with it.
  package struct Content: Sendable {
    package var settings: [Setting: SettingValue] = [:]
    package var problems: [ControlError] = []
  }

  /// Reads the file that `--config` or the environment names, or the default one. A missing file is an error only when
  /// it was asked for by name.
  package static func load(
    named: String?, environment: [String: String]
  ) throws(ControlError) -> [Setting: SettingValue] {
    let named = named ?? environment[environmentName].flatMap { $0.isEmpty ? nil : $0 }
    return try load(path: named ?? defaultPath, isExplicit: named != nil)
  }

  package static func load(path: String, isExplicit: Bool) throws(ControlError) -> [Setting: SettingValue] {
    guard let text = try text(path: path, isExplicit: isExplicit) else { return [:] }
    return try parse(text, path: path)
  }

  /// The file as it is; nil for a missing one that nobody named.
  package static func text(path: String, isExplicit: Bool) throws(ControlError) -> String? {
    do {
      return String(decoding: try SmallFile.read(path, limit: sizeLimit), as: UTF8.self)
    } catch {
      if error.isMissing, !isExplicit { return nil }
      throw ControlError(
        "configuration_unreadable", "cannot read \(path): \(error.reason)",
        hint: "check the path and its permissions, or leave out --config", isUsage: true)
    }
  }

  /// The settings, or the first problem.
  package static func parse(_ text: String, path: String) throws(ControlError) -> [Setting: SettingValue] {
    let content = read(text, path: path)
    if let problem = content.problems.first { throw problem }
    return content.settings
  }

  package static func read(_ text: String, path: String) -> Content {
    var content = Content()
    let table: TOMLTable
    do throws(TOMLProblem) {
      table = try TOMLTable(text)
    } catch {
      let place = SourcePlace(file: path, line: error.line, column: error.column)
      content.problems = [
        ControlError(
          "configuration_invalid", "\(place): not valid TOML: \(TextForms.plain(error.cause))",
          hint: "one `key = value` per line; texts in double quotes", isUsage: true,
          subject: ControlError.Subject(place: place))
      ]
      return content
    }
    let places = KeyPlaces(text)
    func place(_ place: KeyPlaces.Place?) -> SourcePlace {
      SourcePlace(file: path, line: place?.line ?? 1, column: place?.column ?? 1)
    }
    let keys = table.values.keys.map { (key: $0, entry: places[$0]) }.sorted { a, b in
      let (a, b) = (place(a.entry?.key), place(b.entry?.key))
      return (a.line, a.column) < (b.line, b.column)
    }
    for (key, entry) in keys {
      let at = place(entry?.key)
      guard let setting = setting(for: key) else {
        content.problems.append(unknown(key, at))
        continue
      }
      guard content.settings[setting] == nil else {
        content.problems.append(
          invalid("\(at): `\(setting.rawValue)` is given twice, as `\(key)` here", setting, at, hint: "keep one"))
        continue
      }
      let valuePlace = place(entry?.value ?? entry?.key)
      do throws(ControlError) {
        content.settings[setting] = SettingValue(
          try texts(of: table.values[key], setting, valuePlace), origin: "\(valuePlace), key `\(key)`",
          place: valuePlace)
      } catch {
        content.problems.append(error)
      }
    }
    return content
  }

  private static func unknown(_ key: String, _ place: SourcePlace) -> ControlError {
    let known = Setting.allCases.map(\.rawValue)
    let near = NearestKey.of(name(of: key), among: known).map { "did you mean `\($0)`? " } ?? ""
    return ControlError(
      "configuration_unknown_key", "\(place): unknown key `\(TextForms.plain(key))`",
      hint: near + "known keys: " + known.joined(separator: ", "), isUsage: true,
      subject: ControlError.Subject(place: place))
  }

  private static func invalid(
    _ message: String, _ setting: Setting, _ place: SourcePlace, hint: String?
  ) -> ControlError {
    ControlError(
      "configuration_invalid", message, hint: hint, isUsage: true,
      subject: ControlError.Subject(setting: setting, place: place))
  }

  /// `state_dir` and `state-dir` are the same key; lists may be written in the plural.
  private static func setting(for key: String) -> Setting? {
    let name = name(of: key)
    if let setting = Setting(rawValue: name) { return setting }
    guard name.hasSuffix("s"), let setting = Setting(rawValue: String(name.dropLast())), setting.isList else {
      return nil
    }
    return setting
  }

  private static func name(of key: String) -> String {
    key.split(separator: "_", omittingEmptySubsequences: false).joined(separator: "-")
  }

  private static func texts(
    of value: TOMLValue?, _ setting: Setting, _ place: SourcePlace
  ) throws(ControlError) -> [String] {
    let declaration = setting.declaration
    if let single = value.flatMap({ scalar($0, declaration.kind) }) { return [single] }
    if setting.isList, case .list(let items) = value {
      let texts = items.compactMap { scalar($0, declaration.kind) }
      if texts.count == items.count { return texts }
    }
    let type =
      switch declaration.kind {
      case .list: "a list of texts or numbers"
      case .flag: "true or false"
      case .number: "a whole number"
      case .text, .path, .choice: "a text"
      }
    throw invalid(
      "\(place): `\(setting.rawValue)` must be \(type)", setting, place,
      hint: "for example: \(setting.rawValue) = \(declaration.example)")
  }

  /// Numbers and texts may stand for each other (`listen = 4000`), and `"true"` for true, as in the environment.
  private static func scalar(_ value: TOMLValue, _ kind: SettingDeclaration.Kind) -> String? {
    switch value {
    case .text(let text): text
    case .flag(let flag): kind == .flag ? (flag ? "true" : "false") : nil
    case .number(let number): kind == .flag ? nil : String(number)
    case .list, .other: nil
    }
  }
}

extension ConfigurationFile {
  /// The first lines of docs/config.toml.example.
  package static let exampleHeading = """
    /etc/pilot-tun/config.toml: settings of `pilot-tun up`. All are optional; flags and PILOT_TUN_… variables win over
    this file. `pilot-tun config check` tells what is wrong with it, `pilot-tun config show` what holds.
    Made by scripts/docs from the table of settings; docs/configuration.md has the same table.
    """
}
