// Where a user's own node keeps what a system's node keeps in /var/lib and /run (XDG Base Directory Specification 0.8).
// Used by `pilot-tun run` and, to find the control socket, by the other commands.

import Glibc
import Logging

package enum UserPaths {
  /// `$XDG_STATE_HOME/pilot-tun` or `~/.local/state/pilot-tun`; nil without a home.
  package static func state(_ environment: [String: String]) -> String? {
    folder("XDG_STATE_HOME", ".local/state", environment).map { $0 + "/pilot-tun" }
  }

  /// `$XDG_CONFIG_HOME/pilot-tun/config.toml` or `~/.config/pilot-tun/config.toml`.
  package static func configuration(_ environment: [String: String]) -> String? {
    folder("XDG_CONFIG_HOME", ".config", environment).map { $0 + "/pilot-tun/config.toml" }
  }

  /// `$XDG_RUNTIME_DIR/pilot-tun/control.sock`; without that in the state directory.
  package static func controlSocket(_ environment: [String: String]) -> String? {
    if let runtime = absolute(environment["XDG_RUNTIME_DIR"]) { return runtime + "/pilot-tun/control.sock" }
    return state(environment).map { $0 + "/control.sock" }
  }

  private static func folder(_ name: String, _ below: String, _ environment: [String: String]) -> String? {
    absolute(environment[name]) ?? absolute(environment["HOME"]).map { ($0 == "/" ? "" : $0) + "/" + below }
  }

  /// Relative paths in these variables are to be ignored, says the specification.
  private static func absolute(_ text: String?) -> String? {
    guard let text, text.hasPrefix("/") else { return nil }
    return text
  }
}

extension NodeConfiguration {
  /// The settings of `pilot-tun run`: as of `up`, with the user's own places as defaults.
  package init(forUser layers: ConfigurationLayers) throws(ControlError) {
    try self.init(layers)
    if layers.value(of: .stateDirectory) == nil {
      guard let path = UserPaths.state(layers.environment) else {
        throw ControlError(
          "configuration_invalid", "there is no place for the node's identity: HOME is not set",
          hint: "name one with --state-dir", isUsage: true)
      }
      stateDirectory = path
    }
    if layers.value(of: .controlSocket) == nil {
      let path = UserPaths.controlSocket(layers.environment) ?? stateDirectory + "/control.sock"
      guard path.utf8.count <= 90 else {
        throw ControlError(
          "configuration_invalid", "\(path) is too long for a Unix socket", hint: "name one with --control-socket",
          isUsage: true)
      }
      controlSocket = path
    }
    if layers.value(of: .logLevel) == nil { logLevel = .warning }
  }
}
