// Cuts the bytes of a client into frames (wire/ipc §2): they come one at a time or many at once.

import Wire

struct FrameReader: Sendable {
  enum Step {
    /// A request: its number, and what follows.
    case frame(number: UInt8, body: ArraySlice<UInt8>)
    case incomplete
    /// A frame above the limit: there is no way to go on.
    case tooLong
  }

  private var bytes: [UInt8] = []
  private var head = 0

  /// Bytes that are kept.
  var count: Int { bytes.count - head }

  mutating func append(_ more: some Collection<UInt8>) {
    // Only here, where no frame is in use any more, and at most as often as bytes come: linear.
    if head == bytes.count {
      bytes.removeAll(keepingCapacity: bytes.capacity <= 1 << 16)
      head = 0
    } else if head >= 1 << 16, head >= bytes.count / 2 {
      bytes.removeFirst(head)
      head = 0
    }
    bytes.append(contentsOf: more)
  }

  /// The next frame, if it is whole; empty ones mean nothing.
  mutating func next() -> Step {
    while true {
      guard count >= 4 else { return .incomplete }
      let length = bytes[head..<(head + 4)].reduce(0) { $0 << 8 | Int($1) }
      guard length <= LocalSocketLimits.framePayload else { return .tooLong }
      guard count >= 4 + length else { return .incomplete }
      let start = head + 4
      head = start + length
      if length > 0 { return .frame(number: bytes[start], body: bytes[(start + 1)..<head]) }
    }
  }

  mutating func removeAll() {
    bytes = []
    head = 0
  }
}
