// What the service manager and waiting programs are told: when the node is ready, how it is doing. And how a node that
// was restarted goes on where it was.

import Directory
import Engine
import Gateway
import ServiceManager
import Session
import Wire

extension Node {
  // MARK: Going on after a restart

  /// Takes the address of the last run before the registry answers: packets that wait in the kernel find the worker
  /// awake, and peers are answered. Returns whether there was one.
  func resumeAddress() async -> Bool {
    guard let own = await directory.remembered() else { return false }
    await settle(node: own.node, networks: own.networks, tellsHost: false)
    return true
  }

  /// Makes sessions with the peers of the last run at once, where the service manager kept their list: they still seal
  /// under keys that are gone.
  func resumePeers() {
    let nodes = recentPeers?.read() ?? []
    keptPeers = nodes
    for node in nodes where node != self.node { startLookup(node) { $0.isWanted = true } }
  }

  /// Notes the peers with a session for the next run.
  func keepRecentPeers() {
    guard let recentPeers else { return }
    let inUse = peers.values.filter { $0.handshake.currentSession != nil }.sorted { $0.lastUse > $1.lastUse }
    let nodes = inUse.prefix(RecentPeers.most).map(\.node)
    guard nodes != keptPeers else { return }
    keptPeers = nodes
    recentPeers.write(nodes)
  }

  // MARK: Ready

  /// Ready: own address on the interface, names answered (or known not to be), and registered, or known to be offline.
  /// A node that has no address yet because its rendezvous does not answer has started all the same: what waits for the
  /// overlay itself waits for `pilot-tun wait-online`.
  func becomeReady() {
    guard directoryState != .connecting, failure == nil else { return }
    if !isReady, !addresses.isEmpty {
      isReady = true
      // Official clients take the socket's being there for the node's being registered.
      if let path = configuration.ipcSocket { gateway.submit(.serveLocal(path: path)) }
      becameReady.yield()
    }
    if isReady, directoryState.isConnected { tellOnline() }
    guard !isStarted else { return }
    isStarted = true
    toldStatus = stateLine
    notifier.ready(stateLine)
  }

  private func tellOnline() {
    for waiter in onlineWaiters.values { waiter.resume(returning: true) }
    onlineWaiters = [:]
  }

  /// The node ends.
  func endWaiting() {
    for waiter in onlineWaiters.values { waiter.resume(returning: false) }
    onlineWaiters = [:]
  }

  /// Returns when the node is registered and its addresses can be used; false when the time is over.
  func waitUntilOnline(_ limit: Duration) async -> Bool {
    if isReady, directoryState.isConnected { return true }
    guard !isStopping else { return false }
    lastWaiter += 1
    let number = lastWaiter
    let alarm = Task {
      try? await Task.sleep(for: limit)
      onlineWaiters.removeValue(forKey: number)?.resume(returning: false)
    }
    defer { alarm.cancel() }
    return await withCheckedContinuation { onlineWaiters[number] = $0 }
  }

  // MARK: Status

  /// Tells the service manager when the line is another one than before.
  func tellStatus() {
    let line = stateLine
    guard isStarted, !isStopping, line != toldStatus else { return }
    toldStatus = line
    notifier.status(line)
  }

  /// One line for `systemctl status`.
  var stateLine: String {
    guard let node else {
      if case .unreachable(_, let reason, _) = directoryState { return "offline, no address yet: \(reason.message)" }
      return "no address yet"
    }
    let established = peers.values.count { $0.handshake.currentSession != nil }
    var parts = ["\(PilotAddress(network: 0, node: node)) on \(engine.interfaceName)", directoryState.word]
    if case .unreachable(_, let reason, _) = directoryState { parts[1] += " (\(reason.message))" }
    parts.append(established == 1 ? "1 peer" : "\(established) peers")
    if configuration.dns != .off, let stubProblem { parts.append("names: \(stubProblem.message)") }
    return parts.joined(separator: ", ")
  }
}
