// How a node comes and goes. Used by the register and deregister requests.

import Wire

/// A registration whose signature was good.
struct Registration: Sendable {
  var key: Bytes32
  /// The id the client remembers; 0 is none.
  var wanted: UInt32
  var owner: String
  var version: String
  var hostname: String
  var host: IPv6Address
  var endpoint: Endpoint
  var lan: [Endpoint]
  var isRelayOnly: Bool
  /// The key has signed a nonce of the connection.
  var isFresh = false
}

extension RegistryState {
  /// Enters a node or brings it back. The same key always gets the same id. A name that is refused is reported and
  /// does not fail the registration (wire/registry §2.2).
  mutating func register(
    _ registration: Registration, now: Int64
  ) throws(RequestError) -> (NodeRecord, nameError: RequestError?) {
    let known = node(withKey: registration.key)
    let id = try identify(registration.key, wanted: registration.wanted)
    var node =
      known
      ?? NodeRecord(
        id: id, key: registration.key, createdAt: now, host: registration.host, endpoint: registration.endpoint,
        lastSeen: now)
    // A node that was away as long as to be forgotten is private again until it says otherwise (§4.5).
    if !isLive(node, now: now) { node.isPublic = false }
    node.isRegistered = true
    if registration.isFresh { node.provesFreshly = true }
    node.owner = registration.owner
    node.version = registration.version
    node.host = registration.host
    node.endpoint = registration.endpoint
    node.lanAddresses = registration.lan
    node.isRelayOnly = registration.isRelayOnly
    node.lastSeen = now
    enter(node)
    var nameError: RequestError?
    if !registration.hostname.isEmpty {
      do throws(RequestError) {
        try setHostname(registration.hostname, of: &node, now: now)
      } catch {
        nameError = error
      }
      update(node)
    }
    return (node, nameError)
  }

  /// Key and id stay, everything else goes. What others said about their trust in the node is theirs and stays.
  mutating func deregister(_ record: NodeRecord, now: Int64) throws(RequestError) {
    var node = record
    try setHostname("", of: &node, now: now)
    node.isRegistered = false
    node.isPublic = false
    node.provesFreshly = false
    node.tags = []
    node.lanAddresses = []
    update(node)
    for network in networksOfNode[node.id] ?? [] { leave(node.id, network) }
    for network in (invites[node.id] ?? [:]).keys { dropInvite(of: node.id, to: network) }
    for peer in trust[node.id] ?? [] { removeTrust(node.id, in: peer) }
    dropInbox(of: node.id)
  }
}
