// What is left in the overlay's namespace when the command is over: processes that it put into the background. Without
// the node they would have no network, so they end with it. Used by WrappedCommand.

import Glibc

enum NamespaceProcesses {
  /// How long they may take to end by themselves.
  private static let patience: UInt64 = 2_000_000_000

  /// Ends all processes in the namespace, by SIGTERM first. Returns when there are none.
  static func end(in namespace: String) {
    let begin = Clock.now()
    var told: Set<pid_t> = []
    while true {
      let left = list(in: namespace)
      guard !left.isEmpty, Clock.now() - begin < 2 * patience else { return }
      let signal = Clock.now() - begin < patience ? SIGTERM : SIGKILL
      for process in left where signal == SIGKILL || told.insert(process).inserted { kill(process, signal) }
      usleep(10_000)
    }
  }

  /// Process ids; those whose namespace this user may not see are not in ours.
  static func list(in namespace: String) -> [pid_t] {
    guard !namespace.isEmpty, let folder = opendir("/proc") else { return [] }
    defer { closedir(folder) }
    var processes: [pid_t] = []
    while let entry = readdir(folder) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      guard let process = pid_t(name), process != getpid() else { continue }
      var link = [UInt8](repeating: 0, count: 64)
      let count = link.withUnsafeMutableBytes { bytes in
        readlink("/proc/\(process)/ns/net", bytes.baseAddress!.assumingMemoryBound(to: CChar.self), bytes.count)
      }
      if count > 0, String(decoding: link.prefix(count), as: UTF8.self) == namespace { processes.append(process) }
    }
    return processes
  }
}
