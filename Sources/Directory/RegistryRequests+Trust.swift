// Trust pairs and the handshake relay (wire/registry §2.5).

import JSON
import Wire

/// What a poll brings: the registry clears both lists when it answers.
package struct HandshakeInbox: Sendable, Equatable {
  package struct Request: Sendable, Equatable {
    package var from: UInt32
    package var justification: String
    /// Unix seconds.
    package var time: Int64?
  }

  package struct Response: Sendable, Equatable {
    package var from: UInt32
    package var isAccepted: Bool
  }

  package var requests: [Request]
  package var responses: [Response]
}

extension RegistryClient {
  /// Longest reason that travels with a handshake, bytes of UTF-8.
  package static let longestJustification = 1024

  package func reportTrust(_ peer: UInt32, as me: RegistrySigner) async throws(DirectoryError) {
    _ = try await call("report_trust", signed(me, "report_trust:\(me.node):\(peer)", ["peer_id": .whole(peer)]))
  }

  package func revokeTrust(_ peer: UInt32, as me: RegistrySigner) async throws(DirectoryError) {
    _ = try await call("revoke_trust", signed(me, "revoke_trust:\(me.node):\(peer)", ["peer_id": .whole(peer)]))
  }

  /// Whether the registry holds the pair for trusted, or both are members of a network other than the backbone.
  package func checkTrust(_ a: UInt32, _ b: UInt32) async throws(DirectoryError) -> Bool {
    try await call("check_trust", ["node_id": .whole(a), "peer_id": .whole(b)])["trusted"]?.isTrue ?? false
  }

  package func requestHandshake(
    _ peer: UInt32, justification: String, as me: RegistrySigner
  ) async throws(DirectoryError) {
    _ = try await call(
      "request_handshake",
      [
        "from_node_id": .whole(me.node), "to_node_id": .whole(peer), "justification": .text(justification),
        "signature": me.sign("handshake:\(me.node):\(peer)"),
      ])
  }

  package func pollHandshakes(as me: RegistrySigner) async throws(DirectoryError) -> HandshakeInbox {
    let reply = try await call("poll_handshakes", signed(me, "poll_handshakes:\(me.node)"))
    var inbox = HandshakeInbox(requests: [], responses: [])
    for item in (reply["requests"]?.list ?? []).prefix(1000) {
      guard let from = item["from_node_id"]?.node, from != me.node else { continue }
      let reason = String(decoding: Array((item["justification"]?.text ?? "").utf8.prefix(1024)), as: UTF8.self)
      inbox.requests.append(.init(from: from, justification: reason, time: item["timestamp"]?.integer))
    }
    for item in (reply["responses"]?.list ?? []).prefix(1000) {
      guard let from = item["from_node_id"]?.node, from != me.node else { continue }
      inbox.responses.append(.init(from: from, isAccepted: item["accept"]?.isTrue ?? false))
    }
    return inbox
  }

  package func respondHandshake(
    _ peer: UInt32, isAccepted: Bool, as me: RegistrySigner
  ) async throws(DirectoryError) {
    _ = try await call(
      "respond_handshake",
      signed(me, "respond:\(me.node):\(peer)", ["peer_id": .whole(peer), "accept": .bool(isAccepted)]))
  }
}
