// The event stream of port 1002 as a pure machine (wire/tunnel §8.3): bytes of all its streams in, bytes for them out.
// The first event of a stream subscribes to its topic, every later one is copied to all other streams that want it.

import Wire

package struct EventBroker<ID: Hashable & Sendable>: Sendable {
  package enum Count: String, Sendable, CaseIterable {
    /// An event above the publisher's rate.
    case overRate = "stream-event-over-limit"
    /// A subscriber that does not read misses it.
    case subscriberSlow = "stream-event-subscriber-slow"
  }

  static var longestTopic: Int { 1024 }
  static var longestPayload: Int { 16 << 20 }
  /// Events of one stream: so many at once, then so many a second.
  static var burst: Double { 200 }
  static var rate: Double { 100 }
  /// Bytes that wait for one subscriber; an event more, of any size, when nothing waits.
  static var mostWaiting: Int { 1 << 20 }
  static var mostWaitingOfAll: Int { 64 << 20 }

  private struct Member: Sendable {
    var input: [UInt8] = []
    var topic: [UInt8]?
    var output: [UInt8] = []
    var left = EventBroker.burst
    var filledAt: UInt64
  }

  private var members: [ID: Member] = [:]
  /// Bytes that wait for all of them.
  private var waiting = 0
  private var counts: [Count: Int] = [:]
  private var touched: Set<ID> = []

  package init() {}

  package mutating func joined(_ id: ID, now: UInt64) { members[id] = Member(filledAt: now) }

  package mutating func left(_ id: ID) {
    waiting -= members[id]?.output.count ?? 0
    members[id] = nil
  }

  package mutating func takeCounts() -> [Count: Int] {
    defer { counts = [:] }
    return counts
  }

  /// Those for whom something waits that did not before.
  package mutating func takeTouched() -> Set<ID> {
    defer { touched = [] }
    return touched
  }

  package func pending(of id: ID) -> [UInt8] { members[id]?.output ?? [] }

  package mutating func wrote(_ id: ID, _ count: Int) {
    members[id]?.output.removeFirst(count)
    waiting -= count
  }

  /// Declared bytes of the event under way.
  package func eventBytes(of id: ID) -> Int { Self.size(members[id]?.input[...] ?? []) ?? 0 }

  /// Bytes of a stream. False: it does not speak the protocol, and is to be closed.
  package mutating func received(_ id: ID, _ bytes: some Collection<UInt8>, now: UInt64) -> Bool {
    // Taken out, for its buffer is not to be copied; whom it publishes to are others.
    guard var member = members.removeValue(forKey: id) else { return false }
    defer { members[id] = member }
    member.input += bytes
    var used = 0
    while let size = Self.size(member.input[used...]) {
      guard size > 0 else { return false }
      guard member.input.count - used >= size else { break }
      let event = member.input[used..<(used + size)]
      used += size
      if member.topic == nil {
        member.topic = Array(Self.topic(event))
      } else if Self.admits(&member, now) {
        publish(event)
      } else {
        counts[.overRate, default: 0] += 1
      }
    }
    if used > 0 { member.input = Array(member.input[used...]) }
    return true
  }

  private static func admits(_ member: inout Member, _ now: UInt64) -> Bool {
    member.left = min(burst, member.left + Double(now &- member.filledAt) / 1e9 * rate)
    member.filledAt = now
    guard member.left >= 1 else { return false }
    member.left -= 1
    return true
  }

  private mutating func publish(_ event: ArraySlice<UInt8>) {
    let topic = Self.topic(event)
    for (id, member) in members {
      guard let wanted = member.topic, wanted == [UInt8(ascii: "*")] || wanted.elementsEqual(topic) else { continue }
      guard member.output.isEmpty || member.output.count + event.count <= Self.mostWaiting,
        waiting + event.count <= Self.mostWaitingOfAll
      else {
        counts[.subscriberSlow, default: 0] += 1
        continue
      }
      members[id]?.output += event
      waiting += event.count
      touched.insert(id)
    }
  }

  /// Bytes of the event that begins here; 0 when it is malformed, nil while its lengths are not there.
  private static func size(_ bytes: ArraySlice<UInt8>) -> Int? {
    var reader = ByteReader(bytes)
    guard let topic = reader.u16() else { return nil }
    guard topic <= longestTopic else { return 0 }
    guard reader.take(Int(topic)) != nil, let payload = reader.u32() else { return nil }
    return payload <= longestPayload ? 6 + Int(topic) + Int(payload) : 0
  }

  private static func topic(_ event: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
    var reader = ByteReader(event)
    return reader.u16().flatMap { reader.take(Int($0)) } ?? []
  }
}
