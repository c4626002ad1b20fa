// Threads that may block: one waits for the worker's events, one for network changes, one for signals. Each hands
// what it got to an AsyncStream. A thread that cannot be made is an error: at start it ends the node, later whatever
// needed it goes without (counted as `thread-unavailable`).

import Glibc
import Synchronization

package enum DedicatedThread {
  private final class Body: Sendable {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
  }

  static let stackSize = 256 * 1024

  /// Starts a thread that ends with `body`. Errors: `thread_unavailable`; then `body` is not called.
  package static func start(
    _ name: String, stackSize: Int = stackSize, _ body: @escaping @Sendable () -> Void
  ) throws(ControlError) {
    let box = Unmanaged.passRetained(Body(body))
    // SAFETY: nothing reads the attributes before pthread_attr_init.
    // In memory of its own: which module has the initializer of pthread_attr_t depends on what was imported first.
    let result = withUnsafeTemporaryAllocation(of: pthread_attr_t.self, capacity: 1) { memory -> Int32 in
      guard let attributes = memory.baseAddress else { return ENOMEM }
      pthread_attr_init(attributes)
      defer { pthread_attr_destroy(attributes) }
      pthread_attr_setdetachstate(attributes, Int32(PTHREAD_CREATE_DETACHED))
      pthread_attr_setstacksize(attributes, stackSize)
      var handle = pthread_t()
      return pthread_create(
        &handle, attributes,
        { argument in
          if let argument { Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run() }
          return nil
        }, box.toOpaque())
    }
    guard result == 0 else {
      box.release()
      throw ControlError(
        "thread_unavailable", "the thread \(name) cannot be made: \(errorText(result))",
        hint: "raise the limit of threads (TasksMax=, ulimit -u)")
    }
  }

  /// What `body` gives, which may block, from a thread of its own. Errors: `thread_unavailable`.
  package static func run<Value: Sendable>(
    _ name: String, _ body: @escaping @Sendable () -> Value
  ) async throws(ControlError) -> Value {
    let result: Result<Value, ControlError> = await withCheckedContinuation { continuation in
      do throws(ControlError) {
        try start(name) { continuation.resume(returning: .success(body())) }
      } catch {
        continuation.resume(returning: .failure(error))
      }
    }
    return try result.get()
  }
}

/// SIGTERM, SIGINT and SIGHUP as events.
///
/// The handler writes the number to a pipe and a thread reads it. Blocking the signals and waiting for them is no way:
/// the main thread of an asynchronous `main` sits in libdispatch with all signals open.
package enum ProcessSignals {
  package enum Signal: Sendable {
    case end
    case reload
  }

  private static let writer = Atomic<Int32>(-1)

  /// The signals as they come. One stream per process; from here on they do not end it. Errors: `kernel_call_failed`,
  /// `thread_unavailable`.
  package static func stream() throws(ControlError) -> AsyncStream<Signal> {
    let (stream, continuation) = AsyncStream<Signal>.makeStream(bufferingPolicy: .bufferingNewest(16))
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else {
      throw ControlError("kernel_call_failed", "pipe: \(errorText(errno))", hint: "raise the limit of open files")
    }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    let reader = ends[0]
    writer.store(ends[1], ordering: .releasing)
    try DedicatedThread.start("pilot-signals") {
      var number: UInt8 = 0
      while true {
        guard read(reader, &number, 1) == 1 else { continue }
        continuation.yield(Int32(number) == SIGHUP ? .reload : .end)
      }
    }
    var action = sigaction()
    // SAFETY: write(2) is async-signal-safe, and the atomic was initialised by the store above.
    action.__sigaction_handler.sa_handler = { number in
      let saved = errno
      var byte = UInt8(truncatingIfNeeded: number)
      _ = write(ProcessSignals.writer.load(ordering: .relaxed), &byte, 1)
      errno = saved
    }
    action.sa_flags = Int32(SA_RESTART)
    for number in [SIGTERM, SIGINT, SIGHUP] { sigaction(number, &action, nil) }
    return stream
  }
}
