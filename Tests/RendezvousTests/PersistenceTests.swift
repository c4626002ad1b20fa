// What survives a restart, a kill, and the loss of the database.

import JSON
import Foundation
import Session
import Testing
import Wire

@testable import Rendezvous

@Suite struct PersistenceTests {
  /// All keys begin their search at one id, so every second node collides.
  private static func colliding(_ configuration: inout RendezvousConfiguration) {
    configuration.derivation = { _ in 0x5000_0000 }
  }

  /// A copy of the files as a killed process leaves them: the write-ahead log is not merged.
  private func snapshot(_ rendezvous: Rendezvous) throws -> String {
    let copy = Rendezvous.temporaryDirectory()
    try FileManager.default.copyItem(atPath: rendezvous.directory, toPath: copy)
    return copy
  }

  private func removeDatabase(_ directory: String) throws {
    for name in try FileManager.default.contentsOfDirectory(atPath: directory) where name.contains(".sqlite") {
      try FileManager.default.removeItem(atPath: directory + "/" + name)
    }
  }

  @Test("everything acknowledged is there after a kill")
  func kill() async throws {
    try await Rendezvous.running { rendezvous in
      let client = try rendezvous.connect()
      let (a, b) = (TestNode(), TestNode())
      let (x, y) = (try client.enroll(a, listen: "127.0.0.1:4001"), try client.enroll(b))
      _ = try client.setHostname(a, x, "agent-a")
      _ = try client.setPublic(b, y, true)
      _ = try client.signed("set_tags", a, "set_tags:\(x)", [("node_id", .whole(x)), ("tags", .list(of: ["swift"]))])
      _ = try client.ask("create_network", [("name", "team"), ("join_rule", "open"), ("admin_token", "operator")])
      _ = try client.join(a, x, 1)
      _ = try client.requestHandshake(a, x, to: y, "please")
      let copy = try snapshot(rendezvous)
      let second = try await Rendezvous.start(in: copy)
      let again = try second.connect()
      #expect(try again.heartbeat(a, x).text("type") == "heartbeat_ok")
      let own = try again.ask("lookup", [("node_id", .whole(x))])
      #expect(own["networks"] == .list([.integer(0), .integer(1)]))
      #expect(own.text("hostname") == "agent-a")
      #expect(own.texts("tags") == ["swift"])
      #expect(try again.ask("lookup", [("node_id", .whole(y))]).flag("public"))
      let inbox = try again.poll(b, y)
      #expect(inbox["requests"]?.written.contains("please") == true)
      #expect(try again.respond(b, y, to: x, accept: true).text("type") == "respond_handshake_ok")
      #expect(try again.resolve(b, y, x).text("real_addr") == "127.0.0.1:4001")
      let third = try await Rendezvous.start(in: try snapshot(second))
      let last = try third.connect()
      #expect(try last.resolve(b, y, x).text("real_addr") == "127.0.0.1:4001")
      #expect(try last.poll(a, x)["responses"]?.written.contains("true") == true)
      await second.remove()
      await third.remove()
    }
  }

  @Test("a change that cannot be stored is refused and undone, and works when the disk does again")
  func failingStorage() async throws {
    try await Rendezvous.running { rendezvous in
      let client = try rendezvous.connect()
      let (a, b) = (TestNode(), TestNode())
      let (x, y) = (try client.enroll(a), try client.enroll(b))
      _ = try client.reportTrust(b, y, in: x)
      let disk = try Database(path: rendezvous.directory + "/rendezvous.sqlite")
      try disk.execute("CREATE TRIGGER full BEFORE INSERT ON trust BEGIN SELECT RAISE(ABORT, 'disk full'); END")
      #expect(try client.reportTrust(a, x, in: y).text("error").contains("cannot store"))
      #expect(rendezvous.count(.commitsFailed) == 1)
      let question: [(String, JSONValue)] = [("node_id", .whole(x)), ("peer_id", .whole(y))]
      #expect(try client.ask("check_trust", question)["trusted"] == .bool(false))
      #expect(try client.heartbeat(a, x).text("type") == "heartbeat_ok")
      try disk.execute("DROP TRIGGER full")
      #expect(try client.reportTrust(a, x, in: y).text("type") == "report_trust_ok")
      #expect(try client.ask("check_trust", question)["trusted"] == .bool(true))
    }
  }

  @Test("many changes at once are all durable when they are acknowledged")
  func groupCommit() async throws {
    try await Rendezvous.running { rendezvous in
      let nodes = (0..<60).map { _ in TestNode() }
      let ids = try await withThrowingTaskGroup(of: [(Int, UInt32)].self) { group in
        for part in 0..<6 {
          group.addTask {
            let client = try rendezvous.connect()
            return try stride(from: part, to: 60, by: 6).map { ($0, try client.enroll(nodes[$0])) }
          }
        }
        return try await group.reduce(into: [Int: UInt32]()) { all, some in
          for (index, id) in some { all[index] = id }
        }
      }
      let copy = try snapshot(rendezvous)
      let second = try await Rendezvous.start(in: copy)
      for (index, id) in ids {
        #expect(try second.connect().heartbeat(nodes[index], id).text("type") == "heartbeat_ok")
      }
      await second.remove()
    }
  }

  @Test("two rendezvous never work on one state directory")
  func lock() async throws {
    try await Rendezvous.running { rendezvous in
      await #expect {
        try await Rendezvous.start(in: rendezvous.directory).remove()
      } throws: {
        ($0 as? RendezvousError)?.code == "state_in_use"
      }
    }
  }

  @Test("a restart after a clean stop keeps ids, and colliding keys keep theirs")
  func restart() async throws {
    let rendezvous = try await Rendezvous.start(Self.colliding)
    let nodes = (0..<5).map { _ in TestNode() }
    let ids = try nodes.map { try rendezvous.connect().enroll($0) }
    #expect(ids == (0..<5).map { 0x5000_0000 + UInt32($0) })
    await rendezvous.server.shutdown()
    let again = try await Rendezvous.start(in: rendezvous.directory, Self.colliding)
    for (node, id) in zip(nodes, ids).reversed() {
      #expect(try again.connect().heartbeat(node, id).text("type") == "heartbeat_ok")
      #expect(try again.connect().enroll(node) == id)
    }
    await again.remove()
  }

  @Test("without its database the rendezvous gives every node its old id back, in any order")
  func lostDatabase() async throws {
    let rendezvous = try await Rendezvous.start()
    let nodes = (0..<8).map { _ in TestNode() }
    let ids = try nodes.map { try rendezvous.connect().enroll($0) }
    await rendezvous.remove()
    let again = try await Rendezvous.start()
    for (node, id) in zip(nodes, ids).shuffled() { #expect(try again.connect().enroll(node) == id) }
    await again.remove()
  }

  @Test("without its database not even colliding nodes are swapped")
  func lostDatabaseWithCollision() async throws {
    let rendezvous = try await Rendezvous.start(Self.colliding)
    let nodes = (0..<4).map { _ in TestNode() }
    let ids = try nodes.map { try rendezvous.connect().enroll($0) }
    #expect(Set(ids).count == 4)
    await rendezvous.server.shutdown()
    try removeDatabase(rendezvous.directory)
    let again = try await Rendezvous.start(in: rendezvous.directory, Self.colliding)
    let newcomer = try again.connect().enroll(TestNode())
    #expect(!ids.contains(newcomer))
    for (node, id) in zip(nodes, ids).reversed() { #expect(try again.connect().enroll(node) == id) }
    await again.remove()
  }

  @Test("without anything left a client that remembers its id gets it back, but nobody gets an id of his choice")
  func rememberedID() async throws {
    let first = try await Rendezvous.start(Self.colliding)
    let (a, b) = (TestNode(), TestNode())
    let (x, y) = (try first.connect().enroll(a), try first.connect().enroll(b))
    await first.remove()
    try await Rendezvous.running(Self.colliding) { rendezvous in
      let client = try rendezvous.connect()
      #expect(try client.register(b, [("node_id", .whole(y))]).id("node_id") == y)
      #expect(try client.register(a, [("node_id", .whole(x))]).id("node_id") == x)
      let thief = try client.register(TestNode(), [("node_id", .whole(x))])
      #expect(thief.id("node_id") == y + 1)
      let far: UInt32 = 0x5000_1000
      #expect(try client.register(TestNode(), [("node_id", .whole(far))]).id("node_id") == y + 2)
      #expect(try client.register(TestNode(), [("node_id", .integer(20_000))]).id("node_id") == y + 3)
    }
  }

  @Test("a rotated key keeps its id without the database")
  func rotatedKey() async throws {
    let rendezvous = try await Rendezvous.start()
    let (old, new) = (TestNode(), TestNode())
    let client = try rendezvous.connect()
    let id = try client.enroll(old)
    let members: [(String, JSONValue)] = [("node_id", .whole(id)), ("new_public_key", .text(new.key))]
    #expect(try client.signed("rotate_key", old, "rotate:\(id):\(new.key)", members).text("type") == "rotate_key_ok")
    await rendezvous.server.shutdown()
    try removeDatabase(rendezvous.directory)
    let again = try await Rendezvous.start(in: rendezvous.directory)
    #expect(try again.connect().enroll(old) != id)
    #expect(try again.connect().enroll(new) == id)
    await again.remove()
  }

  @Test("the search for an id wraps at the end of the range")
  func wrapping() async throws {
    try await Rendezvous.running {
      $0.derivation = { _ in NodeIdentifier.range.upperBound }
    } _: { rendezvous in
      let client = try rendezvous.connect()
      #expect(try client.enroll(TestNode()) == NodeIdentifier.range.upperBound)
      #expect(try client.enroll(TestNode()) == NodeIdentifier.range.lowerBound)
    }
  }

  @Test("a torn line of the identifier journal is ignored and does not swallow the next")
  func tornJournal() throws {
    let path = Rendezvous.temporaryDirectory()
    let key = TestNode().identity.publicKey
    defer { try? FileManager.default.removeItem(atPath: path) }
    try "1342177280 AAAA\n77".write(toFile: path, atomically: true, encoding: .utf8)
    let journal = try IdentifierJournal(path: path)
    #expect(journal.entries.isEmpty)
    try journal.append(key, id: 0x5000_0001)
    try journal.synchronize()
    #expect(try IdentifierJournal(path: path).entries == [key: 0x5000_0001])
  }

  @Test("what is applied is what is loaded")
  func storeRoundTrip() throws {
    let directory = try emptyDirectory()
    defer { try? FileManager.default.removeItem(atPath: directory) }
    var node = NodeRecord(
      id: 0xFFFF_FFFE, key: TestNode().identity.publicKey, createdAt: 1, host: try #require(IPv6Address("2001:db8::1")),
      endpoint: try #require(Endpoint("[2001:db8::1]:4000")), lastSeen: 5)
    node.rotatedAt = 4
    node.rotateCount = 2
    (node.owner, node.version, node.hostname) = ("o", "v", "h")
    node.tags = ["a", "b"]
    node.lanAddresses = [try #require(Endpoint("10.0.0.1:1")), try #require(Endpoint("[fd00::1]:2"))]
    (node.isPublic, node.isRelayOnly, node.provesFreshly) = (true, true, true)
    var network = NetworkRecord(id: 65534, name: "n", rule: .invite, token: "t", createdAt: 1)
    (network.adminToken, network.isEnterprise, network.rules, network.expression) = ("a", true, "{}", "[]")
    network.policy = NetworkPolicyRecord(maxMembers: .max, allowedPorts: [1, 65535], text: "d")
    let expected = StoredState(
      nodes: [node], trust: [(1, 2)],
      handshakes: [.init(sender: 1, target: 2, justification: "j", at: 3, state: .delivered)],
      responses: [.init(requester: 1, peer: 2, isAccepted: true, at: 3)],
      networks: [network],
      members: [.init(network: 65534, node: 1, role: .owner, joinedAt: 2, tags: ["x", "y"])],
      invites: [.init(network: 65534, target: 3, inviter: 1, at: 4)], lastNetwork: 65535)
    let gone = NetworkRecord(id: 65535, name: "gone", rule: .open, token: "", createdAt: 1)
    let store = try RegistryStore(directory: directory)
    #expect(try store.synchronousSetting == 2)
    try store.apply([
      .node(node), .trust(1, 2, isTrusted: true), .trust(3, 4, isTrusted: true), .trust(3, 4, isTrusted: false),
      .handshake(expected.handshakes[0]), .response(expected.responses[0]), .network(expected.networks[0]),
      .member(expected.members[0]), .invite(expected.invites[0]),
      .invite(.init(network: 65534, target: 4, inviter: 1, at: 4)), .noInvite(network: 65534, target: 4),
      .network(gone), .member(.init(network: 65535, node: 1, role: .member, joinedAt: 2)),
      .invite(.init(network: 65535, target: 3, inviter: 1, at: 4)), .noNetwork(65535),
    ])
    store.close()
    let again = try RegistryStore(directory: directory)
    #expect(try again.load() == expected)
    again.close()
    #expect(throws: DatabaseError.self) { try again.apply([.node(node)]) }
  }

  @Test("a change that fails in the middle leaves nothing, and rows that make no sense are passed over")
  func databaseRows() throws {
    let directory = try emptyDirectory()
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let store = try RegistryStore(directory: directory)
    let path = directory + "/rendezvous.sqlite"
    let other = try Database(path: path)
    try other.execute("CREATE TRIGGER full BEFORE INSERT ON invite BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    #expect {
      try store.apply([
        .trust(1, 2, isTrusted: true), .invite(.init(network: 1, target: 3, inviter: 1, at: 4)),
      ])
    } throws: {
      "\($0)".contains("disk full")
    }
    #expect(try store.load() == StoredState())
    try store.apply([.trust(1, 2, isTrusted: true)])
    // No node id, no id of a network, no role, a key of 3 bytes.
    try other.execute(
      """
      INSERT INTO trust VALUES (-1, 2), (4294967296, 2);
      INSERT INTO gone_network VALUES (70000);
      INSERT INTO member VALUES (1, 1, 'emperor', 0, '');
      INSERT INTO node VALUES (1, x'010203', 0, NULL, 0, '', '', '', 0, '', 1, '::1', '[::1]:1', '', 0, 0, 0);
      """)
    #expect(try store.load() == StoredState(trust: [(1, 2)]))
  }

  @Test(
    "times are written as RFC 3339 has them", arguments: [0, 999, 951_782_399_000, 951_782_400_000, 1_795_400_000_123])
  func timestamps(_ milliseconds: Int64) {
    let expected = Date(timeIntervalSince1970: Double(milliseconds / 1000)).formatted(.iso8601)
    #expect(RegistryService.timestamp(milliseconds) == expected)
  }

  @Test("a database of a newer release, and a file that is none, are left alone")
  func foreignDatabase() throws {
    let directory = try emptyDirectory()
    defer { try? FileManager.default.removeItem(atPath: directory) }
    try RegistryStore(directory: directory).close()
    let path = directory + "/rendezvous.sqlite"
    let newer = try Database(path: path)
    try newer.run("INSERT INTO grdb_migrations VALUES (?)", ["3 something"])
    newer.close()
    #expect {
      _ = try RegistryStore(directory: directory)
    } throws: {
      ($0 as? RendezvousError)?.code == "state_too_new"
    }
    try FileManager.default.removeItem(atPath: path)
    try String(repeating: "no database ", count: 500).write(toFile: path, atomically: true, encoding: .utf8)
    #expect {
      _ = try RegistryStore(directory: directory)
    } throws: {
      ($0 as? RendezvousError)?.code == "state_unusable" && "\($0)".contains("SQLite error 26")
    }
    #expect(try String(contentsOfFile: path, encoding: .utf8).hasPrefix("no database"))
  }

  private func emptyDirectory() throws -> String {
    let directory = Rendezvous.temporaryDirectory()
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    return directory
  }
}
