// A node's key and the statements of others about it (wire/registry §2.2).

package import JSON
package import Session
import Wire

extension RegistryClient {
  /// The registry knows the node by another key from now on; the old one signs for it.
  package func rotateKey(to new: Identity, as me: RegistrySigner) async throws(DirectoryError) -> JSONValue {
    let key = Base64.encode(new.publicKey.bytes)
    let reply = try await call(
      "rotate_key", signed(me, "rotate:\(me.node):\(key)", ["new_public_key": .text(key)]))
    guard reply["node_id"]?.node == me.node, reply["public_key"]?.text == key else {
      throw Self.malformed("rotate_key")
    }
    return reply
  }

  /// A badge of an outside provider, with the provider's signature.
  package func submitBadge(
    _ badge: String, signature: String, as me: RegistrySigner
  ) async throws(DirectoryError) -> JSONValue {
    try await call(
      "submit_badge",
      signed(me, "submit_badge:\(me.node):\(badge)", ["badge": .text(badge), "badge_sig": .text(signature)]))
  }

  /// The commitment is the fifth field of the statement: `pilotenroll:v1:NODE:PROVIDER:COMMITMENT:…`.
  package func enrollRecovery(
    _ enrollment: String, signature: String, as me: RegistrySigner
  ) async throws(DirectoryError) -> JSONValue {
    let fields = enrollment.split(separator: ":", omittingEmptySubsequences: false)
    guard fields.count >= 5 else {
      throw DirectoryError(.badRequest, "the enrollment has \(fields.count) fields, its commitment is the fifth")
    }
    return try await call(
      "enroll_recovery",
      signed(
        me, "enroll_recovery:\(me.node):\(fields[4])",
        ["enrollment": .text(enrollment), "enrollment_sig": .text(signature)]))
  }
}
