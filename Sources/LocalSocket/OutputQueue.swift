// What waits to be written to one client: bytes in order, and where their frames end.

struct OutputQueue: Sendable {
  private var bytes: [UInt8] = []
  private var head = 0
  /// Lengths of the frames that are not wholly written, the first one whole.
  private var frames: [Int] = []
  private var firstFrame = 0
  /// Written bytes of the first one.
  private var written = 0
  /// Full until half of it is written: windows that open then open wide.
  private(set) var isFull = false

  var byteCount: Int { bytes.count - head }
  var frameCount: Int { frames.count - firstFrame }
  var isEmpty: Bool { head == bytes.count }
  var pending: ArraySlice<UInt8> { bytes[head...] }

  func isAtLimit(_ limits: LocalSocketLimits) -> Bool {
    frameCount >= limits.queuedFrames || byteCount >= limits.queuedBytes
  }

  mutating func append(_ frame: [UInt8], _ limits: LocalSocketLimits) {
    bytes += frame
    frames.append(frame.count)
    if isAtLimit(limits) { isFull = true }
  }

  /// That many bytes are written, never more than there are.
  mutating func remove(_ count: Int, _ limits: LocalSocketLimits) {
    let count = min(max(count, 0), byteCount)
    head += count
    written += count
    while firstFrame < frames.count, written >= frames[firstFrame] {
      written -= frames[firstFrame]
      firstFrame += 1
    }
    // Moving what is left costs no more than what was written since the last time.
    if head == bytes.count {
      bytes.removeAll(keepingCapacity: bytes.capacity <= 1 << 16)
      head = 0
    } else if head >= 1 << 16, head >= bytes.count / 2 {
      bytes.removeFirst(head)
      head = 0
    }
    if firstFrame == frames.count {
      frames.removeAll(keepingCapacity: true)
      firstFrame = 0
    } else if firstFrame >= 256, firstFrame >= frames.count / 2 {
      frames.removeFirst(firstFrame)
      firstFrame = 0
    }
    if frameCount * 2 <= limits.queuedFrames, byteCount * 2 <= limits.queuedBytes { isFull = false }
  }

  mutating func removeAll() { self = OutputQueue() }
}
