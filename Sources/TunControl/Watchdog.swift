// Feeds the service manager's watchdog with progress of the packet path. Started by NodeProgram.

import Engine
import Glibc
import ServiceManager

/// A thread of its own that looks at the worker's count of wake-ups, which is read without a lock, and tells the manager
/// when it moved. It waits for nothing that can wait for a disk, the directory or a lock of the node: only a worker
/// that stands still ends the signs of life, and then the manager kills and restarts the node.
enum Watchdog {
  /// Signs of life in the time that the manager waits for one: the worker may miss two of them.
  private static let signs: UInt64 = 4

  /// Errors: `thread_unavailable`; without signs of life the manager would kill the node.
  static func start(_ notifier: ServiceNotifier, watching engine: Engine) throws(ControlError) {
    guard let limit = notifier.watchdogLimit else { return }
    let interval = limit / signs
    try DedicatedThread.start("pilot-watchdog") { [weak engine] in
      var last = engine?.wakeUps ?? 0
      while let engine {
        // An idle worker sleeps: this wakes it, and it counts that.
        engine.nudge()
        var pause = timespec(tv_sec: Int(interval / 1_000_000_000), tv_nsec: Int(interval % 1_000_000_000))
        var rest = timespec()
        while nanosleep(&pause, &rest) != 0, errno == EINTR { pause = rest }
        let count = engine.wakeUps
        if count != last { notifier.alive() }
        last = count
      }
    }
  }
}
