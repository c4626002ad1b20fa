// Tables and statements of the registry's database. Used by RegistryStore only.

import Foundation
import GRDB
import Wire

enum RegistrySchema {
  static var migrator: DatabaseMigrator {
    var migrator = DatabaseMigrator()
    migrator.registerMigration("1 nodes, trust, handshakes, networks") { database in
      try database.execute(
        sql: """
          CREATE TABLE node (
            id INTEGER PRIMARY KEY,
            public_key BLOB NOT NULL UNIQUE,
            created_at INTEGER NOT NULL,
            rotated_at INTEGER,
            rotate_count INTEGER NOT NULL,
            owner TEXT NOT NULL,
            version TEXT NOT NULL,
            hostname TEXT NOT NULL,
            is_public INTEGER NOT NULL,
            tags TEXT NOT NULL,
            is_registered INTEGER NOT NULL,
            host TEXT NOT NULL,
            endpoint TEXT NOT NULL,
            lan_addresses TEXT NOT NULL,
            is_relay_only INTEGER NOT NULL,
            last_seen INTEGER NOT NULL
          ) STRICT;
          CREATE TABLE trust (
            node INTEGER NOT NULL,
            peer INTEGER NOT NULL,
            PRIMARY KEY (node, peer)
          ) STRICT, WITHOUT ROWID;
          CREATE TABLE handshake (
            target INTEGER NOT NULL,
            sender INTEGER NOT NULL,
            justification TEXT NOT NULL,
            at INTEGER NOT NULL,
            state INTEGER NOT NULL,
            PRIMARY KEY (target, sender)
          ) STRICT, WITHOUT ROWID;
          CREATE TABLE response (
            requester INTEGER NOT NULL,
            peer INTEGER NOT NULL,
            is_accepted INTEGER NOT NULL,
            at INTEGER NOT NULL,
            PRIMARY KEY (requester, peer)
          ) STRICT, WITHOUT ROWID;
          CREATE TABLE network (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            rule TEXT NOT NULL,
            token TEXT NOT NULL,
            created_at INTEGER NOT NULL
          ) STRICT;
          CREATE TABLE member (
            network INTEGER NOT NULL,
            node INTEGER NOT NULL,
            role TEXT NOT NULL,
            joined_at INTEGER NOT NULL,
            PRIMARY KEY (network, node)
          ) STRICT, WITHOUT ROWID;
          """)
    }
    return migrator
  }

  static func apply(_ change: StoreChange, to database: Database) throws {
    func run(_ sql: String, _ arguments: StatementArguments) throws {
      try database.cachedStatement(sql: sql).execute(arguments: arguments)
    }
    switch change {
    case .exceptionalKey: break
    case .node(let node): try save(node, to: database)
    case .trust(let node, let peer, isTrusted: true):
      try run("INSERT OR REPLACE INTO trust VALUES (?, ?)", [node, peer])
    case .trust(let node, let peer, isTrusted: false):
      try run("DELETE FROM trust WHERE node = ? AND peer = ?", [node, peer])
    case .handshake(let request):
      try run(
        "INSERT OR REPLACE INTO handshake VALUES (?, ?, ?, ?, ?)",
        [request.target, request.sender, request.justification, request.at, request.state.rawValue])
    case .noHandshake(let sender, let target):
      try run("DELETE FROM handshake WHERE target = ? AND sender = ?", [target, sender])
    case .response(let response):
      try run(
        "INSERT OR REPLACE INTO response VALUES (?, ?, ?, ?)",
        [response.requester, response.peer, response.isAccepted, response.at])
    case .noResponses(let requester): try run("DELETE FROM response WHERE requester = ?", [requester])
    case .network(let network):
      try run(
        "INSERT OR REPLACE INTO network VALUES (?, ?, ?, ?, ?)",
        [network.id, network.name, network.rule.rawValue, network.token, network.createdAt])
    case .member(let member):
      try run(
        "INSERT OR REPLACE INTO member VALUES (?, ?, ?, ?)",
        [member.network, member.node, member.role.rawValue, member.joinedAt])
    case .noMember(let network, let node):
      try run("DELETE FROM member WHERE network = ? AND node = ?", [network, node])
    }
  }

  private static func save(_ node: NodeRecord, to database: Database) throws {
    let statement = try database.cachedStatement(
      sql: "INSERT OR REPLACE INTO node VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
    try statement.execute(arguments: [
      node.id, Data(node.key.bytes), node.createdAt, node.rotatedAt, node.rotateCount, node.owner, node.version,
      node.hostname, node.isPublic, node.tags.joined(separator: " "), node.isRegistered, node.host.description,
      node.endpoint.description, node.lanAddresses.map(\.description).joined(separator: " "), node.isRelayOnly,
      node.lastSeen,
    ])
  }

  /// Rows that make no sense are not read: they can only come from a damaged or foreign file.
  static func load(_ database: Database) throws -> StoredState {
    var state = StoredState()
    state.nodes = try Row.fetchAll(database, sql: "SELECT * FROM node ORDER BY id").compactMap(node)
    state.trust = try Row.fetchAll(database, sql: "SELECT * FROM trust ORDER BY node, peer").map {
      ($0["node"], $0["peer"])
    }
    state.handshakes = try Row.fetchAll(database, sql: "SELECT * FROM handshake ORDER BY target, sender").compactMap {
      row in
      guard let standing = HandshakeRecord.State(rawValue: row["state"]) else { return nil }
      return HandshakeRecord(
        sender: row["sender"], target: row["target"], justification: row["justification"], at: row["at"],
        state: standing)
    }
    state.responses = try Row.fetchAll(database, sql: "SELECT * FROM response ORDER BY requester, peer").map { row in
      ResponseRecord(requester: row["requester"], peer: row["peer"], isAccepted: row["is_accepted"], at: row["at"])
    }
    state.networks = try Row.fetchAll(database, sql: "SELECT * FROM network ORDER BY id").compactMap { row in
      guard let rule = NetworkRecord.JoinRule(rawValue: row["rule"]) else { return nil }
      return NetworkRecord(
        id: row["id"], name: row["name"], rule: rule, token: row["token"], createdAt: row["created_at"])
    }
    state.members = try Row.fetchAll(database, sql: "SELECT * FROM member ORDER BY network, node").compactMap { row in
      guard let role = MemberRecord.Role(rawValue: row["role"]) else { return nil }
      return MemberRecord(network: row["network"], node: row["node"], role: role, joinedAt: row["joined_at"])
    }
    return state
  }

  private static func node(_ row: Row) -> NodeRecord? {
    let data: Data = row["public_key"]
    let hostText: String = row["host"]
    let endpointText: String = row["endpoint"]
    guard let key = Bytes32(data), let host = IPv6Address(hostText), let endpoint = Endpoint(endpointText) else {
      return nil
    }
    func words(_ column: String) -> [String] {
      let text: String = row[column]
      return text.split(separator: " ").map(String.init)
    }
    var node = NodeRecord(
      id: row["id"], key: key, createdAt: row["created_at"], host: host, endpoint: endpoint, lastSeen: row["last_seen"])
    node.rotatedAt = row["rotated_at"]
    node.rotateCount = row["rotate_count"]
    node.owner = row["owner"]
    node.version = row["version"]
    node.hostname = row["hostname"]
    node.isPublic = row["is_public"]
    node.tags = words("tags")
    node.isRegistered = row["is_registered"]
    node.lanAddresses = words("lan_addresses").compactMap { Endpoint($0) }
    node.isRelayOnly = row["is_relay_only"]
    return node
  }
}
