// Where a setting's value comes from and which source wins: flag, environment, file, default (docs/design.md §10).
// The sources hand in texts; NodeConfiguration reads them. Used by `pilot-tun` and by the tests.

import Settings

/// One setting of the node. The raw value is the flag's name; the file's key is the same, with `-` or `_`.
package enum Setting: String, CaseIterable, Sendable {
  case stateDirectory = "state-dir"
  case controlSocket = "control-socket"
  case ipc
  case inbox
  case adminTokenFile = "admin-token-file"
  case hostname
  case rendezvous
  case registry
  case beacon
  case interface
  case mtu
  case listen
  case advertise
  case portMapping = "port-mapping"
  case hardNAT = "hard-nat"
  case isPublic = "public"
  case trustAutoApprove = "trust-auto-approve"
  case networks = "network"
  case tags = "tag"
  case relayOnly = "relay-only"
  case relay
  case relayLimit = "relay-limit"
  case transport
  case rendezvousTLS = "rendezvous-tls"
  case proxy
  case proxyCredentialsCommand = "proxy-credentials-command"
  case tlsCAFile = "tls-ca-file"
  case dns
  case dnsSearch = "dns-search"
  case metrics
  case logLevel = "log-level"
  case logFormat = "log-format"

  /// `PILOT_TUN_STATE_DIR` for `state-dir`.
  package var environmentName: String {
    "PILOT_TUN_" + rawValue.uppercased().map { $0 == "-" ? "_" : String($0) }.joined()
  }

  /// Whether the setting may be given more than once; in the environment its values are separated by commas.
  package var isList: Bool { declaration.kind == .list }
  package var isSwitch: Bool { declaration.kind == .flag }
}

/// The texts of a setting and the source they came from, as it is named in error messages.
package struct SettingValue: Equatable, Sendable {
  package var texts: [String]
  package var origin: String
  /// Of values from a file: where they stand.
  package var place: SourcePlace?

  package init(_ texts: [String], origin: String, place: SourcePlace? = nil) {
    self.texts = texts
    self.origin = origin
    self.place = place
  }
}

/// A spot of a configuration file. Lines and columns count from 1.
package struct SourcePlace: Equatable, Sendable, CustomStringConvertible {
  package var file: String
  package var line: Int
  package var column: Int

  package init(file: String, line: Int, column: Int) {
    self.file = file
    self.line = line
    self.column = column
  }

  package var description: String { "\(file):\(line):\(column)" }
}

/// All sources, strongest first.
package struct ConfigurationLayers: Sendable {
  package var flags: [Setting: [String]]
  package var environment: [String: String]
  package var file: [Setting: SettingValue]

  package init(
    flags: [Setting: [String]] = [:], environment: [String: String] = [:], file: [Setting: SettingValue] = [:]
  ) {
    self.flags = flags
    self.environment = environment
    self.file = file
  }

  /// For commands of users who may not read the files that hold secrets.
  package var withoutSecrets: ConfigurationLayers {
    var result = self
    for setting in Setting.allCases where setting.declaration.isSecret {
      result.flags[setting] = nil
      result.environment[setting.environmentName] = nil
      result.file[setting] = nil
    }
    return result
  }

  /// The strongest value of a setting, or nil for the default. An empty environment variable counts as unset.
  package func value(of setting: Setting) -> SettingValue? {
    if let texts = flags[setting], !texts.isEmpty {
      return SettingValue(texts, origin: "flag --\(setting.rawValue)")
    }
    let name = setting.environmentName
    if let text = environment[name], !text.isEmpty {
      let texts = setting.isList ? text.split(separator: ",").map { String(trimming: $0) } : [text]
      return SettingValue(texts, origin: "environment \(name)")
    }
    return file[setting]
  }
}

extension String {
  /// The text without blanks at its ends.
  package init(trimming text: some StringProtocol) {
    let isBlank: (Character) -> Bool = { $0.isWhitespace }
    var rest = Substring(text).drop(while: isBlank)
    while let last = rest.last, isBlank(last) { rest.removeLast() }
    self = String(rest)
  }
}
