// Removes the control socket's file when the node is killed: the kernel takes interface, addresses and routes back by
// itself, a socket's file it leaves. Made by NodeProgram.

import Glibc

/// A shell that waits for the node's end, which it sees as the end of a pipe, and then removes the file, if it is still
/// the same one. Without a shell (a minimal container) there is no guard; the next start removes the file.
package enum SocketGuard {
  private static let script = #"read -r _; [ "$(stat -c %i -- "$1" 2>/dev/null)" = "$2" ] && rm -f -- "$1""#

  /// Starts the guard. It needs no end: it goes when this process does.
  package static func start(path: String) {
    var file = stat()
    var ends: [Int32] = [-1, -1]
    guard lstat(path, &file) == 0, pipe(&ends) == 0 else { return }
    // The writing end stays open, unused, until this process ends; no other child may hold it.
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    defer { close(ends[0]) }
    var actions = posix_spawn_file_actions_t()
    var attributes = posix_spawnattr_t()
    posix_spawn_file_actions_init(&actions)
    posix_spawnattr_init(&attributes)
    defer {
      posix_spawn_file_actions_destroy(&actions)
      posix_spawnattr_destroy(&attributes)
    }
    posix_spawn_file_actions_adddup2(&actions, ends[0], 0)
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
    // A session of its own: what is sent to the node's process group is not meant for it.
    posix_spawnattr_setflags(&attributes, 0x80)  // POSIX_SPAWN_SETSID, spawn.h; shown to GNU sources only
    let arguments = ["sh", "-c", script, "pilot-tun-socket-guard", path, "\(file.st_ino)"]
    let argv = arguments.map { strdup($0) } + [nil]
    defer { for text in argv { free(text) } }
    var child: pid_t = 0
    if posix_spawn(&child, "/bin/sh", &actions, &attributes, argv, environ) != 0 { close(ends[1]) }
  }
}
