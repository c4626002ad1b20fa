// How the starts of this service went, in a file in memory that the service manager keeps over restarts, and how long the
// next one waits: systemd 252 knows one pause for all restarts, and the one that a crash wants (200 ms) is too short for
// an error that lasts. Used by NodeProgram.

import Glibc
import Logging
import ServiceManager
import Shim
import Wire

/// Starts in a row that did not last, and why the last one ended. Times are monotonic nanoseconds.
///
///     "PTS1" | failures (4 bytes, big-endian) | beganAt (8 bytes) | reason (UTF-8)
struct StartHistory: Equatable {
  private static let magic: [UInt8] = Array("PTS1".utf8)
  private static let headLength = 16
  static let longestReason = 400
  static let second: UInt64 = 1_000_000_000
  /// A run of this length is no failed start, however it ended.
  static let lasting = 10 * second
  /// So many starts may fail before one waits: a crash, and an obstacle that goes at once, cost no time.
  static let freeStarts: UInt32 = 3
  static let longestPause = 30 * second

  var failures: UInt32 = 0
  /// When the last start began; 0: it ended as it was asked to.
  var beganAt: UInt64 = 0
  var reason = ""

  /// Takes the end of the last run into account. Returns the pause before the next start: none at first, then 1 s, twice
  /// as long each time, 30 s at most.
  mutating func pause(_ now: UInt64) -> UInt64 {
    guard beganAt != 0, now >= beganAt, now < beganAt + Self.lasting else {
      self = StartHistory()
      return 0
    }
    failures = min(failures + 1, 1000)
    guard failures > Self.freeStarts else { return 0 }
    return min(Self.second << UInt64(min(failures - Self.freeStarts - 1, 10)), Self.longestPause)
  }

  var encoded: [UInt8] {
    let numbers = (0..<4).map { UInt8(truncatingIfNeeded: failures >> (24 - 8 * $0)) }
    let times = (0..<8).map { UInt8(truncatingIfNeeded: beganAt >> (56 - 8 * $0)) }
    return Self.magic + numbers + times + Array(reason.utf8.prefix(Self.longestReason))
  }

  init() {}

  /// nil for anything that was not written by `encoded`.
  init?(_ bytes: ArraySlice<UInt8>) {
    guard bytes.starts(with: Self.magic), bytes.count >= Self.headLength,
      bytes.count <= Self.headLength + Self.longestReason
    else { return nil }
    func number(_ range: Range<Int>) -> UInt64 {
      bytes.dropFirst(range.lowerBound).prefix(range.count).reduce(0) { $0 << 8 | UInt64($1) }
    }
    guard number(4..<8) <= 1000 else { return nil }
    failures = UInt32(number(4..<8))
    beganAt = number(8..<16)
    reason = String(decoding: bytes.dropFirst(Self.headLength), as: UTF8.self)
  }
}

/// SAFETY: `Sendable` as NodeProgram's one task uses it.
struct StartRecord: Sendable {
  static let name = "starts"

  private let descriptor: Int32
  private let notifier: ServiceNotifier

  /// nil without a service manager, or without the memory: then no start waits.
  init?(_ passed: inout PassedDescriptors, notifier: ServiceNotifier) {
    guard notifier.isManaged else { return nil }
    self.notifier = notifier
    while let kept = passed.take(Self.name) {
      guard Self.read(kept) == nil else {
        descriptor = kept
        return
      }
      pt_close(kept)
      notifier.forget(Self.name)
    }
    descriptor = pt_memory_file("pilot-tun-starts")
    guard descriptor >= 0 else { return nil }
    write(StartHistory())
    notifier.keep(descriptor, as: Self.name)
  }

  /// Waits, if the last starts failed, and says so. Signals have to be as they were: one that ends the process here ends
  /// it as asked, and the next start does not wait.
  func begin(_ logger: Logger) {
    var history = Self.read(descriptor) ?? StartHistory()
    let pause = history.pause(Clock.now())
    if pause > 0 {
      let seconds = pause / StartHistory.second
      let reason = history.reason.isEmpty ? "the last starts did not last" : "cannot start: \(history.reason)"
      notifier.status("\(reason); next try in \(seconds) s")
      logger.notice(
        "waiting before the next start",
        metadata: ["failed_starts": "\(history.failures)", "seconds": "\(seconds)", "reason": "\(reason)"])
      history.beganAt = 0
      write(history)
      // Nothing else runs yet that this could hold up.
      var wait = timespec(tv_sec: Int(seconds), tv_nsec: 0)
      var rest = timespec()
      while nanosleep(&wait, &rest) != 0, errno == EINTR { wait = rest }
      notifier.status("starting")
    }
    history.beganAt = Clock.now()
    history.reason = ""
    write(history)
  }

  func failed(_ error: ControlError) {
    guard var history = Self.read(descriptor) else { return }
    history.reason = "\(error.code): \(error.message)"
    write(history)
  }

  func endedAsAsked() { write(StartHistory()) }

  private func write(_ history: StartHistory) {
    let bytes = history.encoded
    _ = pt_memory_file_write(descriptor, bytes, bytes.count)
  }

  private static func read(_ descriptor: Int32) -> StartHistory? {
    var bytes = [UInt8](repeating: 0, count: 1024)
    let count = pt_memory_file_read(descriptor, &bytes, bytes.count)
    return count < 0 ? nil : StartHistory(bytes.prefix(Int(count)))
  }
}
