// An official registry: it knows the request types and members of wire/registry and answers everything else with an
// error. What a node sends it, and how it lives with refusals.

import JSON
import Session
import Synchronization
import Testing
import Wire

@testable import Directory

/// What official registries know.
private enum Official {
  /// Members of each request besides `type` (wire/registry §2).
  static let members: [String: Set<String>] = [
    "register": [
      "listen_addr", "owner", "public_key", "signature", "version", "lan_addrs", "relay_only", "hostname",
    ],
    "heartbeat": ["node_id", "signature"],
    "deregister": ["node_id", "signature"],
    "rotate_key": ["node_id", "new_public_key", "signature"],
    "lookup": ["node_id"],
    "resolve": ["node_id", "requester_id", "signature"],
    "resolve_hostname": ["hostname"],
    "set_hostname": ["node_id", "hostname", "signature"],
    "set_visibility": ["node_id", "public", "signature"],
    "set_tags": ["node_id", "tags", "signature"],
    "punch": ["requester_id", "node_a", "node_b", "signature"],
    "report_trust": ["node_id", "peer_id", "signature"],
    "revoke_trust": ["node_id", "peer_id", "signature"],
    "check_trust": ["node_id", "peer_id"],
    "request_handshake": ["from_node_id", "to_node_id", "justification", "signature"],
    "poll_handshakes": ["node_id", "signature"],
    "respond_handshake": ["node_id", "peer_id", "accept", "signature"],
    "list_networks": [],
    "join_network": ["node_id", "network_id", "token", "inviter_id", "signature"],
    "leave_network": ["node_id", "network_id", "signature"],
    "get_network_policy": ["network_id"],
    "beacon_list": [],
  ]

  /// The refusal of a request that such a registry would not understand.
  static func refusal(of request: ScriptedRegistry.Request) -> String? {
    guard let known = members[request.type] else { return "unknown message type" }
    let unknown = Set((request.body.object ?? [:]).keys).subtracting(known).subtracting(["type"])
    return unknown.isEmpty ? nil : "invalid members: \(unknown.sorted())"
  }
}

@Suite("A registry that knows nothing of us", .timeLimit(.minutes(1)))
struct StrictRegistryTests {
  private static func everything(_ configuration: inout DirectoryConfiguration) {
    configuration.hostname = "agent"
    configuration.tags = ["web"]
    configuration.isRelayOnly = true
    configuration.networks = [NetworkMembership(id: 3, token: "t")]
    configuration.timing.heartbeat = .milliseconds(50)
  }

  @Test("is sent only what it knows, whatever the node does")
  func knownRequestsOnly() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let strange = Mutex<[String]>([])
    registry.follow { request in
      guard let refusal = Official.refusal(of: request) else { return [.normal] }
      strange.withLock { $0.append("\(request.type): \(refusal)") }
      return [.error(refusal)]
    }
    let node = try TestNode(temporary, port: registry.port, change: Self.everything)
    await node.connected()
    let directory = node.directory
    _ = await directory.record(of: 9)
    _ = await directory.node(named: "peer-9")
    _ = await directory.node(named: "nobody")
    try await directory.setVisibility(isPublic: true)
    try await directory.setTags(["a", "b"])
    _ = try await directory.setHostname("other")
    try await directory.requestTrust(9, justification: "hello")
    _ = await directory.revoke(9)
    _ = try await directory.listNetworks()
    _ = try await directory.policy(of: 3)
    _ = try await directory.join(NetworkMembership(id: 4, token: ""))
    try await directory.leave(4)
    _ = try await directory.client.checkTrust(7, 9)
    _ = try await directory.client.beaconList()
    await registry.request("heartbeat", number: 2)
    let start = node.events.all.count
    await directory.registerAgain()
    await node.registered(after: start)
    try await directory.deregister()
    #expect(strange.withLock { $0 } == [])
    #expect(registry.count("register") >= 2)
    await node.stop()
    await registry.stop()
  }

  @Test(
    "may refuse a request as unknown: the node is registered and stays so, and everything else works",
    arguments: [
      "set_visibility", "set_hostname", "set_tags", "lookup", "join_network", "poll_handshakes", "report_trust",
      "revoke_trust", "check_trust", "request_handshake", "resolve", "resolve_hostname", "list_networks",
      "get_network_policy", "beacon_list", "heartbeat",
    ])
  func unknownType(_ type: String) async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    registry.follow { request in
      if let refusal = Official.refusal(of: request) { return [.error(refusal)] }
      return request.type == type ? [.error("unknown message type")] : [.normal]
    }
    let node = try TestNode(temporary, port: registry.port, change: Self.everything)
    await node.connected()
    let directory = node.directory
    // What is refused is told to whoever asked, or left out.
    let record = await directory.record(of: 9)
    #expect((record?.publicKey != nil) == (type != "lookup"), "\(type)")
    if type != "lookup" { #expect((record?.endpoints.isEmpty == false) == (type != "resolve"), "\(type)") }
    if type == "resolve_hostname" {
      _ = await directory.node(named: "peer-9")
    } else {
      guard case .found(node: 9, _, _, _) = await directory.node(named: "peer-9") else {
        Issue.record("\(type): the name is not found")
        return
      }
    }
    _ = try? await directory.requestTrust(9, justification: "hello")
    _ = await directory.revoke(9)
    await registry.request("heartbeat", number: 3)
    guard case .connected = await directory.state else {
      Issue.record("\(type): \(await directory.state)")
      return
    }
    #expect(registry.connections == 1, "\(type)")
    await node.stop()
    await registry.stop()
  }

  @Test("a nonce is signed once for each connection, and a refusal for want of it is repeated after the signature")
  func nonces() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    let proven = Mutex<Set<Int>>([])
    registry.follow { request in
      if request.type == "prove_key" { proven.withLock { _ = $0.insert(request.connection) } }
      if proven.withLock({ $0.contains(request.connection) }) { return [.normal] }
      return [
        .reply(
          .object(["type": .text("error"), "error": .text("nonce"), "nonce": .text("of \(request.connection)")]))
      ]
    }
    let node = try TestNode(temporary, port: registry.port)
    await node.connected()
    let start = node.events.all.count
    await registry.hangUp()
    await node.registered(after: start)
    let proofs = registry.requests.all.filter { $0.type == "prove_key" }
    #expect(proofs.map { $0.body["nonce"]?.text } == ["of 1", "of 2"])
    let key = Base64.encode(node.directory.identity.publicKey.bytes)
    for proof in proofs {
      let bytes = try #require(proof.body["signature"]?.text.flatMap { Base64.decode($0) })
      let signature = try #require(Bytes64(bytes))
      let text = "prove_key:of \(proof.connection):\(key)"
      #expect(Ed25519.verify(signature, of: Array(text.utf8), by: node.directory.identity.publicKey))
    }
    await node.stop()
    await registry.stop()
  }

  @Test("a registry that gives a nonce and does not take its signature is worked with all the same")
  func refusedProof() async throws {
    let temporary = TemporaryDirectory()
    let registry = try await ScriptedRegistry()
    registry.follow { request in
      switch request.type {
      case "prove_key": return [.error("unknown message type")]
      case "register":
        return [
          .reply(
            .object([
              "type": .text("register_ok"), "node_id": .whole(7), "address": .text("0:0000.0000.0007"),
              "nonce": .text(String(repeating: "n", count: 24)),
            ]))
        ]
      default: return [.normal]
      }
    }
    let node = try TestNode(temporary, port: registry.port) { $0.timing.heartbeat = .milliseconds(50) }
    await node.connected()
    await registry.request("heartbeat", number: 2)
    #expect(registry.count("prove_key") == 1)
    await node.stop()
    await registry.stop()
  }
}
