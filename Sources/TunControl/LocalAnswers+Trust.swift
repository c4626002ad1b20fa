// Trust, for local clients (wire/ipc §7.4).

import Directory
import JSON
import LocalSocket
import Wire

extension LocalAnswers {
  func handshake(_ query: HandshakeQuery) async throws(LocalError) -> JSONValue {
    switch query {
    case .send(let node, let justification):
      let wasTrusted = store.isTrusted(node)
      try await asking("handshake send") { () throws(DirectoryError) in
        try await directory.requestTrust(node, justification: justification)
      }
      return Self.done(node, wasTrusted ? "already_trusted" : "sent")
    case .approve(let node):
      await directory.fetchHandshakes()
      // Approving twice is no mistake; approving what was never asked is one.
      if !store.isTrusted(node) {
        try await asking("handshake approve") { () throws(DirectoryError) in try await directory.approve(node) }
      }
      return Self.done(node, "approved")
    case .reject(let node, _):
      await directory.fetchHandshakes()
      try await asking("handshake reject") { () throws(DirectoryError) in try await directory.reject(node) }
      return Self.done(node, "rejected")
    case .revoke(let node):
      guard await directory.revoke(node) else { throw LocalError("handshake revoke: node \(node) was not trusted") }
      return Self.done(node, "revoked")
    case .pending:
      await directory.fetchHandshakes()
      let rows = directory.pendingHandshakes().map { entry -> JSONValue in
        [
          "node_id": JSONValue(entry.node), "justification": .text(entry.justification),
          "received_at": JSONValue(entry.since), "public_key": key(of: entry.node),
        ]
      }
      return LocalForms.cut([:], [("pending", rows)])
    case .trusted:
      await directory.fetchHandshakes()
      let entries = directory.trustList().filter { $0.kind == .trusted }
      // The newest first, where not all fit.
      let rows = entries.sorted { ($1.since, $0.node) < ($0.since, $1.node) }.map { entry -> JSONValue in
        [
          "node_id": JSONValue(entry.node), "public_key": key(of: entry.node), "approved_at": JSONValue(entry.since),
          "mutual": true, "network": 0,
        ]
      }
      // The Python SDK's wait_for_trust of 1.18.0 looks for `peers`.
      return LocalForms.cut([:], [("trusted", rows), ("peers", rows)])
    case .wait(let node, let milliseconds):
      return ["node_id": JSONValue(node), "trusted": JSONValue(await isTrusted(node, within: milliseconds))]
    }
  }

  private static func done(_ node: UInt32, _ status: JSONValue) -> JSONValue {
    ["node_id": JSONValue(node), "status": status]
  }

  private func key(of node: UInt32) -> JSONValue {
    let key = store.pinnedKey(node: node) ?? store.record(of: node)?.publicKey
    return .text(key.map { Base64.encode($0.bytes) } ?? "")
  }

  /// Whether there is trust now or soon. What else the directory does goes on meanwhile.
  private func isTrusted(_ node: UInt32, within milliseconds: UInt32) async -> Bool {
    if await isTrusted(node) { return true }
    guard milliseconds > 0 else { return false }
    let news = await directory.trustNews(of: node, for: .milliseconds(milliseconds))
    await directory.pollNow()
    // It may have come before the news were listened to.
    if await isTrusted(node) { return true }
    for await _ in news {
      if await isTrusted(node) { return true }
    }
    return false
  }

  private func isTrusted(_ node: UInt32) async -> Bool {
    if store.isTrusted(node) { return true }
    // Members of a network trust each other; that the peer is one stands in its record.
    if await directory.networks.count > 1, store.record(of: node) == nil { _ = await directory.record(of: node) }
    return await directory.trust(of: node).isAdmitted
  }
}
