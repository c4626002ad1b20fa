// Settings by name, as they come from a file, the environment and flags. Used by pilot-rendezvous.

package import Settings
import Wire

/// Collects settings, later sources replacing earlier ones, and makes a configuration of them.
///
/// Precedence is the order of the calls: file, then environment, then flags. Names are taken with `-` or `_`.
package struct RendezvousSettings: Sendable {
  package static let defaultStateDirectory = "/var/lib/pilot-rendezvous"
  /// Read when nothing else is named, if it is there.
  package static let defaultPath = "/etc/pilot-rendezvous/config.toml"
  package static let fileEnvironmentName = "PILOT_RENDEZVOUS_CONFIG"

  package struct Value: Equatable, Sendable {
    package var texts: [String]
    /// `FILE:LINE:COLUMN`, the name of the variable or of the flag.
    package var origin: String
  }

  private var values: [String: Value] = [:]
  private var credentials = Credentials()

  package init() {}

  package subscript(name: String) -> String? { values[Self.key(name)]?.texts.last }

  /// Keys of what has another value than in the other one, in the order of the manual.
  package func differences(from other: RendezvousSettings) -> [String] {
    Self.declarations.map(\.key).filter { values[$0]?.texts != other.values[$0]?.texts }
  }

  /// Takes one value, or its absence, from the other one.
  package mutating func take(_ key: String, from other: RendezvousSettings) { values[key] = other.values[key] }

  /// The value of each setting as it may be shown, and where it came from; nil: nothing was said.
  package func shown(_ declaration: SettingDeclaration) -> Value? {
    guard var value = values[declaration.key] else { return nil }
    if declaration.isSecret {
      value.texts = value.texts.map { text in
        let parts = text.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
        guard declaration.kind == .list else { return "(redacted)" }
        return parts.count == 3 && !parts[2].hasPrefix("@") ? "\(parts[0]):\(parts[1]):(redacted)" : text
      }
    }
    return value
  }

  package mutating func set(_ name: String, _ value: [String], origin: String? = nil) throws(RendezvousError) {
    let key = Self.key(name)
    guard Self.declaration(key) != nil else {
      let names = Self.declarations.map(\.key)
      let near = NearestKey.of(key, among: names).map { "did you mean “\($0)”? " } ?? ""
      throw RendezvousError(
        .invalidSetting, (origin.map { "\($0): " } ?? "") + "there is no setting “\(name)”",
        hint: near + "settings are: " + names.joined(separator: ", "))
    }
    values[key] = Value(texts: value, origin: origin ?? "flag --\(Self.flag(key))")
  }

  /// Flags of lists are given once for each value.
  private static func flag(_ key: String) -> String {
    key == "networks" ? "network" : key == "more-beacons" ? "more-beacon" : key
  }

  /// `PILOT_RENDEZVOUS_STATE_DIR` and so on; lists are separated by commas.
  package mutating func readEnvironment(_ environment: [String: String]) throws(RendezvousError) {
    credentials = Credentials(environment: environment)
    for declaration in Self.declarations {
      let name = "PILOT_RENDEZVOUS_" + declaration.key.uppercased().map { $0 == "-" ? "_" : String($0) }.joined()
      guard let value = environment[name], !value.isEmpty else { continue }
      try set(
        declaration.key, declaration.kind == .list ? value.split(separator: ",").map(String.init) : [value],
        origin: "environment \(name)")
    }
  }

  /// Lines `name = value` with `#` comments. A value is a number, true, false, a text in double quotes, or a list of
  /// texts in brackets on one line: the part of TOML that these settings need.
  package mutating func readFile(_ text: String, path: String) throws(RendezvousError) {
    if let problem = readWhole(text, path: path).first { throw problem }
  }

  /// The same, with everything that is wrong.
  package mutating func readWhole(_ text: String, path: String) -> [RendezvousError] {
    var problems: [RendezvousError] = []
    for (number, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
      var scanner = SettingLine(line)
      let setting: (name: String, value: [String])?
      do throws(SettingLine.Malformed) {
        setting = try scanner.setting()
      } catch {
        problems.append(
          RendezvousError(
            .invalidSetting, "\(path):\(number + 1):\(scanner.column): this is no setting",
            hint: "write name = value; texts in double quotes, lists in brackets on one line"))
        continue
      }
      guard let setting else { continue }
      do throws(RendezvousError) {
        try set(setting.name, setting.value, origin: "\(path):\(number + 1):\(scanner.start)")
      } catch {
        problems.append(error)
      }
    }
    return problems
  }

  package func configuration() throws(RendezvousError) -> RendezvousConfiguration {
    var result = RendezvousConfiguration(stateDirectory: self["state_dir"] ?? Self.defaultStateDirectory)
    if let endpoint = try endpoint("registry_listen") { result.registryListen = endpoint }
    if let endpoint = try endpoint("beacon_listen") { result.beaconListen = endpoint }
    result.httpListen = try endpoint("http_listen")
    result.advertisedBeacon = try endpoint("advertised_beacon")
    for text in values["more-beacons"]?.texts ?? [] {
      guard let beacon = Endpoint(text) else { throw invalid("more_beacons", text) }
      result.moreBeacons.append(beacon)
    }
    result.adminToken = try adminToken()
    result.tlsCertificate = self["tls_certificate"]
    result.tlsKey = self["tls_key"]
    if self["tls_listen"] == "off" {
      result.tlsListen = nil
    } else if let endpoint = try endpoint("tls_listen") {
      result.tlsListen = (endpoint: endpoint, isDefault: false)
    } else if result.tlsCertificate != nil {
      result.tlsListen = (endpoint: Endpoint(address: IPv6Address(high: 0, low: 0), port: 443), isDefault: true)
    }
    if let flag = try flag("admin_needs_tls") { result.adminNeedsTLS = flag }
    if let flag = try flag("believe_local_clients") { result.believesLocalClients = flag }
    if let flag = try flag("bind_changes_to_host") { result.bindsChangesToHost = flag }
    if let flag = try flag("group_connections") { result.groupsConnections = flag }
    if let number = try number("connections") { result.limits.connections = number }
    if let number = try number("connections_per_source") {
      result.limits.connectionsPerSource = number
    }
    if let number = try number("nodes") { result.limits.nodes = number }
    if let number = try number("relayed_per_second") {
      result.limits.relayedPerSecond = Double(number)
    }
    if let number = try number("threads") { result.threads = number }
    for text in values["networks"]?.texts ?? [] { result.networks.append(try network(text)) }
    if let ranges = values["exempt-sources"] {
      result.exemptSources = []
      for text in ranges.texts {
        guard let range = SourceNetwork(text) else { throw invalid("exempt_sources", text) }
        result.exemptSources.append(range)
      }
    }
    return result
  }

  /// The token itself, the file that holds it, or the credential of the service.
  private func adminToken() throws(RendezvousError) -> String? {
    if let text = self["admin_token"] { return text }
    guard let path = self["admin_token_file"] ?? credentials.path(of: "admin-token") else { return nil }
    return try secret(path, "the administrator's token")
  }

  private func network(_ text: String) throws(RendezvousError) -> NetworkSpecification {
    let origin = values["networks"]?.origin ?? ""
    var specification: NetworkSpecification
    do {
      specification = try NetworkSpecification(text)
    } catch {
      throw RendezvousError(error.kind, "\(origin): \(error.message)", hint: error.hint)
    }
    if let token = specification.token, token.hasPrefix("@") {
      specification.token = try secret(
        String(token.dropFirst()), "\(origin): the token of network \(specification.name)")
    }
    return specification
  }

  private func secret(_ path: String, _ what: String) throws(RendezvousError) -> String {
    do throws(SecretFault) {
      return try credentials.secret(at: path)
    } catch {
      throw RendezvousError(.secretUnusable, "\(what): \(error.message)", hint: error.hint)
    }
  }

  private func invalid(_ name: String, _ value: String) -> RendezvousError {
    let declaration = Self.declaration(name)
    let form = declaration.map { SettingDocuments.plain($0.value) } ?? ""
    let origin = values[Self.key(name)].map { "\($0.origin): " } ?? ""
    return RendezvousError(
      .invalidSetting, "\(origin)“\(value)” is no value for \(declaration?.key ?? name)", hint: "expected: \(form)")
  }

  private func endpoint(_ name: String) throws(RendezvousError) -> Endpoint? {
    guard let text = self[name] else { return nil }
    guard let endpoint = Endpoint(text) else { throw invalid(name, text) }
    return endpoint
  }

  private func flag(_ name: String) throws(RendezvousError) -> Bool? {
    guard let text = self[name] else { return nil }
    guard let value = Bool(text) else { throw invalid(name, text) }
    return value
  }

  /// A number within the declared range.
  private func number(_ name: String) throws(RendezvousError) -> Int? {
    guard let text = self[name] else { return nil }
    guard let value = Int(text), case .number(let range, _)? = Self.declaration(name)?.kind, range.contains(value)
    else {
      throw invalid(name, text)
    }
    return value
  }
}

/// One line of a configuration file.
private struct SettingLine {
  struct Malformed: Error {}

  private var rest: Substring
  private let whole: Substring
  /// Where the setting begins, counted from 1.
  private(set) var start = 1

  init(_ line: Substring) {
    rest = line
    whole = line
  }

  /// How far the line was understood, counted from 1.
  var column: Int { whole.unicodeScalars.distance(from: whole.startIndex, to: rest.startIndex) + 1 }

  private mutating func skipBlanks() { rest = rest.drop { $0 == " " || $0 == "\t" || $0 == "\r" } }

  private var isAtEnd: Bool { rest.isEmpty || rest.first == "#" }

  /// Nil for a line without a setting.
  mutating func setting() throws(Malformed) -> (name: String, value: [String])? {
    skipBlanks()
    if isAtEnd { return nil }
    start = column
    let name = rest.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_" || $0 == "-") }
    rest = rest.dropFirst(name.count)
    skipBlanks()
    guard !name.isEmpty, rest.popFirst() == "=" else { throw Malformed() }
    skipBlanks()
    let value = try value()
    skipBlanks()
    guard isAtEnd else { throw Malformed() }
    return (String(name), value)
  }

  private mutating func value() throws(Malformed) -> [String] {
    switch rest.first {
    case "[":
      rest.removeFirst()
      var values: [String] = []
      while true {
        skipBlanks()
        if rest.first == "]" { break }
        values.append(try text())
        skipBlanks()
        if rest.first == "," { rest.removeFirst() } else if rest.first != "]" { throw Malformed() }
      }
      rest.removeFirst()
      return values
    case "\"": return [try text()]
    default:
      let word = rest.prefix { $0.isASCII && ($0.isLetter || $0.isNumber) }
      guard !word.isEmpty else { throw Malformed() }
      rest = rest.dropFirst(word.count)
      return [String(word)]
    }
  }

  private mutating func text() throws(Malformed) -> String {
    guard rest.popFirst() == "\"" else { throw Malformed() }
    var text = ""
    while let character = rest.popFirst() {
      switch character {
      case "\"": return text
      case "\\":
        guard let escaped = rest.popFirst(), escaped == "\"" || escaped == "\\" else { throw Malformed() }
        text.append(escaped)
      default: text.append(character)
      }
    }
    throw Malformed()
  }
}
