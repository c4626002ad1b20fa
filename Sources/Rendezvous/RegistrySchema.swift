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
    migrator.registerMigration("2 policies, tags of members, invites, nonces") { database in
      try database.execute(
        sql: """
          ALTER TABLE node ADD COLUMN proves_freshly INTEGER NOT NULL DEFAULT 0;
          ALTER TABLE network ADD COLUMN admin_token TEXT NOT NULL DEFAULT '';
          ALTER TABLE network ADD COLUMN is_enterprise INTEGER NOT NULL DEFAULT 0;
          ALTER TABLE network ADD COLUMN rules TEXT NOT NULL DEFAULT '';
          ALTER TABLE network ADD COLUMN max_members INTEGER NOT NULL DEFAULT 0;
          ALTER TABLE network ADD COLUMN allowed_ports TEXT NOT NULL DEFAULT '';
          ALTER TABLE network ADD COLUMN description TEXT NOT NULL DEFAULT '';
          ALTER TABLE network ADD COLUMN expression TEXT NOT NULL DEFAULT '';
          ALTER TABLE member ADD COLUMN tags TEXT NOT NULL DEFAULT '';
          CREATE TABLE invite (
            network INTEGER NOT NULL,
            target INTEGER NOT NULL,
            inviter INTEGER NOT NULL,
            at INTEGER NOT NULL,
            PRIMARY KEY (network, target)
          ) STRICT, WITHOUT ROWID;
          CREATE TABLE gone_network (
            id INTEGER PRIMARY KEY
          ) STRICT;
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
    case .network(let network): try save(network, to: database)
    case .noNetwork(let id):
      for table in ["member", "invite"] { try run("DELETE FROM \(table) WHERE network = ?", [id]) }
      try run("DELETE FROM network WHERE id = ?", [id])
      try run("INSERT OR REPLACE INTO gone_network VALUES (?)", [id])
    case .invite(let invite):
      try run(
        "INSERT OR REPLACE INTO invite VALUES (?, ?, ?, ?)", [invite.network, invite.target, invite.inviter, invite.at])
    case .noInvite(let network, let target):
      try run("DELETE FROM invite WHERE network = ? AND target = ?", [network, target])
    case .member(let member):
      try run(
        "INSERT OR REPLACE INTO member VALUES (?, ?, ?, ?, ?)",
        [member.network, member.node, member.role.rawValue, member.joinedAt, member.tags.joined(separator: " ")])
    case .noMember(let network, let node):
      try run("DELETE FROM member WHERE network = ? AND node = ?", [network, node])
    }
  }

  private static func save(_ node: NodeRecord, to database: Database) throws {
    let statement = try database.cachedStatement(
      sql: "INSERT OR REPLACE INTO node VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
    try statement.execute(arguments: [
      node.id, Data(node.key.bytes), node.createdAt, node.rotatedAt, node.rotateCount, node.owner, node.version,
      node.hostname, node.isPublic, node.tags.joined(separator: " "), node.isRegistered, node.host.description,
      node.endpoint.description, node.lanAddresses.map(\.description).joined(separator: " "), node.isRelayOnly,
      node.lastSeen, node.provesFreshly,
    ])
  }

  private static func save(_ network: NetworkRecord, to database: Database) throws {
    let statement = try database.cachedStatement(
      sql: "INSERT OR REPLACE INTO network VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
    try statement.execute(arguments: [
      network.id, network.name, network.rule.rawValue, network.token, network.createdAt, network.adminToken,
      network.isEnterprise, network.rules, network.policy.maxMembers,
      network.policy.allowedPorts.map(String.init).joined(separator: " "), network.policy.text, network.expression,
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
    state.networks = try Row.fetchAll(database, sql: "SELECT * FROM network ORDER BY id").compactMap(network)
    state.members = try Row.fetchAll(database, sql: "SELECT * FROM member ORDER BY network, node").compactMap { row in
      guard let role = MemberRecord.Role(rawValue: row["role"]) else { return nil }
      return MemberRecord(
        network: row["network"], node: row["node"], role: role, joinedAt: row["joined_at"], tags: words(row, "tags"))
    }
    state.invites = try Row.fetchAll(database, sql: "SELECT * FROM invite ORDER BY network, target").map { row in
      InviteRecord(network: row["network"], target: row["target"], inviter: row["inviter"], at: row["at"])
    }
    let gone = try UInt16.fetchOne(database, sql: "SELECT max(id) FROM gone_network") ?? 0
    state.lastNetwork = max(gone, state.networks.map(\.id).max() ?? 0)
    return state
  }

  private static func words(_ row: Row, _ column: String) -> [String] {
    let text: String = row[column]
    return text.split(separator: " ").map(String.init)
  }

  private static func network(_ row: Row) -> NetworkRecord? {
    guard let rule = NetworkRecord.JoinRule(rawValue: row["rule"]) else { return nil }
    return NetworkRecord(
      id: row["id"], name: row["name"], rule: rule, token: row["token"], createdAt: row["created_at"],
      adminToken: row["admin_token"], isEnterprise: row["is_enterprise"], rules: row["rules"],
      policy: NetworkPolicyRecord(
        maxMembers: row["max_members"], allowedPorts: words(row, "allowed_ports").compactMap { UInt16($0) },
        text: row["description"]),
      expression: row["expression"])
  }

  private static func node(_ row: Row) -> NodeRecord? {
    let data: Data = row["public_key"]
    let hostText: String = row["host"]
    let endpointText: String = row["endpoint"]
    guard let key = Bytes32(data), let host = IPv6Address(hostText), let endpoint = Endpoint(endpointText) else {
      return nil
    }
    var node = NodeRecord(
      id: row["id"], key: key, createdAt: row["created_at"], host: host, endpoint: endpoint, lastSeen: row["last_seen"])
    node.rotatedAt = row["rotated_at"]
    node.rotateCount = row["rotate_count"]
    node.owner = row["owner"]
    node.version = row["version"]
    node.hostname = row["hostname"]
    node.isPublic = row["is_public"]
    node.tags = words(row, "tags")
    node.isRegistered = row["is_registered"]
    node.lanAddresses = words(row, "lan_addresses").compactMap { Endpoint($0) }
    node.isRelayOnly = row["is_relay_only"]
    node.provesFreshly = row["proves_freshly"]
    return node
  }
}
