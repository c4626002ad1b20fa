// How sessions come, take over and go in a HandshakeMachine, and its own X25519 pairs.

import Wire

extension HandshakeMachine {
  // MARK: The offer

  /// Our present X25519 public key; the pair is made when it is first needed.
  mutating func ownKey(_ turn: inout Turn<some RandomNumberGenerator>) -> Bytes32 {
    if let offer { return offer.publicKey }
    makeOffer(&turn)
    return offer?.publicKey ?? Bytes32()
  }

  /// A new own pair. The old one lives on in the contexts of its sessions only.
  mutating func makeOffer(_ turn: inout Turn<some RandomNumberGenerator>) {
    offer = X25519KeyPair(using: &turn.generator)
    isOfferSpent = false
    paired = []
  }

  /// Sends PILA, and PILK with it when official peers must be made to answer (wire/tunnel §3.5 last paragraph).
  ///
  /// `isProven`: the session with `echo` becomes current right after this.
  mutating func sendOffer(
    echo: Bytes32, withRequest: Bool, isProven: Bool = false, _ route: Route,
    _ turn: inout Turn<some RandomNumberGenerator>
  ) {
    let own = ownKey(&turn)
    var announcement: PeerAnnouncement?
    if configuration.announces {
      // INVARIANT: only a key is echoed whose pair with this offer is installed. The peer may seal under it at once.
      let entry = sessions.first { $0.own == own && $0.peer == echo }
      announcement = PeerAnnouncement(
        takesRawIPv6: configuration.takesRawIPv6, takesSplitPackets: configuration.takesSplitPackets,
        wantsAnswer: !isProven && entry?.role != .current, receiver: peer, echo: entry?.peer ?? Bytes32())
    }
    let frame = KeyExchangeFrame.signed(node: node, x25519: own, by: identity, announcing: announcement)
    turn.act(.send(frame.encoded(), route))
    if withRequest { turn.act(.send(KeyRequestFrame(node: node, x25519: own).encoded(), route)) }
  }

  /// The peer's newest key that we hold, zeros for none.
  var newestPeerKey: Bytes32 { sessions.last?.peer ?? Bytes32() }

  /// Begins a new session beside the current one.
  mutating func renew(isAnswerExpected: Bool, _ turn: inout Turn<some RandomNumberGenerator>) {
    let peerKeyNow = newestPeerKey
    lastRenewAt = turn.now
    makeOffer(&turn)
    if !peerKeyNow.isZero {
      // An official peer seals under the new key as soon as it has ours, and so may one of us when we echo its key.
      _ = install(peerKeyNow, isEchoed: false, isAnnounced: isAnnouncing, offeredAt: 0, &turn)
    }
    attempt = Attempt(
      isRekey: true, isAnswerExpected: isAnswerExpected, startedAt: turn.now, nextAt: turn.now)
  }

  // MARK: Installing

  /// Installs the pair of the offer and `key`. False when it cannot be (no memory, small-order key).
  mutating func install(
    _ key: Bytes32, isEchoed: Bool, isAnnounced: Bool, offeredAt: UInt64,
    _ turn: inout Turn<some RandomNumberGenerator>
  ) -> Bool {
    guard let offer else { return false }
    // INVARIANT: a pair is installed once. `paired` is complete for this offer.
    precondition(!paired.contains(key))
    guard let context = SessionKeys.derive(own: offer, peer: key) else {
      turn.act(.count(.unusableKey))
      return false
    }
    makeRoom(&turn)
    paired.append(key)
    lastID += 1
    var entry = Entry(
      id: lastID, own: offer.publicKey, peer: key, installedAt: turn.now, isEchoed: isEchoed,
      isAnnounced: isAnnounced, offeredAt: offeredAt)
    if isAnnounced { entry.askAt = turn.now + 500 * Self.millisecond }
    sessions.append(entry)
    turn.act(.install(lastID, context, sendPrefix: UInt32(truncatingIfNeeded: turn.generator.next())))
    return true
  }

  /// The engine holds three sessions of a peer: unproven candidates go first, then the oldest previous one.
  private mutating func makeRoom(_ turn: inout Turn<some RandomNumberGenerator>) {
    while sessions.count >= 3 {
      let index =
        sessions.firstIndex { $0.role == .candidate && !$0.isEchoed }
        ?? sessions.firstIndex { $0.role == .previous } ?? sessions.firstIndex { $0.role == .candidate }
      guard let index else { return }
      remove(index, &turn)
    }
  }

  // MARK: Taking over

  mutating func confirm(_ id: SessionID, _ turn: inout Turn<some RandomNumberGenerator>) {
    guard let index = sessions.firstIndex(where: { $0.id == id }) else { return }
    sessions[index].isConfirmed = true
    switch sessions[index].role {
    case .candidate: promote(index, &turn)
    case .current: superviseGrace(turn.now)
    case .previous: break
    }
  }

  mutating func promote(_ index: Int, _ turn: inout Turn<some RandomNumberGenerator>) {
    demoteCurrent()
    sessions[index].role = .current
    turn.act(.promote(sessions[index].id, rawIPv6: takesRawIPv6 && sessions[index].isAnnounced))
    afterPromotion(index, &turn)
  }

  /// `sessions[index]` has just become the current one.
  mutating func afterPromotion(_ index: Int, _ turn: inout Turn<some RandomNumberGenerator>) {
    sessions[index].askAt = 0
    sessions[index].silenceCheckAt = 0
    // Both sides rekey alone; the jitter of a tenth makes that two begin at once rare (it is allowed).
    let jitter = turn.generator.next() % max(configuration.rekeyInterval / 10, 1)
    sessions[index].dueAt = turn.now + configuration.rekeyInterval - jitter
    if sessions[index].own == offer?.publicKey {
      isOfferSpent = true
      attempt = nil
    } else if attempt?.isRekey == false {
      attempt = nil
    }
    if sessions[index].isConfirmed { superviseGrace(turn.now) }
    turn.act(.confirm)
  }

  private mutating func demoteCurrent() {
    for index in sessions.indices where sessions[index].role == .current {
      sessions[index].role = .previous
      sessions[index].dueAt = .max
    }
  }

  /// The current session is proven: previous ones end after the grace time.
  private mutating func superviseGrace(_ now: UInt64) {
    for index in sessions.indices where sessions[index].role == .previous && sessions[index].dueAt == .max {
      sessions[index].dueAt = now + configuration.grace
    }
  }

  // MARK: Going

  mutating func remove(_ index: Int, _ turn: inout Turn<some RandomNumberGenerator>) {
    let entry = sessions.remove(at: index)
    turn.act(.retire(entry.id))
    guard entry.role == .previous, let current, current.isConfirmed, current.peer != entry.peer,
      !sessions.contains(where: { $0.peer == entry.peer }), !retired.contains(entry.peer)
    else { return }
    if retired.count == 16 { retired.removeFirst() }
    retired.append(entry.peer)
  }

  mutating func forgetSessions(_ turn: inout Turn<some RandomNumberGenerator>) {
    for entry in sessions { turn.act(.retire(entry.id)) }
    sessions = []
    attempt = nil
    early = []
    waiting = nil
    offer = nil
    isOfferSpent = false
    paired = []
  }
}
