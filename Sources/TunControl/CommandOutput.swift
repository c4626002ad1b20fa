// What another program says: started, read, and ended when it takes too long. Used by `pilot-tun bugreport`, in a
// process of its own: it blocks.

import Glibc

enum CommandOutput {
  /// Both streams of the program, in the order they came, at most `limit` bytes. Nil when it cannot be started.
  static func of(_ arguments: [String], seconds: Int = 5, limit: Int = 256 * 1024) -> String? {
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else { return nil }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    defer { close(ends[0]) }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1)
    posix_spawn_file_actions_adddup2(&actions, ends[1], 2)
    let words = arguments.map { strdup($0) } + [nil]
    defer { words.forEach { free($0) } }
    var child: pid_t = 0
    let failure = posix_spawnp(&child, arguments[0], &actions, nil, words, environ)
    close(ends[1])
    guard failure == 0 else { return nil }
    let end = Clock.now() + UInt64(seconds) * 1_000_000_000
    var output: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 16 * 1024)
    var isWhole = false
    while output.count < limit {
      let now = Clock.now()
      guard now < end else { break }
      var wanted = pollfd(fd: ends[0], events: Int16(POLLIN), revents: 0)
      guard poll(&wanted, 1, Int32((end - now) / 1_000_000) + 1) > 0 else { continue }
      let count = read(ends[0], &chunk, chunk.count)
      if count < 0, errno == EINTR { continue }
      guard count > 0 else {
        isWhole = true
        break
      }
      output += chunk[..<count]
    }
    if !isWhole { kill(child, SIGKILL) }
    var status: Int32 = 0
    while waitpid(child, &status, 0) < 0, errno == EINTR {}
    return String(decoding: output.prefix(limit), as: UTF8.self) + (isWhole ? "" : "\n(cut off)\n")
  }
}
