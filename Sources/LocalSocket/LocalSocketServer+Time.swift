// What time alone brings: dials that nobody answers, ends that were held back, clients that do not read.

extension LocalSocketServer {
  /// When `tick` has something to do; it may be past.
  package var nextDeadline: UInt64? {
    var next = dialDeadlines.first?.due
    for notice in notices.values { next = min(next ?? .max, notice.due) }
    for id in watched {
      if let due = stallDeadline(id) { next = min(next ?? .max, due) }
    }
    return next
  }

  package mutating func tick(_ now: UInt64) {
    while let first = dialDeadlines.first, first.due <= now {
      dialDeadlines.removeFirst()
      guard streams[first.stream]?.phase == .dialing else { continue }
      act(.cancelDial(first.stream))
      failed(first.stream, .timedOut, now: now)
    }
    // In the order of the numbers: what is done does not depend on the seed of the process.
    for (stream, notice) in notices.filter({ $0.value.due <= now }).sorted(by: { $0.key.number < $1.key.number }) {
      notices[stream] = nil
      queue(LocalFrame.make(LocalFrame.closeOK, stream.number), to: notice.client, now)
    }
    for id in watched.sorted(by: { $0.number < $1.number }) {
      guard let due = stallDeadline(id), due <= now else { continue }
      count(.clientStalled)
      disconnect(id, now)
    }
  }

  private func stallDeadline(_ id: ClientID) -> UInt64? {
    guard let client = clients[id] else { return nil }
    // Nobody could read that much in time, and it is memory of all.
    guard client.output.byteCount <= limits.mostQueuedBytes else { return 0 }
    return client.lastWritten &+ limits.stalled
  }

  /// Dials that are over are taken from the front, so that the first one tells the next deadline.
  mutating func dropPastDials() {
    let isOver = { [streams] (dial: (stream: StreamID, due: UInt64)) in streams[dial.stream]?.phase != .dialing }
    if let first = dialDeadlines.firstIndex(where: { !isOver($0) }) {
      dialDeadlines.removeFirst(first)
    } else {
      dialDeadlines.removeAll()
    }
  }
}
