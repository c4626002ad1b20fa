// Runs the command that prints a proxy's credentials, for proxies whose credentials change every few minutes. Used by
// CredentialSource, on a thread that may block.

import Glibc

struct CredentialCommand {
  let command: String
  let environment: [String: String]
  /// What the command may take.
  var patience = Duration.seconds(10)
  /// What is killed is gone at once, unless it hangs in the kernel (a file of a server that is away): then it is left.
  private static let afterlife = Duration.seconds(1)
  private static let mostOutput = 16 << 10

  /// Runs `/bin/sh -c command` without input and waits until it ends; what it left running is not waited for. Blocks for
  /// no longer than `patience` and a second. What it prints is never repeated in an error.
  func run() throws(TransportError) -> ProxyCredentials {
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else { throw failure("there is no pipe: \(Self.text(errno))") }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    defer { close(ends[0]) }
    _ = fcntl(ends[0], F_SETFL, O_NONBLOCK)
    let (error, child) = start(output: ends[1])
    close(ends[1])
    guard error == 0 else { throw failure("it cannot be started: \(Self.text(error))") }
    let (output, status) = try outcome(of: child, reading: ends[0])
    guard status == 0 else { throw failure("it ended with status \(status)") }
    guard let credentials = ProxyCredentials(printed: String(decoding: output, as: UTF8.self)) else {
      throw failure("what it printed is neither USER:PASSWORD nor the proxy's URL with both nor `Bearer TOKEN`")
    }
    return credentials
  }

  private func failure(_ reason: String) -> TransportError {
    TransportError(
      .credentialsCommand, "proxy-credentials-command: \(reason)",
      hint: "run it by hand as the node's user; it has to print the credentials as its first line")
  }

  /// What it printed and its status, 128 and the signal's number for one that was killed by one.
  private func outcome(of child: pid_t, reading end: Int32) throws(TransportError) -> (output: [UInt8], status: Int32) {
    let deadline = ContinuousClock.now + patience
    var output: [UInt8] = []
    var isOpen = true
    // Its end cannot be polled for, and the end of its output does not tell: looked at after 1 ms, then ever more rarely.
    var pause = Duration.milliseconds(1)
    while true {
      let status = Self.reap(child)
      isOpen = isOpen && Self.read(end, into: &output)
      let isTooMuch = output.count > Self.mostOutput
      if let status, !isTooMuch { return (output, status) }
      if isTooMuch || ContinuousClock.now >= deadline {
        if status == nil { Self.end(child) }
        throw failure(
          isTooMuch ? "it printed more than \(Self.mostOutput >> 10) KiB" : "it did not end within \(patience)")
      }
      Self.wait(for: isOpen ? end : -1, pause)
      pause = min(pause * 2, .milliseconds(20))
    }
  }

  /// Takes what is there, up to what is too much. False when nothing comes any more.
  private static func read(_ end: Int32, into output: inout [UInt8]) -> Bool {
    var chunk = [UInt8](repeating: 0, count: 4096)
    while output.count <= mostOutput {
      let count = Glibc.read(end, &chunk, chunk.count)
      if count < 0, errno == EINTR { continue }
      if count < 0, errno == EAGAIN { return true }
      guard count > 0 else { return false }
      output += chunk[..<count]
    }
    return true
  }

  private static func wait(for end: Int32, _ time: Duration) {
    // poll(2) leaves out negative descriptors; a signal makes the wait shorter, no more.
    var descriptor = pollfd(fd: end, events: Int16(POLLIN), revents: 0)
    _ = poll(&descriptor, 1, Int32(time / .milliseconds(1)))
  }

  /// The status of a command that has ended; nil while it runs.
  private static func reap(_ child: pid_t) -> Int32? {
    var word: Int32 = 0
    var result: pid_t
    repeat { result = waitpid(child, &word, WNOHANG) } while result < 0 && errno == EINTR
    // Somebody else has reaped it: how it ended is not known.
    if result < 0 { return 255 }
    guard result == child else { return nil }
    let signal = word & 0x7F
    return signal == 0 ? (word >> 8) & 0xFF : 128 + signal
  }

  /// Kills the command and what it started: it has a process group of its own.
  private static func end(_ child: pid_t) {
    kill(-child, SIGKILL)
    let deadline = ContinuousClock.now + afterlife
    while reap(child) == nil, ContinuousClock.now < deadline { wait(for: -1, .milliseconds(2)) }
  }

  private func start(output: Int32) -> (error: Int32, child: pid_t) {
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
    let words = Self.copies(["/bin/sh", "-c", command])
    let variables = Self.copies(environment.map { "\($0.key)=\($0.value)" })
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

  private static func text(_ error: Int32) -> String { String(cString: strerror(error)).lowercased() }
}
