// Bytes in, bytes out, in order: the buffer between a stream and whoever reads or writes it.

struct ByteQueue: Sendable {
  private var bytes: [UInt8] = []
  private var head = 0

  var count: Int { bytes.count - head }
  var isEmpty: Bool { count == 0 }

  mutating func append(_ more: some Collection<UInt8>) { bytes.append(contentsOf: more) }

  /// Up to `limit` bytes from the front.
  mutating func take(_ limit: Int) -> [UInt8] {
    let end = head + min(limit, count)
    let taken = Array(bytes[head..<end])
    head = end
    // Moving what is left costs no more than what was taken since the last time.
    if head == bytes.count {
      bytes.removeAll(keepingCapacity: bytes.capacity <= 1 << 16)
      head = 0
    } else if head >= 1 << 16, head >= bytes.count / 2 {
      bytes.removeFirst(head)
      head = 0
    }
    return taken
  }

  func first(_ limit: Int) -> ArraySlice<UInt8> { bytes[head..<(head + min(limit, count))] }

  mutating func removeAll() {
    bytes = []
    head = 0
  }
}
