// The event stream of port 1002: who gets which event, and the bounds.

import Services
import Testing
import Wire

@Suite("Event broker")
struct EventBrokerTests {
  private func event(_ topic: String, _ payload: [UInt8] = []) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.appendBig(UInt16(topic.utf8.count))
    bytes += topic.utf8
    bytes.appendBig(UInt32(payload.count))
    return bytes + payload
  }

  /// Subscriptions of 1, 2, … to these topics.
  private func broker(_ topics: String...) -> EventBroker<Int> {
    var broker = EventBroker<Int>()
    for (index, topic) in topics.enumerated() {
      broker.joined(index + 1, now: 0)
      _ = broker.received(index + 1, event(topic), now: 0)
    }
    return broker
  }

  @Test("an event goes to all others that want its topic, and to nobody else")
  func topics() {
    var broker = broker("a", "a", "b", "*")
    let bytes = event("a", [1, 2])
    let isFine = broker.received(1, bytes, now: 0)
    #expect(isFine)
    #expect(broker.takeTouched() == [2, 4])
    #expect(broker.pending(of: 2) == bytes && broker.pending(of: 4) == bytes)
    #expect(broker.pending(of: 1).isEmpty && broker.pending(of: 3).isEmpty)
    broker.wrote(2, 3)
    #expect(broker.pending(of: 2) == Array(bytes.dropFirst(3)))
  }

  @Test("events may come byte by byte; who has not subscribed yet, or has left, gets none")
  func pieces() {
    var broker = broker("a", "a")
    broker.joined(3, now: 0)
    broker.left(2)
    let publisher = event("x") + event("a", [5])
    broker.joined(4, now: 0)
    for byte in publisher { _ = broker.received(4, [byte], now: 0) }
    #expect(broker.pending(of: 1) == event("a", [5]))
    #expect(broker.pending(of: 3).isEmpty && broker.pending(of: 2).isEmpty)
  }

  @Test("lengths above the limits end the stream")
  func limits() {
    var broker = broker("a")
    let longTopic = broker.received(1, [0x04, 0x01], now: 0)
    #expect(!longTopic)
    broker.joined(2, now: 0)
    let longPayload = broker.received(2, [0, 1, 0x61, 1, 0, 0, 1], now: 0)
    #expect(!longPayload)
    let unknown = broker.received(9, [0], now: 0)
    #expect(!unknown)
    broker.joined(3, now: 0)
    let longest = broker.received(3, [0, 1, 0x61, 1, 0, 0, 0], now: 0)
    #expect(longest && broker.eventBytes(of: 3) == (16 << 20) + 7)
  }

  @Test("a publisher above its rate loses events, which are counted; the rate comes back with time")
  func rate() {
    var broker = broker("a", "b")
    for _ in 0..<300 { _ = broker.received(2, event("a", [1]), now: 0) }
    #expect(broker.pending(of: 1).count == 200 * event("a", [1]).count)
    #expect(broker.takeCounts() == [.overRate: 100])
    for _ in 0..<300 { _ = broker.received(2, event("a", [1]), now: 500_000_000) }
    #expect(broker.pending(of: 1).count == 250 * event("a", [1]).count)
  }

  @Test("a subscriber that does not read misses events, and holds up nobody")
  func slow() {
    var broker = broker("a", "a", "b")
    let large = event("a", [UInt8](repeating: 7, count: 700_000))
    for _ in 0..<3 {
      _ = broker.received(3, large, now: 0)
      broker.wrote(2, broker.pending(of: 2).count)
    }
    #expect(broker.pending(of: 1).count == large.count && broker.takeCounts() == [.subscriberSlow: 2])
    // What waits for all of them has a bound, too, and room comes back.
    broker.wrote(1, broker.pending(of: 1).count)
    _ = broker.received(3, large, now: 0)
    #expect(broker.pending(of: 1).count == large.count)
  }
}
