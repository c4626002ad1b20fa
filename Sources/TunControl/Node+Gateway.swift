// The gateway beside the node: streams of official agents to local servers, and of local programs to official agents
// (Sources/Gateway). The node tells it who may come in and who can be reached.

import Engine
import Gateway
import LocalSocket
import Logging
import Session
import Wire

extension Node {
  /// Starts the gateway's thread.
  func startGateway() {
    let hooks = GatewayHooks(
      wall: { Clock.wall() },
      takesTrustMessages: { [weak self] in
        self?.takesTrustMessages(of: $0) ?? false
      })
    DedicatedThread.start("pilot-gateway") { [gateway, requestStop] in
      do throws(GatewayError) {
        try gateway.run(hooks)
      } catch {
        requestStop.yield("\(error.message)\(error.hint.map { " (\($0))" } ?? "")")
      }
    }
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
      logger.error("\(error.message)")
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
  }
}
