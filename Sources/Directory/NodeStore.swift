// The state directory of a node: identity, pins, last known peers, trust. Opened once at start by TunControl; shared
// by Directory and the node. What the files hold: IdentityFile, PeerBook, TrustBook.

import Glibc
import JSON
package import Logging
import NIOPosix
package import Session
import Synchronization
package import Wire

/// State on disk, with the whole of it in memory. Reads are cheap; changes are saved by `run`, at least
/// `saveInterval` apart, and by `flush`.
package final class NodeStore: Sendable {
  package let directory: String
  /// The node's key; another one after `replaceIdentity`.
  package var identity: Identity { key.withLock { $0 } }
  /// What went wrong with cache files at start, for `status`. Also logged.
  package let warnings: [String]

  fileprivate struct State: Sendable {
    var peers = PeerBook()
    var trust = TrustBook()
    var own: OwnRegistration?
    var lifetimes = MappingLifetimes()
    var isPeersDirty = false
    var isTrustDirty = false
  }

  private let key: Mutex<Identity>
  private let lock: StateLock
  private let logger: Logger
  private let state: Mutex<State>
  /// Held while files are written: two flushes must not share a temporary file.
  private let writing = Mutex<Void>(())
  private let changes: AsyncStream<Void>
  private let changed: AsyncStream<Void>.Continuation

  /// Opens the state directory; makes it (0700) and the identity where they are missing.
  package init(directory: String, logger: Logger) throws(DirectoryError) {
    self.directory = directory
    self.logger = logger
    do {
      try StateFile.makeDirectory(directory)
    } catch {
      throw Self.unavailable(error)
    }
    lock = try StateLock(directory: directory)
    for name in ["identity.json", "peers.json", "trust.json"] { StateFile.removeLeftover(of: directory + "/" + name) }
    key = Mutex(try IdentityFile.loadOrCreate(directory + "/identity.json"))
    var state = State()
    var warnings: [String] = []
    let loaded = try Self.load(directory + "/peers.json", "pinned keys and last known peers", &warnings) { value in
      PeerBook(value).map { ($0, OwnRegistration(value["self"]), MappingLifetimes(value["nat"])) }
    }
    if let loaded { (state.peers, state.own, state.lifetimes) = loaded }
    let trust = try Self.load(directory + "/trust.json", "trust", &warnings) { TrustBook($0) }
    if let trust { state.trust = trust }
    for warning in warnings { logger.warning("\(warning)") }
    self.warnings = warnings
    self.state = Mutex(state)
    (changes, changed) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
  }

  /// Largest cache file taken: 100,000 peers with everything known fit.
  private static let largestFile = 256 << 20

  private static func load<Value>(
    _ path: String, _ what: String, _ warnings: inout [String], _ make: (JSONValue) -> Value?
  ) throws(DirectoryError) -> Value? {
    let content: StateFileContent
    do {
      content = try StateFile.read(path, limit: largestFile)
    } catch {
      if error.isMissing { return nil }
      throw unavailable(error)
    }
    if let value = try? JSONValue(parsing: content.bytes), let made = make(value) { return made }
    let target = StateFile.moveAside(path, time: unixTime())
    warnings.append(
      "\(path) (\(what)) is damaged and starts empty; \(target.map { "the old file is \($0)" } ?? "it is replaced")")
    return nil
  }

  static func unavailable(_ error: StateFileError) -> DirectoryError {
    DirectoryError(
      .stateDirectoryUnavailable, "the state directory cannot be used: \(error.text)",
      hint: "give --state-dir a directory that this user may write, with free space")
  }

  /// Saves and gives the state directory free for another node; what changes afterwards is not saved. Without it the
  /// lock ends with the last reference, or with the process.
  package func close() {
    flush()
    lock.release()
  }

  /// Wall clock, seconds.
  package static func unixTime() -> Int64 { Int64(Glibc.time(nil)) }
}

/// What the registry called this node last; lets a node start while its registry is away.
package struct OwnRegistration: Sendable, Equatable {
  /// `host:port` of the registry that said so.
  package var registry: String
  package var node: UInt32
  package var networks: [UInt16]

  package init(registry: String, node: UInt32, networks: [UInt16]) {
    self.registry = registry
    self.node = node
    self.networks = networks
  }

  fileprivate init?(_ value: JSONValue?) {
    guard let value, let registry = value["registry"]?.text, let node = value["node_id"]?.node else { return nil }
    self.init(
      registry: registry, node: node, networks: (value["networks"]?.list ?? []).prefix(256).compactMap(\.port16))
  }

  fileprivate var encoded: JSONValue {
    .object(["registry": .text(registry), "node_id": .whole(node), "networks": .list(networks.map { .whole($0) })])
  }
}

// MARK: - Another key

extension NodeStore {
  /// Beside identity.json while the registry is asked to take it: whatever happens, no key is lost.
  private var nextIdentityPath: String { directory + "/identity-next.json" }

  func keepNextIdentity(_ identity: Identity) throws(DirectoryError) {
    try IdentityFile.save(identity, to: nextIdentityPath, replaces: true)
  }

  func dropNextIdentity() { unlink(nextIdentityPath) }

  /// The registry has taken the key: from here on the node is known by it.
  func replaceIdentity(_ identity: Identity) throws(DirectoryError) {
    key.withLock { $0 = identity }
    try IdentityFile.save(identity, to: directory + "/identity.json", replaces: true)
    dropNextIdentity()
  }
}

// MARK: - Pins

extension NodeStore {
  /// Checks the key against the pinned one; pins it at first contact. Call it with a key that proved itself.
  package func pin(node: UInt32, key: Bytes32) -> PinVerdict {
    let verdict = state.withLock { state -> PinVerdict in
      if let pinned = state.peers.entry(node)?.pinnedKey { return pinned == key ? .same : .changed(pinned: pinned) }
      state.change(node) { $0.pinnedKey = key }
      return .new
    }
    if verdict == .new { changed.yield() }
    return verdict
  }

  package func pinnedKey(node: UInt32) -> Bytes32? { state.withLock { $0.peers.entry(node)?.pinnedKey } }

  /// The operator accepts that the peer's key changed: the next key that the directory names and the peer proves is
  /// pinned. Returns whether there was a pin.
  @discardableResult
  package func acceptKey(node: UInt32) -> Bool {
    let had = state.withLock { state in
      guard state.peers.entry(node)?.pinnedKey != nil else { return false }
      state.change(node) { $0.pinnedKey = nil }
      return true
    }
    if had { changed.yield() }
    return had
  }
}

// MARK: - Peers

extension NodeStore {
  /// The registry's last word about the node, marked as stored.
  package func record(of node: UInt32) -> PeerRecord? {
    guard var record = state.withLock({ $0.peers.entry(node)?.record }) else { return nil }
    record.isFromStore = true
    return record
  }

  package func node(named name: String) -> UInt32? { state.withLock { $0.peers.node(named: name) } }

  /// Where the peer was reached before, newest first.
  package func lastEndpoints(of node: UInt32) -> [Endpoint] {
    state.withLock { $0.peers.entry(node)?.lastEndpoints ?? [] }
  }

  /// Keeps an endpoint that a frame of the peer proved.
  package func noteEndpoint(_ endpoint: Endpoint, of node: UInt32) {
    let isNews = state.withLock { state in
      guard state.peers.entry(node)?.lastEndpoints.first != endpoint else { return false }
      state.change(node) { entry in
        entry.lastEndpoints.removeAll { $0 == endpoint }
        entry.lastEndpoints.insert(endpoint, at: 0)
      }
      return true
    }
    if isNews { changed.yield() }
  }

  /// Keeps that the node relays for us, or does so no more.
  package func noteRelay(_ node: UInt32, _ isRelay: Bool) {
    let isNews = state.withLock { state in
      guard (state.peers.entry(node)?.isRelay ?? false) != isRelay else { return false }
      state.change(node) { $0.isRelay = isRelay }
      return true
    }
    if isNews { changed.yield() }
  }

  /// Trusted nodes that relayed for us when they were last heard, the latest first.
  package var relays: [UInt32] {
    state.withLock { state in
      let known = state.trust.trusted.keys.compactMap { node in
        state.peers.entry(node).flatMap { $0.isRelay ? (node: node, lastNews: $0.lastNews) : nil }
      }
      return known.sorted { ($0.lastNews, $0.node) > ($1.lastNews, $1.node) }.map(\.node)
    }
  }

  /// Keeps the registry's word. What it does not show now does not erase what it showed before: endpoints that it refuses,
  /// the name of a private node (to a connection that has not proven yet who asks). Whose name is gone says
  /// `forget(name:)`.
  package func note(_ record: PeerRecord) {
    state.withLock { state in
      state.change(record.node) { entry in
        var kept = record
        if record.isEndpointRefused, record.endpoints.isEmpty { kept.endpoints = entry.record?.endpoints ?? [] }
        if !record.isPublic, record.hostname == nil { kept.hostname = entry.record?.hostname }
        (kept.isEndpointRefused, kept.isFromStore) = (false, false)
        entry.record = kept
      }
    }
    changed.yield()
  }

  /// The registry gave the name to another node, or to none.
  func forget(name: String) {
    state.withLock { state in
      state.peers.forget(name: name)
      state.isPeersDirty = true
    }
    changed.yield()
  }

  /// Peers that were heard of, for `peers` and for a warm start.
  package var knownNodes: [UInt32] { state.withLock { Array($0.peers.entries.keys) } }

  package var ownRegistration: OwnRegistration? { state.withLock { $0.own } }

  func note(own: OwnRegistration) {
    let isNews = state.withLock { state in
      guard state.own != own else { return false }
      state.own = own
      state.isPeersDirty = true
      return true
    }
    if isNews { changed.yield() }
  }
}

// MARK: - NATs

extension NodeStore {
  /// How long the NAT with this outer address was found to keep mappings, in nanoseconds; nil: not known.
  package func mappingLifetime(behind outer: IPv6Address) -> UInt64? {
    state.withLock { $0.lifetimes.seconds[outer] }.map { $0 * 1_000_000_000 }
  }

  /// nil: what was found holds no more.
  package func note(mappingLifetime: UInt64?, behind outer: IPv6Address) {
    let isNews = state.withLock { state in
      let before = state.lifetimes
      state.lifetimes.set(mappingLifetime.map { $0 / 1_000_000_000 }, behind: outer)
      guard state.lifetimes != before else { return false }
      state.isPeersDirty = true
      return true
    }
    if isNews { changed.yield() }
  }
}

// MARK: - Trust

extension NodeStore {
  /// Reads the trust book.
  func trust<Value: Sendable>(_ read: (TrustBook) -> Value) -> Value { state.withLock { read($0.trust) } }

  /// Changes the trust book.
  func changeTrust<Value: Sendable>(_ change: (inout TrustBook) -> Value) -> Value {
    let value = state.withLock { state in
      let before = state.trust
      let value = change(&state.trust)
      if state.trust != before { state.isTrustDirty = true }
      return value
    }
    changed.yield()
    return value
  }

  /// Whether both ends agreed. Cheap; the node asks it for every handshake.
  package func isTrusted(_ node: UInt32) -> Bool { state.withLock { $0.trust.trusted[node] != nil } }

  /// Whether trust in the node, or what a shared network gave it, ended and did not begin again.
  package func wasTrusted(_ node: UInt32) -> Bool { state.withLock { $0.trust.former[node] != nil } }

  /// What a shared network gave the node ended. (The end of trust notes itself.)
  package func noteFormer(_ node: UInt32) { changeTrust { $0.noteFormer(node, now: Self.unixTime()) } }

  package var trustedNodes: [UInt32] { state.withLock { Array($0.trust.trusted.keys) } }
}

// MARK: - Saving

extension NodeStore {
  /// Saves changes until cancelled. After a save that took long (many peers, slow disk) the next waits longer, so
  /// that saving stays below a twentieth of the time. The last changes are saved by `flush`.
  package func run(saveInterval: Duration = .seconds(1)) async {
    for await _ in changes {
      let started = ContinuousClock.now
      await flushInBackground()
      try? await Task.sleep(for: max(saveInterval, (ContinuousClock.now - started) * 20))
      if Task.isCancelled { return }
    }
  }

  /// `flush` on a thread that may block.
  package func flushInBackground() async {
    do {
      try await NIOThreadPool.singleton.runIfActive { self.flush() }
    } catch {
      flush()
    }
  }

  /// Saves what changed. Errors are logged; the changes are tried again with the next save.
  package func flush() {
    writing.withLock { _ in
      guard lock.isHeld else { return }
      // A copy is taken (by reference until it changes) and encoded outside the lock: 100,000 peers take a while.
      let copy = state.withLock { state in
        defer { (state.isPeersDirty, state.isTrustDirty) = (false, false) }
        return state
      }
      if copy.isPeersDirty, !save(copy.encodedPeers, "peers.json") { state.withLock { $0.isPeersDirty = true } }
      if copy.isTrustDirty, !save(copy.trust.encoded, "trust.json") { state.withLock { $0.isTrustDirty = true } }
    }
  }

  private func save(_ value: JSONValue, _ name: String) -> Bool {
    do throws(StateFileError) {
      try StateFile.write(value.encoded + [UInt8(ascii: "\n")], to: directory + "/" + name)
      return true
    } catch {
      logger.error("\(name) could not be saved: \(error.text)")
      return false
    }
  }
}

extension NodeStore.State {
  fileprivate mutating func change(_ node: UInt32, _ change: (inout PeerEntry) -> Void) {
    peers.update(node, now: NodeStore.unixTime(), keeps: { Set(trust.trusted.keys) }, change)
    isPeersDirty = true
  }

  fileprivate var encodedPeers: JSONValue {
    guard case .object(var members) = peers.encoded else { return peers.encoded }
    if let own { members["self"] = own.encoded }
    if !lifetimes.seconds.isEmpty { members["nat"] = lifetimes.encoded }
    return .object(members)
  }
}
