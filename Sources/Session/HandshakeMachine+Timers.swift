// When a HandshakeMachine sends by itself: tries to connect, rekeys, questions of candidates, and ends of sessions.

extension HandshakeMachine {
  /// When `tick` is due; nil when nothing is pending.
  package var nextDeadline: UInt64? {
    var deadline = earlyDeadline()
    if let attempt {
      deadline = min(deadline, attempt.nextAt)
      if !attempt.isRekey, !attempt.hasGivenUp {
        deadline = min(deadline, attempt.startedAt + configuration.giveUpAfter)
      }
    }
    for entry in sessions {
      if entry.dueAt != .max { deadline = min(deadline, entry.dueAt) }
      if entry.askAt != 0 { deadline = min(deadline, entry.askAt) }
      if entry.silenceCheckAt != 0 { deadline = min(deadline, entry.silenceCheckAt) }
      if let expiry = expiry(of: entry) { deadline = min(deadline, expiry) }
    }
    return deadline == .max ? nil : deadline
  }

  /// A candidate beside a current session that nobody proved: 30 s after its last PILA.
  private func expiry(of entry: Entry) -> UInt64? {
    guard entry.role == .candidate, !entry.isEchoed, current != nil else { return nil }
    return max(entry.installedAt, entry.offeredAt) + 30 * Self.second
  }

  mutating func need(_ turn: inout Turn<some RandomNumberGenerator>) {
    neededAt = turn.now
    guard current == nil else { return }
    if peerKey == nil { queryKey(fresh: false, &turn) }
    if let attempt {
      if attempt.hasGivenUp { turn.act(.giveUp) }
      return
    }
    attempt = Attempt(isRekey: false, isAnswerExpected: true, startedAt: turn.now, nextAt: turn.now)
  }

  mutating func runTimers(_ turn: inout Turn<some RandomNumberGenerator>) {
    dropOldEarly(turn.now)
    runSessions(&turn)
    runAttempt(&turn)
  }

  private mutating func runSessions(_ turn: inout Turn<some RandomNumberGenerator>) {
    var index = 0
    while index < sessions.count {
      let entry = sessions[index]
      if entry.role == .previous, turn.now >= entry.dueAt {
        remove(index, &turn)
        continue
      }
      if let expiry = expiry(of: entry), turn.now >= expiry {
        remove(index, &turn)
        continue
      }
      if entry.role == .current, turn.now >= entry.dueAt { rekeyByTime(index, &turn) }
      if entry.silenceCheckAt != 0, turn.now >= entry.silenceCheckAt { checkSilence(index, &turn) }
      if entry.askAt != 0, turn.now >= entry.askAt { ask(index, &turn) }
      index += 1
    }
  }

  private mutating func rekeyByTime(_ index: Int, _ turn: inout Turn<some RandomNumberGenerator>) {
    sessions[index].dueAt = turn.now + max(configuration.rekeyInterval / 4, Self.second)
    // An official peer drops its old key at once and would lose what is on the way; and its own key stays anyway.
    let isPeerFirst = sessions.contains {
      $0.role == .candidate && $0.offeredAt != 0 && turn.now < $0.offeredAt + 5 * Self.second
    }
    guard isAnnouncing, attempt == nil, !isPeerFirst else { return }
    renew(isAnswerExpected: true, &turn)
  }

  /// An official peer showed a new key 300 ms ago: if nothing was opened since, the old session is dead.
  private mutating func checkSilence(_ index: Int, _ turn: inout Turn<some RandomNumberGenerator>) {
    sessions[index].silenceCheckAt = 0
    guard sessions[index].role == .candidate, turn.lastReceive < sessions[index].offeredAt else { return }
    promote(index, &turn)
  }

  /// A candidate wants its proof: asks after 0.5, 1, 2, 4, 8 s. If our half of the pair was used before, its echo
  /// proves nothing; after three questions a new half makes the proof possible.
  private mutating func ask(_ index: Int, _ turn: inout Turn<some RandomNumberGenerator>) {
    let entry = sessions[index]
    guard entry.role == .candidate, entry.asked < 5 else {
      sessions[index].askAt = 0
      return
    }
    sessions[index].asked += 1
    sessions[index].askAt = turn.now + (500 * Self.millisecond) << UInt64(entry.asked + 1)
    if entry.asked == 3, entry.isEchoed, isOfferSpent, attempt == nil,
      lastRenewAt.map({ turn.now >= $0 + 10 * Self.second }) ?? true
    {
      return renew(isAnswerExpected: true, &turn)
    }
    // While an attempt runs, it asks.
    if attempt == nil { sendOffer(echo: entry.peer, withRequest: false, .both, &turn) }
  }

  private mutating func runAttempt(_ turn: inout Turn<some RandomNumberGenerator>) {
    guard var attempt else { return }
    if !attempt.isRekey {
      if current != nil || turn.now > neededAt + configuration.needLasts {
        self.attempt = nil
        return
      }
      if !attempt.hasGivenUp, turn.now >= attempt.startedAt + configuration.giveUpAfter {
        attempt.hasGivenUp = true
        turn.act(.giveUp)
      }
    } else if attempt.tries >= 8 {
      self.attempt = nil
      return
    }
    if turn.now >= attempt.nextAt {
      let gaps = configuration.retryGaps
      let gap = gaps.isEmpty ? 4 * Self.second : gaps[min(attempt.tries, gaps.count - 1)]
      attempt.tries += 1
      attempt.nextAt = turn.now + gap + turn.generator.next() % max(gap / 8, 1)
      lastInitiativeAt = turn.now
      let route: Route = attempt.isRekey && attempt.tries == 1 ? .path : .both
      sendOffer(echo: newestPeerKey, withRequest: attempt.tries > 1, route, &turn)
      if !attempt.isRekey {
        // The beacon takes one request a second from a source (wire/tunnel §4.3).
        if attempt.tries == 1 || attempt.tries > 3 { turn.act(.punch) }
        turn.act(.attempted(attempt.tries))
      }
    }
    self.attempt = attempt
  }
}
