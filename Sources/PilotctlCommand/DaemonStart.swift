// `daemon start`: finds the program, starts it in its own session, waits until it is ready.

import Directory
import Glibc
import JSON
import LinkIO
import TunControl

struct DaemonStart {
  let context: Context
  private var arguments: PilotctlArguments { context.arguments }

  init(context: Context) { self.context = context }

  /// Flags of `pilot-tun up` that are passed through, by the name users know them under here.
  private static let passed = [
    "hostname": "hostname", "rendezvous": "rendezvous", "listen": "listen", "endpoint": "advertise",
    "interface": "interface", "mtu": "mtu", "config": "config", "dns": "dns", "log-level": "log-level",
    "log-format": "log-format", "metrics": "metrics",
  ]
  private static let switches = ["public", "trust-auto-approve", "relay-only"]
  /// Flags of the official daemon that mean nothing to this one.
  static let ignored: Set<String> = [
    "email", "identity", "webhook", "admin-token", "transport", "proxy", "proxy-cmd", "no-echo", "encrypt",
    "motd-feed-url",
  ]

  func run() throws(ControlError) -> Int32 {
    guard !arguments.has("no-encrypt"), arguments.flags["encrypt"] != "false" else {
      throw ControlError("not_implemented", "tunnels are always encrypted", hint: "leave out --no-encrypt")
    }
    for name in arguments.flags.keys.sorted() where Self.ignored.contains(name) {
      Output.standardError("note: --\(name) has no meaning for this daemon and is ignored")
    }
    if Daemon.recordedProcess(context) != nil || UnixSocket.isAnswering(context.socket) {
      throw ControlError(
        "already_exists", "daemon is already running (socket \(context.socket))",
        hint: "pilotctl daemon status, or pilotctl daemon stop")
    }
    do {
      try SmallFile.makeDirectories(context.home, mode: 0o700)
    } catch {
      throw ControlError("io_error", "cannot make \(context.home): \(error.reason)", hint: "set PILOT_HOME")
    }
    let program = try findProgram()
    let line = [program, "up"] + commandLine()
    if arguments.has("foreground") { return try replaceSelf(line) }
    let pid = try spawn(line)
    try? SmallFile.write(Array("\(pid)".utf8), to: context.pidFile, mode: 0o600)
    return try waitUntilReady(pid)
  }

  private func commandLine() -> [String] {
    var line = ["--control-socket", context.socket]
    line += ["--state-dir", arguments.flags["state-dir"] ?? context.home]
    for (name, target) in Self.passed.sorted(by: { $0.key < $1.key }) {
      if let value = name == "hostname" ? context.setting(name) : arguments.flags[name] {
        line += ["--" + target, value]
      }
    }
    if arguments.flags["rendezvous"] == nil {
      if let registry = context.setting("registry", variable: "PILOT_REGISTRY") { line += ["--registry", registry] }
      if let beacon = context.setting("beacon", variable: "PILOT_BEACON") { line += ["--beacon", beacon] }
    }
    for name in Self.switches where arguments.has(name) || context.settings.flag(name) { line.append("--" + name) }
    for network in (arguments.flags["networks"] ?? "").split(separator: ",") { line += ["--network", String(network)] }
    return line
  }

  /// PILOT_DAEMON_BIN, the directory of this program, PATH.
  private func findProgram() throws(ControlError) -> String {
    if let path = context.environment["PILOT_DAEMON_BIN"], !path.isEmpty { return path }
    var buffer = [CChar](repeating: 0, count: 4096)
    let length = readlink("/proc/self/exe", &buffer, buffer.count - 1)
    var places: [String] = []
    if length > 0 {
      places.append(
        SmallFile.directory(of: String(decoding: buffer[..<length].map(UInt8.init(bitPattern:)), as: UTF8.self)))
    }
    places += (context.environment["PATH"] ?? "/usr/bin").split(separator: ":").map(String.init)
    for place in places where access(place + "/pilot-tun", X_OK) == 0 { return place + "/pilot-tun" }
    throw ControlError(
      "not_found", "pilot-tun is neither next to pilotctl nor in PATH", hint: "set PILOT_DAEMON_BIN to its path")
  }

  private func replaceSelf(_ line: [String]) throws(ControlError) -> Int32 {
    try? SmallFile.write(Array("\(getpid())".utf8), to: context.pidFile, mode: 0o600)
    var words: [UnsafeMutablePointer<CChar>?] = line.map { strdup($0) } + [nil]
    execv(line[0], &words)
    throw ControlError(
      "internal", "cannot run \(line[0]): \(errorText(errno))",
      hint: "it is the program beside pilotctl, or that of PILOT_DAEMON_BIN: can this user execute it?")
  }

  /// Own session, no stdin, output to the log; the log gets its name once the pid is known.
  private func spawn(_ line: [String]) throws(ControlError) -> pid_t {
    let temporary = context.home + "/pilot-start-\(getpid()).log"
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, temporary, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    posix_spawn_file_actions_adddup2(&actions, 1, 2)
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    posix_spawnattr_setflags(&attributes, 0x80)  // POSIX_SPAWN_SETSID of glibc 2.26
    var words: [UnsafeMutablePointer<CChar>?] = line.map { strdup($0) } + [nil]
    defer { words.forEach { free($0) } }
    var pid: pid_t = 0
    let result = posix_spawn(&pid, line[0], &actions, &attributes, &words, environ)
    guard result == 0 else {
      throw ControlError("internal", "cannot run \(line[0]): \(errorText(result))", hint: "check PILOT_DAEMON_BIN")
    }
    rename(temporary, logFile(pid))
    unlink(context.home + "/pilot.log")
    symlink("pilot-\(pid).log", context.home + "/pilot.log")
    return pid
  }

  private func logFile(_ pid: pid_t) -> String { context.home + "/pilot-\(pid).log" }

  private func waitUntilReady(_ pid: pid_t) throws(ControlError) -> Int32 {
    let limit = try arguments.duration("wait") ?? 30
    let started = Clock.now()
    if !arguments.isJSON { Output.standardError("starting daemon (pid \(pid), socket \(context.socket))...") }
    while Double(Clock.now() - started) < limit * 1e9 {
      var status: Int32 = 0
      if waitpid(pid, &status, WNOHANG) == pid {
        unlink(context.pidFile)
        let how = status & 0x7F == 0 ? "exit status \(status >> 8 & 0xFF)" : "signal \(status & 0x7F)"
        throw ControlError(
          "internal", "daemon (pid \(pid)) exited during startup (\(how)): \(lastError(pid))",
          hint: "log: \(logFile(pid))")
      }
      if let answer = try? context.call(.status, timeout: 3), answer.flag("ready") { return report(pid, answer) }
      usleep(200_000)
    }
    throw ControlError(
      "timeout", "daemon (pid \(pid)) is not ready after \(TextForms.decimal(limit, 0)) s",
      hint: "it goes on trying; log: \(logFile(pid))")
  }

  private func lastError(_ pid: pid_t) -> String {
    let bytes = (try? SmallFile.read(logFile(pid))) ?? []
    let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n")
    let line = lines.last { $0.hasPrefix("error: ") } ?? lines.last ?? "its log is empty"
    return TextForms.plain(String(line.hasPrefix("error: ") ? line.dropFirst(7) : line))
  }

  private func report(_ pid: pid_t, _ status: JSONValue) -> Int32 {
    let data: JSONValue = [
      "address": .text(status.string("address")), "hostname": .text(status.string("hostname")),
      "log_file": .text(logFile(pid)), "node_id": JSONValue(status.int("node_id")), "pid": JSONValue(pid),
      "socket": .text(context.socket), "transport": "udp", "transport_auto": true,
    ]
    let name = status.string("hostname")
    return context.show(
      data,
      """
      Daemon running (pid \(pid))
        Address:  \(status.string("address"))
      \(name.isEmpty ? "" : "  Hostname: \(name)\n")  IPv6:     \(status.string("ipv6"))
        Transport: udp (auto)
        Socket:   \(context.socket)
        Logs:     \(logFile(pid))
      """)
  }
}
