// peers.json as a value: pins, last endpoints, names, last records. Held by NodeStore behind its lock.

import JSON
import Wire

/// What is known about one peer beyond the present run.
struct PeerEntry: Sendable, Equatable {
  /// The key of first contact, or the one the operator accepted since.
  var pinnedKey: Bytes32?
  /// Unix seconds.
  var firstSeen: Int64
  /// Unix seconds of the last news of any kind; the oldest give way when the book is full.
  var lastNews: Int64
  /// Endpoints that worked, newest first.
  var lastEndpoints: [Endpoint] = []
  /// The registry's last word.
  var record: PeerRecord?
  /// It relayed for us when we last heard.
  var isRelay = false

  init(firstSeen: Int64) {
    self.firstSeen = firstSeen
    lastNews = firstSeen
  }
}

/// Peers by node id, and nodes by hostname.
struct PeerBook: Sendable, Equatable {
  static let mostPeers = 100_000
  static let mostEndpoints = 4

  private(set) var entries: [UInt32: PeerEntry] = [:]
  private var nodesByName: [String: UInt32] = [:]
  var capacity = PeerBook.mostPeers

  func entry(_ node: UInt32) -> PeerEntry? { entries[node] }
  func node(named name: String) -> UInt32? { nodesByName[name] }

  /// Changes the entry, making it first. `keeps` names the peers that never give way.
  mutating func update(
    _ node: UInt32, now: Int64, keeps: () -> Set<UInt32> = { [] }, _ change: (inout PeerEntry) -> Void
  ) {
    if entries[node] == nil, entries.count >= capacity { makeRoom(keeps: keeps()) }
    var entry = entries[node] ?? PeerEntry(firstSeen: now)
    let oldName = entry.record?.hostname
    change(&entry)
    entry.lastNews = max(entry.lastNews, now)
    entry.lastEndpoints = Array(entry.lastEndpoints.prefix(Self.mostEndpoints))
    entries[node] = entry
    let newName = entry.record?.hostname
    if let oldName, oldName != newName, nodesByName[oldName] == node { nodesByName[oldName] = nil }
    // One name, one holder: who had it before gets it back by no other news.
    if let newName, let other = nodesByName.updateValue(node, forKey: newName), other != node {
      entries[other]?.record?.hostname = nil
    }
  }

  /// The name no longer belongs to the node that had it.
  mutating func forget(name: String) {
    guard let node = nodesByName.removeValue(forKey: name) else { return }
    entries[node]?.record?.hostname = nil
  }

  mutating func remove(_ node: UInt32) {
    guard let entry = entries.removeValue(forKey: node) else { return }
    if let name = entry.record?.hostname, nodesByName[name] == node { nodesByName[name] = nil }
  }

  /// Drops the hundredth part with the oldest news, so that a full book is not sorted for every stranger.
  private mutating func makeRoom(keeps: Set<UInt32>) {
    let candidates = entries.filter { !keeps.contains($0.key) }.sorted { $0.value.lastNews < $1.value.lastNews }
    for candidate in candidates.prefix(max(1, capacity / 100)) { remove(candidate.key) }
  }
}

extension PeerBook {
  var encoded: JSONValue {
    var peers: [String: JSONValue] = [:]
    peers.reserveCapacity(entries.count)
    for (node, entry) in entries { peers[String(node)] = entry.encoded }
    return .object(["version": .integer(1), "peers": .object(peers)])
  }

  /// nil when the value is no peer book; entries that make no sense are left out.
  init?(_ value: JSONValue) {
    guard value["version"]?.integer == 1, let peers = value["peers"]?.object else { return nil }
    for (key, value) in peers.prefix(Self.mostPeers) {
      guard let node = UInt32(key), let entry = PeerEntry(value, node: node) else { continue }
      entries[node] = entry
    }
    // A name claimed twice belongs to the newer news.
    for (node, entry) in entries.sorted(by: { $0.value.lastNews < $1.value.lastNews }) {
      guard let name = entry.record?.hostname else { continue }
      if let other = nodesByName.updateValue(node, forKey: name) { entries[other]?.record?.hostname = nil }
    }
  }
}

extension PeerEntry {
  fileprivate var encoded: JSONValue {
    var members: [String: JSONValue] = ["first_seen": .integer(firstSeen), "last_news": .integer(lastNews)]
    if let pinnedKey { members["key"] = .text(Base64.encode(pinnedKey.bytes)) }
    if !lastEndpoints.isEmpty { members["last_endpoints"] = .list(of: lastEndpoints.map(\.description)) }
    if let record { members["record"] = record.encoded }
    if isRelay { members["relay"] = .bool(true) }
    return .object(members)
  }

  fileprivate init?(_ value: JSONValue, node: UInt32) {
    guard let first = value["first_seen"]?.integer else { return nil }
    self.init(firstSeen: first)
    lastNews = value["last_news"]?.integer ?? first
    if let key = value["key"]?.text {
      guard let bytes = Base64.decode(key), let key = Bytes32(bytes) else { return nil }
      pinnedKey = key
    }
    lastEndpoints = PeerRecord.endpoints(value["last_endpoints"], limit: PeerBook.mostEndpoints)
    record = value["record"].flatMap { PeerRecord($0, node: node) }
    isRelay = value["relay"]?.isTrue ?? false
  }
}

extension PeerRecord {
  fileprivate var encoded: JSONValue {
    var members: [String: JSONValue] = [
      "public": .bool(isPublic), "networks": .list(networks.map { .whole($0) }), "fetched": .integer(fetched),
    ]
    if let publicKey { members["public_key"] = .text(Base64.encode(publicKey.bytes)) }
    if let hostname { members["hostname"] = .text(hostname) }
    if !tags.isEmpty { members["tags"] = .list(of: tags) }
    if let version { members["version"] = .text(version) }
    if !endpoints.isEmpty { members["endpoints"] = .list(of: endpoints.map(\.description)) }
    if isRelayOnly { members["relay_only"] = .bool(true) }
    if let lastSeen { members["last_seen"] = .integer(lastSeen) }
    return .object(members)
  }

  fileprivate init?(_ value: JSONValue, node: UInt32) {
    guard case .object = value else { return nil }
    self.init(node: node, isPublic: value["public"]?.isTrue ?? false)
    publicKey = value["public_key"]?.text.flatMap { Base64.decode($0) }.flatMap { Bytes32($0) }
    hostname = value["hostname"]?.text.flatMap { HostnameRule.normalize($0) }
    networks = (value["networks"]?.list ?? []).prefix(256).compactMap(\.port16)
    tags = (value["tags"]?.list ?? []).prefix(16).compactMap(\.text)
    version = value["version"]?.text
    endpoints = Self.endpoints(value["endpoints"], limit: 17)
    isRelayOnly = value["relay_only"]?.isTrue ?? false
    lastSeen = value["last_seen"]?.integer
    fetched = value["fetched"]?.integer ?? 0
  }

  fileprivate static func endpoints(_ value: JSONValue?, limit: Int) -> [Endpoint] {
    (value?.list ?? []).prefix(limit).compactMap { $0.text.flatMap { Endpoint($0) } }
  }
}
