// What becomes of attempts to leave the relay: their outcome by cause, what forgives a dead way, and when ports are opened
// in numbers for a pair that a punch cannot connect (docs/nat-traversal.md).

import Wire

extension PathMachine {
  /// Begins with a round while the path is the relay, ends with that round or with a direct path (`set`).
  struct Attempt: Sendable {
    var began: UInt64
    var isOverBudget = false
    var hasMappingChanged = false
    /// The peer's frames come from an endpoint that nobody told.
    var hasHeardElsewhere = false
  }

  /// The round is over, and the path still the relay.
  mutating func endAttempt(_ actions: inout [Action]) {
    guard let ended = attempt else { return }
    attempt = nil
    actions.append(.count(cause(of: ended)))
  }

  private func cause(of failed: Attempt) -> PunchOutcome {
    if !candidates.contains(where: { $0.endpoint.map(own.has) ?? false }) { return .family }
    if failed.hasMappingChanged { return .mappingChanged }
    if own.translation == .dependent || peerTranslation == .dependent || failed.hasHeardElsewhere { return .symmetric }
    return failed.isOverBudget ? .budget : .noAnswer
  }

  // MARK: Another mapping

  /// What was left for silence may have died of the old mapping: it may come back at once. The peer is told and asked
  /// now, unless the present path is direct and lives.
  mutating func forgive(_ now: UInt64, _ actions: inout [Action]) {
    attempt?.hasMappingChanged = true
    (openings, nextOpeningAt) = (0, 0)
    for index in candidates.indices {
      candidates[index].penaltyUntil = 0
      candidates[index].misses = 0
    }
    guard hasSession, isInUse(now),
      path == .relay || trial != nil || !isAlive(since: now - min(now, PathLimits.silence))
    else { return }
    // The round under way asked from the old mapping.
    round = nil
    beginRound(now, calls: true, &actions)
  }

  // MARK: Opening ports

  mutating func learn(_ network: OwnNetwork, _ mayOpenPorts: Bool) {
    if network.translation != own.translation { (openings, nextOpeningAt) = (0, 0) }
    own = network
    self.mayOpenPorts = mayOpenPorts
  }

  /// After a round in vain: only this end can open ports, when its own NAT maps by destination and the peer's does not.
  mutating func openPortsIfDue(_ now: UInt64, _ actions: inout [Action]) {
    guard mayOpenPorts, path == .relay, own.translation == .dependent, peerTranslation == .independent, isInUse(now),
      now >= nextOpeningAt, let target = outerEndpoint
    else { return }
    nextOpeningAt = now + jittered(min(PathLimits.openingGap << UInt64(openings), PathLimits.mostOpeningGap))
    openings = min(openings + 1, 8)
    actions.append(.openPorts(target))
  }

  /// Where the peer's NAT shows its socket: the directory's word, else the first public one that it told.
  private var outerEndpoint: Endpoint? {
    let outer = candidates.filter { $0.kind == .directory || $0.kind == .told }.compactMap(\.endpoint)
    return outer.first { $0.isIPv4 && !$0.address.isPrivateIPv4 }
  }

  /// The way goes through another mapping than before: nothing that was found of it holds, and it is asked at once.
  mutating func opened(_ endpoint: Endpoint, _ now: UInt64, _ actions: inout [Action]) {
    guard !isRelayOnly, hasSession, path == .relay else { return }
    add(endpoint, .seen)
    let way = Path.direct(endpoint)
    guard self[way] != nil else { return }
    change(way) {
      $0.forget()
      $0.heardAt = now
    }
    round = nil
    beginRound(now, calls: false, &actions)
  }
}

extension IPv6Address {
  /// Of RFC 1918 or RFC 6598, or of this machine or link: no outer address of a NAT on the Internet.
  fileprivate var isPrivateIPv4: Bool {
    guard let v4 = mappedIPv4 else { return false }
    return v4 >> 24 == 10 || v4 >> 20 == 0xAC1 || v4 >> 16 == 0xC0A8 || v4 >> 22 == 0x191 || v4 >> 24 == 127
      || v4 >> 16 == 0xA9FE
  }
}
