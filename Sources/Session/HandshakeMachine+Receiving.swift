// What a HandshakeMachine does with frames of the peer: PILA, PILK, and PILS that do not open.

import Wire

extension HandshakeMachine {
  /// How much a PILA proves.
  struct Credit {
    var announcement: PeerAnnouncement?
    /// No announcement, from a peer that used to make one.
    var isSuspect = false
  }

  // MARK: PILA

  mutating func receive(
    _ frame: KeyExchangeFrame, _ arrival: Arrival, _ turn: inout Turn<some RandomNumberGenerator>
  ) {
    guard frame.node == peer else { return turn.act(.count(.otherNode)) }
    guard let peerKey else {
      waiting = (frame, arrival)
      return queryKey(fresh: false, &turn)
    }
    guard frame.ed25519 == peerKey else { return refuseKey(of: frame, pinned: peerKey, arrival, &turn) }
    guard !frame.x25519.isZero else { return turn.act(.count(.zeroKey)) }
    guard !retired.contains(frame.x25519) else { return turn.act(.count(.retiredKey)) }
    guard spendBudget(arrival, turn.now) else { return turn.act(.count(.limited)) }
    guard frame.hasValidSignature else { return turn.act(.count(.badSignature)) }
    var credit = Credit()
    switch PeerAnnouncement.read(frame, receiver: node) {
    case .otherReceiver: return turn.act(.count(.otherReceiver))
    case .valid(let announcement):
      credit.announcement = announcement
      isAnnouncing = true
      takesRawIPv6 = announcement.takesRawIPv6
      takesSplitPackets = announcement.takesSplitPackets
    case .invalid:
      turn.act(.count(.badAnnouncement))
      credit.isSuspect = isAnnouncing
    case .absent:
      credit.isSuspect = isAnnouncing
      if isAnnouncing { turn.act(.count(.missingAnnouncement)) }
    }
    turn.act(.heard(arrival))
    agree(on: frame.x25519, credit, arrival, &turn)
  }

  private mutating func refuseKey(
    of frame: KeyExchangeFrame, pinned: Bytes32, _ arrival: Arrival, _ turn: inout Turn<some RandomNumberGenerator>
  ) {
    turn.act(.count(.wrongKey))
    queryKey(fresh: true, &turn)
    // One alarm for frames until the operator decides: who signs for himself can sign for any number of keys.
    guard !hasFrameAlarm, spendBudget(arrival, turn.now), frame.hasValidSignature else { return }
    hasFrameAlarm = true
    turn.act(.alarm(KeyAlarm(pinned: pinned, seen: frame.ed25519, isRegistered: false)))
  }

  /// The frame is genuine. Installs, promotes and answers as far as it proves something.
  private mutating func agree(
    on key: Bytes32, _ credit: Credit, _ arrival: Arrival, _ turn: inout Turn<some RandomNumberGenerator>
  ) {
    var own = ownKey(&turn)
    let isEchoed = credit.announcement?.echo == own
    var isNew = false
    if let index = sessions.firstIndex(where: { $0.own == own && $0.peer == key }) {
      sessions[index].offeredAt = turn.now
      sessions[index].isEchoed = sessions[index].isEchoed || isEchoed
      if credit.announcement != nil { sessions[index].isAnnounced = true }
    } else {
      if !isEchoed, isHoldingYoungCandidate(turn.now) {
        turn.act(.count(.candidateHeld))
        return answer(key, credit, isNew: false, isProven: false, arrival, &turn)
      }
      // A pair that was installed and given up must not come back; and the list of pairs is bounded.
      if paired.contains(key) || paired.count >= 16 {
        makeOffer(&turn)
        own = ownKey(&turn)
      }
      isNew = true
      guard
        install(
          key, isEchoed: isEchoed && own == credit.announcement?.echo, isAnnounced: credit.announcement != nil,
          offeredAt: turn.now, &turn)
      else { return }
    }
    let isProven = proves(credit, own: own, turn)
    // The answer goes first: it carries the key for what a promotion then releases.
    answer(key, credit, isNew: isNew, isProven: isProven, arrival, &turn)
    guard let index = sessions.firstIndex(where: { $0.own == own && $0.peer == key }) else { return }
    switch sessions[index].role {
    case .current: break
    case .candidate:
      if isProven {
        promote(index, &turn)
      } else if credit.announcement == nil, !credit.isSuspect {
        sessions[index].silenceCheckAt = turn.now + 300 * Self.millisecond
      }
    case .previous:
      // The successor was never proven, and the peer still holds this one.
      if current?.isConfirmed != true { promote(index, &turn) }
    }
    if isNew { releaseEarly(&turn) }
  }

  /// Whether a frame with this credit proves that a session between `own` and its key can be sealed under.
  private func proves(_ credit: Credit, own: Bytes32, _ turn: Turn<some RandomNumberGenerator>) -> Bool {
    if let announcement = credit.announcement { return announcement.echo == own && !isOfferSpent }
    if credit.isSuspect { return turn.lastReceive + 30 * Self.second < turn.now }
    guard let current else { return true }
    if !current.isConfirmed && !current.isAnnounced { return true }
    guard let attempt, attempt.isAnswerExpected, !isOfferSpent, let sent = lastInitiativeAt else { return false }
    return turn.now <= sent + 5 * Self.second
  }

  /// A candidate that was just installed is not displaced by another frame, which may be a recording.
  private func isHoldingYoungCandidate(_ now: UInt64) -> Bool {
    sessions.contains { $0.role == .candidate && $0.offeredAt != 0 && now < $0.installedAt + Self.second }
  }

  private mutating func answer(
    _ key: Bytes32, _ credit: Credit, isNew: Bool, isProven: Bool, _ arrival: Arrival,
    _ turn: inout Turn<some RandomNumberGenerator>
  ) {
    let own = ownKey(&turn)
    if let announcement = credit.announcement {
      // Nothing to say to a peer that holds our key and knows that we hold its own.
      if announcement.echo == own, !announcement.wantsAnswer { return }
      guard isNew || isAnswerDue(gap: 250 * Self.millisecond, turn.now) else { return }
      answerShift = 0
    } else if isNew {
      answerShift = 0
    } else {
      // Official peers do not answer a repeated PILA; others might, so the gap grows to 8 s.
      guard isAnswerDue(gap: (250 * Self.millisecond) << UInt64(answerShift), turn.now) else { return }
      answerShift = min(answerShift + 1, 5)
      if renewForLostSession(of: key, arrival, &turn) { return }
    }
    lastAnswerAt = turn.now
    sendOffer(echo: key, withRequest: false, isProven: isProven, .reply(arrival), &turn)
    // A peer that asks although the session is ours gets the proof again.
    if !isNew, current.map({ $0.own == own && $0.peer == key }) == true { turn.act(.confirm) }
  }

  private func isAnswerDue(gap: UInt64, _ now: UInt64) -> Bool { lastAnswerAt.map { now >= $0 + gap } ?? true }

  // MARK: PILK

  mutating func receive(
    _ frame: KeyRequestFrame, _ arrival: Arrival, _ turn: inout Turn<some RandomNumberGenerator>
  ) {
    guard frame.node == peer else { return turn.act(.count(.otherNode)) }
    guard isAnswerDue(gap: 250 * Self.millisecond, turn.now) else { return turn.act(.count(.keyRequestLimited)) }
    turn.act(.count(.keyRequest))
    lastAnswerAt = turn.now
    if renewForLostSession(of: frame.x25519, arrival, &turn) { return }
    sendOffer(echo: newestPeerKey, withRequest: false, .reply(arrival), &turn)
  }

  /// An official peer that repeats its key unasked has lost our session. The old pair would come back with its nonces
  /// starting anew (wire/tunnel §9.6), so it gets a new key of ours. At most every 3 s, as anybody can ask.
  private mutating func renewForLostSession(
    of key: Bytes32, _ arrival: Arrival, _ turn: inout Turn<some RandomNumberGenerator>
  ) -> Bool {
    guard !isAnnouncing, attempt == nil, let current, current.peer == key,
      turn.now >= current.installedAt + Self.second,
      lastInitiativeAt.map({ turn.now >= $0 + 5 * Self.second }) ?? true,
      lastRenewAt.map({ turn.now >= $0 + 3 * Self.second }) ?? true
    else { return false }
    renew(isAnswerExpected: false, &turn)
    sendOffer(echo: key, withRequest: false, .reply(arrival), &turn)
    return true
  }

  // MARK: PILS that do not open

  mutating func keepEarly(_ bytes: [UInt8], _ arrival: Arrival, _ turn: inout Turn<some RandomNumberGenerator>) {
    dropOldEarly(turn.now)
    if early.count < 8, bytes.count <= 9216 {
      early.append(EarlyFrame(bytes: bytes, arrival: arrival, receivedAt: turn.now))
    } else {
      turn.act(.count(.earlyFrameDropped))
    }
    if peerKey == nil { queryKey(fresh: false, &turn) }
    complain(to: .reply(arrival), &turn)
  }

  /// Tells the peer our key and asks for its own; never gives up a session for it: forged frames look the same.
  mutating func complain(to route: Route, _ turn: inout Turn<some RandomNumberGenerator>) {
    guard lastComplaintAt.map({ turn.now >= $0 + Self.second }) ?? true else { return }
    lastComplaintAt = turn.now
    sendOffer(echo: newestPeerKey, withRequest: true, route, &turn)
    if current != nil { turn.act(.confirm) }
  }

  mutating func releaseEarly(_ turn: inout Turn<some RandomNumberGenerator>) {
    dropOldEarly(turn.now)
    guard !early.isEmpty else { return }
    turn.act(.replayEarly(early))
    early = []
  }

  func earlyDeadline() -> UInt64 { early.first.map { $0.receivedAt + Self.second } ?? .max }

  mutating func dropOldEarly(_ now: UInt64) {
    if !early.isEmpty { early.removeAll { now >= $0.receivedAt + Self.second } }
  }

  /// One signature check: at most 10 a second for each way frames come, so that strangers cannot buy CPU here.
  private mutating func spendBudget(_ arrival: Arrival, _ now: UInt64) -> Bool {
    let refill = (now &- budgetAt) / (100 * Self.millisecond)
    if refill > 0 {
      let tokens = UInt8(min(refill, 10))
      budget = (min(budget.direct + tokens, 10), min(budget.relayed + tokens, 10))
      budgetAt = now
    }
    if case .relayed = arrival {
      guard budget.relayed > 0 else { return false }
      budget.relayed -= 1
    } else {
      guard budget.direct > 0 else { return false }
      budget.direct -= 1
    }
    return true
  }
}
