// The gateway beside the node: streams of official agents to local servers, and of local programs to official agents
// (Sources/Gateway). The node tells it who may come in and who can be reached.

import Directory
import Engine
import Gateway
import LinkIO
import LocalSocket
import Logging
import Services
import Session
import Telemetry
import Wire

extension Node {
  /// Starts the gateway's thread, and that of the inbox. Errors: `thread_unavailable`.
  func startGateway() throws(ControlError) {
    let inbox = configuration.hasInbox ? try makeInbox() : nil
    self.inbox = inbox
    let keep: (@Sendable (InboxJob) -> Void)?
    if let inbox { keep = { inbox.post($0) } } else { keep = nil }
    let hooks = GatewayHooks(
      wall: { Clock.wall() },
      takesTrustMessages: { [weak self] in
        self?.takesTrustMessages(of: $0) ?? false
      }, keep: keep)
    try DedicatedThread.start("pilot-gateway") { [gateway, requestStop, namespace] in
      do throws(LinkError) {
        // Its sockets are the overlay's.
        try namespace?.enter()
      } catch {
        requestStop.yield(error.message)
      }
      do throws(GatewayError) {
        try gateway.run(hooks)
      } catch {
        requestStop.yield("\(error.message)\(error.hint.map { " (\($0))" } ?? "")")
      }
    }
  }

  private func makeInbox() throws(ControlError) -> Inbox {
    try Inbox(
      InboxSettings(
        path: configuration.inboxPath(home: ProcessEnvironment.all["HOME"]),
        isTrusted: { [store] in store.isTrusted($0) }, wall: { Clock.wall() },
        complain: { [weak self] reason in Task { await self?.noteInboxProblem(reason) } },
        answer: { [gateway, weak self] job, result in
          gateway.submit(.kept(job: job, result))
          if case .failed(_) = result { Task { await self?.count("inbox-refused") } }
        }))
  }

  private func noteInboxProblem(_ reason: String) {
    let path = configuration.inboxPath(home: ProcessEnvironment.all["HOME"])
    logOnce("inbox \(reason)", "messages and files of peers cannot be kept in \(path): \(reason) (setting inbox)")
  }

  func handle(_ event: GatewayEvent) {
    switch event {
    case .wanted(let address):
      guard address.node != node else { return gateway.submit(.unreachable(node: address.node)) }
      if let peer = peers[address.node], peer.handshake.currentSession != nil {
        gateway.submit(.ready(node: address.node))
      } else {
        want(address)
      }
    case .ask(let request, let query, let local):
      // Each question for itself: a slow one holds nobody up.
      Task { gateway.submit(.answer(request, await answer(query, local: local))) }
    case .localSocketFailed(let error):
      warnings.append("\(error.message)\(error.hint.map { " (\($0))" } ?? "")")
      logger.error("official clients are not served", metadata: Logger.Metadata(describing: error))
    case .handshakeMessage(let bytes, let node): queueTrustMessage(bytes, from: node)
    }
  }

  /// What waits for a way to the node is told that there is none.
  func failWaiting(_ node: UInt32, _ refusal: Refusal) {
    tell(.failStaged(node: node, refusal))
    gateway.submit(.unreachable(node: node))
  }

  /// Lets the gateway end its streams while their last words can still be sealed.
  func stopGateway(_ events: Task<Void, Never>) async {
    gateway.submit(.stop)
    await events.value
    inbox?.stop()
  }
}
