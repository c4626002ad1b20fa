// The settings of the TLS transport: where the rendezvous is by TLS, through which proxy, whom to believe. Credentials of
// a proxy never stand in a message of this file. Used by NodeConfiguration and netcheck.

import Directory
import TLSTransport
import Wire

extension SettingReader {
  /// nil when there is nothing to dial: the node runs its own rendezvous, or TLS is not wanted.
  func tls(registry: HostPort?, transport: TransportMode) throws(ControlError) -> TLSSettings? {
    let named = try hostPort(.rendezvousTLS, defaultPort: NodeConfiguration.tlsPort)
    let (proxy, exceptions, unused) = try proxySettings(mustHold: transport == .tls)
    let command = try text(.proxyCredentialsCommand, "a command for /bin/sh")
    let authorities = try path(.tlsCAFile)
    guard let registry else {
      guard transport != .tls else {
        throw ControlError(
          "configuration_invalid", "transport = tls needs a rendezvous elsewhere",
          hint: "set --rendezvous HOST; a node that runs its own has nothing to reach by TLS", isUsage: true)
      }
      return nil
    }
    guard transport != .udp else { return nil }
    var settings = TLSSettings(host: named?.host ?? registry.host, port: named?.port ?? NodeConfiguration.tlsPort)
    settings.proxy = proxy
    settings.exceptions = exceptions
    settings.credentialsCommand = command
    settings.authoritiesFile = authorities
    settings.warnings = unused.map { ["\($0.message): no proxy is used (\($0.hint ?? ""))"] } ?? []
    settings.environment = layers.environment
    return settings
  }

  private func text(_ setting: Setting, _ expected: String) throws(ControlError) -> String? {
    guard let value = layers.value(of: setting), let text = value.texts.last else { return nil }
    guard !text.isEmpty, !text.utf8.contains(0) else { throw refuse(setting, value, expected) }
    return text
  }

  /// The setting, else what other programs read: `https_proxy`, `HTTPS_PROXY`, and `no_proxy`, `NO_PROXY`. Exceptions
  /// hold for both.
  ///
  /// `mustHold`: the node has no other way. Else a proxy of the environment that nobody can use is as good as none, and the
  /// third value says so: those variables are meant for other programs, too.
  private func proxySettings(
    mustHold: Bool
  ) throws(ControlError) -> (proxy: ProxyAddress?, exceptions: ProxyExceptions, unused: ControlError?) {
    func variable(_ names: String...) -> (name: String, text: String)? {
      for name in names {
        if let text = layers.environment[name], !text.isEmpty { return (name, text) }
      }
      return nil
    }
    let exceptions = ProxyExceptions(variable("no_proxy", "NO_PROXY")?.text ?? "")
    if let value = layers.value(of: .proxy), let text = value.texts.last.map({ String(trimming: $0) }) {
      if ["none", "off"].contains(text.lowercased()) { return (nil, exceptions, nil) }
      let address = try parse(text, origin: value.origin)
      guard address.credentials == nil || !value.origin.hasPrefix("flag") else {
        throw ControlError(
          "configuration_invalid", "\(value.origin): credentials on a command line are seen by every user",
          hint: "put the URL into the configuration file or HTTPS_PROXY, or use proxy-credentials-command",
          isUsage: true)
      }
      return (address, exceptions, nil)
    }
    guard let (name, text) = variable("https_proxy", "HTTPS_PROXY") else { return (nil, exceptions, nil) }
    do throws(ControlError) {
      return (try parse(text, origin: "environment \(name)"), exceptions, nil)
    } catch {
      guard mustHold else { return (nil, exceptions, error) }
      throw error
    }
  }

  private func parse(_ text: String, origin: String) throws(ControlError) -> ProxyAddress {
    do throws(ProxyAddress.Fault) {
      return try ProxyAddress(parsing: text)
    } catch {
      throw ControlError(
        "configuration_invalid",
        error == .unsupportedScheme
          ? "\(origin): only proxies that are spoken to by HTTP are supported" : "\(origin): not the URL of a proxy",
        hint: "expected http://[USER:PASSWORD@]HOST[:PORT], or none", isUsage: true)
    }
  }
}
