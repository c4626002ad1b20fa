// Bounded queues between control and a worker, with a descriptor that wakes the other side. Never per packet.

internal import Shim
internal import Synchronization

/// Messages from any thread to one reader. The reader looks only when its descriptor is readable, so the lock
/// inside is taken per burst of messages, not per packet.
package final class Mailbox<Message: Sendable>: Sendable {
  private let messages: Mutex<[Message]>
  private let limit: Int
  /// Readable while messages wait.
  package let descriptor: Int32

  package init(limit: Int) {
    messages = Mutex([])
    self.limit = limit
    descriptor = pt_eventfd()
  }

  deinit { pt_close(descriptor) }

  /// False when the box is full; the message is then lost and the caller counts it. `always`: for messages that must
  /// arrive and cannot be many, past the limit. `leaving`: places that are kept for others.
  @discardableResult
  package func post(_ message: Message, always: Bool = false, leaving room: Int = 0) -> Bool {
    let (wasEmpty, isTaken) = messages.withLock { messages in
      guard always || messages.count < limit - room else { return (false, false) }
      messages.append(message)
      return (messages.count == 1, true)
    }
    if wasEmpty { pt_eventfd_signal(descriptor) }
    return isTaken
  }

  /// Posts several in order. Those that may be lost are, from half the limit on; how many that were.
  package func post(all more: [Message], mayLose: (Message) -> Bool) -> Int {
    let (wasEmpty, lost) = messages.withLock { messages in
      let wasEmpty = messages.isEmpty
      var lost = 0
      for message in more {
        if messages.count >= limit / 2, mayLose(message) { lost += 1 } else { messages.append(message) }
      }
      return (wasEmpty && !messages.isEmpty, lost)
    }
    if wasEmpty { pt_eventfd_signal(descriptor) }
    return lost
  }

  /// A quarter of the limit waits: who has much to say may wait, too.
  package var isBehind: Bool { messages.withLock { $0.count >= limit / 4 } }

  /// Everything that waits, in order; empty when nothing does.
  package func takeAll() -> [Message] {
    pt_eventfd_drain(descriptor)
    return messages.withLock { messages in
      let all = messages
      messages.removeAll()
      return all
    }
  }

  /// Messages that wait now.
  package var count: Int { messages.withLock { $0.count } }

  /// Makes the reader's wait return without a message.
  package func wake() { pt_eventfd_signal(descriptor) }
}
