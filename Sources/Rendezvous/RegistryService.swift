// The registry itself: takes one request of one client, answers it once, after whatever it changed is on disk.
// RegistryConnection calls `answer`; the requests are in the extensions.

import JSON
import Logging
import NIOCore
import Synchronization
import Wire

/// What a request led to, given to the client when it is durable.
struct Reply: Sendable {
  var value: JSONValue
  /// Nodes to be told by the beacon that their inbox has something.
  var notify: [UInt32] = []

  /// A success: the type is the request's with `_ok` appended.
  static func ok(_ request: String, _ members: [(String, JSONValue)] = [], notify: [UInt32] = []) -> Reply {
    Reply(value: .object(of: [("type", .text(request + "_ok"))] + members), notify: notify)
  }
}

final class RegistryService: Sendable {
  typealias Completion = @Sendable (JSONValue) -> Void

  let configuration: RendezvousConfiguration
  let counters: Counters
  let logger: Logger
  let table: BeaconTable
  let admission: ClientAdmission
  let presence = Presence()
  let compat = CompatClients()
  private let state: Mutex<RegistryState>
  private let store: RegistryStore
  private let settled: Mutex<StoreWriter?>
  private let notifier: Mutex<(@Sendable (UInt32) -> Void)?>
  /// Set while the stored state could not be read back after a failed commit.
  private let isBroken = Mutex(false)
  let newKeys: RateLimiter<IPv6Address>
  let lookups: RateLimiter<IPv6Address>
  let requests: RateLimiter<IPv6Address>
  let handshakeRequests: RateLimiter<IPv6Address>
  /// Nodes told lately to register again because they moved.
  let moves = RateLimiter<UInt32>(perSecond: 1.0 / 30, burst: 1)
  /// The port others find our beacon at.
  let beaconPort: UInt16
  let startedAt: Int64

  init(
    _ configuration: RendezvousConfiguration, store: RegistryStore, table: BeaconTable, admission: ClientAdmission,
    beaconPort: UInt16, counters: Counters, logger: Logger
  ) throws {
    self.configuration = configuration
    self.store = store
    self.table = table
    self.admission = admission
    self.beaconPort = beaconPort
    self.counters = counters
    self.logger = logger
    let limits = configuration.limits
    newKeys = RateLimiter(perSecond: limits.newKeysPerSecond, burst: limits.newKeysBurst)
    lookups = RateLimiter(perSecond: limits.lookupsPerSecond)
    requests = RateLimiter(perSecond: limits.requestsPerSecond)
    handshakeRequests = RateLimiter(
      perSecond: limits.handshakeRequestsPerMinute / 60, burst: limits.handshakeRequestsPerMinute)
    startedAt = configuration.clock()
    state = Mutex(RegistryState(configuration, stored: try store.load(), exceptions: store.exceptions))
    settled = Mutex(nil)
    notifier = Mutex(nil)
    let writer = StoreWriter(
      commit: { [store, counters] changes in
        try store.apply(changes)
        counters.add(.commits)
      },
      recover: { [weak self] error, drop in self?.recover(error, drop) })
    settled.withLock { $0 = writer }
    try ensureNetworks()
  }

  var now: Int64 { configuration.clock() }

  func setNotifier(_ notify: @escaping @Sendable (UInt32) -> Void) { notifier.withLock { $0 = notify } }

  // MARK: State

  /// For questions whose answers need not wait for the disk.
  func read<Value>(_ body: (RegistryState) throws(RequestError) -> Value) throws(RequestError) -> Value {
    try state.withLock { state throws(RequestError) in try body(state) }
  }

  /// Runs `body` under the lock and completes with its reply when all it saw and changed is durable.
  func perform(
    _ completion: @escaping Completion, _ body: (inout RegistryState) throws(RequestError) -> Reply
  ) {
    guard !isBroken.withLock({ $0 }) else { return finish(.failure(.storageFailed), completion) }
    var immediate: Result<Reply, RequestError>?
    state.withLock { state in
      let result: Result<Reply, RequestError>
      do throws(RequestError) {
        result = .success(try body(&state))
      } catch {
        result = .failure(error)
      }
      let changes = state.takeChanges()
      guard let writer = settled.withLock({ $0 }) else {
        immediate = .failure(.storageFailed)
        return
      }
      if changes.isEmpty && writer.isSettled {
        immediate = result
      } else {
        writer.submit(changes) { isCommitted in
          self.finish(isCommitted ? result : .failure(.storageFailed), completion)
        }
      }
    }
    if let immediate { finish(immediate, completion) }
  }

  /// For changes that live in memory only.
  func performSoft(
    _ completion: @escaping Completion, _ body: (inout RegistryState) throws(RequestError) -> Reply
  ) {
    let result: Result<Reply, RequestError> = state.withLock { state in
      do throws(RequestError) {
        return .success(try body(&state))
      } catch {
        return .failure(error)
      }
    }
    finish(result, completion)
  }

  func finish(_ result: Result<Reply, RequestError>, _ completion: Completion) {
    switch result {
    case .success(let reply):
      completion(reply.value)
      if !reply.notify.isEmpty, let notify = notifier.withLock({ $0 }) { reply.notify.forEach(notify) }
    case .failure(let error):
      counters.add(.requestsRefused)
      completion(error.reply)
    }
  }

  // MARK: Life

  private func ensureNetworks() throws {
    let now = now
    try state.withLock { state in
      for network in configuration.networks { try state.ensure(network, now: now) }
      let changes = state.takeChanges()
      if !changes.isEmpty { try store.apply(changes) }
      // Nodes name a network by its number, which is given here.
      for configured in configuration.networks {
        guard let network = state.networks.values.first(where: { $0.name == configured.name }) else { continue }
        logger.info(
          "network",
          metadata: ["number": "\(network.id)", "name": "\(network.name)", "rule": "\(network.rule.rawValue)"])
      }
    }
  }

  /// Writes down when nodes were last heard of. Called once in a while, and at the end.
  func flushSeen() {
    if isBroken.withLock({ $0 }) { recover(RequestError.storageFailed, {}) }
    state.withLock { state in
      let changes = state.takeSeen()
      if !changes.isEmpty { settled.withLock { $0 }?.submit(changes, nil) }
    }
  }

  var liveNodes: (live: Int, known: Int) {
    let now = now
    return state.withLock { ($0.liveCount(now: now), $0.nodes.count) }
  }

  /// Brings memory back to what is stored, as the changes that failed are in memory only.
  private func recover(_ error: any Error, _ drop: () -> Void) {
    counters.add(.commitsFailed)
    logger.error("cannot write the database", metadata: ["error": "\(error)"])
    state.withLock { state in
      drop()
      do {
        let lastSeen = state.nodes.mapValues(\.lastSeen)
        state = RegistryState(configuration, stored: try store.load(), exceptions: store.exceptions)
        for (id, time) in lastSeen { state.touch(id, now: time) }
        isBroken.withLock { $0 = false }
      } catch {
        isBroken.withLock { $0 = true }
        logger.critical("cannot read the database back", metadata: ["error": "\(error)"])
      }
    }
  }

  func close() async {
    flushSeen()
    notifier.withLock { $0 = nil }
    let writer = settled.withLock { writer in
      defer { writer = nil }
      return writer
    }
    await writer?.close()
    store.close()
  }
}
