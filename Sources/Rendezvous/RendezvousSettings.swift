// Settings by name, as they come from a file, the environment and flags. Used by pilot-rendezvous.

import Wire

/// Collects settings, later sources replacing earlier ones, and makes a configuration of them.
///
/// Precedence is the order of the calls: file, then environment, then flags.
package struct RendezvousSettings: Sendable {
  /// What can be set, each with the form of its value.
  package static let forms: [(name: String, form: String)] = [
    ("state_dir", "a directory"), ("registry_listen", "ADDRESS:PORT"), ("beacon_listen", "ADDRESS:PORT"),
    ("http_listen", "ADDRESS:PORT"), ("advertised_beacon", "ADDRESS:PORT"),
    ("more_beacons", "ADDRESS:PORT, several"), ("admin_token", "a text"),
    ("admin_needs_tls", "true or false"), ("tls_certificate", "a PEM file"), ("tls_key", "a PEM file"),
    ("networks", "NAME:open or NAME:token:SECRET, several"), ("exempt_sources", "addresses or ADDRESS/LENGTH, several"),
    ("believe_local_clients", "true or false"), ("bind_changes_to_host", "true or false"),
    ("group_connections", "true or false"), ("connections", "a number"), ("connections_per_source", "a number"),
    ("nodes", "a number"), ("relayed_per_second", "a number"), ("threads", "a number"), ("log_level", "a level"),
    ("log_format", "text or json"),
  ]

  package static let defaultStateDirectory = "/var/lib/pilot-rendezvous"

  private var values: [String: [String]] = [:]

  package init() {}

  package subscript(name: String) -> String? { values[name]?.last }

  package mutating func set(_ name: String, _ value: [String]) throws(RendezvousError) {
    guard Self.forms.contains(where: { $0.name == name }) else {
      let names = Self.forms.map(\.name).joined(separator: ", ")
      throw RendezvousError(.invalidSetting, "there is no setting “\(name)”", hint: "settings are: \(names)")
    }
    values[name] = value
  }

  /// `PILOT_RENDEZVOUS_STATE_DIR` and so on; lists are separated by commas.
  package mutating func readEnvironment(_ environment: [String: String]) throws(RendezvousError) {
    for (name, _) in Self.forms {
      guard let value = environment["PILOT_RENDEZVOUS_" + name.uppercased()], !value.isEmpty else { continue }
      try set(name, Self.isList(name) ? value.split(separator: ",").map(String.init) : [value])
    }
  }

  /// Lines `name = value` with `#` comments. A value is a number, true, false, a text in double quotes, or a list of
  /// texts in brackets on one line: the part of TOML that these settings need.
  package mutating func readFile(_ text: String, path: String) throws(RendezvousError) {
    for (number, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
      var scanner = SettingLine(line)
      let setting: (name: String, value: [String])?
      do throws(SettingLine.Malformed) {
        setting = try scanner.setting()
      } catch {
        throw RendezvousError(
          .invalidSetting, "\(path) line \(number + 1) is no setting",
          hint: "write name = value; texts in double quotes, lists in brackets on one line")
      }
      guard let setting else { continue }
      do throws(RendezvousError) {
        try set(setting.name, setting.value)
      } catch {
        throw RendezvousError(error.kind, "\(path) line \(number + 1): \(error.message)", hint: error.hint)
      }
    }
  }

  private static func isList(_ name: String) -> Bool {
    name == "networks" || name == "exempt_sources" || name == "more_beacons"
  }

  package func configuration() throws(RendezvousError) -> RendezvousConfiguration {
    var result = RendezvousConfiguration(stateDirectory: self["state_dir"] ?? Self.defaultStateDirectory)
    if let endpoint = try endpoint("registry_listen") { result.registryListen = endpoint }
    if let endpoint = try endpoint("beacon_listen") { result.beaconListen = endpoint }
    result.httpListen = try endpoint("http_listen")
    result.advertisedBeacon = try endpoint("advertised_beacon")
    for text in values["more_beacons"] ?? [] {
      guard let beacon = Endpoint(text) else { throw invalid("more_beacons", text) }
      result.moreBeacons.append(beacon)
    }
    result.adminToken = self["admin_token"]
    result.tlsCertificate = self["tls_certificate"]
    result.tlsKey = self["tls_key"]
    if let flag = try flag("admin_needs_tls") { result.adminNeedsTLS = flag }
    if let flag = try flag("believe_local_clients") { result.believesLocalClients = flag }
    if let flag = try flag("bind_changes_to_host") { result.bindsChangesToHost = flag }
    if let flag = try flag("group_connections") { result.groupsConnections = flag }
    if let number = try number("connections", 1...10_000_000) { result.limits.connections = number }
    if let number = try number("connections_per_source", 1...10_000_000) {
      result.limits.connectionsPerSource = number
    }
    if let number = try number("nodes", 1...100_000_000) { result.limits.nodes = number }
    if let number = try number("relayed_per_second", 1...100_000_000) {
      result.limits.relayedPerSecond = Double(number)
    }
    if let number = try number("threads", 1...256) { result.threads = number }
    for text in values["networks"] ?? [] { result.networks.append(try NetworkSpecification(text)) }
    if let ranges = values["exempt_sources"] {
      result.exemptSources = []
      for text in ranges {
        guard let range = SourceNetwork(text) else { throw invalid("exempt_sources", text) }
        result.exemptSources.append(range)
      }
    }
    return result
  }

  private func invalid(_ name: String, _ value: String) -> RendezvousError {
    let form = Self.forms.first { $0.name == name }?.form ?? ""
    return RendezvousError(.invalidSetting, "“\(value)” is no value for \(name)", hint: "expected: \(form)")
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

  private func number(_ name: String, _ range: ClosedRange<Int>) throws(RendezvousError) -> Int? {
    guard let text = self[name] else { return nil }
    guard let value = Int(text), range.contains(value) else { throw invalid(name, text) }
    return value
  }
}

/// One line of a configuration file.
private struct SettingLine {
  struct Malformed: Error {}

  private var rest: Substring

  init(_ line: Substring) { rest = line }

  private mutating func skipBlanks() { rest = rest.drop { $0 == " " || $0 == "\t" || $0 == "\r" } }

  private var isAtEnd: Bool { rest.isEmpty || rest.first == "#" }

  /// Nil for a line without a setting.
  mutating func setting() throws(Malformed) -> (name: String, value: [String])? {
    skipBlanks()
    if isAtEnd { return nil }
    let name = rest.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
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
