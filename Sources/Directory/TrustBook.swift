// trust.json as a value: who is trusted, who asked, whom we asked, which withdrawals the registry and the peers have
// not heard. Held by NodeStore behind its lock.

import JSON

/// A handshake on its way, in either direction.
struct HandshakeEntry: Sendable, Equatable {
  /// Unix seconds.
  var time: Int64
  var justification: String
  /// It travelled over the tunnel, under the peer's own key.
  var isDirect = false
  /// It travelled through the registry, which therefore can carry the answer.
  var isRelayed = false
}

struct TrustBook: Sendable, Equatable {
  /// Strangers fill at most this many lines (wire/tunnel §7.2).
  static let mostPending = 256
  static let pendingLasts: Int64 = 30 * 86400
  static let mostOutgoing = 1000
  /// Withdrawals that a peer which was away is told when it is back.
  static let mostUntold = 1000
  /// Nodes that were let in once and are not now.
  static let mostFormer = 4096

  /// Node to the time since when.
  var trusted: [UInt32: Int64] = [:]
  var pending: [UInt32: HandshakeEntry] = [:]
  var outgoing: [UInt32: HandshakeEntry] = [:]
  /// Withdrawn here, still to be told to the registry.
  var revoked: Set<UInt32> = []
  /// Withdrawn here, still to be told to the peer.
  var untold: Set<UInt32> = []
  /// Node to the time when trust in it ended: connections that it opened before shall not come in as answers.
  private(set) var former: [UInt32: Int64] = [:]

  /// Both ends agreed. Returns whether this is news.
  mutating func settle(_ node: UInt32, now: Int64) -> Bool {
    pending[node] = nil
    outgoing[node] = nil
    revoked.remove(node)
    untold.remove(node)
    former[node] = nil
    guard trusted[node] == nil else { return false }
    trusted[node] = now
    return true
  }

  enum Kept: Sendable { case new, again, full }

  /// Keeps the newest request of a peer and every way that it came; a full list keeps what it has.
  mutating func keepPending(_ node: UInt32, _ entry: HandshakeEntry) -> Kept {
    pending = pending.filter { $0.value.time > entry.time - Self.pendingLasts }
    guard pending[node] != nil || pending.count < Self.mostPending else { return .full }
    let earlier = pending[node]
    pending[node] = entry
    pending[node]?.isDirect = entry.isDirect || earlier?.isDirect == true
    pending[node]?.isRelayed = entry.isRelayed || earlier?.isRelayed == true
    return earlier == nil ? .new : .again
  }

  /// Keeps that we asked.
  mutating func keepOutgoing(_ node: UInt32, _ entry: HandshakeEntry) {
    untold.remove(node)
    if outgoing.count < Self.mostOutgoing || outgoing[node] != nil { outgoing[node] = entry }
  }

  /// Withdraws trust and every request in flight. Returns whether anything was there.
  mutating func revoke(_ node: UInt32, now: Int64) -> Bool {
    let wasThere = trusted[node] != nil || pending[node] != nil || outgoing[node] != nil
    if trusted.removeValue(forKey: node) != nil {
      revoked.insert(node)
      noteFormer(node, now: now)
      if untold.count < Self.mostUntold { untold.insert(node) }
    }
    pending[node] = nil
    outgoing[node] = nil
    return wasThere
  }

  /// The peer withdrew, by a message of this time. What we asked since then stands: it was asked of who withdrew.
  /// Returns whether anything was there.
  mutating func revoked(by node: UInt32, at time: Int64) -> Bool {
    let wasTrusted = trusted.removeValue(forKey: node) != nil
    if wasTrusted {
      revoked.insert(node)
      noteFormer(node, now: time)
    }
    untold.remove(node)
    var wasThere = pending.removeValue(forKey: node) != nil || wasTrusted
    if let asked = outgoing[node], asked.time < time {
      outgoing[node] = nil
      wasThere = true
    }
    return wasThere
  }

  /// A full list forgets the oldest.
  mutating func noteFormer(_ node: UInt32, now: Int64) {
    if former[node] == nil, former.count >= Self.mostFormer,
      let oldest = former.min(by: { ($0.value, $0.key) < ($1.value, $1.key) })
    {
      former[oldest.key] = nil
    }
    former[node] = now
  }

  var list: [TrustEntry] {
    trusted.map { TrustEntry(node: $0.key, kind: .trusted, since: $0.value) }
      + pending.map { .init(node: $0.key, kind: .pending, since: $0.value.time, justification: $0.value.justification) }
      + outgoing.map {
        .init(node: $0.key, kind: .outgoing, since: $0.value.time, justification: $0.value.justification)
      }
  }
}

extension TrustBook {
  var encoded: JSONValue {
    func handshakes(_ entries: [UInt32: HandshakeEntry]) -> JSONValue {
      .list(
        entries.sorted { $0.key < $1.key }.map {
          .object([
            "node_id": .whole($0.key), "time": .integer($0.value.time), "justification": .text($0.value.justification),
            "direct": .bool($0.value.isDirect), "relayed": .bool($0.value.isRelayed),
          ])
        })
    }
    func times(_ nodes: [UInt32: Int64]) -> JSONValue {
      .list(nodes.sorted { $0.key < $1.key }.map { .object(["node_id": .whole($0.key), "since": .integer($0.value)]) })
    }
    return .object([
      "version": .integer(1),
      "trusted": times(trusted),
      "pending": handshakes(pending),
      "outgoing": handshakes(outgoing),
      "revoked": .list(revoked.sorted().map { .whole($0) }),
      "untold": .list(untold.sorted().map { .whole($0) }),
      "former": times(former),
    ])
  }

  /// nil when the value is no trust book. A line that makes no sense is left out: that trusts less, never more.
  init?(_ value: JSONValue) {
    guard value["version"]?.integer == 1, let trusted = value["trusted"]?.list else { return nil }
    for item in trusted {
      if let node = item["node_id"]?.node { self.trusted[node] = item["since"]?.integer ?? 0 }
    }
    func handshakes(_ name: String, limit: Int) -> [UInt32: HandshakeEntry] {
      var entries: [UInt32: HandshakeEntry] = [:]
      for item in (value[name]?.list ?? []).prefix(limit) {
        guard let node = item["node_id"]?.node else { continue }
        // Files of versions that knew the registry's way only do not name it.
        entries[node] = HandshakeEntry(
          time: item["time"]?.integer ?? 0, justification: item["justification"]?.text ?? "",
          isDirect: item["direct"]?.isTrue ?? false, isRelayed: item["relayed"]?.isTrue ?? true)
      }
      return entries
    }
    func nodes(_ name: String) -> Set<UInt32> { Set((value[name]?.list ?? []).compactMap(\.node)) }
    pending = handshakes("pending", limit: Self.mostPending)
    outgoing = handshakes("outgoing", limit: Self.mostOutgoing)
    revoked = nodes("revoked")
    for item in (value["former"]?.list ?? []).prefix(Self.mostFormer) {
      if let node = item["node_id"]?.node, self.trusted[node] == nil { former[node] = item["since"]?.integer ?? 0 }
    }
    untold = Set(nodes("untold").subtracting(self.trusted.keys).prefix(Self.mostUntold))
  }
}
