// The questions of local clients that the directory alone can answer: names, trust, networks, badges, envelopes
// (wire/ipc §7.3-7.7). Node answers the others, and calls this for the rest.

import Directory
import JSON
import LocalSocket
import Session
import Wire

struct LocalAnswers: Sendable {
  let directory: Directory
  var adminToken: AdminToken?
  var store: NodeStore { directory.store }

  /// nil: not one of those that the directory can answer.
  func answer(_ query: LocalQuery) async throws(LocalError) -> JSONValue? {
    switch query {
    case .info, .health, .setVisibility, .rotateKey, .preferDirect, .broadcast: return nil
    case .handshake(let query): return try await handshake(query)
    case .resolve(let name): return try await resolve(name)
    case .setHostname(let name):
      let kept = try await asking("set_hostname") { () throws(DirectoryError) in try await directory.setHostname(name) }
      return ["type": "set_hostname_ok", "hostname": .text(kept ?? ""), "node_id": await own()]
    case .setTags(let tags):
      try await asking("set_tags") { () throws(DirectoryError) in try await directory.setTags(tags) }
      return ["type": "set_tags_ok", "tags": tags.isEmpty ? .null : .list(of: tags), "node_id": await own()]
    case .deregister:
      try await asking("deregister") { () throws(DirectoryError) in try await directory.deregister() }
      return ["type": "deregister_ok"]
    case .setWebhook(let url):
      // There is none, and so there is nothing to clear.
      guard url.isEmpty else { throw LocalError("set_webhook: this node calls no webhooks") }
      return ["webhook": ""]
    case .network(let query): return try await network(query)
    case .managed(let query): return try await managed(query)
    case .submitBadge(let json):
      let (badge, signature) = try Self.pair("submit_badge", json, "badge", "badge_sig")
      return try await asking("submit_badge") { () throws(DirectoryError) in
        try await directory.submitBadge(badge, signature: signature)
      }
    case .enrollRecovery(let json):
      let (enrollment, signature) = try Self.pair("enroll_recovery", json, "enrollment", "enrollment_sig")
      return try await asking("enroll_recovery") { () throws(DirectoryError) in
        try await directory.enrollRecovery(enrollment, signature: signature)
      }
    case .signEnvelope(let json): return try await sign(json)
    case .verifyEnvelope(let json): return try await verify(json)
    }
  }

  /// A refusal as clients know it: `VERB: registry: TEXT` with the registry's own words.
  func asking<Value: Sendable>(
    _ verb: String, _ body: @Sendable () async throws(DirectoryError) -> Value
  ) async throws(LocalError) -> Value {
    do throws(DirectoryError) {
      return try await body()
    } catch {
      throw LocalError("\(verb): \(error.registryText.map { "registry: \($0)" } ?? error.message)")
    }
  }

  private func own() async -> JSONValue { await directory.node.map { JSONValue($0) } ?? 0 }

  private func resolve(_ name: String) async throws(LocalError) -> JSONValue {
    switch await directory.node(named: name) {
    case .found(let node, let address, _, _):
      let isPublic: Bool
      if node == (await directory.node) {
        isPublic = await directory.isPublic
      } else {
        isPublic = await directory.record(of: node)?.isPublic ?? false
      }
      return [
        "type": "resolve_hostname_ok", "hostname": .text(name), "node_id": JSONValue(node),
        "address": .text(address.description), "public": JSONValue(isPublic),
      ]
    case .notFound: throw LocalError("resolve_hostname: registry: hostname \"\(name)\" not found")
    case .unavailable: throw LocalError("resolve_hostname: the registry does not answer")
    }
  }

  private static func pair(
    _ verb: String, _ json: [UInt8], _ first: String, _ second: String
  ) throws(LocalError) -> (String, String) {
    let object = try object(verb, json)
    guard let a = object[first]?.text, let b = object[second]?.text, !a.isEmpty, !b.isEmpty else {
      throw LocalError("\(verb): \(first) and \(second) are required")
    }
    return (a, b)
  }

  static func object(_ verb: String, _ json: [UInt8]) throws(LocalError) -> JSONValue {
    guard let value = try? JSONValue(parsing: json), value.object != nil else {
      throw LocalError("\(verb): invalid JSON: not an object")
    }
    return value
  }
}
