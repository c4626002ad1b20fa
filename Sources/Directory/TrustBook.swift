// trust.json as a value: who is trusted, who asked, whom we asked, which withdrawals the registry has not heard.
// Held by NodeStore behind its lock.

import JSON

/// A handshake on its way, in either direction.
struct HandshakeEntry: Sendable, Equatable {
  /// Unix seconds.
  var time: Int64
  var justification: String
}

struct TrustBook: Sendable, Equatable {
  /// Strangers fill at most this many lines; the registry's inbox holds 100 (wire/registry §2.5).
  static let mostPending = 1000
  static let mostOutgoing = 1000

  /// Node to the time since when.
  var trusted: [UInt32: Int64] = [:]
  var pending: [UInt32: HandshakeEntry] = [:]
  var outgoing: [UInt32: HandshakeEntry] = [:]
  /// Withdrawn here, still to be told to the registry.
  var revoked: Set<UInt32> = []

  /// Both ends agreed. Returns whether this is news.
  mutating func settle(_ node: UInt32, now: Int64) -> Bool {
    pending[node] = nil
    outgoing[node] = nil
    revoked.remove(node)
    guard trusted[node] == nil else { return false }
    trusted[node] = now
    return true
  }

  /// Keeps the newest request of a peer; a full list keeps what it has.
  mutating func keepPending(_ node: UInt32, _ entry: HandshakeEntry) -> Bool {
    guard pending[node] != nil || pending.count < Self.mostPending else { return false }
    let isNew = pending[node] == nil
    pending[node] = entry
    return isNew
  }

  /// Withdraws trust and every request in flight. Returns whether anything was there.
  mutating func revoke(_ node: UInt32) -> Bool {
    let wasThere = trusted[node] != nil || pending[node] != nil || outgoing[node] != nil
    if trusted.removeValue(forKey: node) != nil { revoked.insert(node) }
    pending[node] = nil
    outgoing[node] = nil
    return wasThere
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
            "node_id": .id($0.key), "time": .integer($0.value.time), "justification": .text($0.value.justification),
          ])
        })
    }
    return .object([
      "version": .integer(1),
      "trusted": .list(
        trusted.sorted { $0.key < $1.key }.map { .object(["node_id": .id($0.key), "since": .integer($0.value)]) }),
      "pending": handshakes(pending),
      "outgoing": handshakes(outgoing),
      "revoked": .list(revoked.sorted().map { .id($0) }),
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
        entries[node] = HandshakeEntry(
          time: item["time"]?.integer ?? 0, justification: item["justification"]?.text ?? "")
      }
      return entries
    }
    pending = handshakes("pending", limit: Self.mostPending)
    outgoing = handshakes("outgoing", limit: Self.mostOutgoing)
    revoked = Set((value["revoked"]?.list ?? []).compactMap(\.node))
  }
}
