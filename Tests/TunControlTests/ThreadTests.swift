// Threads of their own: one that cannot be made is an error and no trap; a machine on sockets ends with whoever reads it.

import Glibc
import Testing
import Traversal
import Wire

@testable import TunControl

@Suite("Threads", .timeLimit(.minutes(1)))
struct ThreadTests {
  @Test("a thread that the kernel refuses is an error with a remedy, and its body is let go")
  func refused() throws {
    weak var held: Token?
    do {
      let token = Token {}
      held = token
      // No address space has room for this stack.
      let error = #expect(throws: ControlError.self) {
        try DedicatedThread.start("too-big", stackSize: 1 << 50) { withExtendedLifetime(token) {} }
      }
      #expect(error?.code == "thread_unavailable" && error?.hint?.contains("TasksMax") == true, "\(error as Any)")
    }
    #expect(held == nil)
  }

  @Test("what a thread gives comes back")
  func result() async throws {
    #expect(try await DedicatedThread.run("test") { 7 } == 7)
  }

  private final class Token: Sendable {
    let whenGone: @Sendable () -> Void
    init(_ whenGone: @escaping @Sendable () -> Void) { self.whenGone = whenGone }
    deinit { whenGone() }
  }

  /// One that would go on for an hour.
  private struct Patient: SocketMachine {
    let token: Token
    var nextDeadline: UInt64? = 0

    mutating func tick(_ now: UInt64) -> [SocketAction<Int>] {
      nextDeadline = now + 3_600_000_000_000
      return [.tell(1)]
    }

    mutating func received(
      _ socket: Int, from: Endpoint, _ bytes: [UInt8], _ now: UInt64
    ) -> [SocketAction<Int>] { [] }
  }

  @Test("a machine whose reader is cancelled ends at once, with its thread and sockets")
  func cancelled() async throws {
    let (ends, end) = AsyncStream<Void>.makeStream()
    let stream = try SocketThread.start(
      Patient(token: Token { end.finish() }), name: "test", local: IPv6Address(high: 0, low: 0))
    let (starts, start) = AsyncStream<Void>.makeStream()
    let reader = Task { for await _ in stream { start.finish() } }
    for await _ in starts {}
    reader.cancel()
    for await _ in ends {}
    await reader.value
  }
}
