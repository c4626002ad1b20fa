// The questions of local clients that the node answers with JSON (wire/ipc §7).

/// A request that is well-formed; whether it can be granted is the node's to say.
package enum LocalQuery: Equatable, Sendable {
  case info
  /// Answered from memory: it never waits for the directory.
  case health
  case handshake(HandshakeQuery)
  case resolve(name: String)
  /// Empty clears.
  case setHostname(String)
  case setVisibility(isPublic: Bool)
  case deregister
  /// At most three; none clears.
  case setTags([String])
  /// Empty clears.
  case setWebhook(url: String)
  case network(NetworkQuery)
  case managed(ManagedQuery)
  case rotateKey
  /// A datagram to every member of a network. The success has no JSON: what is answered is ignored.
  case broadcast(network: UInt16, port: UInt16, token: [UInt8], data: [UInt8])
  case preferDirect(node: UInt32)
  /// JSON as the client wrote it, not looked at.
  case submitBadge(json: [UInt8])
  case enrollRecovery(json: [UInt8])
  case signEnvelope(json: [UInt8])
  case verifyEnvelope(json: [UInt8])
}

package enum HandshakeQuery: Equatable, Sendable {
  case send(node: UInt32, justification: String)
  case approve(node: UInt32)
  case reject(node: UInt32, reason: String)
  case pending
  case trusted
  case revoke(node: UInt32)
  /// Answered as soon as trust exists, else after the time; at most 30 s, 0 asks for now.
  case wait(node: UInt32, milliseconds: UInt32)
}

package enum NetworkQuery: Equatable, Sendable {
  case list
  case join(network: UInt16, token: String)
  case leave(network: UInt16)
  case members(network: UInt16)
  case invite(network: UInt16, node: UInt32)
  case pollInvites
  case respond(network: UInt16, accepts: Bool)
}

package enum ManagedQuery: Equatable, Sendable {
  case status(network: UInt16)
  case cycle(network: UInt16)
  case reconcile(network: UInt16)
  case policy(network: UInt16)
  case setPolicy(network: UInt16, token: [UInt8], json: [UInt8])
  case memberTags(network: UInt16, node: UInt32)
  case setMemberTags(network: UInt16, node: UInt32, json: [UInt8])
}
