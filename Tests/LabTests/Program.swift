// Runs programs for the laboratory: started in the background with their output collected and awaited line by line,
// or run to their end. Everything has a deadline; a program that outlives its owner is killed. Used by Lab.

import Foundation
import Glibc

struct LabError: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}

/// What a program that ended has said.
struct Outcome: CustomStringConvertible {
  var command: String
  /// The exit status, or 128 + the signal that ended it.
  var status: Int32
  var output: String
  var errors: String

  var isSuccess: Bool { status == 0 }
  var description: String {
    "\(command)\n  status \(status)\n  output: \(output)\n  errors: \(errors)"
  }

  /// The outcome itself, or an error with everything it said.
  @discardableResult
  func orThrow() throws -> Outcome {
    if !isSuccess { throw LabError(description) }
    return self
  }
}

/// A running program. All its members may be called from any thread.
final class Program: @unchecked Sendable {
  let pid: pid_t
  private let command: String
  // INVARIANT: everything below is touched with `condition` held.
  private let condition = NSCondition()
  private var output: [UInt8] = []
  private var errors: [UInt8] = []
  private var openPipes = 2
  private var status: Int32?

  /// Starts `arguments[0]`, searched in PATH, with the given additions to the environment and no standard input.
  init(_ arguments: [String], environment additions: [String: String] = [:]) throws {
    command = arguments.joined(separator: " ")
    var ends: [[Int32]] = []
    for _ in 0..<2 {
      var pair: [Int32] = [0, 0]
      guard pipe(&pair) == 0 else { throw LabError("pipe: errno \(errno)") }
      for end in pair { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
      ends.append(pair)
    }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_adddup2(&actions, ends[0][1], 1)
    posix_spawn_file_actions_adddup2(&actions, ends[1][1], 2)
    // The threads of the test runner block signals; a program that inherits that does not hear SIGTERM.
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    var signals = sigset_t()
    sigemptyset(&signals)
    posix_spawnattr_setsigmask(&attributes, &signals)
    sigfillset(&signals)
    posix_spawnattr_setsigdefault(&attributes, &signals)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
    defer {
      posix_spawn_file_actions_destroy(&actions)
      posix_spawnattr_destroy(&attributes)
    }
    var variables = ProcessInfo.processInfo.environment
    variables.merge(additions) { $1 }
    let argv = arguments.map { strdup($0) } + [nil]
    let environment = variables.map { strdup("\($0.key)=\($0.value)") } + [nil]
    defer {
      for text in argv + environment { free(text) }
    }
    var child: pid_t = 0
    let failure = posix_spawnp(&child, arguments[0], &actions, &attributes, argv, environment)
    close(ends[0][1])
    close(ends[1][1])
    guard failure == 0 else {
      close(ends[0][0])
      close(ends[1][0])
      throw LabError("cannot start \(command): errno \(failure)")
    }
    pid = child
    read(ends[0][0]) { $0.output += $1 }
    read(ends[1][0]) { $0.errors += $1 }
    Thread.detachNewThread { self.reap() }
  }

  private func read(_ descriptor: Int32, into store: @escaping @Sendable (Program, ArraySlice<UInt8>) -> Void) {
    Thread.detachNewThread {
      var buffer = [UInt8](repeating: 0, count: 65536)
      while true {
        let count = Glibc.read(descriptor, &buffer, buffer.count)
        if count < 0, errno == EINTR { continue }
        if count <= 0 { break }
        self.condition.withLock {
          store(self, buffer[..<count])
          self.condition.broadcast()
        }
      }
      close(descriptor)
      self.condition.withLock {
        self.openPipes -= 1
        self.condition.broadcast()
      }
    }
  }

  private func reap() {
    var word: Int32 = 0
    while waitpid(pid, &word, 0) < 0 && errno == EINTR {}
    let signal = word & 0x7F
    condition.withLock {
      status = signal == 0 ? (word >> 8) & 0xFF : 128 + signal
      condition.broadcast()
    }
  }

  var isRunning: Bool { condition.withLock { status == nil } }

  /// VmRSS: of the program itself, as `ip netns exec` becomes what it starts.
  func residentKilobytes() throws -> Int {
    let status = try String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)
    let line = status.split(separator: "\n").first { $0.hasPrefix("VmRSS:") } ?? ""
    return Int(line.split(separator: " ").dropLast().last ?? "") ?? .max
  }

  /// Everything said so far, for error messages.
  var transcript: String {
    condition.withLock {
      "\(command)\n  output: \(String(decoding: output, as: UTF8.self))\n  errors: \(String(decoding: errors, as: UTF8.self))"
    }
  }

  var outputText: String { condition.withLock { String(decoding: output, as: UTF8.self) } }
  var errorText: String { condition.withLock { String(decoding: errors, as: UTF8.self) } }

  /// Waits until a whole line of output or errors contains the text, and returns that line.
  @discardableResult
  func waitForLine(containing text: String, within seconds: Double = 20) throws -> String {
    let deadline = Date(timeIntervalSinceNow: seconds)
    condition.lock()
    while true {
      for stream in [output, errors] {
        let lines = String(decoding: stream, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: true)
        if let line = lines.first(where: { $0.contains(text) }) {
          condition.unlock()
          return String(line)
        }
      }
      let hasEnded = status != nil && openPipes == 0
      if hasEnded || !condition.wait(until: deadline) {
        condition.unlock()
        throw LabError("\(hasEnded ? "ended" : "\(seconds) s passed") without a line with “\(text)”: \(transcript)")
      }
    }
  }

  /// Waits for the end; kills it and throws when it takes longer.
  func wait(within seconds: Double) throws -> Outcome {
    let deadline = Date(timeIntervalSinceNow: seconds)
    condition.lock()
    while status == nil || openPipes > 0 {
      if !condition.wait(until: deadline) {
        condition.unlock()
        kill(pid, SIGKILL)
        throw LabError("did not end within \(seconds) s: \(transcript)")
      }
    }
    defer { condition.unlock() }
    return Outcome(
      command: command, status: status ?? 0, output: String(decoding: output, as: UTF8.self),
      errors: String(decoding: errors, as: UTF8.self))
  }

  func send(_ signal: Int32) {
    condition.withLock {
      if status == nil { kill(pid, signal) }
    }
  }

  /// Ends it with the signal, and by force if that brings nothing within 5 seconds.
  func end(_ signal: Int32 = SIGTERM) {
    send(signal)
    let deadline = Date(timeIntervalSinceNow: 5)
    condition.lock()
    while status == nil {
      if !condition.wait(until: deadline) {
        kill(pid, SIGKILL)
        while status == nil { condition.wait() }
      }
    }
    condition.unlock()
  }
}
