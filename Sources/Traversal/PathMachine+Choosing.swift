// Which of the ways that answer is the path; when it is silent; when the others are tried again.

import Wire

extension PathMachine {
  /// Volleys of probes to every way.
  struct Round: Sendable {
    var began: UInt64
    var volley = 0
    var nextAt: UInt64
  }

  /// The present path owes a sign of life and is asked for one.
  struct Trial: Sendable {
    var began: UInt64
    var sent = 0
    var nextAt: UInt64
    /// What comes by the path proves nothing: whether what we send arrives is in doubt.
    let needsAnswer: Bool
    /// Probes without answer before it.
    let missesBefore: UInt8
  }

  func isInUse(_ now: UInt64) -> Bool { activity.sentAt != 0 && now <= activity.sentAt + PathLimits.useLasts }

  /// The trial found no life on the present path.
  private var isPathDead: Bool {
    let limit = path == .relay ? PathLimits.deadlyMisses.relay : PathLimits.deadlyMisses.direct
    guard let trial, trial.sent >= limit, let misses = self[path]?.misses else { return false }
    return Int(misses) - Int(trial.missesBefore) >= limit
  }

  private mutating func beginTrial(_ now: UInt64, needsAnswer: Bool) {
    // All of a silence count together. Their number ends at 250: then a path is dead as soon as enough was asked.
    let before = silentSince == 0 ? min(self[path]?.misses ?? 0, 200) : 0
    trial = Trial(began: now, nextAt: now, needsAnswer: needsAnswer, missesBefore: before)
  }

  // MARK: Weighing

  /// A way answered: is it the path from now on?
  mutating func weigh(_ way: Path, _ now: UInt64, _ actions: inout [Action]) {
    guard way != path, let rival = self[way], !(isRelayOnly && way != .relay) else {
      if way == path { isUnsettled = false }
      return
    }
    if isUnsettled {
      // The first that answers at all; the rest of the round sorts out which is best.
      isUnsettled = false
      return set(way, .networkChanged, now, &actions)
    }
    if path == .none { return set(way, .probeAnswered, now, &actions) }
    let present = self[path]
    if isPathDead {
      punish(path, now)
      return set(way, .silent, now, &actions)
    }
    guard way != .relay, rival.isProven, now >= rival.penaltyUntil else { return }
    if path == .relay {
      // A detour that only looks direct is no gain.
      let relayed = relay.roundTrip ?? .max / 4
      guard let own = rival.roundTrip, own <= 2 * relayed + 20 * PathLimits.millisecond else { return }
      return set(way, rival.isSmall ? .smallOnly : .probeAnswered, now, &actions)
    }
    guard let present, let own = rival.roundTrip, let other = present.roundTrip else {
      // What carries data was never measured: whoever was, is better known.
      if present?.answeredAt == 0, present?.misses ?? 0 >= 2 { set(way, .probeAnswered, now, &actions) }
      return
    }
    // What only reaches the peer, whose frames come from elsewhere, is no better than where they come from.
    // A symmetric NAT keeps an older mapping for a while: it lets us in, and dies unused.
    guard !rival.isSmall || present.isSmall, rival.heardAt != 0, rival.isAnsweredFromThere else { return }
    let isCalm = switchedAt == 0 || now >= switchedAt + PathLimits.calm || now <= sessionSince + PathLimits.race
    // On the same network rather than through the router and back.
    let isNearer = rival.kind == .lan && present.kind != .lan && own <= other
    if isCalm, isNearer || own + max(other / 4, PathLimits.millisecond / 2) <= other {
      switchedAt = now
      set(way, isNearer ? .nearer : .faster, now, &actions)
    }
  }

  private mutating func punish(_ way: Path, _ now: UInt64) {
    guard way != .relay else { return }
    // An official daemon that hears us there and answers through the relay will come back to it by itself.
    if let candidate = self[way], candidate.detouredAt != 0, now < candidate.detouredAt + PathLimits.recent { return }
    let wasGood = history.last.map { $0.path == way && now > $0.since + PathLimits.forgiven } ?? false
    change(way) {
      if wasGood { $0.failures = 0 }
      $0.failures = min($0.failures + 1, 8)
      $0.penaltyUntil = now + min(PathLimits.penalty << UInt64($0.failures - 1), PathLimits.mostPenalty)
      $0.isLargeProven = false
    }
  }

  // MARK: Signs of life

  /// What the worker counted since the last event.
  mutating func note(_ news: PathActivity, _ now: UInt64) {
    activity.sentAt = max(activity.sentAt, news.sentAt)
    activity.receivedAt = max(activity.receivedAt, news.receivedAt)
    activity.onPathAt = max(activity.onPathAt, news.onPathAt)
    watchedAt = now
    let sign = max(activity.onPathAt, self[path]?.answeredAt ?? 0)
    if activity.sentAt <= sign {
      owesSince = 0
      // Life on the path itself ends a trial; life elsewhere does not.
      if let trial, !trial.needsAnswer, activity.onPathAt > trial.began { self.trial = nil }
    } else if owesSince == 0 || sign > owesSince {
      // After a rest nothing is known any more: the first packet does not wait for its answer alone.
      owesSince = now > sign + PathLimits.rest ? now - PathLimits.silence : now
    }
    if sign > silentSince { silentSince = 0 }
    // Used again after a rest: whatever waits for use begins.
    if nextRoundAt == 0, round == nil, hasSession, !isRelayOnly, path == .relay, isInUse(now) { nextRoundAt = now }
  }

  /// Through the relay the peer says that it may not hear us: the direct path is asked at once, unless it just answered.
  mutating func called(_ now: UInt64) {
    guard hasSession, hasBeacon, case .direct = path, trial == nil || trial?.needsAnswer == false,
      now >= (self[path]?.answeredAt ?? 0) + PathLimits.silence, now >= calledAt + PathLimits.recent || calledAt == 0
    else { return }
    calledAt = now
    beginTrial(now, needsAnswer: true)
  }

  /// Frames come by the path, and probes there stay without answer: whether what we send arrives is asked.
  mutating func askForAnswer(_ now: UInt64) {
    guard hasSession, path != .none, trial == nil, isWatched else { return }
    beginTrial(now, needsAnswer: true)
  }

  private var isWatched: Bool { activity.sentAt != 0 && watchedAt <= activity.sentAt + PathLimits.watchLasts }

  /// When the present path counts as silent, if nothing comes.
  private var silentAt: UInt64? {
    guard owesSince != 0, hasSession, path != .none, trial == nil else { return nil }
    // The longer nothing answers, the rarer it is asked: a peer that is away costs little.
    let patience = silentSince == 0 ? 0 : min((triedInVainAt - silentSince) / 16, PathLimits.mostTrialGap)
    return max(owesSince + PathLimits.silence, triedInVainAt + patience)
  }

  private mutating func runTrial(_ now: UInt64, _ actions: inout [Action]) {
    if trial == nil, let silentAt, now >= silentAt, isWatched {
      beginTrial(now, needsAnswer: false)
      verifySize(after: PathLimits.recent, now, &actions)
    }
    guard var running = trial, now >= running.nextAt else { return }
    if running.sent == PathLimits.trialProbes {
      // The last ones may still be answered.
      if let last = outstanding.filter({ $0.path == path }).map(\.dueAt).max(), last > now {
        running.nextAt = last
        trial = running
        return
      }
      trial = nil
      owesSince = 0
      if silentSince == 0 { silentSince = running.began }
      triedInVainAt = now
      // Nothing answers, on any way: the peer is gone, or it lost the session.
      actions.append(.suspectSession)
      // Whatever came last may have been lost on the way; both are asked again while packets are sent.
      return
    }
    probe(path, PathLimits.smallProbe, now, &actions)
    if running.sent == 1, hasBeacon { actions.append(.renewRelay) }
    if path != .relay, running.sent > 0 { probe(.relay, PathLimits.smallProbe, now, &actions) }
    if running.sent % 2 == 1 {
      for candidate in candidates where candidate.path != path && candidate.misses < 10 {
        probe(candidate.path, PathLimits.smallProbe, now, &actions)
      }
    }
    running.sent += 1
    running.nextAt = now + PathLimits.trialGap
    trial = running
    // What answered before the path was known to be dead: now it is.
    if isPathDead {
      let living = ([relay] + candidates).filter { $0.path != path && $0.answeredAt >= running.began }
      let unpunished = living.filter { now >= $0.penaltyUntil }
      let alternatives = unpunished.isEmpty ? living : unpunished
      if let best = alternatives.min(by: { preference($0) < preference($1) }) {
        punish(path, now)
        set(best.path, .silent, now, &actions)
      }
    }
  }

  /// Direct before relayed, then by round trip.
  private func preference(_ candidate: Candidate) -> UInt64 {
    (candidate.path == .relay ? 1 << 62 : 0) + (candidate.roundTrip ?? 1 << 60)
  }

  // MARK: Rounds

  /// Something new is known: no need to wait for the next round.
  mutating func hurry(_ now: UInt64) {
    guard hasSession, !isRelayOnly else { return }
    roundsInVain = 0
    if isInUse(now), path == .relay || !(self[path]?.isProven ?? false) { nextRoundAt = now }
  }

  mutating func beginRound(_ now: UInt64, calls: Bool, _ actions: inout [Action]) {
    guard hasSession, !isRelayOnly else { return }
    // One runs, or just ran, unless the ways are all unknown again.
    if let round, now < round.began + PathLimits.second, !isUnsettled { return }
    if calls { actions.append(.callPeer) }
    if path == .relay, attempt == nil { attempt = Attempt(began: now) }
    round = Round(began: now, nextAt: now)
  }

  private mutating func runRound(_ now: UInt64, _ actions: inout [Action]) {
    guard var running = round, now >= running.nextAt else { return }
    guard running.volley < PathLimits.volleys.count else {
      round = nil
      endAttempt(&actions)
      openPortsIfDue(now, &actions)
      return plan(now)
    }
    for candidate in candidates where candidate.answeredAt < running.began || candidate.answeredAt == 0 {
      probe(candidate.path, PathLimits.smallProbe, now, &actions)
    }
    if relay.answeredAt < running.began || relay.answeredAt == 0 {
      probe(.relay, PathLimits.smallProbe, now, &actions)
    }
    running.volley += 1
    running.nextAt =
      running.volley < PathLimits.volleys.count
      ? running.began + PathLimits.volleys[running.volley] : now + PathLimits.probeTimeout
    round = running
  }

  /// When the next round is due: soon and then ever later while relayed; at a slow pace while another way could be
  /// better than the present one; never when there is nothing to win.
  private mutating func plan(_ now: UInt64) {
    if path == .relay || !(self[path]?.isProven ?? false) {
      roundsInVain = min(roundsInVain + 1, 8)
      let gap = min(PathLimits.firstRoundGap << UInt64(roundsInVain - 1), PathLimits.mostRoundGap)
      nextRoundAt = now + jittered(gap)
    } else {
      roundsInVain = 0
      let hasRival = candidates.contains { $0.path != path && $0.answeredAt != 0 }
      nextRoundAt = hasRival ? now + jittered(2 * PathLimits.mostRoundGap) : 0
    }
  }

  // MARK: Time

  /// When `tick` is due; nil for a peer that is not in use.
  package func nextDeadline(_ now: UInt64) -> UInt64? {
    var deadline = searchDeadline(now) ?? .max
    if let round { deadline = min(deadline, round.nextAt) }
    if let trial { deadline = min(deadline, trial.nextAt) }
    for probe in outstanding { deadline = min(deadline, probe.dueAt) }
    if hasSession {
      if nextRoundAt != 0, round == nil, isInUse(now) || now <= sessionSince + PathLimits.second {
        deadline = min(deadline, nextRoundAt)
      }
      if isWatched { deadline = min(deadline, watchedAt + PathLimits.watchGap) }
      if isWatched, let silentAt { deadline = min(deadline, silentAt) }
    }
    return deadline == .max ? nil : deadline
  }

  mutating func runTimers(_ now: UInt64, _ actions: inout [Action]) {
    expireProbes(now, &actions)
    runTrial(now, &actions)
    if nextRoundAt != 0, round == nil, now >= nextRoundAt, hasSession,
      isInUse(now) || now <= sessionSince + PathLimits.second
    {
      nextRoundAt = 0
      beginRound(now, calls: path == .relay || isUnsettled, &actions)
    }
    runRound(now, &actions)
    runSearch(now, &actions)
    if trial == nil, isWatched { verifySize(after: PathLimits.verifyGap, now, &actions) }
  }
}
