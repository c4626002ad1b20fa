// The node's answers to local clients: official pilotctl and SDKs (wire/ipc §7). Called by whoever drives the local
// socket, with what it knows of streams and ports.

import Directory
import Engine
package import Gateway
import JSON
package import LocalSocket
import Session
import Synchronization
import Wire

extension Node {
  /// The answer as it goes into a frame. Slow questions (the registry is asked, trust is waited for) take up to 30 s;
  /// any number may be under way.
  package func answer(_ query: LocalQuery, local: LocalStatus) async -> Result<[UInt8], LocalError> {
    do throws(LocalError) {
      return .success(try await json(query, local).encoded)
    } catch {
      return .failure(error)
    }
  }

  private func json(_ query: LocalQuery, _ local: LocalStatus) async throws(LocalError) -> JSONValue {
    let answers = LocalAnswers(directory: directory, adminToken: adminToken)
    if let answer = try await answers.answer(query) { return answer }
    switch query {
    case .info: return LocalForms.info(await status(), local)
    case .health: return LocalForms.health(await status(), local)
    case .setVisibility(let isPublic):
      try await answers.asking("set_visibility") { [directory] () throws(DirectoryError) in
        try await directory.setVisibility(isPublic: isPublic)
      }
      becomePublic(isPublic)
      return [
        "type": "set_visibility_ok", "node_id": JSONValue(node ?? 0), "visibility": isPublic ? "public" : "private",
      ]
    case .rotateKey:
      let reply = try await answers.asking("rotate_key") { [directory] () throws(DirectoryError) in
        try await directory.rotateKey()
      }
      // Sessions are bound to the old key.
      for peer in peers.values { removePeer(peer) }
      discover()
      return reply
    case .preferDirect(let node): return await preferDirect(node)
    case .broadcast(let network, let port, let token, let data):
      let members = try await answers.audience(network, token: token)
      let own = PilotAddress(network: network, node: node ?? 0)
      gateway.submit(.datagrams(from: own, to: members, port: port, data))
      return [:]
    default: throw LocalError("internal: the question has no answer")
    }
  }

  /// Who may send to this node changes with it, here as at the registry.
  func becomePublic(_ isPublic: Bool) {
    guard isPublic != self.isPublic else { return }
    visibility.store(isPublic, ordering: .relaxed)
    for peer in peers.values { applyPolicy(to: peer) }
  }

  /// Looks for a way to the peer without the relay. The path machine prefers one anyway: this asks again at once where
  /// the peer is, and knocks there.
  private func preferDirect(_ node: UInt32) async -> JSONValue {
    let before = peers[node]
    let hadTunnel = before?.handshake.currentSession != nil
    var isRelayed = false
    if case .relay? = before?.enginePath { isRelayed = true }
    var problem = ""
    switch await peer(for: node) {
    case .failure(let error): problem = error.message
    case .success:
      if case .found = await directory.lookUp(node, fresh: true) {} else { problem = "the registry does not answer" }
      refreshRecord(of: node)
      if let peer = peers[node] { need(peer) }
    }
    return [
      "node_id": JSONValue(node), "had_tunnel": JSONValue(hadTunnel), "was_relay_active": JSONValue(isRelayed),
      "was_relay_pinned": JSONValue(configuration.isRelayOnly), "pila_pushed": JSONValue(peers[node] != nil),
      "resolve_error": .text(problem),
    ]
  }
}
