// The receiving half of a stream: puts segments in order, knows the window and what to acknowledge selectively.

import Wire

struct StreamReceiver: Sendable {
  /// What became of a segment.
  enum Verdict: Equatable {
    case inOrder
    /// Kept behind a gap.
    case early
    /// All of it was there already.
    case old
    /// More than the window allows.
    case noRoom
  }

  private(set) var expected: UInt32
  private var queue = ByteQueue()
  /// Ordered by sequence number, without overlap in front of `expected`.
  private var early: [(sequence: UInt32, payload: [UInt8])] = []
  private var earlyBytes = 0
  /// Where the peer's FIN stands.
  private(set) var finAt: UInt32?
  /// Bytes in order, since the stream began.
  private(set) var delivered: UInt64 = 0

  init(expected: UInt32) { self.expected = expected }

  var readable: Int { queue.count }
  var hasGap: Bool { !early.isEmpty }
  var earlyCount: Int { early.count }
  /// All bytes before the FIN came.
  var isComplete: Bool { finAt == expected }

  /// Free segments.
  var window: UInt16 {
    UInt16(max(0, StreamLimits.receiveBuffer - queue.count - earlyBytes) / StreamLimits.segmentSize)
  }

  mutating func take(_ limit: Int) -> [UInt8] { queue.take(limit) }

  mutating func noteFin(at sequence: UInt32) {
    if finAt == nil, !sequence.isBefore(expected) { finAt = sequence }
  }

  mutating func receive(_ sequence: UInt32, _ payload: [UInt8]) -> Verdict {
    guard !payload.isEmpty else { return .old }
    var sequence = sequence
    var payload = payload
    if let finAt, (sequence &+ UInt32(payload.count)).isAfter(finAt) { return .old }
    if sequence.isBefore(expected) {
      let overlap = Int(expected &- sequence)
      guard overlap < payload.count else { return .old }
      payload.removeFirst(overlap)
      sequence = expected
    }
    // One segment more than the window: a window of n is a count of full segments, the last of them may be partly used.
    guard queue.count + earlyBytes + payload.count <= StreamLimits.receiveBuffer + StreamLimits.segmentSize else {
      return .noRoom
    }
    guard sequence == expected else { return keep(sequence, payload) }
    deliver(payload)
    return .inOrder
  }

  private mutating func keep(_ sequence: UInt32, _ payload: [UInt8]) -> Verdict {
    guard early.count < StreamLimits.earlySegments, sequence &- expected <= UInt32(StreamLimits.receiveBuffer * 2)
    else { return .noRoom }
    let place = early.firstIndex { !$0.sequence.isBefore(sequence) } ?? early.endIndex
    if place < early.endIndex, early[place].sequence == sequence, early[place].payload.count >= payload.count {
      return .old
    }
    early.insert((sequence, payload), at: place)
    earlyBytes += payload.count
    return .early
  }

  private mutating func deliver(_ payload: [UInt8]) {
    let before = queue.count
    defer { delivered += UInt64(queue.count - before) }
    queue.append(payload)
    expected &+= UInt32(payload.count)
    var used = 0
    while used < early.count, !early[used].sequence.isAfter(expected) {
      let piece = early[used]
      used += 1
      earlyBytes -= piece.payload.count
      let overlap = Int(expected &- piece.sequence)
      guard overlap < piece.payload.count else { continue }
      queue.append(piece.payload.dropFirst(overlap))
      expected &+= UInt32(piece.payload.count - overlap)
    }
    early.removeFirst(used)
  }

  /// Consumes the FIN's number. Only when `isComplete`.
  mutating func passFin() { expected &+= 1 }

  /// The four highest runs behind the gap, ascending (wire/tunnel §5.4).
  var blocks: SelectiveAcknowledgement? {
    var runs: [SelectiveAcknowledgement.Block] = []
    for piece in early {
      let end = piece.sequence &+ UInt32(piece.payload.count)
      if let last = runs.last, !piece.sequence.isAfter(last.right) {
        if end.isAfter(last.right) { runs[runs.count - 1] = .init(left: last.left, right: end) }
      } else {
        runs.append(.init(left: piece.sequence, right: end))
      }
    }
    return SelectiveAcknowledgement(blocks: Array(runs.suffix(4)))
  }
}
