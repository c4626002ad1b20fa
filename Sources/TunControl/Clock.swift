// The clocks of the pure machines and of the worker's statistics. Read by Node.

import Glibc

/// Reads the kernel's clocks.
package enum Clock {
  /// Nanoseconds of CLOCK_MONOTONIC.
  package static func now() -> UInt64 { read(CLOCK_MONOTONIC) }

  /// Nanoseconds since 1970.
  package static func wall() -> UInt64 { read(CLOCK_REALTIME) }

  /// Nanoseconds that the machine slept since it booted: how far the boot-time clock is ahead of the monotonic one.
  package static func sleep() -> UInt64 {
    // In this order, and the later one is never behind.
    let awake = read(CLOCK_MONOTONIC)
    return read(CLOCK_BOOTTIME) - awake
  }

  private static func read(_ clock: clockid_t) -> UInt64 {
    var now = timespec()
    clock_gettime(clock, &now)
    return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
  }
}
