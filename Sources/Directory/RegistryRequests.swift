// Requests of a node about itself and about others (wire/registry §2.2-2.4). Trust and networks have files of their
// own. Used by Directory.

import JSON
package import Session
package import Wire

/// Who signs: the node and its key (wire/registry §2.1).
package struct RegistrySigner: Sendable {
  package var node: UInt32
  package var identity: Identity

  package init(node: UInt32, identity: Identity) {
    self.node = node
    self.identity = identity
  }

  /// Base64 of the Ed25519 signature over the text.
  func sign(_ text: String) -> JSONValue {
    .text(Base64.encode(identity.sign(Array(text.utf8)).bytes))
  }
}

/// What a node tells the registry about itself. One function builds it: `Directory.registration()`.
package struct Registration: Sendable, Equatable {
  package var listenAddress: String
  package var owner: String
  package var version: String
  package var lanEndpoints: [Endpoint]
  package var isRelayOnly: Bool

  package init(
    listenAddress: String, owner: String, version: String, lanEndpoints: [Endpoint] = [], isRelayOnly: Bool = false
  ) {
    self.listenAddress = listenAddress
    self.owner = owner
    self.version = version
    self.lanEndpoints = lanEndpoints
    self.isRelayOnly = isRelayOnly
  }
}

/// `register_ok`.
package struct Registered: Sendable, Equatable {
  package var node: UInt32
  package var address: PilotAddress
  /// The endpoint that the registry will tell others.
  package var observed: Endpoint?
  /// The registry kept another hostname, or refused ours.
  package var hostnameError: String?
}

/// `resolve_ok`.
package struct ResolvedEndpoint: Sendable, Equatable {
  package var endpoint: Endpoint?
  package var lanEndpoints: [Endpoint]
  package var isRelayOnly: Bool
}

/// `resolve_hostname_ok`.
package struct ResolvedName: Sendable, Equatable {
  package var node: UInt32
  package var lastSeen: Int64?
}

extension RegistryClient {
  package func register(_ record: Registration, identity: Identity) async throws(DirectoryError) -> Registered {
    let key = Base64.encode(identity.publicKey.bytes)
    let signer = RegistrySigner(node: 0, identity: identity)
    var members: [String: JSONValue] = [
      "listen_addr": .text(record.listenAddress), "owner": .text(record.owner), "version": .text(record.version),
      "public_key": .text(key), "signature": signer.sign("register:\(record.listenAddress):\(key)"),
    ]
    if !record.lanEndpoints.isEmpty { members["lan_addrs"] = .list(of: record.lanEndpoints.map(\.description)) }
    if record.isRelayOnly { members["relay_only"] = .bool(true) }
    let reply = try await call("register", members)
    note(registration: reply)
    guard let node = reply["node_id"]?.node, let text = reply["address"]?.text, let address = PilotAddress(text),
      address.node == node
    else { throw Self.malformed("register") }
    return Registered(
      node: node, address: address, observed: reply["observed_addr"]?.text.flatMap { Endpoint($0) },
      hostnameError: reply["hostname_error"]?.text)
  }

  package func heartbeat(as me: RegistrySigner) async throws(DirectoryError) {
    _ = try await call("heartbeat", signed(me, "heartbeat:\(me.node)"))
  }

  /// Gives the address up: the registry forgets everything of the node but its id.
  package func deregister(as me: RegistrySigner) async throws(DirectoryError) {
    _ = try await call("deregister", signed(me, "deregister:\(me.node)"))
  }

  /// Returns the name as the registry kept it. "" clears.
  @discardableResult
  package func setHostname(_ name: String, as me: RegistrySigner) async throws(DirectoryError) -> String {
    let reply = try await call(
      "set_hostname", signed(me, "set_hostname:\(me.node)", ["hostname": .text(name)]))
    return reply["hostname"]?.text ?? name
  }

  package func setVisibility(isPublic: Bool, as me: RegistrySigner) async throws(DirectoryError) {
    _ = try await call(
      "set_visibility", signed(me, "set_visibility:\(me.node)", ["public": .bool(isPublic)]))
  }

  package func setTags(_ tags: [String], as me: RegistrySigner) async throws(DirectoryError) {
    _ = try await call("set_tags", signed(me, "set_tags:\(me.node)", ["tags": .list(of: tags)]))
  }

  /// Key, name and networks of a node. Anyone may ask; endpoints come from `resolve`.
  package func lookup(_ node: UInt32) async throws(DirectoryError) -> PeerRecord {
    let reply = try await call("lookup", ["node_id": .whole(node)])
    guard reply["node_id"]?.node == node else { throw Self.malformed("lookup") }
    let hostname = reply["hostname"]?.text.flatMap { HostnameRule.normalize($0) }
    var record = PeerRecord(node: node, hostname: hostname, isPublic: reply["public"]?.isTrue ?? false)
    record.publicKey = reply["public_key"]?.text.flatMap { Base64.decode($0) }.flatMap { Bytes32($0) }
    record.networks = (reply["networks"]?.list ?? [.integer(0)]).prefix(256).compactMap(\.port16)
    record.tags = (reply["tags"]?.list ?? []).prefix(16).compactMap { $0.text.map { String($0.prefix(64)) } }
    record.version = reply["version"]?.text.map { String($0.prefix(64)) }
    record.lastSeen = reply["last_seen_unix"]?.integer
    return record
  }

  package func resolve(_ node: UInt32, as me: RegistrySigner) async throws(DirectoryError) -> ResolvedEndpoint {
    let reply = try await call(
      "resolve",
      [
        "node_id": .whole(node), "requester_id": .whole(me.node), "signature": me.sign("resolve:\(me.node):\(node)"),
      ])
    guard reply["node_id"]?.node == node else { throw Self.malformed("resolve") }
    let lan = (reply["lan_addrs"]?.list ?? []).prefix(16).compactMap { $0.text.flatMap { Endpoint($0) } }
    return ResolvedEndpoint(
      endpoint: reply["real_addr"]?.text.flatMap { Endpoint($0) }.flatMap { $0.port == 0 ? nil : $0 },
      lanEndpoints: lan.filter { $0.port != 0 }, isRelayOnly: reply["relay_only"]?.isTrue ?? false)
  }

  /// With `me` the question is signed, so that a registry of ours can show private nodes to those they trust. Official
  /// registries are asked without: they know no such members (wire/registry §2.4).
  package func resolveHostname(_ name: String, as me: RegistrySigner?) async throws(DirectoryError) -> ResolvedName {
    var members: [String: JSONValue] = ["hostname": .text(name)]
    if let me {
      members["requester_id"] = .whole(me.node)
      members["signature"] = me.sign("resolve_hostname:\(me.node):\(name)")
    }
    let reply = try await call("resolve_hostname", members)
    guard let node = reply["node_id"]?.node else { throw Self.malformed("resolve_hostname") }
    return ResolvedName(node: node, lastSeen: reply["last_seen_unix"]?.integer)
  }

  /// Beacons besides the configured one, `host:port`; empty means: use that. A pilot-rendezvous names those that our own
  /// nodes alone can use apart (wire/registry §2.8).
  package func beaconList() async throws(DirectoryError) -> [String] {
    let reply = try await call("beacon_list")
    let everybodys = (reply["beacons"]?.list ?? []).prefix(64).compactMap { $0["addr"]?.text }
    return everybodys + (reply["more_beacons"]?.list ?? []).prefix(64).compactMap(\.text)
  }

  /// Members of a request that carries the node's id and signature.
  nonisolated func signed(
    _ me: RegistrySigner, _ text: String, _ members: [String: JSONValue] = [:]
  ) -> [String: JSONValue] {
    var members = members
    members["node_id"] = .whole(me.node)
    members["signature"] = me.sign(text)
    return members
  }

  static func malformed(_ operation: String) -> DirectoryError {
    DirectoryError(.badReply, "the registry's answer to \(operation) lacks what it must have")
  }
}

/// Hostnames of the registry: 1-63 of `[a-z0-9-]`, no hyphen at either end (wire/registry §2.4).
package enum HostnameRule {
  /// Lower case; nil when no node can have the name.
  package static func normalize(_ text: String) -> String? {
    // ASCII only: lowercased() would turn the Kelvin sign into a k.
    guard text.utf8.allSatisfy({ $0 < 0x80 }) else { return nil }
    let name = text.lowercased()
    let bytes = Array(name.utf8)
    guard (1...63).contains(bytes.count), bytes.first != UInt8(ascii: "-"), bytes.last != UInt8(ascii: "-"),
      bytes.allSatisfy({
        switch $0 {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"): true
        default: false
        }
      }), !["localhost", "backbone", "broadcast"].contains(name)
    else { return nil }
    return name
  }
}
