// The long-running part of Directory: connect, register, stay registered, come back (wire/registry §4).

import Logging
import NIOCore
import Wire

/// Small requests after a registration, sent a few at a time: registries close connections that ask too fast
/// (wire/registry §1.3).
enum Chore: Hashable, Sendable {
  case reportTrust(UInt32)
  case revokeTrust(UInt32)
  case requestHandshake(UInt32)
  /// Answers a request that came through the registry and was accepted already.
  case acceptHandshake(UInt32)
  /// Asks a peer that asked us: it learns by that that it is trusted.
  case remindOfTrust(UInt32)
  case checkTrust(UInt32)

  /// Whether it says something about trust in this node: what was decided anew makes it void.
  func isAboutTrust(of node: UInt32) -> Bool {
    switch self {
    case .reportTrust(node), .revokeTrust(node), .requestHandshake(node), .acceptHandshake(node),
      .remindOfTrust(node), .checkTrust(node):
      true
    default: false
    }
  }
}

extension Directory {
  /// Runs until the task is cancelled. Saves the state files on the way and at the end.
  package func run() async {
    _ = remembered()
    await withTaskGroup(of: Void.self) { group in
      group.addTask { await self.store.run(saveInterval: self.configuration.timing.saveInterval) }
      group.addTask { for await _ in self.client.closes { await self.wake() } }
      await withTaskCancellationHandler {
        await serve()
      } onCancel: {
        // Ends a dial or a call that would otherwise take its whole timeout.
        Task { await self.client.shutdown() }
      }
      group.cancelAll()
      await client.shutdown()
    }
    await store.flushInBackground()
    publish.finish()
  }

  /// Until the registry answers, the node is what it was at its end: own id and networks, or nil when it has none yet.
  package func remembered() -> (node: UInt32, networks: [UInt16])? {
    guard registeredOn == nil, let own = store.ownRegistration, own.registry == registryName else { return nil }
    node = own.node
    networks = Set(own.networks).union([0]).sorted()
    return (own.node, networks)
  }

  private func serve() async {
    var failures = 0
    var downSince: ContinuousClock.Instant?
    while !Task.isCancelled {
      var registered: ContinuousClock.Instant?
      do throws(DirectoryError) {
        try await client.connect()
        try await register()
        registered = .now
        downSince = nil
        setState(.connected(since: .now))
        logger.info("registered", metadata: ["node": "\(node ?? 0)", "registry": "\(registryName)"])
        try await keepUp()
      } catch {
        if Task.isCancelled { return }
        let lived = registered.map { ContinuousClock.now - $0 } ?? .zero
        failures = lived > .seconds(10) ? 0 : failures + 1
        // A connection that was fine for a while and closed silently is no outage: dial again at once.
        if failures == 0 {
          await sleep(for: .milliseconds(Int.random(in: 20...120)))
          continue
        }
        let isLong = downSince.map { .now - $0 > timing.longOutage } ?? false
        let wait = redialDelay(failures: failures, isLong: isLong, after: error)
        if downSince == nil {
          downSince = .now
          logger.warning("registry unreachable", error: error, metadata: ["registry": "\(registryName)"])
          announceRememberedAddress()
        }
        if failures == 1 { recordsExpire() }
        setState(.unreachable(since: downSince ?? .now, reason: error, nextTry: .now + wait))
        await waitToRedial(wait)
      }
    }
  }

  /// Doubles from `firstRedial` to `longestRedial`, each between half and the whole of it; later to `laterRedial`.
  private func redialDelay(failures: Int, isLong: Bool, after error: DirectoryError) -> Duration {
    let isRefused = error.reason == .registryRefused || error.reason == .registryBusy
    let longest = isRefused ? timing.longestRefusedWait : isLong ? timing.laterRedial : timing.longestRedial
    let base = min(longest, timing.firstRedial * (isRefused ? 4 : 1) * (1 << min(failures - 1, 10)))
    return base * Double.random(in: 0.5...1)
  }

  /// The node starts while its registry is away: the address of the last run holds.
  private func announceRememberedAddress() {
    guard let node, registeredOn == nil else { return }
    publish.yield(.registered(node: node, address: PilotAddress(network: 0, node: node), networks: networks))
  }

  // MARK: Registration

  /// Registers and brings back everything that a registry without state would miss.
  private func register() async throws(DirectoryError) {
    wantsRegistration = false
    failedHeartbeats = 0
    let link = await client.connectionNumber
    let answer = try await client.register(registration(), identity: identity)
    let me = RegistrySigner(node: answer.node, identity: identity)
    if let node, node != answer.node {
      logger.warning("the registry gave this node another id", metadata: ["old": "\(node)", "new": "\(answer.node)"])
      records.removeAll()
      names.removeAll()
    }
    node = answer.node
    observedEndpoint = answer.observed
    try await tolerating("set_visibility") { () throws(DirectoryError) in
      try await client.setVisibility(isPublic: isPublic, as: me)
    }
    try await claimHostname(as: me)
    if !tags.isEmpty {
      try await tolerating("set_tags") { () throws(DirectoryError) in try await client.setTags(tags, as: me) }
    }
    networks = try await joinNetworks(as: me)
    registeredOn = link
    store.note(own: OwnRegistration(registry: registryName, node: answer.node, networks: networks))
    publish.yield(.registered(node: answer.node, address: answer.address, networks: networks))
    let trust = store.trust { $0 }
    chores =
      trust.revoked.map { .revokeTrust($0) } + trust.trusted.keys.map { .reportTrust($0) }
      + trust.outgoing.filter { $0.value.isRelayed }.keys.map { .requestHandshake($0) }
    unreported = []
    reportWait = .seconds(1)
    nextPoll = .now
  }

  /// A refused name leaves the registration as it is; it is asked for again with each heartbeat.
  private func claimHostname(as me: RegistrySigner) async throws(DirectoryError) {
    guard let wanted = wantedHostname else { return }
    do {
      hostname = try await client.setHostname(wanted.lowercased(), as: me)
      hostnameProblem = nil
    } catch {
      if error.isTransient { throw error }
      if hostnameProblem != error {
        logger.warning("hostname refused", error: error, metadata: ["hostname": "\(wanted)"])
      }
      hostnameProblem = error
      hostname = nil
    }
  }

  private func joinNetworks(as me: RegistrySigner) async throws(DirectoryError) -> [UInt16] {
    var joined: Set<UInt16> = [0]
    var known = false
    try await tolerating("lookup") { () throws(DirectoryError) in
      joined.formUnion(try await client.lookup(me.node).networks)
      known = true
    }
    // A registry that does not tell keeps what we were in.
    if !known { joined.formUnion(networks) }
    for network in memberships where network.id != 0 && !(known && joined.contains(network.id)) {
      do {
        _ = try await client.joinNetwork(network, as: me)
        joined.insert(network.id)
        networkProblems[network.id] = nil
      } catch {
        if error.isTransient { throw error }
        if error.message.contains("already") {
          joined.insert(network.id)
        } else {
          if networkProblems[network.id] != error {
            logger.warning("network not joined", error: error, metadata: ["network": "\(network.id)"])
          }
          networkProblems[network.id] = error
          joined.remove(network.id)
        }
      }
    }
    return joined.sorted()
  }

  /// Runs a request that a registry may lack or refuse: that is logged and nothing else. A lost connection is thrown.
  func tolerating(
    _ operation: String, _ body: () async throws(DirectoryError) -> Void
  ) async throws(DirectoryError) {
    do {
      try await body()
    } catch {
      if error.reason == .registryUnreachable || error.reason == .badReply { throw error }
      logger.debug("request failed", error: error, metadata: ["request": "\(operation)"])
    }
  }

  // MARK: Staying registered

  private func keepUp() async throws(DirectoryError) {
    var nextHeartbeat = ContinuousClock.now + jittered(timing.heartbeat)
    var nextChore = ContinuousClock.now
    while !Task.isCancelled {
      guard let link = await client.connectionNumber else {
        throw DirectoryError(.registryUnreachable, "the registry closed the connection")
      }
      if wantsRegistration || link != registeredOn {
        try await register()
        nextHeartbeat = .now + jittered(timing.heartbeat)
        continue
      }
      if .now >= nextHeartbeat {
        nextHeartbeat = .now + jittered(timing.heartbeat)
        try await beat()
        continue
      }
      let pollTime = max(nextPoll, lastPoll.map { $0 + timing.pollGap } ?? nextPoll)
      if .now >= pollTime {
        try await poll()
        continue
      }
      if !unreported.isEmpty, .now >= nextReport {
        chores += unreported.map { .reportTrust($0) }
        unreported = []
        reportWait = min(reportWait * 2, .seconds(600))
      }
      if !chores.isEmpty, .now >= nextChore {
        try await doChores()
        nextChore = .now + .milliseconds(300)
        continue
      }
      let choreTime = chores.isEmpty ? nextHeartbeat : nextChore
      let reportTime = unreported.isEmpty ? nextHeartbeat : nextReport
      await pause(until: min(nextHeartbeat, pollTime, choreTime, reportTime))
    }
  }

  /// wire/registry §4.3.
  private func beat() async throws(DirectoryError) {
    let me = try requireSigner()
    do {
      try await client.heartbeat(as: me)
      failedHeartbeats = 0
    } catch {
      if error.reason == .registryUnreachable || error.reason == .badReply { throw error }
      failedHeartbeats += 1
      let isForgotten = error.message.contains("node not found")
      let isTaken = error.message.contains("signature verification failed")
      guard isForgotten || isTaken || failedHeartbeats >= 3 else { return }
      logger.info("registering again", error: error)
      wantsRegistration = true
      await sleep(for: .milliseconds(Int.random(in: 20...200)))
      return
    }
    if wantedHostname != nil, hostname == nil { try await claimHostname(as: me) }
  }

  private func doChores() async throws(DirectoryError) {
    let me = try requireSigner()
    let batch = chores.prefix(16)
    chores.removeFirst(batch.count)
    for chore in batch {
      try await tolerating("\(chore)") { () throws(DirectoryError) in try await self.perform(chore, as: me) }
    }
  }

  // MARK: Time

  /// The whole of it to a twelfth more.
  func jittered(_ interval: Duration) -> Duration { interval * Double.random(in: 1...(1 + 1.0 / 12)) }

  /// Sleeps until then or until `wake()`.
  private func pause(until instant: ContinuousClock.Instant) async {
    if isWakePending {
      isWakePending = false
      return
    }
    let task = Task { _ = try? await Task.sleep(until: instant, clock: .continuous) }
    sleeper = task
    await withTaskCancellationHandler {
      await task.value
    } onCancel: {
      task.cancel()
    }
    sleeper = nil
    isWakePending = false
  }

  /// Sleeps until the registry is due, or until the network changed.
  private func waitToRedial(_ wait: Duration) async {
    let task = Task { _ = try? await Task.sleep(for: wait) }
    redialWait = task
    await withTaskCancellationHandler {
      await task.value
    } onCancel: {
      task.cancel()
    }
    redialWait = nil
  }

  /// Another network, or a network again: a registry that was away may be there now.
  package func networkChanged() { redialWait?.cancel() }

  private func sleep(for duration: Duration) async { try? await Task.sleep(for: duration) }

  /// Lets the service look at what there is to do.
  func wake() {
    isWakePending = true
    sleeper?.cancel()
  }
}
