// Threads that may block: one waits for the worker's events, one for network changes, one for signals. Each hands
// what it got to an AsyncStream.

import Glibc
import Synchronization

package enum DedicatedThread {
  private final class Body: Sendable {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
  }

  /// Starts a thread that ends with `body`.
  package static func start(_ name: String, _ body: @escaping @Sendable () -> Void) {
    let box = Unmanaged.passRetained(Body(body))
    // SAFETY: nothing reads the attributes before pthread_attr_init.
    // In memory of its own: which module has the initializer of pthread_attr_t depends on what was imported first.
    let result = withUnsafeTemporaryAllocation(of: pthread_attr_t.self, capacity: 1) { memory -> Int32 in
      guard let attributes = memory.baseAddress else { return ENOMEM }
      pthread_attr_init(attributes)
      defer { pthread_attr_destroy(attributes) }
      pthread_attr_setdetachstate(attributes, Int32(PTHREAD_CREATE_DETACHED))
      pthread_attr_setstacksize(attributes, 256 * 1024)
      var handle = pthread_t()
      return pthread_create(
        &handle, attributes,
        { argument in
          if let argument { Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run() }
          return nil
        }, box.toOpaque())
    }
    // Out of threads at start: nothing of the node would work.
    precondition(result == 0, "cannot start a thread: \(errorText(result))")
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

  /// The signals as they come. One stream per process; from here on they do not end it.
  package static func stream() -> AsyncStream<Signal> {
    let (stream, continuation) = AsyncStream<Signal>.makeStream(bufferingPolicy: .bufferingNewest(16))
    var ends: [Int32] = [-1, -1]
    precondition(pipe(&ends) == 0, "cannot make a pipe: \(errorText(errno))")
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    let reader = ends[0]
    writer.store(ends[1], ordering: .releasing)
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
    DedicatedThread.start("pilot-signals") {
      var number: UInt8 = 0
      while true {
        guard read(reader, &number, 1) == 1 else { continue }
        continuation.yield(Int32(number) == SIGHUP ? .reload : .end)
      }
    }
    return stream
  }
}
