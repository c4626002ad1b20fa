// Whether the systemd-resolved on the system bus serves this network namespace. A node in another one (a container with
// the host's bus, `ip netns exec`) has interface numbers that mean other interfaces there. Used by ResolvedThread.

import Glibc
import Naming

enum ResolvedPlace {
  /// - Parameters:
  ///   - process: as the bus tells it: a number of the host's; 0 when unknown.
  ///   - user: that it runs as.
  static func find(process: UInt32, user: UInt32, insists: Bool) -> ResolvedMachine.Place {
    let reason = "systemd-resolved serves another network namespace"
    switch sharesNamespace(with: process) {
    case .some(true): return .here
    case .some(false): return .elsewhere(reason)
    case .none: break
    }
    // Without the right to look into its process: its sockets are in the list of this namespace, or not.
    let lists = ["/proc/self/net/udp", "/proc/self/net/udp6"].map { (try? SmallFile.read($0)) ?? [] }
    if lists.contains(where: { holdsSocket(user: user, list: $0) }) || insists { return .here }
    return .elsewhere(
      "systemd-resolved has no socket in this network namespace (where it serves this one all the same: --dns resolved)"
    )
  }

  /// nil when it cannot be told: no such process in our view, or one that we may not look into.
  private static func sharesNamespace(with process: UInt32) -> Bool? {
    guard process != 0, let name = try? SmallFile.read("/proc/\(process)/comm") else { return nil }
    // In a container the number is someone else's. The kernel keeps 15 characters.
    guard String(trimming: String(decoding: name, as: UTF8.self)) == "systemd-resolve" else { return nil }
    var its = stat()
    var ours = stat()
    guard stat("/proc/\(process)/ns/net", &its) == 0, stat("/proc/self/ns/net", &ours) == 0 else { return nil }
    return its.st_ino == ours.st_ino && its.st_dev == ours.st_dev
  }

  /// Whether one of the sockets belongs to the user. `list`: as in /proc/net/udp, the user is the eighth column.
  static func holdsSocket(user: UInt32, list: [UInt8]) -> Bool {
    // Root's sockets are many people's.
    guard user != 0 else { return false }
    return String(decoding: list, as: UTF8.self).split(separator: "\n").dropFirst().contains { line in
      let columns = line.split(separator: " ")
      return columns.count > 7 && UInt32(columns[7]) == user
    }
  }
}
