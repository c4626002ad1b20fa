// Signed requests, for local clients (wire/ipc §7.7). The node never signs a text that a client wrote: it makes the
// envelope itself.

import Directory
import JSON
import LocalSocket
import Session
import Wire

extension LocalAnswers {
  func sign(_ json: [UInt8]) async throws(LocalError) -> JSONValue {
    let request = try Self.object("sign_envelope", json)
    let audience = request.string("audience")
    guard RequestEnvelope.isAudience(audience) else {
      throw LocalError("sign_envelope: audience must be 1 to 64 of a-z, 0-9, dot and hyphen")
    }
    let hash: String
    switch (request["body_hash"]?.text, request["body_b64"]?.text) {
    case (let given?, nil): hash = given
    case (nil, let text?):
      guard let body = Base64.decode(text) else { throw LocalError("sign_envelope: body_b64 is no base64") }
      hash = RequestEnvelope.hash(body)
    default: throw LocalError("sign_envelope: exactly one of body_hash and body_b64 is required")
    }
    guard let node = await directory.node else { throw LocalError("sign_envelope: this node has no address yet") }
    let nonce = request["nonce"]?.text ?? RequestEnvelope.digits(.random(in: .min ... .max), 16)
    let address = PilotAddress(network: 0, node: node)
    guard
      let envelope = RequestEnvelope(
        sender: address, time: NodeStore.unixTime(), nonce: nonce, bodyHash: hash, audience: audience)
    else {
      throw LocalError("sign_envelope: body_hash must be 64 and nonce 16 lower-case hexadecimal digits")
    }
    let signature = store.identity.sign(Array(envelope.text.utf8))
    return [
      "type": "sign_envelope_ok", "address": .text(address.description), "envelope": .text(envelope.text),
      "signature": .text(Base64.encode(signature.bytes)),
    ]
  }

  /// What is wrong with an envelope is an answer, not an error.
  func verify(_ json: [UInt8]) async throws(LocalError) -> JSONValue {
    let request = try Self.object("verify_envelope", json)
    guard let text = request["envelope"]?.text, let signature = request["signature"]?.text else {
      throw LocalError("verify_envelope: envelope and signature are required")
    }
    func invalid(_ reason: String) -> JSONValue {
      ["type": "verify_envelope_ok", "valid": false, "reason": .text(reason)]
    }
    guard let envelope = RequestEnvelope(text) else { return invalid("the envelope is malformed") }
    let node = envelope.sender.node
    let asked = max(0, request.int("max_skew_secs"))
    let skew = asked == 0 ? RequestEnvelope.skew : asked
    // A pinned key proved itself; the registry is asked only for a node without one.
    let pinned = node == (await directory.node) ? store.identity.publicKey : store.pinnedKey(node: node)
    let found: Bytes32?
    if let pinned { found = pinned } else { found = await directory.record(of: node)?.publicKey }
    guard let key = found else { return invalid("the sender's key is not known") }
    if let fault = envelope.fault(signature: signature, key: key, now: NodeStore.unixTime(), skew: skew) {
      return invalid(fault)
    }
    var members: [String: JSONValue] = [
      "type": "verify_envelope_ok", "valid": true, "node_id": JSONValue(node),
      "address": .text(envelope.sender.description), "verified_via": pinned == nil ? "registry" : "cache",
      "trusted": JSONValue(store.isTrusted(node)),
    ]
    if request.flag("check_standing"), let record = await directory.record(of: node, fresh: true),
      !record.isFromStore, let lastSeen = record.lastSeen
    {
      members["last_seen_unix"] = JSONValue(lastSeen)
      // Nodes tell the registry every minute that they are there; it forgets none before a few of those are missing.
      members["online"] = JSONValue(NodeStore.unixTime() - lastSeen < 180)
      members["network_member"] = JSONValue(
        envelope.sender.network == 0 || record.networks.contains(envelope.sender.network))
    }
    return .object(members)
  }
}
