// Runs the command that prints a proxy's credentials, for proxies whose credentials change every few minutes. Used by
// TLSDialer, on a thread that may block.

import Glibc

enum CredentialCommand {
  /// Seconds that the command may take.
  static let patience = 10
  private static let mostOutput = 16 << 10

  /// Runs `/bin/sh -c command` without input. What it prints is never repeated in an error.
  static func run(_ command: String, environment: [String: String]) throws(TransportError) -> ProxyCredentials {
    let (output, status) = try outcome(of: command, environment)
    guard status == 0 else { throw failure("it ended with status \(status)") }
    guard let credentials = ProxyCredentials(printed: output) else {
      throw failure("what it printed is neither USER:PASSWORD nor the proxy's URL with both nor `Bearer TOKEN`")
    }
    return credentials
  }

  private static func failure(_ reason: String) -> TransportError {
    TransportError(
      .credentialsCommand, "proxy-credentials-command: \(reason)",
      hint: "run it by hand as the node's user; it has to print the credentials as its first line")
  }

  private static func outcome(
    of command: String, _ environment: [String: String]
  ) throws(TransportError) -> (output: String, status: Int32) {
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else { throw failure("there is no pipe: errno \(errno)") }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    defer { close(ends[0]) }
    let (started, child) = start(command, environment, output: ends[1])
    close(ends[1])
    guard started == 0 else { throw failure("it cannot be started: errno \(started)") }
    var output: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 4096)
    var hasEnded = false
    let end = now() + Int64(patience) * 1000
    while output.count < mostOutput {
      var descriptor = pollfd(fd: ends[0], events: Int16(POLLIN), revents: 0)
      let left = end - now()
      guard left > 0 else { break }
      let ready = poll(&descriptor, 1, Int32(left))
      if ready < 0, errno == EINTR { continue }
      guard ready > 0 else { break }
      let count = read(ends[0], &chunk, chunk.count)
      if count <= 0 {
        hasEnded = true
        break
      }
      output += chunk[..<count]
    }
    // The command and what it started: it has a process group of its own.
    if !hasEnded { kill(-child, SIGKILL) }
    var word: Int32 = 0
    while waitpid(child, &word, 0) < 0, errno == EINTR {}
    guard hasEnded else { throw failure("it did not end within \(patience) s") }
    let signal = word & 0x7F
    return (String(decoding: output, as: UTF8.self), signal == 0 ? (word >> 8) & 0xFF : 128 + signal)
  }

  private static func start(
    _ command: String, _ environment: [String: String], output: Int32
  ) -> (error: Int32, child: pid_t) {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_adddup2(&actions, output, 1)
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    var signals = sigset_t()
    sigemptyset(&signals)
    posix_spawnattr_setsigmask(&attributes, &signals)
    sigfillset(&signals)
    posix_spawnattr_setsigdefault(&attributes, &signals)
    posix_spawnattr_setpgroup(&attributes, 0)
    let flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP
    posix_spawnattr_setflags(&attributes, Int16(flags))
    defer {
      posix_spawn_file_actions_destroy(&actions)
      posix_spawnattr_destroy(&attributes)
    }
    let words = copies(["/bin/sh", "-c", command])
    let variables = copies(environment.map { "\($0.key)=\($0.value)" })
    defer { for text in words + variables { free(text) } }
    var child: pid_t = 0
    let error = posix_spawn(&child, "/bin/sh", &actions, &attributes, words, variables)
    return (error, child)
  }

  /// C texts, and the nil that ends their list.
  private static func copies(_ texts: [String]) -> [UnsafeMutablePointer<CChar>?] {
    var copies: [UnsafeMutablePointer<CChar>?] = []
    for text in texts { copies.append(strdup(text)) }
    copies.append(nil)
    return copies
  }

  private static func now() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
  }
}
