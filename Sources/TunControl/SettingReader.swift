// Turns the texts of settings into checked values. Every refusal names the source, the value and what would do.
// Used by NodeConfiguration only.

import Directory
import Engine
import Logging
import Settings
import Telemetry
import Wire

struct SettingReader {
  let layers: ConfigurationLayers

  /// `expected`: the form of valid values; by default the declared one.
  func refuse(_ setting: Setting, _ value: SettingValue, _ expected: String? = nil) -> ControlError {
    let shown = value.texts.map { setting.redacted($0) }.joined(separator: ",")
    return ControlError(
      "configuration_invalid", "\(value.origin): `\(shown)` is not a valid \(setting.rawValue)",
      hint: "expected \(expected ?? setting.declaration.kind.expected)", isUsage: true,
      subject: ControlError.Subject(setting: setting, place: value.place))
  }

  /// The last text given for the setting.
  private func single(_ setting: Setting) -> (text: String, value: SettingValue)? {
    guard let value = layers.value(of: setting), let text = value.texts.last else { return nil }
    return (String(trimming: text), value)
  }

  func path(_ setting: Setting, into target: inout String) throws(ControlError) {
    guard let (text, value) = single(setting) else { return }
    guard !text.isEmpty, !text.utf8.contains(0) else { throw refuse(setting, value, "a path") }
    if setting == .controlSocket || setting == .ipc, text.utf8.count > 90 {
      throw refuse(setting, value, "a path of at most 90 bytes (the kernel's limit for Unix sockets)")
    }
    target = text
  }

  func path(_ setting: Setting) throws(ControlError) -> String? {
    var text = ""
    try path(setting, into: &text)
    return text.isEmpty ? nil : text
  }

  func flag(_ setting: Setting) throws(ControlError) -> Bool {
    guard let (text, value) = single(setting) else { return false }
    switch text.lowercased() {
    case "true", "yes", "on", "1": return true
    case "false", "no", "off", "0": return false
    default: throw refuse(setting, value)
    }
  }

  /// A number within the declared range.
  func number(_ setting: Setting) throws(ControlError) -> Int? {
    guard let (text, value) = single(setting) else { return nil }
    guard let number = Int(text), case .number(let range, _) = setting.declaration.kind, range.contains(number) else {
      throw refuse(setting, value)
    }
    return number
  }

  func choice<Choice: RawRepresentable & CaseIterable>(
    _ setting: Setting
  ) throws(ControlError) -> Choice? where Choice.RawValue == String {
    guard let (text, value) = single(setting) else { return nil }
    guard let choice = Choice(rawValue: text.lowercased()) else { throw refuse(setting, value) }
    return choice
  }

  func dns() throws(ControlError) -> DNSMode? {
    guard let (text, value) = single(.dns) else { return nil }
    guard let mode = DNSMode(text) else { throw refuse(.dns, value, "auto, resolved, off, or file:/PATH") }
    return mode
  }

  func logLevel() throws(ControlError) -> Logger.Level? {
    guard let (text, value) = single(.logLevel) else { return nil }
    guard let level = Logger.Level(named: text) else { throw refuse(.logLevel, value) }
    return level
  }

  /// Names of the directory: 1 to 63 of `a-z 0-9 -`, no hyphen at the ends (wire/registry, set_hostname).
  func hostname() throws(ControlError) -> String? {
    guard let (text, value) = single(.hostname) else { return nil }
    let name = text.lowercased().hasSuffix(".pilot") ? String(text.lowercased().dropLast(6)) : text.lowercased()
    guard Self.isHostname(name) else {
      throw refuse(.hostname, value, "1 to 63 letters, digits and inner hyphens, for example specialist-papers")
    }
    return name
  }

  static func isHostname(_ name: String) -> Bool {
    let reserved = ["localhost", "backbone", "broadcast"]
    guard (1...63).contains(name.utf8.count), !reserved.contains(name), !name.hasPrefix("-"), !name.hasSuffix("-")
    else { return false }
    return name.utf8.allSatisfy { byte in
      (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) || byte == UInt8(ascii: "-")
        || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    }
  }

  /// Interface names: 1 to 15 bytes, no slash, no blank, no colon (the kernel's dev_valid_name).
  func interface() throws(ControlError) -> String? {
    guard let (text, value) = single(.interface) else { return nil }
    let isValid =
      (1...15).contains(text.utf8.count) && text != "." && text != ".."
      && text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && !"/:%".utf8.contains($0) }
    guard isValid else { throw refuse(.interface, value, "an interface name of 1 to 15 characters, such as pilot0") }
    return text
  }

  func hostPort(_ setting: Setting, defaultPort: UInt16? = nil) throws(ControlError) -> HostPort? {
    guard let (text, value) = single(setting) else { return nil }
    guard let result = HostPort(text, defaultPort: defaultPort) else {
      let form = defaultPort.map { "HOST or HOST:PORT (default port \($0))" } ?? "HOST:PORT"
      throw refuse(setting, value, form + "; an IPv6 address in brackets")
    }
    return result
  }

  /// Hosts in the order given, each once.
  func hostPorts(_ setting: Setting, defaultPort: UInt16, most: Int) throws(ControlError) -> [HostPort] {
    guard let value = layers.value(of: setting) else { return [] }
    var result: [HostPort] = []
    for text in value.texts {
      guard let host = HostPort(String(trimming: text), defaultPort: defaultPort) else {
        throw refuse(
          setting, value, "HOST or HOST:PORT (default port \(defaultPort)); an IPv6 address in brackets")
      }
      if !result.contains(host) { result.append(host) }
    }
    guard result.count <= most else { throw refuse(setting, value, "at most \(most) of them") }
    return result
  }

  /// `BYTES` or `BYTES:PACKETS`, each a second; k, M and G are a thousand, a million and a thousand million.
  func relayLimit() throws(ControlError) -> RelayLimit? {
    guard let (text, value) = single(.relayLimit) else { return nil }
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    let numbers = parts.compactMap { Self.amount($0) }
    guard (1...2).contains(parts.count), numbers.count == parts.count, numbers[0] >= 10_000,
      numbers.count == 1 || numbers[1] >= 10, numbers.allSatisfy({ $0 <= 100_000_000_000 })
    else {
      throw refuse(.relayLimit, value, "BYTES or BYTES:PACKETS a second, at least 10k and 10, for example 4M:8k")
    }
    // Without the packets: as many as that is in packets of 500 bytes.
    return RelayLimit(bytes: numbers[0], packets: numbers.count == 2 ? numbers[1] : max(numbers[0] / 500, 10))
  }

  private static func amount(_ text: Substring) -> UInt64? {
    let units: [Character: UInt64] = ["k": 1000, "M": 1_000_000, "G": 1_000_000_000]
    let unit = text.last.flatMap { units[$0] }
    let digits = unit == nil ? text : text.dropLast()
    guard (1...12).contains(digits.utf8.count), digits.utf8.allSatisfy({ (48...57).contains($0) }),
      let number = UInt64(digits)
    else { return nil }
    let product = number.multipliedReportingOverflow(by: unit ?? 1)
    return product.overflow ? nil : product.partialValue
  }

  func listen() throws(ControlError) -> ListenAddress? {
    guard let (text, value) = single(.listen) else { return nil }
    let expected = "PORT or ADDRESS:PORT; an IPv6 address in brackets"
    if let port = UInt16(text) {
      return ListenAddress(address: IPv6Address(high: 0, low: 0), port: port, isDefault: false)
    }
    if text.hasPrefix(":"), let port = UInt16(text.dropFirst()) {
      return ListenAddress(address: IPv6Address(high: 0, low: 0), port: port, isDefault: false)
    }
    guard let endpoint = Endpoint(text) else { throw refuse(.listen, value, expected) }
    let isAny = endpoint.address.isUnspecified || endpoint.address.mappedIPv4 == 0
    return ListenAddress(
      address: isAny ? IPv6Address(high: 0, low: 0) : endpoint.address, port: endpoint.port, isDefault: false)
  }

  /// `PORT` on this machine alone, or `ADDRESS:PORT`.
  func metrics() throws(ControlError) -> Endpoint? {
    guard let (text, value) = single(.metrics) else { return nil }
    if let port = UInt16(text.hasPrefix(":") ? text.dropFirst() : text[...]) {
      return Endpoint(address: IPv6Address(mappedIPv4: 0x7F00_0001), port: port)
    }
    let literal = text.hasPrefix("localhost:") ? "127.0.0.1" + text.dropFirst(9) : text
    guard let endpoint = Endpoint(literal) else {
      throw refuse(.metrics, value, "PORT (of 127.0.0.1) or ADDRESS:PORT; an IPv6 address in brackets")
    }
    return endpoint
  }

  /// `NUMBER`, and for a network that asks for a token `NUMBER:@FILE` or `NUMBER:TOKEN`. Without either, the credential
  /// `network-NUMBER` of the service is the token, when there is one.
  func networks() throws(ControlError) -> [NetworkMembership] {
    guard let value = layers.value(of: .networks) else { return [] }
    var result: [NetworkMembership] = []
    for text in value.texts {
      let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
      guard let first = parts.first, let number = UInt16(String(trimming: first)), number != 0,
        number != OverlayMapping.localNetwork, parts.count == 1 || (!parts[1].isEmpty && parts[1] != "@")
      else {
        throw refuse(
          .networks, value, "network numbers from 1 to 65534, with :@FILE or :TOKEN where a network asks for one")
      }
      guard !result.contains(where: { $0.id == number }) else { continue }
      let credentials = Credentials(environment: layers.environment)
      var token = parts.count == 2 ? String(parts[1]) : ""
      do throws(SecretFault) {
        if token.hasPrefix("@") {
          token = try credentials.secret(at: String(token.dropFirst()))
        } else if token.isEmpty, let path = credentials.path(of: "network-\(number)") {
          token = try credentials.secret(at: path)
        }
      } catch {
        throw ControlError(
          "secret_unusable", "\(value.origin): the token of network \(number): \(error.message)", hint: error.hint,
          isUsage: true, subject: ControlError.Subject(setting: .networks, place: value.place))
      }
      result.append(NetworkMembership(id: number, token: token))
    }
    return result
  }

  func tags() throws(ControlError) -> [String] {
    guard let value = layers.value(of: .tags) else { return [] }
    let tags = value.texts.map { String(trimming: $0).lowercased() }
    guard tags.count <= 3, tags.allSatisfy({ Self.isHostname($0) }) else {
      throw refuse(.tags, value, "at most three tags of letters, digits and inner hyphens")
    }
    return tags
  }
}

extension HostPort {
  /// Parses `host`, `host:port`, `[v6]:port` or a bare IPv6 address (then the default port holds).
  package init?(_ text: String, defaultPort: UInt16?) {
    var host = Substring(text)
    var port = defaultPort
    if text.hasPrefix("[") {
      guard let end = text.firstIndex(of: "]") else { return nil }
      host = text[text.index(after: text.startIndex)..<end]
      let rest = text[text.index(after: end)...]
      guard IPv6Address(host) != nil else { return nil }
      if !rest.isEmpty {
        guard rest.hasPrefix(":"), let number = UInt16(rest.dropFirst()) else { return nil }
        port = number
      }
    } else if let colon = text.lastIndex(of: ":") {
      if text.firstIndex(of: ":") == colon {
        guard let number = UInt16(text[text.index(after: colon)...]) else { return nil }
        host = text[..<colon]
        port = number
      } else if IPv6Address(text) == nil {
        return nil
      }
    }
    let isPlain = host.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && !"/@?#[]".utf8.contains($0) }
    guard !host.isEmpty, host.utf8.count <= 253, isPlain, let port, port != 0 else { return nil }
    self.init(host: String(host), port: port)
  }
}
