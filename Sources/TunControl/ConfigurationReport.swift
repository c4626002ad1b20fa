// `pilot-tun config check`, `show` and `schema`: everything wrong with a file, what holds and where it comes from, and
// what there is to set. Also what `bugreport` and a running node tell of their configuration.

package import JSON
package import Settings

package enum ConfigurationReport {
  // MARK: check

  /// Everything wrong with the text of a file, in the order of the file. Files with secrets are looked at, too.
  package static func problems(_ text: String, path: String, environment: [String: String]) -> [ControlError] {
    let content = ConfigurationFile.read(text, path: path)
    var problems = content.problems
    // Only what the secrets need of the environment: its settings are no matter of the file.
    let credentials = environment.filter { $0.key == "CREDENTIALS_DIRECTORY" }
    var layers = ConfigurationLayers(environment: credentials, file: content.settings)
    // The reader stops at the first wrong value: it is taken out and the rest read again.
    while let problem = failure(layers) {
      problems.append(problem)
      guard let setting = problem.subject?.setting, layers.file.removeValue(forKey: setting) != nil else { break }
    }
    if let path = content.settings[.adminTokenFile]?.texts.last {
      do throws(ControlError) {
        _ = try AdminToken(path: path, credentials: Credentials(environment: environment))
      } catch {
        problems.append(error)
      }
    }
    func order(_ problem: ControlError) -> (Int, Int) {
      problem.subject?.place.map { ($0.line, $0.column) } ?? (.max, .max)
    }
    return problems.sorted { order($0) < order($1) }
  }

  private static func failure(_ layers: ConfigurationLayers) -> ControlError? {
    do throws(ControlError) {
      _ = try NodeConfiguration(layers)
      return nil
    } catch {
      return error
    }
  }

  // MARK: show

  /// `settings`: one object for each, `key`, `value` (null: nothing was said), `default`, `source`, `reloadable`.
  /// Secrets are left out.
  package static func effective(_ layers: ConfigurationLayers) -> JSONValue {
    let settings = Setting.allCases.map { setting in
      let declaration = setting.declaration
      let value = layers.value(of: setting)
      let texts = (value?.texts ?? []).map { JSONValue.text(setting.redacted($0)) }
      let shown: JSONValue = value == nil ? .null : setting.isList ? .list(texts) : texts.last ?? JSONValue.null
      return [
        "key": .text(setting.rawValue), "default": .text(SettingDocuments.plain(declaration.standard)),
        "value": shown,
        "source": .text(value?.origin ?? "default"), "reloadable": JSONValue(declaration.isReloadable),
      ] as JSONValue
    }
    return ["settings": .list(settings)]
  }

  /// The report with what another one has of one setting.
  static func replacing(_ setting: Setting, in old: JSONValue, from new: JSONValue) -> JSONValue {
    let key = setting.rawValue
    let taken = new.items("settings").first { $0.string("key") == key }
    return ["settings": .list(old.items("settings").map { $0.string("key") == key ? taken ?? $0 : $0 })]
  }

  /// The table for people: what was set first.
  package static func text(_ data: JSONValue) -> String {
    let settings = data.items("settings")
    let rows = settings.map { setting -> [String] in
      let value: String
      switch setting["value"] {
      case .list(let items): value = items.compactMap(\.text).joined(separator: ", ")
      case .text(let text): value = text
      default: value = setting.string("default")
      }
      return [setting.string("key"), TextForms.plain(value), setting.string("source")]
    }
    let isSet = { (row: [String]) in row[2] != "default" }
    return TextForms.table([["SETTING", "VALUE", "FROM"]] + rows.filter(isSet) + rows.filter { !isSet($0) })
  }

  // MARK: schema

  package static func schema(_ declarations: [SettingDeclaration]) -> JSONValue {
    let settings = declarations.map { setting in
      var members: [String: JSONValue] = [
        "key": .text(setting.key), "type": .text(setting.kind.word),
        "value": .text(SettingDocuments.plain(setting.value)),
        "default": .text(SettingDocuments.plain(setting.standard)),
        "reloadable": JSONValue(setting.isReloadable), "secret": JSONValue(setting.isSecret),
        "summary": .text(setting.summary), "meaning": .text(SettingDocuments.plain(setting.meaning)),
        "example": .text(setting.example),
      ]
      switch setting.kind {
      case .number(let range, let unit):
        members["minimum"] = JSONValue(range.lowerBound)
        members["maximum"] = JSONValue(range.upperBound)
        members["unit"] = .text(unit)
      case .choice(let words): members["choices"] = .list(words.map { .text($0) })
      case .text, .path, .flag, .list: break
      }
      return JSONValue.object(members)
    }
    return ["settings": .list(settings)]
  }
}
