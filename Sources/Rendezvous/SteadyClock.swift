// Wall time for records and replies that does not jump when the system's clock is set. Used by configuration.

import Glibc

/// Unix milliseconds: the wall clock once, at the start, plus the time since boot that passed after it.
package struct SteadyClock: Sendable {
  private let origin: Int64

  package init() { origin = Self.read(CLOCK_REALTIME) - Self.read(CLOCK_BOOTTIME) }

  package func milliseconds() -> Int64 { origin + Self.read(CLOCK_BOOTTIME) }

  private static func read(_ clock: clockid_t) -> Int64 {
    var time = timespec()
    clock_gettime(clock, &time)
    return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
  }
}
