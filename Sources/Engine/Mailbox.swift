// Bounded queues between control and a worker, with a descriptor that wakes the other side. Never per packet.

internal import Shim
internal import Synchronization

/// Messages from any thread to one reader. The reader looks only when its descriptor is readable, so the lock
/// inside is taken per burst of messages, not per packet.
final class Mailbox<Message: Sendable>: Sendable {
  private let messages: Mutex<[Message]>
  private let limit: Int
  /// Readable while messages wait.
  let descriptor: Int32

  init(limit: Int) {
    messages = Mutex([])
    self.limit = limit
    descriptor = pt_eventfd()
  }

  deinit { pt_close(descriptor) }

  /// False when the box is full; the message is then lost and the caller counts it. `always`: for messages that must
  /// arrive and cannot be many, past the limit.
  /// `leavingHalf`: for messages that a sender repeats; the other half is for what is said once.
  func post(_ message: Message, always: Bool = false, leavingHalf: Bool = false) -> Bool {
    let (wasEmpty, isTaken) = messages.withLock { messages in
      guard always || messages.count < (leavingHalf ? limit / 2 : limit) else { return (false, false) }
      messages.append(message)
      return (messages.count == 1, true)
    }
    if wasEmpty { pt_eventfd_signal(descriptor) }
    return isTaken
  }

  /// Everything that waits, in order; empty when nothing does.
  func takeAll() -> [Message] {
    pt_eventfd_drain(descriptor)
    return messages.withLock { messages in
      let all = messages
      messages.removeAll()
      return all
    }
  }

  /// Makes the reader's wait return without a message.
  func wake() { pt_eventfd_signal(descriptor) }
}
