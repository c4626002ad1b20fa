// `daemon start|stop|status`: a node in the background, with its files in ~/.pilot (wire/cli §5).

import Directory
import Glibc
import JSON
import TunControl

enum Daemon {
  static func run(_ context: inout Context) throws(ControlError) -> Int32 {
    switch context.operands.first {
    case "start": return try DaemonStart(context: context).run()
    case "stop": return try stop(context)
    case "status": return try status(context)
    default:
      throw ControlError(
        "invalid_argument", "usage: pilotctl daemon start|stop|status", hint: "pilotctl daemon --help")
    }
  }

  /// The process of the pid file, when it lives and is a node.
  static func recordedProcess(_ context: Context) -> pid_t? {
    guard let bytes = try? SmallFile.read(context.pidFile, limit: 64),
      let pid = pid_t(String(trimming: String(decoding: bytes, as: UTF8.self))), pid > 1, kill(pid, 0) == 0
    else { return nil }
    // The number may belong to another program by now: only one that was started as a node is ours.
    guard let line = try? SmallFile.read("/proc/\(pid)/cmdline"),
      line.split(separator: 0).dropFirst().first.map({
        Array($0) == Array("up".utf8)
      }) ?? false
    else { return nil }
    return pid
  }

  private static func stop(_ context: Context) throws(ControlError) -> Int32 {
    var pid = recordedProcess(context)
    if pid == nil, let status = try? context.call(.status, timeout: 3) { pid = pid_t(exactly: status.int("pid")) }
    guard let pid, pid > 1 else {
      unlink(context.pidFile)
      throw ControlError("not_running", "daemon is not running", hint: "pilotctl daemon start")
    }
    guard kill(pid, SIGTERM) == 0 else {
      throw ControlError(
        "permission_denied", "cannot signal process \(pid): \(errorText(errno))", hint: "run it as root")
    }
    var isForced = false
    if !waitForEnd(pid, seconds: 10) {
      isForced = true
      kill(pid, SIGKILL)
      _ = waitForEnd(pid, seconds: 5)
    }
    unlink(context.pidFile)
    var data: [String: JSONValue] = ["pid": JSONValue(pid)]
    if isForced { data["forced"] = true }
    return context.show(.object(data), "daemon stopped (pid \(pid))")
  }

  private static func waitForEnd(_ pid: pid_t, seconds: Int) -> Bool {
    for _ in 0..<(seconds * 20) {
      if kill(pid, 0) != 0 || isZombie(pid) { return true }
      usleep(50_000)
    }
    return false
  }

  /// Ended, but nobody has collected it: for everyone else it is gone.
  private static func isZombie(_ pid: pid_t) -> Bool {
    guard let bytes = try? SmallFile.read("/proc/\(pid)/stat") else { return true }
    let text = String(decoding: bytes, as: UTF8.self)
    guard let end = text.lastIndex(of: ")") else { return false }
    return text[end...].dropFirst(2).first == "Z"
  }

  private static func status(_ context: Context) throws(ControlError) -> Int32 {
    let answer = try? context.call(.status, timeout: 5)
    if context.arguments.has("check") { return answer == nil ? 1 : 0 }
    guard let answer else {
      let pid = recordedProcess(context)
      let data: JSONValue = [
        "pid": JSONValue(pid ?? 0), "pid_file": .text(context.pidFile), "responsive": false,
        "running": JSONValue(pid != nil), "socket": .text(context.socket),
      ]
      let text =
        pid.map { "◐ pilot-daemon runs (pid \($0)) but does not answer on \(context.socket)" }
        ?? "○ pilot-daemon stopped\n  start it with: pilotctl daemon start --hostname NAME"
      return context.show(data, text)
    }
    let data = PilotctlForms.daemon(answer, pidFile: context.pidFile, socket: context.socket)
    return context.show(data, PilotctlForms.daemonText(data, info: PilotctlForms.info(answer)))
  }
}
