// What an operator adds by hand where nothing on the machine can be told automatically, and what stands in the way where
// it was told. Texts only; used by HostNames.

import Naming
import Wire

enum ResolverAdvice {
  /// One line for each of those who may be asked on this machine. Said once by `up`, and by `status` for as long as the
  /// node's own name does not resolve.
  static let lines: [String] = {
    let stub = OverlayMapping.resolver
    return [
      "dnsmasq: server=/pilot/\(stub)",
      "unbound: server: domain-insecure: \"pilot\" and forward-zone: name: \"pilot.\" forward-addr: \(stub)",
      "NetworkManager: dns=dnsmasq in [main] of NetworkManager.conf, and server=/pilot/\(stub) in "
        + "/etc/NetworkManager/dnsmasq.d/pilot.conf",
      "a container, or a network namespace: pilot-tun up --dns file:/etc/resolv.conf",
    ]
  }()

  /// What stands between a resolved that knows our link and programs: they do not ask it.
  static func bypass(resolvConf: [UInt8], nsswitch: [UInt8]) -> String? {
    let hosts = fields(nsswitch, of: "hosts:").first ?? []
    let servers = fields(resolvConf, of: "nameserver").compactMap(\.first)
    let stubs = ["127.0.0.53", "127.0.0.54"]
    guard !hosts.contains("resolve"), !servers.contains(where: { stubs.contains($0) }) else { return nil }
    let asked = servers.isEmpty ? "nobody" : servers.joined(separator: ", ")
    return "programs ask \(asked) (/etc/resolv.conf) and not systemd-resolved"
  }

  static let bypassHint =
    "ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf, or install libnss-resolve"

  /// The words after `key` on each line that begins with it.
  private static func fields(_ text: [UInt8], of key: String) -> [[String]] {
    String(decoding: text, as: UTF8.self).split(separator: "\n").compactMap { line in
      let words = line.split { $0 == " " || $0 == "\t" }.map(String.init)
      return words.first == key ? Array(words.dropFirst()) : nil
    }
  }

  static let unavailableHint =
    "systemctl enable --now systemd-resolved; for other resolvers `status` has the lines (--dns auto), or --dns file:PATH"

  /// The file by which the bus starts polkit: without it there is nobody to ask, and resolved refuses all but root.
  static var hasPolkit: Bool {
    SmallFile.exists("/usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service")
  }

  /// A state of resolved for people; nil when all is well, or not known yet.
  static func explain(
    _ state: ResolvedMachine.State, interface: String, hasPolkit: Bool = hasPolkit
  ) -> ControlError? {
    switch state {
    case .starting, .configured: return nil
    case .noBus(let reason):
      return ControlError(
        "resolved_unavailable", "systemd-resolved cannot be asked: no system bus (\(reason))",
        hint: "in a container: --dns file:/etc/resolv.conf; else the package dbus, or --dns auto")
    case .absent:
      return ControlError("resolved_unavailable", "systemd-resolved does not run", hint: unavailableHint)
    case .elsewhere(let reason):
      return ControlError(
        "resolved_unavailable", reason,
        hint: "names for programs of this network namespace: --dns file:PATH, with the resolv.conf they read")
    case .failed(let problem): return explain(problem, interface: interface, hasPolkit: hasPolkit)
    }
  }

  private static func explain(
    _ problem: ResolvedMachine.Problem, interface: String, hasPolkit: Bool
  ) -> ControlError {
    switch problem.name {
    case "org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired":
      return ControlError(
        "resolved_refused", "systemd-resolved does not let this user set names: \(problem.text)",
        hint: hasPolkit
          ? "polkit has no rule for the node's user (50-pilot-tun.rules, docs/permissions.md); root needs none"
          : "polkit is missing, so only root may: install polkitd (apt-get install polkitd), and the rule of "
            + "docs/permissions.md")
    case "org.freedesktop.resolve1.LinkBusy":
      return ControlError(
        "resolved_refused", "systemd-networkd manages \(interface) and systemd-resolved takes its names from there",
        hint: "a file in /etc/systemd/network with [Match] Name=\(interface) and [Link] Unmanaged=yes")
    case "" where problem.text.hasPrefix("another program"):
      return ControlError(
        "resolved_refused", problem.text,
        hint: "if it is NetworkManager: nmcli device set \(interface) managed no")
    default:
      return ControlError(
        "resolved_refused", "systemd-resolved refused our settings: \(problem.text)",
        hint: "it is tried again; journalctl -u systemd-resolved may say more, and --dns off ends it")
    }
  }
}
