// Commits changes in groups on a thread of its own. RegistryService hands them in while it holds the state's lock.

import NIOPosix
import Synchronization

/// Everything that was handed in while one commit ran goes into the next: under load one `fsync` serves many replies.
///
/// INVARIANT: changes are committed in the order of `submit`, and a waiter is told only after everything handed in
/// before it is durable.
final class StoreWriter: Sendable {
  typealias Waiter = @Sendable (_ isCommitted: Bool) -> Void

  private struct Queue {
    var changes: [StoreChange] = []
    var waiters: [Waiter] = []
    var isWriting = false
  }

  private let queue = Mutex(Queue())
  private let pool = NIOThreadPool(numberOfThreads: 1)
  private let commit: @Sendable ([StoreChange]) throws -> Void
  /// Called when a commit failed, on the writer's thread, with a closure that empties the queue: whoever holds the
  /// state brings it back to what is stored and calls the closure under the same lock.
  private let recover: @Sendable (_ error: any Error, _ drop: () -> Void) -> Void

  init(
    commit: @escaping @Sendable ([StoreChange]) throws -> Void,
    recover: @escaping @Sendable (any Error, () -> Void) -> Void
  ) {
    self.commit = commit
    self.recover = recover
    pool.start()
  }

  /// True when nothing is on its way to the disk.
  var isSettled: Bool { queue.withLock { !$0.isWriting } }

  func submit(_ changes: [StoreChange], _ waiter: Waiter?) {
    let starts = queue.withLock { queue in
      queue.changes += changes
      if let waiter { queue.waiters.append(waiter) }
      defer { queue.isWriting = true }
      return !queue.isWriting
    }
    if starts { pool.submit { _ in self.drain() } }
  }

  private func drain() {
    while true {
      let (changes, waiters) = queue.withLock { queue in
        defer {
          queue.changes = []
          queue.waiters = []
        }
        return (queue.changes, queue.waiters)
      }
      var isCommitted = true
      var dropped: [Waiter] = []
      if !changes.isEmpty {
        do {
          try commit(changes)
        } catch {
          isCommitted = false
          recover(error) {
            dropped = queue.withLock { queue in
              defer {
                queue.changes = []
                queue.waiters = []
              }
              return queue.waiters
            }
          }
        }
      }
      let isIdle = queue.withLock { queue in
        if queue.changes.isEmpty && queue.waiters.isEmpty { queue.isWriting = false }
        return !queue.isWriting
      }
      for waiter in waiters + dropped { waiter(isCommitted) }
      if isIdle { return }
    }
  }

  /// Waits for what was handed in, then ends the thread. Nothing may be handed in afterwards.
  func close() async {
    await withCheckedContinuation { continuation in
      submit([]) { _ in continuation.resume() }
    }
    try? await pool.shutdownGracefully()
  }
}
