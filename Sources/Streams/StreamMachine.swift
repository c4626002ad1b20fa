// One stream of the Pilot protocol as a pure state machine (wire/tunnel §5): segments, bytes and times in; segments,
// bytes and the next deadline out. The owner maps addresses and ports, and calls in this order: an input, then
// `nextSegment` until it gives none, then `nextDeadline`.

import Wire

package struct StreamMachine: Sendable {
  package enum Phase: Sendable {
    /// Our SYN is under way.
    case dialing
    /// The peer's SYN came and waits for `accept` or `refuse`.
    case arriving
    case open
    /// Our FIN is sent or will be when the data before it is acknowledged.
    case closing
    /// Both ends are done; repeated FINs are still answered.
    case lingering
    case closed
  }

  package private(set) var phase: Phase
  /// Set in `closed`, and from the moment on that decides it.
  package private(set) var end: StreamEnd?
  /// The peer said that nothing more comes: what is readable is all there will be. There is no half-close: what was not
  /// sent by then never will be.
  package private(set) var hasRemoteEnded = false

  private var sender: StreamSender
  private var receiver: StreamReceiver
  private let first: UInt32
  private let isDialer: Bool
  private var startedAt: UInt64
  private var synSent = 0
  private var isClosing = false
  private var finSent = false

  // What is owed to the peer.
  private var owesReset = false
  private var owesAccept = false
  private var owesFinAnswer = false
  private var owesAck = false
  private var ackAt: UInt64?
  private var unacknowledged = 0
  private var quick = StreamLimits.quickAcks
  private var advertised: UInt16 = UInt16(StreamLimits.windowSegments)
  /// When a reopened window is told once more: the first time may have been lost.
  private var updateAgainAt: UInt64?
  private var updates = 0

  private var lastSent: UInt64
  private var lastHeard: UInt64
  private var probeAt: UInt64?
  private var owesProbe = false
  private var keepalives = 0
  /// A question of ours is under way: the next empty acknowledgement is its answer.
  private var isAsking = false
  private var lingersUntil: UInt64?
  private var finWaitsUntil: UInt64?

  // Counted for `statistics`.
  private var segmentsSent: UInt64 = 0
  private var segmentsReceived: UInt64 = 0
  private var selectiveSent: UInt64 = 0
  private var selectiveReceived: UInt64 = 0

  // MARK: Opening

  /// Begins a dial. `first`: the initial sequence number.
  package init(dialing first: UInt32, now: UInt64) {
    self.init(phase: .dialing, first: first, expected: 0, isDialer: true, now: now)
  }

  /// A SYN came. Nil when the segment is none.
  package init?(answering segment: StreamSegment, first: UInt32, now: UInt64) {
    guard segment.flags.contains(.syn), !segment.flags.contains(.ack) else { return nil }
    self.init(phase: .arriving, first: first, expected: segment.sequence &+ 1, isDialer: false, now: now)
    sender.peerWindow = Int(segment.window) * StreamLimits.segmentSize
  }

  private init(phase: Phase, first: UInt32, expected: UInt32, isDialer: Bool, now: UInt64) {
    self.phase = phase
    self.first = first
    self.isDialer = isDialer
    sender = StreamSender(first: first &+ 1)
    receiver = StreamReceiver(expected: expected)
    startedAt = now
    lastSent = now
    lastHeard = now
  }

  /// The arriving stream is taken.
  package mutating func accept(_ now: UInt64) {
    guard phase == .arriving else { return }
    phase = .open
    owesAccept = true
    lastHeard = now
  }

  /// The arriving stream is not taken.
  package mutating func refuse() {
    guard phase == .arriving else { return }
    finish(.refused, reset: true)
  }

  // MARK: Bytes

  /// Takes as many bytes as there is room for; 0 also when nothing can be sent any more.
  package mutating func write(_ bytes: some Collection<UInt8>) -> Int {
    guard phase == .open || phase == .dialing, !isClosing, !hasRemoteEnded else { return 0 }
    let count = min(bytes.count, sender.room)
    sender.write(bytes.prefix(count))
    return count
  }

  package var writable: Int {
    (phase == .open || phase == .dialing) && !isClosing && !hasRemoteEnded ? sender.room : 0
  }

  package var readable: Int { receiver.readable }

  /// All that was written arrived.
  package var isFlushed: Bool { sender.isIdle }

  package var statistics: StreamStatistics {
    var statistics = StreamStatistics()
    sender.report(to: &statistics)
    statistics.bytesReceived = receiver.delivered
    statistics.segmentsSent = segmentsSent
    statistics.segmentsReceived = segmentsReceived
    statistics.selectiveSent = selectiveSent
    statistics.selectiveReceived = selectiveReceived
    statistics.earlySegments = receiver.earlyCount
    statistics.window = Int(receiver.window) * StreamLimits.segmentSize
    return statistics
  }

  /// Takes what came, in order. Reading is what opens the window again.
  package mutating func read(_ limit: Int, now: UInt64) -> [UInt8] {
    let bytes = receiver.take(limit)
    let window = receiver.window
    if phase == .open || phase == .closing, advertised < UInt16(StreamLimits.windowSegments / 4),
      window >= UInt16(StreamLimits.windowSegments / 2)
    {
      owesAck = true
      updates = 3
      updateAgainAt = now + 250 * StreamLimits.millisecond
    }
    return bytes
  }

  /// The path takes payloads of this size.
  package mutating func setSegmentSize(_ size: Int) { sender.setSegmentSize(size) }

  /// Ends the stream when all that was written has arrived.
  package mutating func close(_ now: UInt64) {
    switch phase {
    case .dialing: finish(.reset, reset: true)
    case .arriving: refuse()
    case .open:
      isClosing = true
      phase = .closing
    case .closing, .lingering, .closed: break
    }
  }

  /// Ends the stream at once.
  package mutating func abort() {
    switch phase {
    case .lingering, .closed: break
    default: finish(.reset, reset: true)
    }
  }

  private mutating func finish(_ reason: StreamEnd, reset: Bool) {
    phase = .closed
    end = reason
    owesReset = reset
    sender.dropUnsent()
  }

  // MARK: Receiving

  package mutating func receive(_ segment: StreamSegment, now: UInt64) {
    guard phase != .closed else { return }
    // A SYN on an open stream says nothing of the stream: its dialer may have started anew.
    if segment.flags.contains(.syn) { return receiveSyn(segment, now) }
    lastHeard = now
    keepalives = 0
    if segment.flags.contains(.rst) {
      if phase == .lingering { return end = .finished }
      return finish(phase == .dialing ? .refused : .reset, reset: false)
    }
    guard phase != .dialing, phase != .arriving else { return }
    if segment.flags.contains(.fin) { return receiveFin(segment, now) }
    // Data without ACK is ignored by the deployed daemons, and so here.
    guard segment.flags.contains(.ack) else { return }
    receiveAck(segment, now)
  }

  private mutating func receiveSyn(_ segment: StreamSegment, _ now: UInt64) {
    if segment.flags.contains(.ack) {
      if phase == .dialing {
        guard segment.acknowledgement == first &+ 1 else { return }
        receiver = StreamReceiver(expected: segment.sequence &+ 1)
        sender.peerWindow = Int(segment.window) * StreamLimits.segmentSize
        // Of a SYN that was sent twice nobody knows which one was answered.
        if synSent == 1 { sender.measure(now - startedAt) }
        phase = .open
        lastHeard = now
        owesAck = true
      } else if isDialer, phase == .open {
        // Our acknowledgement of it was lost.
        owesAck = true
      }
    } else if !isDialer, phase == .open || phase == .closing {
      owesAccept = true
    }
  }

  private mutating func receiveAck(_ segment: StreamSegment, _ now: UInt64) {
    var kept: SelectiveAcknowledgement?
    if !segment.payload.isEmpty, let blocks = SelectiveAcknowledgement(segment.payload), isPlausible(blocks) {
      kept = blocks
      selectiveReceived += 1
    }
    let isOldNews = segment.acknowledgement.isBefore(sender.oldest) || segment.acknowledgement.isAfter(sender.next)
    let wasIdle = !sender.hasFlight
    if !isOldNews {
      sender.peerWindow = Int(segment.window) * StreamLimits.segmentSize
      sender.acknowledge(segment.acknowledgement, kept, now)
      if sender.peerWindow > 0 {
        probeAt = nil
        owesProbe = false
      }
      if finSent, segment.acknowledgement == sender.next { linger(now) }
    }
    guard kept == nil else { return }
    if segment.payload.isEmpty {
      // Nothing new at all: a probe of a closed window, or a question whether we live.
      let isClosed = advertised < UInt16(StreamLimits.windowSegments / 4)
      let gap = isClosed ? StreamLimits.closedAnswerGap : StreamLimits.answerGap
      if !isOldNews, wasIdle, !isAsking, now >= lastSent + gap { owesAck = true }
      isAsking = false
      return
    }
    receiveData(segment.sequence, segment.payload, now)
  }

  /// A selective acknowledgement speaks of what is in flight; user data that only looks like one hardly does.
  private func isPlausible(_ blocks: SelectiveAcknowledgement) -> Bool {
    blocks.blocks.allSatisfy {
      $0.left.isBefore($0.right) && !$0.left.isBefore(sender.oldest &- UInt32(StreamLimits.receiveBuffer))
        && !$0.right.isAfter(sender.next)
    }
  }

  private mutating func receiveData(_ sequence: UInt32, _ payload: [UInt8], _ now: UInt64) {
    guard phase == .open || phase == .closing else { return }
    segmentsReceived += 1
    if now >= lastHeardData + StreamLimits.pause { quick = StreamLimits.quickAcks }
    lastHeardData = now
    updateAgainAt = nil
    let hadGap = receiver.hasGap
    switch receiver.receive(sequence, payload) {
    case .inOrder:
      unacknowledged += 1
      if hadGap || quick > 0 || unacknowledged >= 2 {
        quick = max(0, quick - 1)
        owesAck = true
      } else if ackAt == nil {
        ackAt = now + StreamLimits.delayedAck
      }
    case .early, .old, .noRoom: owesAck = true
    }
    endIfComplete(now)
  }
  private var lastHeardData: UInt64 = 0

  private mutating func receiveFin(_ segment: StreamSegment, _ now: UInt64) {
    if segment.flags.contains(.ack), !segment.acknowledgement.isBefore(sender.oldest) {
      sender.acknowledge(segment.acknowledgement, nil, now)
    }
    if phase == .lingering {
      receiver.noteFin(at: segment.sequence &+ UInt32(segment.payload.count))
      if receiver.isComplete { receiver.passFin() }
      // The peer did not see our answer; unless this is what ends the exchange.
      let isLast =
        segment.flags.contains(.ack) && (finSent ? isFinAnswered : segment.acknowledgement == sender.next &+ 1)
      if !isLast { owesFinAnswer = true }
      isFinAnswered = true
      return
    }
    receiver.noteFin(at: segment.sequence &+ UInt32(segment.payload.count))
    if !segment.payload.isEmpty { _ = receiver.receive(segment.sequence, segment.payload) }
    if finWaitsUntil == nil, receiver.finAt != nil { finWaitsUntil = now + StreamLimits.finWaits }
    if !receiver.isComplete { owesAck = true }
    endIfComplete(now)
  }
  private var isFinAnswered = false

  private mutating func endIfComplete(_ now: UInt64) {
    guard receiver.isComplete, !hasRemoteEnded else { return }
    receiver.passFin()
    hasRemoteEnded = true
    owesFinAnswer = true
    isFinAnswered = true
    sender.dropUnsent()
    linger(now)
  }

  private mutating func linger(_ now: UInt64) {
    guard phase != .lingering else { return }
    phase = .lingering
    hasRemoteEnded = true
    end = .finished
    lingersUntil = now + StreamLimits.lingers
    owesAck = false
    ackAt = nil
  }

  // MARK: Sending

  /// What leaves now; nil when that is all.
  package mutating func nextSegment(_ now: UInt64) -> StreamSegment? {
    if owesReset {
      owesReset = false
      return StreamSegment(flags: .rst, sequence: isDialer || synSent > 0 ? sender.next : 0)
    }
    switch phase {
    case .closed, .arriving: return nil
    case .dialing: return nextSyn(now)
    case .lingering:
      guard owesFinAnswer else { return nil }
      owesFinAnswer = false
      return StreamSegment(
        flags: [.fin, .ack], sequence: finSent ? sender.next &- 1 : sender.next,
        acknowledgement: receiver.expected)
    case .open, .closing: break
    }
    if owesAccept {
      owesAccept = false
      synSent += 1
      return stamped(
        StreamSegment(flags: [.syn, .ack], sequence: first, acknowledgement: receiver.expected), now)
    }
    // What is missing is told first, and apart: data carries no blocks.
    if owesAck, receiver.hasGap, let blocks = receiver.blocks {
      selectiveSent += 1
      return acknowledgement(blocks.encoded(), now)
    }
    if let data = sender.nextSegment(now, isProbe: owesProbe) {
      owesProbe = false
      return segment(of: data, now)
    }
    if sender.isExhausted {
      finish(.timedOut, reset: true)
      return nextSegment(now)
    }
    if isClosing, !finSent, sender.isIdle {
      finSent = true
      return segment(of: sender.finSegment(now), now)
    }
    if owesAck || ackAt.map({ $0 <= now }) == true { return acknowledgement([], now) }
    return nil
  }

  private mutating func segment(of data: StreamSender.Flight, _ now: UInt64) -> StreamSegment {
    segmentsSent += data.isFin ? 0 : 1
    if data.isFin { return stamped(StreamSegment(flags: .fin, sequence: data.sequence), now, isFin: true) }
    return stamped(
      StreamSegment(
        flags: .ack, sequence: data.sequence, acknowledgement: receiver.expected, payload: data.payload), now)
  }

  private mutating func acknowledgement(_ payload: [UInt8], _ now: UInt64) -> StreamSegment {
    stamped(
      StreamSegment(
        flags: .ack, sequence: sender.next, acknowledgement: receiver.expected, payload: payload), now)
  }

  /// With our window; every acknowledgement settles what is owed.
  private mutating func stamped(_ segment: StreamSegment, _ now: UInt64, isFin: Bool = false) -> StreamSegment {
    var segment = segment
    lastSent = now
    guard !isFin else { return segment }
    segment.window = receiver.window
    advertised = segment.window
    owesAck = false
    ackAt = nil
    unacknowledged = 0
    return segment
  }

  private mutating func nextSyn(_ now: UInt64) -> StreamSegment? {
    guard synSent < StreamLimits.synTimes.count, now >= startedAt + StreamLimits.synTimes[synSent] else { return nil }
    synSent += 1
    return StreamSegment(flags: .syn, sequence: first, window: UInt16(StreamLimits.windowSegments))
  }

  // MARK: Time

  /// When `tick` is due, if ever.
  package var nextDeadline: UInt64? {
    switch phase {
    case .closed, .arriving: return nil
    case .dialing:
      let syn = synSent < StreamLimits.synTimes.count ? startedAt + StreamLimits.synTimes[synSent] : nil
      return earliest(startedAt + StreamLimits.dialLasts, syn)
    case .lingering: return lingersUntil ?? 0
    case .open, .closing:
      let own = earliest(ackAt, earliest(updateAgainAt, earliest(finWaitsUntil, isBlocked ? probeAt ?? 0 : nil)))
      return earliest(keepaliveAt, earliest(sender.nextDeadline, own))
    }
  }

  /// Whether a SYN on the same addresses and ports is a new stream's, not a repetition.
  package func isOutlived(by now: UInt64) -> Bool {
    phase == .lingering || now >= lastHeard + StreamLimits.synLasts
  }

  /// When the next question is due, or the end after the last one. Official daemons answer none, but ask by themselves
  /// when they have heard nothing for a minute, our questions included: so the last one is waited for longer.
  private var keepaliveAt: UInt64 {
    let last = keepalives == StreamLimits.keepalives ? StreamLimits.keepaliveLasts : 0
    return lastHeard + StreamLimits.keepaliveAfter + UInt64(keepalives) * StreamLimits.keepaliveGap + last
  }

  /// Bytes wait for the peer's window, and nothing in flight will bring news of it.
  private var isBlocked: Bool {
    !sender.unsent.isEmpty && !sender.hasFlight
      && sender.peerWindow < min(sender.segmentSize, sender.unsent.count)
  }

  /// `nextDeadline` is reached.
  package mutating func tick(_ now: UInt64) {
    switch phase {
    case .closed, .arriving: return
    case .dialing:
      if now >= startedAt + StreamLimits.dialLasts { finish(.unanswered, reset: false) }
    case .lingering:
      if let lingersUntil, now >= lingersUntil { phase = .closed }
    case .open, .closing:
      sender.tick(now)
      if let due = updateAgainAt, due <= now {
        updates -= 1
        updateAgainAt = updates > 0 ? now + (250 << UInt64(3 - updates)) * StreamLimits.millisecond : nil
        owesAck = true
      }
      probeWindow(now)
      if let finWaitsUntil, now >= finWaitsUntil { return finish(.timedOut, reset: true) }
      if now >= keepaliveAt {
        guard keepalives < StreamLimits.keepalives else { return finish(.timedOut, reset: true) }
        keepalives += 1
        owesAck = true
        isAsking = true
      }
    }
  }

  /// Tries a closed window with a segment. An empty acknowledgement would be no question to official receivers, and they
  /// do not tell by themselves that their window opened again.
  private mutating func probeWindow(_ now: UInt64) {
    guard isBlocked else {
      probeAt = nil
      return
    }
    guard let due = probeAt else {
      probeAt = now + StreamLimits.probeFirst
      return
    }
    guard due <= now else { return }
    probeAt = nil
    owesProbe = true
  }
}
