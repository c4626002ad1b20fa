// The setting `dns`: who is told that this node answers names. Part of NodeConfiguration.

package enum DNSMode: Equatable, Sendable {
  /// systemd-resolved where it serves this network namespace; otherwise nobody, and the log says what to add where.
  case auto
  /// systemd-resolved; anything else is an error.
  case resolved
  /// This file, in the form of resolv.conf(5).
  case file(String)
  /// No names at all: the stub does not run.
  case off

  /// Also reads what `description` writes. nil for anything else.
  package init?(_ text: String) {
    switch text.lowercased() {
    case "auto": self = .auto
    case "resolved": self = .resolved
    case "off": self = .off
    default:
      guard text.hasPrefix("file:/"), !text.hasSuffix("/"), !text.contains("\0") else { return nil }
      self = .file(String(text.dropFirst(5)))
    }
  }
}

extension DNSMode: CustomStringConvertible {
  package var description: String {
    switch self {
    case .auto: "auto"
    case .resolved: "resolved"
    case .file(let path): "file:\(path)"
    case .off: "off"
    }
  }
}
