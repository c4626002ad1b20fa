// Questions to the directory: a node's record, a name's node. Cached, coalesced, answered from the state directory
// while the registry is away.

import Wire

/// An answer and how long it holds.
struct Cached<Value: Sendable>: Sendable {
  var value: Value
  var fetched: ContinuousClock.Instant
  var expires: ContinuousClock.Instant
}

/// How many questions may wait for the registry, and how many answers are kept: a program that scans the overlay
/// must not fill the memory.
private let mostInFlight = 256
private let mostCached = 8192
/// A known peer is answered from the state directory when the registry takes longer than this.
private let patience = Duration.seconds(2)

extension Directory {
  /// Key, name, networks, endpoints of a node; nil when the registry knows none, or is away and nothing is stored.
  /// `fresh` asks again although an answer is at hand (but for one of the last second).
  package func record(of node: UInt32, fresh: Bool = false) async -> PeerRecord? {
    await lookUp(node, fresh: fresh).record
  }

  /// As `record(of:fresh:)`, with the difference between "no such node" and "cannot know".
  package func lookUp(_ node: UInt32, fresh: Bool = false) async -> RecordResult {
    guard node != 0, node != PilotAddress.broadcastNode else { return .notFound }
    if let known = records[node], known.expires > .now {
      let isYoung = ContinuousClock.now - known.fetched < .seconds(1)
      if !fresh || isYoung || known.value == .notFound { return known.value }
    }
    guard state.isConnected, let me = signer else { return stored(node) }
    let task: Task<RecordResult, Never>
    if let running = recordsInFlight[node] {
      task = running
    } else {
      guard recordsInFlight.count < mostInFlight else { return stored(node) }
      task = Task { await fetch(node, as: me) }
      recordsInFlight[node] = task
    }
    guard store.record(of: node) != nil else { return await task.value }
    return await Self.value(of: task, within: patience) ?? stored(node)
  }

  /// The node that has this name (a hostname without `.pilot`).
  package func node(named text: String) async -> NameResult {
    guard let name = HostnameRule.normalize(text) else { return .notFound }
    if name == hostname, let node {
      return .found(
        node: node, address: PilotAddress(network: 0, node: node), lastSeen: NodeStore.unixTime(), fromCache: false)
    }
    if let known = names[name], known.expires > .now, isStillKnown(known.value, as: name) { return known.value }
    guard state.isConnected, signer != nil else { return stored(name) }
    let task: Task<NameResult, Never>
    if let running = namesInFlight[name] {
      task = running
    } else {
      guard namesInFlight.count < mostInFlight else { return stored(name) }
      task = Task { await fetch(name) }
      namesInFlight[name] = task
    }
    guard store.node(named: name) != nil else { return await task.value }
    return await Self.value(of: task, within: patience) ?? stored(name)
  }

  /// The hostname of a node, for reverse lookups and lists.
  package func name(of node: UInt32) async -> String? {
    if node == self.node { return hostname }
    return await record(of: node)?.hostname
  }

  /// Forgets what was asked, not what is stored: after the network changed, or trust.
  package func recordsExpire() {
    records.removeAll()
    names.removeAll()
  }

  // MARK: Asking

  private func fetch(_ node: UInt32, as me: RegistrySigner) async -> RecordResult {
    async let lookup = Self.attempt { () throws(DirectoryError) in try await self.client.lookup(node) }
    async let resolve = Self.attempt { () throws(DirectoryError) in try await self.client.resolve(node, as: me) }
    let answers = await (lookup, resolve)
    defer { recordsInFlight[node] = nil }
    let before = records[node]?.value.record ?? store.record(of: node)
    var record: PeerRecord
    switch answers.0 {
    case .success(let found): record = found
    case .failure(let error):
      guard error.reason == .notFound else { return stored(node) }
      keep(.notFound, of: node)
      return .notFound
    }
    switch answers.1 {
    case .success(let way):
      record.isRelayOnly = way.isRelayOnly
      // For a relay-only node the registry names the beacon, which is no endpoint of the peer.
      record.endpoints = way.isRelayOnly ? [] : (way.endpoint.map { [$0] } ?? []) + way.lanEndpoints
    case .failure(let error):
      let isForgotten = error.message.contains("node \(me.node)") && error.reason == .notFound
      if isForgotten || error.message.contains("signature verification failed") { registerAgain() }
      if error.isTransient || isForgotten {
        record.endpoints = before?.endpoints ?? []
        record.isRelayOnly = before?.isRelayOnly ?? false
      } else {
        record.isEndpointRefused = true
      }
    }
    record.fetched = NodeStore.unixTime()
    keep(.found(record), of: node)
    store.note(record)
    if before.map({ !$0.saysTheSame(as: record) }) ?? true {
      publish.yield(.peerRecordChanged(record))
      tellOfTrust(with: node)
    }
    return .found(record)
  }

  private func fetch(_ name: String) async -> NameResult {
    let answer = await resolveName(name)
    defer { namesInFlight[name] = nil }
    let result: NameResult
    switch answer {
    case .success(let found):
      result = .found(
        node: found.node, address: PilotAddress(network: 0, node: found.node), lastSeen: found.lastSeen,
        fromCache: false)
      rememberName(name, of: found)
    case .failure(let error):
      guard error.reason == .notFound else { return stored(name) }
      if let trusted = await trustedNode(named: name) {
        result = trusted
      } else {
        store.forget(name: name)
        result = .notFound
      }
    }
    keep(result, of: name)
    return result
  }

  private func resolveName(_ name: String) async -> Result<ResolvedName, DirectoryError> {
    let me = await client.givesNonces ? signer : nil
    return await Self.attempt { () throws(DirectoryError) in
      try await self.client.resolveHostname(name, as: me)
    }
  }

  /// Official registries never resolve the name of a private node, but show it in `lookup`: a peer that we trust and
  /// that was called so before is asked for its present name.
  private func trustedNode(named name: String) async -> NameResult? {
    guard let node = store.node(named: name), store.isTrusted(node) else { return nil }
    guard let record = await record(of: node), record.hostname == name, !record.isFromStore else { return nil }
    return .found(node: node, address: record.address, lastSeen: record.lastSeen, fromCache: false)
  }

  /// Whether no newer news contradicts an answer at hand: a node that is seen under another name may have given this one
  /// up, or taken it back. Then the registry is asked, and what it says is what is stored.
  private func isStillKnown(_ answer: NameResult, as name: String) -> Bool {
    guard case .found(let node, _, _, _) = answer else { return true }
    return store.node(named: name) == node
  }

  /// The name works after a restart without the registry as well.
  private func rememberName(_ name: String, of found: ResolvedName) {
    guard store.node(named: name) != found.node else { return }
    // Its record at hand has another name, or none.
    records[found.node]?.expires = .now
    var record = store.record(of: found.node) ?? PeerRecord(node: found.node)
    record.hostname = name
    record.lastSeen = found.lastSeen ?? record.lastSeen
    store.note(record)
  }

  // MARK: Answers at hand

  private func stored(_ node: UInt32) -> RecordResult {
    store.record(of: node).map { .found($0) } ?? .unavailable
  }

  private func stored(_ name: String) -> NameResult {
    guard let node = store.node(named: name) else { return .unavailable }
    return .found(
      node: node, address: PilotAddress(network: 0, node: node), lastSeen: store.record(of: node)?.lastSeen,
      fromCache: true)
  }

  private func keep(_ result: RecordResult, of node: UInt32) {
    if records.count >= mostCached { records = records.filter { $0.value.expires > .now } }
    if records.count >= mostCached { records.removeAll() }
    let life = result == .notFound ? timing.negativeLife : timing.positiveLife
    records[node] = Cached(value: result, fetched: .now, expires: .now + life)
  }

  private func keep(_ result: NameResult, of name: String) {
    if names.count >= mostCached { names = names.filter { $0.value.expires > .now } }
    if names.count >= mostCached { names.removeAll() }
    let life = result == .notFound ? timing.negativeLife : timing.positiveLife
    names[name] = Cached(value: result, fetched: .now, expires: .now + life)
  }

  /// A typed error as a value, for `async let`.
  private static func attempt<Value: Sendable>(
    _ body: @Sendable () async throws(DirectoryError) -> Value
  ) async -> Result<Value, DirectoryError> {
    do throws(DirectoryError) {
      return .success(try await body())
    } catch {
      return .failure(error)
    }
  }

  /// The task's value, or nil when it takes longer. The task goes on: its answer serves the next question.
  static func value<Value: Sendable>(of task: Task<Value, Never>, within limit: Duration) async -> Value? {
    let (answers, answer) = AsyncStream<Value>.makeStream()
    let waiter = Task {
      answer.yield(await task.value)
      answer.finish()
    }
    let timer = Task {
      guard (try? await Task.sleep(for: limit)) != nil else { return }
      answer.finish()
    }
    defer {
      waiter.cancel()
      timer.cancel()
    }
    for await value in answers { return value }
    return nil
  }
}
