// What local clients ask of the registry through their node (wire/ipc §7), and the rotation of its key. The answers go
// to the clients as the registry gave them.

package import JSON
import Logging
import Session
import Wire

extension Directory {
  /// Beacons that the registry names, none when it does not answer.
  package func beacons() async -> [String] { (try? await client.beaconList()) ?? [] }

  // MARK: Networks

  package func networksReply() async throws(DirectoryError) -> JSONValue { try await client.networksReply() }

  package func networkMembers(
    _ network: UInt16, adminToken: String? = nil
  ) async throws(DirectoryError) -> JSONValue {
    try await client.networkMembers(network, adminToken: adminToken)
  }

  package func setMemberTags(
    _ tags: [String], of node: UInt32, in network: UInt16, adminToken: String
  ) async throws(DirectoryError) -> JSONValue {
    try await client.setMemberTags(tags, of: node, in: network, adminToken: adminToken)
  }

  /// The registry says that this node is a member.
  package func noteMembership(_ network: UInt16) { setNetworks(networks + [network]) }

  package func memberTags(_ network: UInt16, of node: UInt32) async throws(DirectoryError) -> JSONValue {
    try await client.memberTags(network, of: node)
  }

  package func invite(_ node: UInt32, to network: UInt16) async throws(DirectoryError) -> JSONValue {
    try await client.invite(node, to: network, as: requireSigner())
  }

  package func pollInvites() async throws(DirectoryError) -> JSONValue {
    try await client.pollInvites(as: requireSigner())
  }

  /// Accepting makes this node a member. The registry remembers that: nothing has to be joined again.
  package func respondInvite(to network: UInt16, accepts: Bool) async throws(DirectoryError) -> JSONValue {
    let reply = try await client.respondInvite(to: network, accepts: accepts, as: requireSigner())
    if accepts { setNetworks(networks + [network]) }
    return reply
  }

  // MARK: Statements of others about this node

  package func submitBadge(_ badge: String, signature: String) async throws(DirectoryError) -> JSONValue {
    try await client.submitBadge(badge, signature: signature, as: requireSigner())
  }

  package func enrollRecovery(_ enrollment: String, signature: String) async throws(DirectoryError) -> JSONValue {
    try await client.enrollRecovery(enrollment, signature: signature, as: requireSigner())
  }

  // MARK: Trust

  /// Fetches the requests and answers that wait at the registry, unless that was done just now.
  package func fetchHandshakes() async {
    guard state.isConnected, lastPoll.map({ .now - $0 >= timing.pollGap }) ?? true else { return }
    // What goes wrong here goes wrong for the service as well, which says so.
    try? await poll()
  }

  // MARK: The key

  /// A new key for this node, which keeps its id. Sessions of the old key have to be made anew; peers that pinned the
  /// old key learn of the new one from the registry.
  package func rotateKey() async throws(DirectoryError) -> JSONValue {
    let me = try requireSigner()
    let new = Identity.generate()
    try store.keepNextIdentity(new)
    let reply: JSONValue
    do {
      reply = try await client.rotateKey(to: new, as: me)
    } catch {
      // The answer may be lost, and a refusal may be that of a repetition: what counts is the key it names now.
      let present = try? await client.lookup(me.node).publicKey
      guard present == new.publicKey else {
        if present != nil {
          store.dropNextIdentity()
        } else {
          logger.error("the registry may have taken the key in identity-next.json: \(error.message)")
        }
        throw error
      }
      reply = .object([
        "type": .text("rotate_key_ok"), "node_id": .whole(me.node),
        "public_key": .text(Base64.encode(new.publicKey.bytes)),
        "address": .text(PilotAddress(network: 0, node: me.node).description),
      ])
    }
    logger.notice("the key of this node was rotated")
    try store.replaceIdentity(new)
    // What was proven of the connection was proven by the old key.
    await client.disconnect()
    return reply
  }
}
