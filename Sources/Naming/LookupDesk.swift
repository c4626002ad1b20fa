// Between the sockets and the directory: limits, lookups under way, deadlines, counting. One per StubServer, shared by
// its UDP and TCP handlers; safe to use from any event loop.
import NIOCore
import Synchronization
import Wire

/// Takes queries, gives responses. Whatever happens, each query ends in exactly one call of its `reply`.
final class LookupDesk: Sendable {
  /// Why a query got no response.
  enum Outcome: Sendable {
    case response(NameAnswerer.Response)
    /// Not answered, on purpose. The reason has been counted.
    case dropped
  }

  private struct State {
    var limiter: QueryLimiter
    var clients: LocalClients
    var nextID: UInt64 = 0
    var isClosed = false
    /// Lookups under way. A slot is free again only when its task has ended, so that a source that ignores
    /// cancellation cannot pile up work.
    var tasks: [UInt64: Task<Void, Never>?] = [:]
  }

  let counters: NamingCounters
  private let source: any NameSource
  private let maximumLookups: Int
  private let timeout: TimeAmount
  private let clock: @Sendable () -> UInt64
  private let state: Mutex<State>

  init(
    source: any NameSource, limiter: QueryLimiter, clients: LocalClients, maximumLookups: Int, timeout: TimeAmount,
    counters: NamingCounters, clock: @escaping @Sendable () -> UInt64
  ) {
    self.source = source
    self.maximumLookups = maximumLookups
    self.timeout = timeout
    self.counters = counters
    self.clock = clock
    self.state = Mutex(State(limiter: limiter, clients: clients))
  }

  /// Answers one query.
  ///
  /// - Parameters:
  ///   - sender: whose allowance pays for it; nobody is answered whose address cannot be told.
  ///   - reply: called exactly once on `loop`, perhaps before this returns. Call from `loop`.
  func take(
    _ bytes: [UInt8], by transport: NameAnswerer.Transport, from sender: IPv6Address?, on loop: any EventLoop,
    reply: @escaping @Sendable (Outcome) -> Void
  ) {
    switch transport {
    case .udp: counters.add(.queriesUDP)
    case .tcp: counters.add(.queriesTCP)
    }
    guard let sender, isLocal(sender) else { return drop(.droppedForeign, reply) }
    let now = clock()
    if !state.withLock({ $0.limiter.admits(sender, now: now) }) {
      return drop(.droppedRateLimit, reply)
    }
    switch NameAnswerer.begin(bytes, by: transport) {
    case .drop: drop(.droppedNotQuery, reply)
    case .respond(let response): finish(response, reply)
    case .lookUp(let pending): lookUp(pending, on: loop, reply: reply)
    }
  }

  /// Whether a program of this machine asks from this address.
  func isLocal(_ address: IPv6Address) -> Bool {
    let now = clock()
    return state.withLock { $0.clients.contains(address, now: now) }
  }

  private func lookUp(
    _ pending: NameAnswerer.Pending, on loop: any EventLoop, reply: @escaping @Sendable (Outcome) -> Void
  ) {
    let id: UInt64? = state.withLock { state in
      guard !state.isClosed, state.tasks.count < maximumLookups else { return nil }
      state.nextID &+= 1
      state.tasks[state.nextID] = .some(nil)
      return state.nextID
    }
    guard let id else { return drop(.droppedBusy, reply) }

    // Whoever comes first, the source or the deadline, settles it.
    let promise = loop.makePromise(of: NameAnswerer.Response.self)
    let settlement = Settlement()
    let deadline = loop.scheduleTask(in: timeout) { [self] in
      guard settlement.claim() else { return }
      counters.add(.lookupTimeouts)
      cancel(id)
      promise.succeed(NameAnswerer.giveUp(pending))
    }
    let task = Task { [self] in
      let response: NameAnswerer.Response
      let isFound: Bool
      switch pending.need {
      case .address(let name, let group):
        let answer =
          if let group { await source.address(of: name, in: group) } else { await source.address(of: name) }
        if case .found = answer { isFound = true } else { isFound = false }
        response = NameAnswerer.finish(pending, answer)
      case .name(let address):
        let answer = await source.name(of: address)
        if case .found = answer { isFound = true } else { isFound = false }
        response = NameAnswerer.finish(pending, answer)
      }
      if isFound, response.code == .serverFailure { counters.add(.lookupInvalid) }
      // The slot first: whoever got an answer may ask again at once.
      state.withLock { _ = $0.tasks.removeValue(forKey: id) }
      if settlement.claim() { promise.succeed(response) }
    }
    let isClosed = state.withLock { state in
      // The task may have ended already; then its slot is gone and must stay so.
      if state.tasks[id] != nil { state.tasks[id] = task }
      return state.isClosed
    }
    if isClosed { task.cancel() }
    promise.futureResult.whenSuccess { [self] response in
      deadline.cancel()
      finish(response, reply)
    }
  }

  private func cancel(_ id: UInt64) {
    state.withLock { $0.tasks[id] ?? nil }?.cancel()
  }

  private func finish(_ response: NameAnswerer.Response, _ reply: @Sendable (Outcome) -> Void) {
    counters.add(response.counter)
    if response.isTruncated { counters.add(.answersTruncated) }
    reply(.response(response))
  }

  private func drop(_ reason: NamingCounter, _ reply: @Sendable (Outcome) -> Void) {
    counters.add(reason)
    reply(.dropped)
  }

  /// Takes no more lookups and cancels those under way.
  func close() {
    let tasks = state.withLock { state in
      state.isClosed = true
      return state.tasks.values.compactMap { $0 }
    }
    for task in tasks { task.cancel() }
  }
}

/// The right to keep a promise: the first to claim it has it.
private final class Settlement: Sendable {
  private let isClaimed = Atomic(false)

  func claim() -> Bool { !isClaimed.exchange(true, ordering: .acquiringAndReleasing) }
}
