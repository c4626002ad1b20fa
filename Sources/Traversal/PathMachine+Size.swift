// How large frames the present path takes: one PathMTUSearch, begun with each path, fed by probes (docs/nat-traversal.md).
//
// Until the first probe of full size is answered, or lost twice, full size is taken for granted: most paths take it, and
// a Packet Too Big that was not needed makes kernels send small packets for ten minutes.

import Wire

extension PathMachine {
  /// Forgets what the last path took.
  mutating func beginSearch(_ now: UInt64, _ actions: inout [Action]) {
    outstanding.removeAll { $0.purpose != .life }
    sizeDoubts = 0
    verifiedAt = now
    guard path != .none else {
      search = nil
      return
    }
    var fresh = PathMTUSearch(ceiling: ceiling)
    if self[path]?.isSmall == true { fresh.suspectBlackHole(now: now) }
    search = fresh
    tellLimit(&actions)
  }

  /// Sends the next probe of the search.
  mutating func runSearch(_ now: UInt64, _ actions: inout [Action]) {
    guard trial == nil, isSearchAllowed(now), let size = search?.nextProbe(now) else { return }
    probeSize(path, size, for: .search, now, &actions)
  }

  /// A path may begin to swallow what is large while what is small, or comes the other way, looks well: the size is asked
  /// every 10 s while packets are sent, and with the first probe of a trial.
  mutating func verifySize(after gap: UInt64, _ now: UInt64, _ actions: inout [Action]) {
    guard isSizeAsked(now), let search, now >= verifiedAt + gap, !outstanding.contains(where: { $0.purpose == .verify })
    else { return }
    verifiedAt = now
    guard search.limit > PathMTUSearch.floor else {
      // Nothing could be less. But a search waits while the path leaves what is small without answer, too.
      if self[path]?.misses ?? 0 >= PathLimits.unansweredInARow { probe(path, PathLimits.smallProbe, now, &actions) }
      return
    }
    let size = search.hasEvidence ? search.limit : ceiling
    // A trial asks with small ones anyway, and counts how many were lost.
    if trial == nil {
      probeSize(path, size, for: .verify, now, &actions)
    } else {
      probe(path, size, for: .verify, now, &actions)
    }
  }

  /// A probe of the search, or of a size in doubt, was not answered. `isTooBig`: what left after it was.
  mutating func lostSize(_ probe: Probe, isTooBig: Bool, _ now: UInt64, _ actions: inout [Action]) {
    guard probe.path == path, let search else { return }
    if probe.purpose == .search {
      if isTooBig { self.search?.lost(size: probe.size, now: now) } else { self.search?.abandon() }
    } else if !isTooBig || (search.hasEvidence && probe.size > search.limit) {
      // The path's own loss, or of a size that is not in use any more.
      sizeDoubts = 0
      if !isTooBig { askForAnswer(now) }
    } else if sizeDoubts + 1 < PathMTUSearch.probesPerSize {
      sizeDoubts += 1
      if isSizeAsked(now) { probeSize(path, probe.size, for: .verify, now, &actions) }
    } else {
      sizeDoubts = 0
      self.search?.suspectBlackHole(now: now)
    }
    tellLimit(&actions)
  }

  /// Our kernel refused a frame for its size.
  mutating func refusedSize(_ way: Path, _ size: Int, _ limit: Int?, _ now: UInt64, _ actions: inout [Action]) {
    outstanding.removeAll { $0.path == way && $0.size == size && $0.size > PathLimits.smallProbe }
    if size <= PathLimits.largeProbe {
      change(way) { $0.largeMisses = 3 }
      weigh(way, now, &actions)
    }
    guard way == path else { return }
    sizeDoubts = 0
    search?.refused(size: size, limit: limit, now: now)
    // The worker has lowered its own limit meanwhile.
    toldLimit = -1
    tellLimit(&actions)
  }

  mutating func tellLimit(_ actions: inout [Action]) {
    guard let search else { return }
    let limit = search.hasEvidence ? min(search.limit, ceiling) : 0
    guard limit != toldLimit else { return }
    toldLimit = limit
    actions.append(.setPathLimit(limit))
  }

  private func isSizeAsked(_ now: UInt64) -> Bool {
    hasSession && path != .none && isInUse(now) && outstanding.count < PathLimits.outstanding - 2
      && (path != .relay || hasBeacon)
  }

  /// Nothing is searched while the path leaves what is small without answer, too.
  private func isSearchAllowed(_ now: UInt64) -> Bool {
    isSizeAsked(now) && (self[path]?.misses ?? 0) < PathLimits.unansweredInARow
  }

  /// When the search wants to go on.
  func searchDeadline(_ now: UInt64) -> UInt64? {
    guard trial == nil, isSearchAllowed(now) else { return nil }
    return search?.nextDeadline.map { max($0, now) }
  }
}
