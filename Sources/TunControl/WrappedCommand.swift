// The command of `pilot-tun run`: prepared before the node begins, started in the overlay's network namespace when the
// node is ready, awaited, and ended with everything it left behind. NodeProgram drives it; the program's exit status is
// the command's.

import Glibc
import LinkIO
import Logging
import Shim
import Synchronization
import Wire

package final class WrappedCommand: Sendable {
  /// What became of it.
  package enum Outcome: Equatable, Sendable {
    case exited(Int32)
    case killed(signal: Int32)
    /// It could not be started: the error number of exec.
    case refused(ControlError, number: Int32)

    /// As shells tell it: 128 + signal; 126 and 127 for what cannot be executed or is not there.
    package var exitStatus: Int32 {
      switch self {
      case .exited(let status): status
      case .killed(let signal): 128 + signal
      case .refused(_, let number): number == ENOENT ? 127 : 126
      }
    }
  }

  private enum Phase {
    case waiting
    /// `isUnwanted`: it is to end as soon as there is a process to tell.
    case starting(isUnwanted: Bool)
    case running(pid_t)
    /// Its process has ended; what it left has not.
    case leaving
    case over(Outcome?)
  }

  package let namespace: OverlayNamespace
  private let arguments: [String]
  /// Descriptors above 2 that whoever called us meant for the command.
  private let inherited: [Int32]
  private let fileLimit: UInt64
  private let phase = Mutex(Phase.waiting)
  private let end: AsyncStream<Void>
  private let ended: AsyncStream<Void>.Continuation

  /// How long a command that was told to end may take.
  static let patience: Duration = .seconds(5)

  /// Moves this process into a user namespace and makes the network namespace in it. The process must have one thread.
  package init(_ arguments: [String]) throws(ControlError) {
    precondition(!arguments.isEmpty)
    self.arguments = arguments
    inherited = Self.openDescriptors()
    var limit = rlimit()
    getrlimit(__rlimit_resource_t(7), &limit)  // RLIMIT_NOFILE, asm-generic/resource.h
    fileLimit = UInt64(limit.rlim_cur)
    (end, ended) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(1))
    do {
      try UserNamespace.enter()
      namespace = try OverlayNamespace()
    } catch {
      throw ControlError(error)
    }
  }

  /// What became of it; nil when it was never started.
  package var outcome: Outcome? {
    phase.withLock { if case .over(let outcome) = $0 { outcome } else { nil } }
  }

  /// Starts it. `whenOver` is called once, from another thread, after nothing of it is left.
  func start(
    _ configuration: NodeConfiguration, environment: [String: String], logger: Logger,
    whenOver: @escaping @Sendable () -> Void
  ) {
    let mayStart = phase.withLock { phase in
      guard case .waiting = phase else { return false }
      phase = .starting(isUnwanted: false)
      return true
    }
    guard mayStart else { return }
    var environment = environment
    environment[Setting.controlSocket.environmentName] = configuration.controlSocket
    let variables = environment.map { "\($0.key)=\($0.value)" }
    let resolver =
      configuration.dns == .off ? nil : CommandResolverFile.make(in: configuration.stateDirectory, logger: logger)
    let finish = { @Sendable [self] (outcome: Outcome) in
      NamespaceProcesses.end(in: namespace.identity)
      phase.withLock { $0 = .over(outcome) }
      ended.finish()
      whenOver()
    }
    do {
      // The kernel takes the end of this thread for the end of the command's parent: it stays until the command is over.
      try DedicatedThread.start("pilot-command") { [self] in finish(run(variables, resolver)) }
    } catch {
      resolver?.remove()
      finish(.refused(error, number: EAGAIN))
    }
  }

  private func run(_ variables: [String], _ resolver: CommandResolverFile?) -> Outcome {
    do {
      try namespace.enter()
    } catch {
      return .refused(ControlError(error), number: error.number)
    }
    var stage: Int32 = 0
    let process = launch(variables, resolver, &stage)
    // The mount keeps its content.
    resolver?.remove()
    guard process > 0 else {
      return .refused(Self.refusal(arguments[0], number: -process, stage: stage), number: -process)
    }
    phase.withLock { phase in
      if case .starting(isUnwanted: true) = phase { kill(process, SIGTERM) }
      phase = .running(process)
    }
    SignalForwarder.forward(to: process)
    // Seen first and reaped then, so that no signal goes to a process that got its number next.
    var information = siginfo_t()
    while waitid(P_PID, id_t(process), &information, WEXITED | WNOWAIT) != 0, errno == EINTR {}
    SignalForwarder.forward(to: 0)
    phase.withLock { $0 = .leaving }
    var word: Int32 = 0
    while waitpid(process, &word, 0) < 0, errno == EINTR {}
    let signal = word & 0x7F
    return signal == 0 ? .exited(word >> 8 & 0xFF) : .killed(signal: signal)
  }

  private func launch(_ variables: [String], _ resolver: CommandResolverFile?, _ stage: inout Int32) -> Int32 {
    let argv = arguments.map { strdup($0) } + [nil]
    let environment = variables.map { strdup($0) } + [nil]
    let file = resolver.map { strdup($0.path) }
    let place = resolver.map { strdup($0.place) }
    defer {
      for text in argv + environment + [file ?? nil, place ?? nil] { free(text) }
    }
    return argv.withUnsafeBufferPointer { argv in
      environment.withUnsafeBufferPointer { environment in
        inherited.withUnsafeBufferPointer { kept in
          // SAFETY: all of it outlives the call, which keeps nothing.
          var command = pt_command()
          command.arguments = UnsafePointer(OpaquePointer(argv.baseAddress!))
          command.environment = UnsafePointer(OpaquePointer(environment.baseAddress!))
          command.resolver_file = UnsafePointer(file ?? nil)
          command.resolver_place = UnsafePointer(place ?? nil)
          command.kept = kept.baseAddress
          command.kept_count = Int32(kept.count)
          command.file_limit = fileLimit
          return pt_command_start(&command, &stage)
        }
      }
    }
  }

  static func refusal(_ name: String, number: Int32, stage: Int32) -> ControlError {
    switch stage {
    case PT_START_EXECUTE:
      ControlError(
        "command_not_started", "cannot execute \(name): \(errorText(number))",
        hint: number == ENOENT ? "check its name and PATH" : nil)
    case PT_START_MOUNT:
      ControlError(
        "command_not_started", "cannot give \(name) a resolv.conf of its own: \(errorText(number))",
        hint: "--dns off leaves names alone: addresses work all the same")
    default:
      ControlError(
        "command_not_started", "cannot start a process for \(name): \(errorText(number))",
        hint: "the limits of processes and memory: ulimit -u, ulimit -v")
    }
  }

  /// Ends it (SIGTERM, later SIGKILL) when it runs, and returns when nothing of it is left. It does not start any more.
  func end() async {
    phase.withLock { phase in
      switch phase {
      case .waiting:
        phase = .over(nil)
        ended.finish()
      case .starting: phase = .starting(isUnwanted: true)
      case .running(let process): kill(process, SIGTERM)
      case .leaving, .over: break
      }
    }
    let force = Task { [self] in
      try await Task.sleep(for: Self.patience)
      phase.withLock { if case .running(let process) = $0 { kill(process, SIGKILL) } }
    }
    for await _ in end {}
    force.cancel()
  }

  /// Descriptors above 2 that are open now, ascending.
  private static func openDescriptors() -> [Int32] {
    guard let folder = opendir("/proc/self/fd") else { return [] }
    defer { closedir(folder) }
    var numbers: [Int32] = []
    while let entry = readdir(folder) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if let number = Int32(name), number > 2, number != dirfd(folder), fcntl(number, F_GETFD) & FD_CLOEXEC == 0 {
        numbers.append(number)
      }
    }
    return numbers.sorted()
  }
}
