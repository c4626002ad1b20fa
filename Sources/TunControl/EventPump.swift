// The thread that waits for the worker's events and hands them to the node, one batch at a time: while the node is
// busy the events wait in the worker's bounded mailbox, which counts what it cannot keep.

import Dispatch
import Engine

final class EventPump: Sendable {
  let batches: AsyncStream<[EngineEvent]>
  private let taken = DispatchSemaphore(value: 0)

  /// Errors: `thread_unavailable`.
  init(_ engine: Engine) throws(ControlError) {
    let (stream, continuation) = AsyncStream<[EngineEvent]>.makeStream(bufferingPolicy: .unbounded)
    batches = stream
    let taken = taken
    try DedicatedThread.start("pilot-events") {
      while true {
        let events = engine.waitForEvents(timeoutMilliseconds: -1)
        guard !events.isEmpty else { continue }
        continuation.yield(events)
        let isOver = events.contains { if case .stopped = $0 { true } else { false } }
        if isOver { break }
        taken.wait()
      }
      continuation.finish()
    }
  }

  /// The node has handled the batch; the next may come.
  func next() { taken.signal() }
}
