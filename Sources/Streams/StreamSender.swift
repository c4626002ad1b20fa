// The sending half of a stream: segments in flight, what of them is lost, when to send again (RFC 6298, 8985).

import Wire

struct StreamSender: Sendable {
  struct Flight: Sendable {
    let sequence: UInt32
    let payload: [UInt8]
    let isFin: Bool
    var sentAt: UInt64
    var transmissions = 1
    var isKept = false
    var isLost = false
    /// Lost because later ones arrived.
    var isOvertaken = false
    /// Sent into a closed window.
    var isProbe = false

    var end: UInt32 { sequence &+ UInt32(payload.count) &+ (isFin ? 1 : 0) }
  }

  /// First number not acknowledged, and the next one to use.
  private(set) var oldest: UInt32
  private(set) var next: UInt32
  /// What the peer takes, in bytes from `oldest`.
  var peerWindow = 0
  /// Payload of a full segment: what the path takes, at most the unit of the window.
  private(set) var segmentSize = StreamLimits.segmentSize
  private(set) var unsent = ByteQueue()
  private var flight: [Flight] = []
  private var window = CongestionWindow()
  /// Bytes in flight that are neither acknowledged nor lost.
  private var pipe = 0

  private(set) var smoothed: UInt64?
  private var variation: UInt64 = 0
  private var timeout = StreamLimits.firstTimeout
  private var backoff: UInt64 = 0
  /// When the timer of the oldest segment runs out.
  private var timerAt: UInt64?
  /// The present round trip ends when this number is acknowledged; bytes that arrived and were lost in it.
  private var roundEnd: UInt32
  private var roundDelivered = 0
  private var roundLost = 0
  /// Bytes that arrived since the last loss.
  private var cleanBytes = 0
  private var leastRoundTrip = UInt64.max
  /// Sending time of the latest segment known to have arrived, and the round trip it had.
  private var arrivedSentAt: UInt64 = 0
  private var reorderCheckAt: UInt64?
  private var hasProbedTail = false
  private var shortSince: UInt64?
  private var hasWaitedForMore = false
  /// A segment was sent as often as allowed.
  private(set) var isExhausted = false
  private var bytesSent: UInt64 = 0
  private var retransmissions: UInt64 = 0
  private var fastRetransmissions: UInt64 = 0
  private var duplicates: UInt64 = 0

  init(first: UInt32) {
    oldest = first
    next = first
    roundEnd = first
  }

  var isIdle: Bool { flight.isEmpty && unsent.isEmpty }
  var hasFlight: Bool { !flight.isEmpty }
  var room: Int { max(0, StreamLimits.sendBuffer - unsent.count) }

  mutating func write(_ bytes: some Collection<UInt8>) { unsent.append(bytes) }

  mutating func dropUnsent() { unsent.removeAll() }

  /// The path takes payloads of this size from now on. What is in flight and larger did not pass: it is sent again, in
  /// parts, and that is no congestion.
  mutating func setSegmentSize(_ size: Int) {
    segmentSize = min(max(size, StreamLimits.leastSegmentSize), StreamLimits.segmentSize)
    for index in flight.indices where flight[index].payload.count > segmentSize { markLost(index) }
  }

  // MARK: Sending

  /// The next data segment that may leave now: a lost one first. `isProbe`: one more although the window is closed.
  mutating func nextSegment(_ now: UInt64, isProbe: Bool = false) -> Flight? {
    if let index = flight.firstIndex(where: { $0.isLost }) {
      if flight[index].payload.count > segmentSize { cut(index) }
      guard pipe == 0 || pipe + flight[index].payload.count <= window.bytes else { return nil }
      return resend(index, now)
    }
    guard !unsent.isEmpty, flight.count < flightLimit else { return nil }
    let size = min(segmentLength(), unsent.count)
    guard pipe == 0 || pipe + size <= window.bytes else { return nil }
    if isProbe, flight.isEmpty, size > peerWindow {
      shortSince = nil
      return launch(unsent.take(size), isFin: false, isProbe: true, now)
    }
    guard Int(next &- oldest) + size <= peerWindow else { return nil }
    if size < segmentSize, size == unsent.count, isWaitingForMore(now) { return nil }
    shortSince = nil
    hasWaitedForMore = false
    return launch(unsent.take(size), isFin: false, now)
  }

  /// What a loss would cost: behind a gap of its own a receiver throws away all but the first segments it gets.
  private var flightLimit: Int {
    let clean = cleanBytes / StreamLimits.segmentSize / StreamLimits.cleanFlightShare
    return max(StreamLimits.flightSegments, min(clean, StreamLimits.windowSegments))
  }

  mutating func finSegment(_ now: UInt64) -> Flight { launch([], isFin: true, now) }

  private mutating func launch(_ payload: [UInt8], isFin: Bool, isProbe: Bool = false, _ now: UInt64) -> Flight {
    let segment = Flight(sequence: next, payload: payload, isFin: isFin, sentAt: now, isProbe: isProbe)
    next = segment.end
    bytesSent += UInt64(payload.count)
    pipe += payload.count
    flight.append(segment)
    if isProbe {
      timerAt = now + probeGap(segment)
    } else if timerAt == nil {
      timerAt = now + timeout
    }
    hasProbedTail = false
    return segment
  }

  private mutating func resend(_ index: Int, _ now: UInt64) -> Flight? {
    guard flight[index].transmissions < limit(of: flight[index]) else {
      isExhausted = true
      return nil
    }
    if flight[index].isLost { pipe += flight[index].payload.count }
    retransmissions += 1
    if flight[index].isOvertaken { fastRetransmissions += 1 }
    flight[index].isOvertaken = false
    flight[index].isLost = false
    flight[index].transmissions += 1
    flight[index].sentAt = now
    timerAt =
      now
      + (flight[index].isProbe
        ? probeGap(flight[index]) : min(timeout << min(backoff, 6), StreamLimits.mostTimeout))
    return flight[index]
  }

  private func limit(of segment: Flight) -> Int {
    segment.isProbe ? StreamLimits.probes : StreamLimits.transmissions
  }

  private func probeGap(_ segment: Flight) -> UInt64 {
    min(StreamLimits.probeFirst << UInt64(min(segment.transmissions, 10)), StreamLimits.mostTimeout)
  }

  /// Puts segments that the path takes in the place of a lost one that is too large.
  private mutating func cut(_ index: Int) {
    let whole = flight[index]
    var rest = whole.payload[...]
    var parts: [Flight] = []
    while !rest.isEmpty {
      let part = rest.prefix(length(of: rest.prefix(segmentSize)))
      let offset = UInt32(rest.startIndex - whole.payload.startIndex)
      parts.append(
        Flight(
          sequence: whole.sequence &+ offset, payload: Array(part), isFin: false, sentAt: whole.sentAt, isLost: true,
          isProbe: whole.isProbe && parts.isEmpty))
      rest = rest.dropFirst(part.count)
    }
    flight.replaceSubrange(index...index, with: parts)
  }

  private func segmentLength() -> Int { length(of: unsent.first(segmentSize)) }

  /// A payload that reads as a selective acknowledgement would be swallowed by the peer: its first four bytes go alone.
  private func length(of payload: some Collection<UInt8>) -> Int {
    SelectiveAcknowledgement.matches(payload) ? 4 : segmentSize
  }

  /// A short segment waits behind an unacknowledged short one, for a moment: small writes travel together.
  private mutating func isWaitingForMore(_ now: UInt64) -> Bool {
    guard !hasWaitedForMore, let last = flight.last, last.payload.count < segmentSize else { return false }
    let since = shortSince ?? now
    shortSince = since
    return now < since + StreamLimits.shortWait
  }

  // MARK: Acknowledgements

  /// Whether it acknowledged anything new.
  @discardableResult
  mutating func acknowledge(_ number: UInt32, _ kept: SelectiveAcknowledgement?, _ now: UInt64) -> Bool {
    guard !number.isBefore(oldest), !number.isAfter(next) else { return false }
    let wasFull = pipe + 2 * StreamLimits.segmentSize >= window.bytes
    var delivered = 0
    var sample: UInt64?
    var done = 0
    while done < flight.count, !flight[done].end.isAfter(number) {
      arrived(done, now, &delivered, &sample)
      done += 1
    }
    flight.removeFirst(done)
    let isNew = number != oldest
    oldest = number
    for block in kept?.blocks ?? [] {
      for index in flight.indices
      where !flight[index].isKept && !flight[index].sequence.isBefore(block.left)
        && !flight[index].end.isAfter(block.right)
      {
        arrived(index, now, &delivered, &sample)
        flight[index].isKept = true
      }
    }
    // The window is open: what tried it is a segment like others, lost if it was thrown away.
    if peerWindow > 0, flight.first?.isProbe == true {
      flight[0].isProbe = false
      flight[0].transmissions = 1
      markLost(0)
      timerAt = now + timeout
    }
    if let sample { measure(sample) }
    // Karn: only a round trip that was measured ends the backing off (RFC 6298 §5).
    if sample != nil { backoff = 0 }
    if isNew {
      hasProbedTail = false
      timerAt = flight.isEmpty ? nil : now + min(timeout << min(backoff, 6), StreamLimits.mostTimeout)
    } else if peerWindow == 0, !flight.isEmpty {
      // The peer lives and has no room for what it was sent: that is no silence.
      flight[0].transmissions = min(flight[0].transmissions, flight[0].isProbe ? StreamLimits.probes / 2 : 2)
    }
    if delivered > 0, wasFull {
      window.grow(delivered, now: now, roundTrip: smoothed ?? StreamLimits.firstTimeout)
    }
    roundDelivered += delivered
    cleanBytes += delivered
    findLosses(now)
    if let smoothed, !oldest.isBefore(roundEnd) {
      window.endRound(delivered: roundDelivered, lost: roundLost, roundTrip: smoothed, least: leastRoundTrip)
      roundEnd = next
      roundDelivered = 0
      roundLost = 0
    }
    if !isNew, !flight.isEmpty { duplicates += 1 }
    return isNew || delivered > 0
  }

  /// Puts down what this half knows.
  func report(to statistics: inout StreamStatistics) {
    statistics.bytesSent = bytesSent
    statistics.retransmissions = retransmissions
    statistics.fastRetransmissions = fastRetransmissions
    statistics.duplicateAcknowledgements = duplicates
    statistics.congestionWindow = window.bytes
    statistics.slowStartThreshold = window.slowStartThreshold
    statistics.inFlight = Int(next &- oldest)
    statistics.unacknowledgedSegments = flight.count
    statistics.peerWindow = max(0, peerWindow - Int(next &- oldest))
    statistics.roundTrip = smoothed ?? 0
    statistics.roundTripVariation = variation
    statistics.isRecovering = flight.contains { $0.isLost }
  }

  private mutating func arrived(_ index: Int, _ now: UInt64, _ delivered: inout Int, _ sample: inout UInt64?) {
    let segment = flight[index]
    guard !segment.isKept else { return }
    delivered += segment.payload.count
    if !segment.isLost { pipe -= segment.payload.count }
    flight[index].isLost = false
    // Karn: which transmission arrived is not known of a segment that was sent twice.
    guard segment.transmissions == 1 else {
      // An answer sooner than any round trip belongs to the first one.
      if let smoothed, now - segment.sentAt >= smoothed / 2 { arrivedSentAt = max(arrivedSentAt, segment.sentAt) }
      return
    }
    sample = now - segment.sentAt
    arrivedSentAt = max(arrivedSentAt, segment.sentAt)
  }

  mutating func measure(_ sample: UInt64) {
    leastRoundTrip = min(leastRoundTrip, sample)
    if let old = smoothed {
      let difference = old > sample ? old - sample : sample - old
      variation = (3 * variation + difference) / 4
      smoothed = (7 * old + sample) / 8
    } else {
      smoothed = sample
      variation = sample / 2
    }
    let value = (smoothed ?? sample) + max(10 * StreamLimits.millisecond, 4 * variation)
    timeout = min(max(value, StreamLimits.leastTimeout), StreamLimits.mostTimeout)
  }

  /// A segment is lost when one sent clearly later has arrived (RFC 8985): later by a quarter of a round trip.
  private mutating func findLosses(_ now: UInt64) {
    reorderCheckAt = nil
    guard arrivedSentAt > 0, let smoothed else { return }
    let tolerance = max(smoothed / 4, StreamLimits.millisecond)
    for index in flight.indices where !flight[index].isKept && !flight[index].isLost {
      guard flight[index].sentAt < arrivedSentAt else { continue }
      let due = flight[index].sentAt + smoothed + tolerance
      if due <= now {
        flight[index].isLost = true
        flight[index].isOvertaken = true
        pipe -= flight[index].payload.count
        roundLost += flight[index].payload.count
        cleanBytes = 0
      } else {
        reorderCheckAt = min(reorderCheckAt ?? .max, due)
      }
    }
  }

  // MARK: Time

  var nextDeadline: UInt64? {
    earliest(timerAt, earliest(reorderCheckAt, earliest(tailProbeAt, shortSince.map { $0 + StreamLimits.shortWait })))
  }

  /// When the last segment is sent once more, because nothing behind it can tell that it is lost (RFC 8985 §7).
  private var tailProbeAt: UInt64? {
    guard let smoothed, !hasProbedTail, let last = flight.last, !last.isKept, !last.isLost, !last.isProbe, backoff == 0
    else {
      return nil
    }
    return last.sentAt + max(2 * smoothed, 10 * StreamLimits.millisecond)
  }

  mutating func tick(_ now: UInt64) {
    // It has waited enough; whatever else holds it back has a time of its own.
    if let since = shortSince, since + StreamLimits.shortWait <= now {
      shortSince = nil
      hasWaitedForMore = true
    }
    if let due = reorderCheckAt, due <= now { findLosses(now) }
    if let due = tailProbeAt, due <= now {
      hasProbedTail = true
      markLost(flight.count - 1)
    }
    if let due = timerAt, due <= now {
      guard !flight.isEmpty else {
        timerAt = nil
        return
      }
      if flight[0].transmissions >= limit(of: flight[0]) {
        isExhausted = true
        return
      }
      for index in flight.indices { markLost(index) }
      cleanBytes = 0
      // A closed window is no congestion.
      if flight[0].isProbe {
        timerAt = now + probeGap(flight[0])
        return
      }
      backoff += 1
      timerAt = now + min(timeout << min(backoff, 6), StreamLimits.mostTimeout)
      window.collapse()
    }
  }

  private mutating func markLost(_ index: Int) {
    guard !flight[index].isLost, !flight[index].isKept else { return }
    flight[index].isLost = true
    pipe -= flight[index].payload.count
  }
}
