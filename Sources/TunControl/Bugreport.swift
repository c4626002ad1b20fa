// `pilot-tun bugreport`: everything that a stranger needs to see what is wrong, in one archive, and nothing that is
// nobody's business. Works with less when no node runs.

import Directory
package import JSON
import Settings
import Telemetry
import Wire

package struct Bugreport {
  private let client: ControlClient
  private let layers: ConfigurationLayers
  private var redactor: Redactor
  private let salt: [UInt8]?
  private var files: [(name: String, text: String)] = []
  private var problems: [String] = []
  /// More peers than these are in `status` only.
  static let explainLimit = 100

  /// - configuration: what `pilot-tun up` would use here; an error when that cannot be read.
  package init(
    client: ControlClient, configuration: Result<ConfigurationLayers, ControlError>, hidesAddresses: Bool
  ) {
    self.client = client
    switch configuration {
    case .success(let layers): self.layers = layers
    case .failure(let error):
      layers = ConfigurationLayers()
      problems.append("configuration: \(error.message)")
    }
    salt = hidesAddresses ? (0..<16).map { _ in UInt8.random(in: 0...255) } : nil
    let folder = layers.value(of: .stateDirectory)?.texts.last ?? NodeConfiguration().stateDirectory
    redactor = Redactor(secrets: Self.secrets(layers, stateDirectory: folder), addressSalt: salt)
  }

  /// Texts that must not be in the archive: tokens, and the private key in the forms in which it could appear.
  private static func secrets(_ layers: ConfigurationLayers, stateDirectory folder: String) -> [String] {
    var secrets: [String] = []
    let credentials = Credentials(environment: layers.environment)
    // What the running node was given counts as well as what the file says: all sources, not the strongest.
    let networks = layers.flags[.networks] ?? []
    for text in networks + (layers.file[.networks]?.texts ?? [])
      + (layers.environment[Setting.networks.environmentName]?.split(separator: ",").map(String.init) ?? [])
    {
      let parts = text.split(separator: ":", maxSplits: 1)
      guard parts.count == 2 else { continue }
      let token = String(parts[1])
      secrets.append(token.hasPrefix("@") ? (try? credentials.secret(at: String(token.dropFirst()))) ?? "" : token)
    }
    for path in [layers.value(of: .adminTokenFile)?.texts.last, credentials.path(of: "admin-token")] {
      if let path { secrets.append((try? credentials.secret(at: path)) ?? "") }
    }
    for name in ["identity.json", "identity-next.json"] {
      guard let bytes = try? SmallFile.read(folder + "/" + name, limit: 4096),
        let value = try? JSONValue(parsing: bytes),
        let text = value["private_key"]?.text
      else { continue }
      secrets.append(text)
      if let key = Base64.decode(text) {
        for part in [key, Array(key.prefix(32))] {
          secrets.append(Base64.encode(part))
          secrets.append(part.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined())
        }
      }
    }
    return secrets
  }

  // MARK: Collecting

  /// Everything but netcheck.
  package mutating func collect() {
    addMachine()
    let status = ask("status.json", ControlRequest(.status))
    if let status {
      add("status.txt", StatusForms.status(status))
      // The running node may keep its identity elsewhere.
      let secrets = Self.secrets(layers, stateDirectory: status.string("state_dir"))
      redactor = Redactor(secrets: secrets, addressSalt: salt)
    }
    if let answer = ask("config.json", ControlRequest(.config)) {
      add("config.txt", "As the running node has it.\n\n" + ConfigurationReport.text(answer))
    }
    add(
      "config-here.txt",
      "As a node started here would have it.\n\n"
        + ConfigurationReport.text(
          ConfigurationReport.effective(layers)))
    if let answer = try? client.call(ControlRequest(.metrics)) { add("metrics.txt", answer.string("text")) }
    if let answer = try? client.call(ControlRequest(.logLines)) {
      add("log.txt", answer.items("lines").compactMap(\.text).joined(separator: "\n"))
    }
    if let answer = try? client.call(ControlRequest(.trustList)) { add("trust.txt", StatusForms.trust(answer)) }
    explain(status?.items("peers") ?? [])
    addProcess(status?.int("pid"))
    addNetwork(status?.string("interface") ?? layers.value(of: .interface)?.texts.last ?? "pilot0")
    addService()
  }

  package mutating func add(netcheck result: Result<JSONValue, ControlError>) {
    switch result {
    case .success(let report):
      add("netcheck.json", report.line)
      add("netcheck.txt", NetcheckReport.text(report))
    case .failure(let error): problems.append("netcheck: \(error.message)")
    }
  }

  private mutating func ask(_ name: String, _ request: ControlRequest) -> JSONValue? {
    do throws(ControlError) {
      let answer = try client.call(request)
      add(name, answer.line)
      return answer
    } catch {
      problems.append("\(request.verb.rawValue): \(error.message)")
      return nil
    }
  }

  private mutating func explain(_ peers: [JSONValue]) {
    var texts: [String] = []
    for peer in peers.prefix(Self.explainLimit) {
      let request = ControlRequest(.explain, ["peer": .text(peer.string("address"))])
      guard let answer = try? client.call(request, timeout: 10) else { continue }
      texts.append(StatusForms.explain(answer))
    }
    if !texts.isEmpty { add("peers.txt", texts.joined(separator: "\n\n")) }
  }

  private mutating func add(_ name: String, _ text: String) { files.append((name, text)) }

  private mutating func add(_ name: String, commands: [[String]]) {
    let parts = commands.map { words in
      "$ \(words.joined(separator: " "))\n" + (CommandOutput.of(words) ?? "(not installed)\n")
    }
    add(name, parts.joined(separator: "\n"))
  }

  private static func file(_ path: String) -> String {
    guard let bytes = try? SmallFile.read(path, limit: 256 * 1024) else { return "\(path): cannot be read" }
    return "\(path): " + String(trimming: String(decoding: bytes, as: UTF8.self))
  }

  private mutating func addMachine() {
    let paths = [
      "/proc/version", "/etc/os-release", "/proc/uptime", "/proc/loadavg", "/proc/meminfo",
      "/proc/sys/kernel/osrelease",
      "/sys/devices/virtual/dmi/id/product_name",
    ]
    add(
      "machine.txt",
      "pilot-tun \(PilotTunVersion.text)\n\n" + paths.map(Self.file).joined(separator: "\n\n"))
  }

  private mutating func addProcess(_ pid: Int64?) {
    guard let pid, pid > 0 else { return }
    // Neither environment nor command line: tokens may stand there.
    add("process.txt", ["status", "limits", "stat"].map { Self.file("/proc/\(pid)/\($0)") }.joined(separator: "\n\n"))
  }

  private mutating func addNetwork(_ interface: String) {
    add(
      "network.txt",
      commands: [
        ["ip", "-d", "-s", "link"], ["ip", "address"], ["ip", "-4", "route", "show", "table", "all"],
        ["ip", "-6", "route", "show", "table", "all"], ["ip", "rule"], ["ip", "-6", "rule"], ["ss", "-ulnp"],
        ["resolvectl", "status", interface, "--no-pager"],
      ])
    let settings = [
      "net/ipv6/conf/all/disable_ipv6", "net/ipv6/conf/\(interface)/disable_ipv6", "net/ipv6/conf/all/forwarding",
      "net/ipv6/conf/\(interface)/mtu", "net/core/rmem_max", "net/core/wmem_max", "net/core/netdev_max_backlog",
      "net/ipv4/ip_local_port_range", "net/ipv4/tcp_mtu_probing", "kernel/random/entropy_avail",
    ]
    add(
      "sysctl.txt",
      (settings.map { "/proc/sys/" + $0 } + ["/etc/resolv.conf", "/proc/net/snmp6"]).map(Self.file)
        .joined(separator: "\n"))
  }

  private mutating func addService() {
    guard SmallFile.exists("/run/systemd/system") else { return }
    // No ExecStart and no Environment: tokens may stand there.
    let properties = [
      "ActiveState", "SubState", "Result", "NRestarts", "MainPID", "ExecMainStatus", "ExecMainCode", "StatusText",
      "ActiveEnterTimestamp", "MemoryCurrent", "TasksCurrent", "User", "Type", "WatchdogUSec", "FragmentPath",
      "DropInPaths", "CapabilityBoundingSet",
    ]
    add(
      "service.txt",
      commands: [
        ["systemctl", "--no-pager", "show", "pilot-tun.service", "--property=" + properties.joined(separator: ",")],
        ["journalctl", "--no-pager", "-u", "pilot-tun.service", "-n", "500", "-o", "short-iso"],
      ])
  }

  // MARK: The archive

  /// Names and sizes of what was collected, for people to look at before they send it.
  package var contents: [(name: String, bytes: Int)] { files.map { ($0.name, $0.text.utf8.count) } }
  package var failures: [String] { problems.map(redactor.clean) }

  package func archive(time: Int64) -> [UInt8] {
    let folder = "pilot-tun-bugreport/"
    var archive = Archive(time: time)
    archive.add(folder + "README.txt", Array(redactor.clean(readme(time)).utf8))
    for file in files { archive.add(folder + file.name, Array((redactor.clean(file.text) + "\n").utf8)) }
    return archive.gzip
  }

  private func readme(_ time: Int64) -> String {
    var lines = [
      "Report of pilot-tun \(PilotTunVersion.text), made \(LogLine.timestamp(time * 1000)).", "",
      "Tokens and private keys are left out and were searched for in every file. Names, overlay addresses, public keys",
      "and, unless the report was made with --hide-addresses, IP addresses are in it: read it before you send it.", "",
    ]
    lines += files.map { "  \($0.name)  \($0.text.utf8.count) bytes" }
    if !problems.isEmpty { lines += ["", "Not to be had:"] + problems.map { "  \($0)" } }
    return lines.joined(separator: "\n") + "\n"
  }
}
