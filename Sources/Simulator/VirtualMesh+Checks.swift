// The invariants of a mesh. Each check returns the pairs that break it; `report` shows the first of them with what
// travelled.

import Traversal
import Wire

extension VirtualMesh {
  /// A pair, or one node, that breaks an invariant.
  package struct Problem: CustomStringConvertible {
    package var a: UInt32
    package var b: UInt32
    package var text: String
    package var description: String { "\(a) and \(b): \(text)" }
  }

  private func each(_ check: (VirtualPeer) -> String?) -> [Problem] {
    var problems: [Problem] = []
    for pair in pairs {
      for (one, other) in [pair, (pair.b, pair.a)] {
        guard let peer = one.peer(other.id), let text = check(peer) else { continue }
        problems.append(Problem(a: one.id, b: other.id, text: text))
      }
    }
    return problems
  }

  /// Pairs whose first end got no data for longer than `limit` while the other end sent.
  package func silences(over limit: UInt64) -> [Problem] {
    let now = network.now
    return each { peer in
      let present = peer.silences.since == 0 ? 0 : now - min(now, peer.silences.since)
      if present > limit { return "no data for \(present / 1_000_000) ms until now" }
      guard peer.silences.longest > limit else { return nil }
      let end = (peer.silences.longestEndedAt - VirtualNetwork.start) / 1_000_000
      return "no data for \(peer.silences.longest / 1_000_000) ms until \(end) ms"
    }
  }

  /// Silences up to now do not count: the pairs could not reach each other.
  package func excuseSilences() {
    for pair in pairs {
      for (one, other) in [pair, (pair.b, pair.a)] {
        guard let peer = one.peer(other.id), peer.silences.since != 0 else { continue }
        peer.silences.reset(since: network.now)
      }
    }
  }

  /// Pairs of which one end doubted its session since `start`.
  package func resets(since start: UInt64) -> [Problem] {
    each { peer in
      let count = peer.suspicions.count { $0 >= start }
      return count == 0 ? nil : "\(count) doubts of the session"
    }
  }

  /// Pairs of which one end changed its path since `start`.
  package func changes(since start: UInt64) -> [Problem] {
    each { peer in
      let count = peer.pathChanges.count { $0.time >= start }
      return count == 0 ? nil : "\(count) changes of the path"
    }
  }

  /// Pairs of which one end went back to a direct path within `gap` after it had left it, since `start`. To leave a dead
  /// path for the relay, and that for another endpoint that answers, is no flap.
  package func flaps(since start: UInt64, within gap: UInt64 = 60_000_000_000) -> [Problem] {
    each { peer in
      let changes = peer.pathChanges
      for index in changes.indices.dropFirst() where changes[index].time >= start {
        guard case .direct = changes[index].path,
          let before = changes[..<index].lastIndex(where: { $0.path == changes[index].path })
        else { continue }
        let left = changes[before + 1].time
        if changes[index].time - left < gap {
          return "back on \(changes[index].path) \((changes[index].time - left) / 1_000_000) ms after it was left"
        }
      }
      return nil
    }
  }

  /// Pairs of which one end is not direct.
  package func relayed() -> [Problem] {
    each { peer in
      if case .direct = peer.path.path { return nil }
      return "\(peer.path.path), not direct"
    }
  }

  /// Nodes that sent more datagrams within a minute to an endpoint that never proved itself.
  package func overBudget(perMinute budget: Int) -> [Problem] {
    nodes.flatMap { node in
      node.contacts.all.filter { !$0.value.isProven && $0.value.worstMinute > budget }.map { endpoint, contact in
        let text = "\(contact.worstMinute) datagrams in a minute to \(endpoint), which never answered"
        return Problem(a: node.id, b: node.peers.first?.id ?? 0, text: text)
      }
    }
  }

  /// The share of ends that are direct.
  package var directShare: Double {
    pairs.isEmpty ? 0 : 1 - Double(relayed().count) / Double(2 * pairs.count)
  }

  // MARK: Reports

  /// Seed, number, and for the first three what they are and what travelled.
  package func report(_ problems: [Problem]) -> String {
    var lines = ["seed \(network.seed), \(problems.count) problems at \(network.elapsed / 1_000_000) ms"]
    for problem in problems.prefix(3) {
      lines.append("\(problem)")
      lines += flow(between: problem.a, and: problem.b)
    }
    return lines.joined(separator: "\n")
  }

  /// Both ends' traces by time.
  package func flow(between a: UInt32, and b: UInt32) -> [String] {
    var lines: [(time: UInt64, text: String)] = []
    var text: [String] = []
    for (one, other) in [(a, b), (b, a)] {
      guard let node = nodes.first(where: { $0.id == one }) else { continue }
      let own = node.host.endpoints.map { "\($0)" }.joined(separator: ", ")
      text.append("  \(one) is \(access(of: node)), at \(own), seen at \(node.observed.map { "\($0)" } ?? "nowhere")")
      for beacon in node.beaconChoice.beacons {
        let seen = beacon.seen.map { "\($0)" } ?? "nowhere"
        let place = network.beacons.first { $0.endpoint == beacon.endpoint }?.binding(of: one).map { "\($0)" }
        text.append(
          "  \(one): \(beacon.endpoint) \(beacon.isHealthy ? "answers" : "is silent"), sees it at \(seen), "
            + "relays to \(place ?? "nowhere")")
      }
      guard let peer = node.peer(other) else { continue }
      text.append("  \(one): \(peer.path.explanation(now: node.now).joined(separator: "; "))")
      lines += peer.trace.lines(of: one)
    }
    lines.sort { $0.time < $1.time }
    return text + lines.map { "  \(($0.time - VirtualNetwork.start) / 1000) us  \($0.text)" }
  }
}
