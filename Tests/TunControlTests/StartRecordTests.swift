// How long a start waits that follows failed ones, and what of them outlives a restart.

import Glibc
import ServiceManager
import Shim
import Testing

@testable import TunControl

@Suite("Starts that fail")
struct StartRecordTests {
  private let second = StartHistory.second

  /// The pauses, in seconds, of starts that each end `lasting` after they began.
  private func pauses(_ count: Int, lasting: UInt64) -> [UInt64] {
    var history = StartHistory()
    var now = 5 * second
    return (0..<count).map { _ in
      let pause = history.pause(now)
      history.beganAt = now + pause
      now = history.beganAt + lasting
      return pause / second
    }
  }

  @Test("a crash and a few more cost no time, an error that lasts is tried ever more rarely, and for ever")
  func lasting() {
    #expect(pauses(12, lasting: second / 10) == [0, 0, 0, 0, 1, 2, 4, 8, 16, 30, 30, 30])
    #expect(pauses(5000, lasting: second / 10).suffix(2) == [30, 30])
  }

  @Test("runs that lasted are no failed starts, however they ended, nor is what ended as asked")
  func sound() {
    #expect(pauses(20, lasting: StartHistory.lasting) == [UInt64](repeating: 0, count: 20))
    var history = StartHistory()
    history.failures = 8
    history.beganAt = 0
    #expect(history.pause(second) == 0 && history.failures == 0)
    history.failures = 8
    history.beganAt = 100 * second
    #expect(history.pause(second) == 0, "a clock of before the boot")
  }

  @Test("the record is read back as it was written, and nothing else is")
  func forms() {
    var history = StartHistory()
    history.failures = 7
    history.beganAt = 0x0102_0304_0506_0708
    history.reason = "tun_unavailable: /dev/net/tun"
    let good = history.encoded
    #expect(good.prefix(16) == [80, 84, 83, 49, 0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8])
    #expect(StartHistory(good[...]) == history)
    #expect(StartHistory(StartHistory().encoded[...]) == StartHistory())
    history.reason = String(repeating: "é", count: 400)
    #expect((StartHistory(history.encoded[...])?.reason.utf8.count ?? 0) >= StartHistory.longestReason)
    let bad: [[UInt8]] = [
      [], Array(good.prefix(15)), Array("PTS2".utf8) + good.dropFirst(4),
      good + [UInt8](repeating: 65, count: StartHistory.longestReason),
      good.prefix(4) + [0xFF, 0, 0, 0] + good.dropFirst(8),
    ]
    for bytes in bad { #expect(StartHistory(bytes[...]) == nil, "\(bytes.prefix(20))") }
  }

  @Test("without a service manager nothing is recorded and nothing waits")
  func unmanaged() {
    var passed = PassedDescriptors(environment: [:], process: getpid())
    #expect(StartRecord(&passed, notifier: ServiceNotifier(environment: [:], process: getpid())) == nil)
  }
}
