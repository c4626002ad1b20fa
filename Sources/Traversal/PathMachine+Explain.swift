// What `explain PEER` and `status` say of a path: the present one and why, every other way and why not, what comes next.

import Wire

extension PathMachine {
  /// One way, for `explain`.
  package struct Account: Equatable, Sendable {
    package var path: Path
    package var kind: String
    package var isPath: Bool
    package var roundTripMilliseconds: Double?
    package var probes: UInt32
    package var answers: UInt32
    /// Seconds since the last probe, and since the last answer.
    package var triedAgo: Double?
    package var answeredAgo: Double?
    /// Why it is the path, or why it is not.
    package var verdict: String
  }

  /// Every way to the peer: the path first, then the other endpoints, then the relay.
  package func accounts(now: UInt64) -> [Account] {
    let ways = (candidates + (hasBeacon ? [relay] : [])).sorted { a, b in a.path == path && b.path != path }
    return ways.map { way in
      Account(
        path: way.path, kind: way.path == .relay ? "relay" : way.kind.word, isPath: way.path == path,
        roundTripMilliseconds: way.roundTrip.map { Double($0) / 1e6 }, probes: way.probes, answers: way.answers,
        triedAgo: Self.age(way.triedAt, now), answeredAgo: Self.age(way.answeredAt, now),
        verdict: verdict(on: way, now: now))
    }
  }

  /// When ways are tried again, in seconds; nil: nothing is planned.
  package func nextAttempt(now: UInt64) -> Double? {
    if round != nil || trial != nil { return 0 }
    guard nextRoundAt != 0, isInUse(now) else { return nil }
    return Double(nextRoundAt - min(now, nextRoundAt)) / 1e9
  }

  private static func age(_ time: UInt64, _ now: UInt64) -> Double? {
    time == 0 ? nil : Double(now - min(now, time)) / 1e9
  }

  private func verdict(on way: Candidate, now: UInt64) -> String {
    if way.path == path {
      if isUnsettled { return "in use, not proven since the network changed" }
      return trial != nil ? "in use, silent: being tried" : reason.rawValue
    }
    if way.path == .relay {
      if way.misses > 0 {
        return "the fallback, did not answer the last \(way.misses == 1 ? "probe" : "\(way.misses) probes")"
      }
      return way.answers == 0 ? "the fallback, not tried yet" : "the fallback: a direct path is used"
    }
    if way.penaltyUntil > now {
      return "left for silence, tried again as a path in \((way.penaltyUntil - now) / 1_000_000_000) s"
    }
    if way.probes == 0 { return hasSession ? "not tried yet" : "not tried: there is no session" }
    if way.answers == 0 {
      if way.misses == 0 { return "being tried" }
      if way.heardAt != 0 { return "its frames come from there, probes to there are not answered: filtered one way" }
      return "no answer: a NAT or firewall filters, or the address is not reachable from here"
    }
    if way.misses > 0 { return "answered before, not the last \(way.misses == 1 ? "probe" : "\(way.misses) probes")" }
    if way.isSmall { return "small probes are answered, those of data size are not" }
    if !way.isLargeProven { return "a probe of data size is not answered yet" }
    return "answers, and is not better than the path in use"
  }

  /// Lines for a person: the present path, why and since when, what comes next, and the stretches before. `relay`: the
  /// word for the relay as it is reached now.
  package func explanation(now: UInt64, relay word: String = "relay") -> [String] {
    guard let present = history.last else { return ["no path: \(PathReason.noCandidate.rawValue)"] }
    func age(_ time: UInt64) -> String { "\((now &- min(time, now)) / 1_000_000_000) s" }
    var lines = [
      "\(present.path == .relay ? word : present.path.description) for \(age(present.since)): \(present.reason.rawValue)"
    ]
    if let search, search.hasEvidence {
      let state = search.isSearching ? "the search goes on" : "the search is over"
      lines.append("packets up to \(min(search.limit, ceiling)) bytes in one frame, \(state)")
    }
    if isRelayOnly {
      lines.append("no direct path is tried: relay only")
    } else if let next = nextAttempt(now: now) {
      lines.append(next < 1 ? "other ways are being tried" : "next try of other ways in \(Int(next)) s")
    } else if present.path == .relay {
      lines.append(hasSession ? "other ways are tried when packets are sent" : "other ways are tried with a session")
    }
    for stretch in history.dropLast().reversed() {
      lines.append("before: \(stretch.path.description) from \(age(stretch.since)) ago: \(stretch.reason.rawValue)")
    }
    return lines
  }
}

extension Path: CustomStringConvertible {
  package var description: String {
    switch self {
    case .none: "none"
    case .direct(let endpoint): "direct \(endpoint)"
    case .relay: "relay"
    }
  }
}
