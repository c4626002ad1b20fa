// Tables and statements of the registry's database. Used by RegistryStore only.

import Wire

enum RegistrySchema {
  /// In the order in which they are applied. A name that was released stays, and so does what it does.
  private static let migrations: [(name: String, sql: String)] = [
    (
      "1 nodes, trust, handshakes, networks",
      """
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
      """
    ),
    (
      "2 policies, tags of members, invites, nonces",
      """
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
      """
    ),
  ]

  /// Brings the tables to what this release needs, each step whole or not at all. False, and nothing changed, for a
  /// database in which a newer release has applied steps of its own.
  static func migrate(_ database: Database) throws(DatabaseError) -> Bool {
    // Named as GRDB names it, which wrote the first databases.
    try database.execute("CREATE TABLE IF NOT EXISTS grdb_migrations (identifier TEXT NOT NULL PRIMARY KEY)")
    let applied = Set(
      try database.rows("SELECT identifier FROM grdb_migrations") { row throws(UnreadableColumn) -> String in
        try row[0]
      })
    guard applied.isSubset(of: migrations.map(\.name)) else { return false }
    for migration in migrations where !applied.contains(migration.name) {
      try database.transaction { () throws(DatabaseError) in
        try database.execute(migration.sql)
        try database.run("INSERT INTO grdb_migrations VALUES (?)", [migration.name])
      }
    }
    return true
  }

  static func apply(_ change: StoreChange, to database: Database) throws(DatabaseError) {
    switch change {
    case .exceptionalKey: break
    case .node(let node): try save(node, to: database)
    case .trust(let node, let peer, isTrusted: true):
      try database.run("INSERT OR REPLACE INTO trust VALUES (?, ?)", [node, peer])
    case .trust(let node, let peer, isTrusted: false):
      try database.run("DELETE FROM trust WHERE node = ? AND peer = ?", [node, peer])
    case .handshake(let request):
      try database.run(
        "INSERT OR REPLACE INTO handshake VALUES (?, ?, ?, ?, ?)",
        [request.target, request.sender, request.justification, request.at, request.state.rawValue])
    case .noHandshake(let sender, let target):
      try database.run("DELETE FROM handshake WHERE target = ? AND sender = ?", [target, sender])
    case .response(let response):
      try database.run(
        "INSERT OR REPLACE INTO response VALUES (?, ?, ?, ?)",
        [response.requester, response.peer, response.isAccepted, response.at])
    case .noResponses(let requester): try database.run("DELETE FROM response WHERE requester = ?", [requester])
    case .network(let network): try save(network, to: database)
    case .noNetwork(let id):
      for table in ["member", "invite"] { try database.run("DELETE FROM \(table) WHERE network = ?", [id]) }
      try database.run("DELETE FROM network WHERE id = ?", [id])
      try database.run("INSERT OR REPLACE INTO gone_network VALUES (?)", [id])
    case .invite(let invite):
      try database.run(
        "INSERT OR REPLACE INTO invite VALUES (?, ?, ?, ?)", [invite.network, invite.target, invite.inviter, invite.at])
    case .noInvite(let network, let target):
      try database.run("DELETE FROM invite WHERE network = ? AND target = ?", [network, target])
    case .member(let member):
      try database.run(
        "INSERT OR REPLACE INTO member VALUES (?, ?, ?, ?, ?)",
        [member.network, member.node, member.role.rawValue, member.joinedAt, member.tags.joined(separator: " ")])
    case .noMember(let network, let node):
      try database.run("DELETE FROM member WHERE network = ? AND node = ?", [network, node])
    }
  }

  private static func save(_ node: NodeRecord, to database: Database) throws(DatabaseError) {
    try database.run(
      "INSERT OR REPLACE INTO node VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
      [
        node.id, node.key, node.createdAt, node.rotatedAt, node.rotateCount, node.owner, node.version, node.hostname,
        node.isPublic, node.tags.joined(separator: " "), node.isRegistered, node.host.description,
        node.endpoint.description, node.lanAddresses.map(\.description).joined(separator: " "), node.isRelayOnly,
        node.lastSeen, node.provesFreshly,
      ])
  }

  private static func save(_ network: NetworkRecord, to database: Database) throws(DatabaseError) {
    try database.run(
      "INSERT OR REPLACE INTO network VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
      [
        network.id, network.name, network.rule.rawValue, network.token, network.createdAt, network.adminToken,
        network.isEnterprise, network.rules, network.policy.maxMembers,
        network.policy.allowedPorts.map { String($0) }.joined(separator: " "), network.policy.text, network.expression,
      ])
  }

  /// Rows that make no sense are not read: they can only come from a damaged or foreign file.
  static func load(_ database: Database) throws(DatabaseError) -> StoredState {
    var state = StoredState()
    state.nodes = try database.rows("SELECT * FROM node ORDER BY id", node)
    state.trust = try database.rows("SELECT * FROM trust ORDER BY node, peer") {
      row throws(UnreadableColumn) -> (UInt32, UInt32) in (try row["node"], try row["peer"])
    }
    state.handshakes = try database.rows("SELECT * FROM handshake ORDER BY target, sender", handshake)
    state.responses = try database.rows("SELECT * FROM response ORDER BY requester, peer") {
      row throws(UnreadableColumn) -> ResponseRecord in
      ResponseRecord(
        requester: try row["requester"], peer: try row["peer"], isAccepted: try row["is_accepted"], at: try row["at"])
    }
    state.networks = try database.rows("SELECT * FROM network ORDER BY id", network)
    state.members = try database.rows("SELECT * FROM member ORDER BY network, node", member)
    state.invites = try database.rows("SELECT * FROM invite ORDER BY network, target") {
      row throws(UnreadableColumn) -> InviteRecord in
      InviteRecord(
        network: try row["network"], target: try row["target"], inviter: try row["inviter"], at: try row["at"])
    }
    let gone = try database.rows("SELECT max(id) FROM gone_network") {
      row throws(UnreadableColumn) -> UInt16 in try row[0]
    }
    state.lastNetwork = max(gone.first ?? 0, state.networks.map(\.id).max() ?? 0)
    return state
  }

  private static func words(_ row: DatabaseRow, _ column: String) throws(UnreadableColumn) -> [String] {
    let text: String = try row[column]
    return text.split(separator: " ").map { String($0) }
  }

  private static func handshake(_ row: DatabaseRow) throws(UnreadableColumn) -> HandshakeRecord? {
    guard let standing = HandshakeRecord.State(rawValue: try row["state"]) else { return nil }
    return HandshakeRecord(
      sender: try row["sender"], target: try row["target"], justification: try row["justification"], at: try row["at"],
      state: standing)
  }

  private static func member(_ row: DatabaseRow) throws(UnreadableColumn) -> MemberRecord? {
    guard let role = MemberRecord.Role(rawValue: try row["role"]) else { return nil }
    return MemberRecord(
      network: try row["network"], node: try row["node"], role: role, joinedAt: try row["joined_at"],
      tags: try words(row, "tags"))
  }

  private static func network(_ row: DatabaseRow) throws(UnreadableColumn) -> NetworkRecord? {
    guard let rule = NetworkRecord.JoinRule(rawValue: try row["rule"]) else { return nil }
    return NetworkRecord(
      id: try row["id"], name: try row["name"], rule: rule, token: try row["token"], createdAt: try row["created_at"],
      adminToken: try row["admin_token"], isEnterprise: try row["is_enterprise"], rules: try row["rules"],
      policy: NetworkPolicyRecord(
        maxMembers: try row["max_members"], allowedPorts: try words(row, "allowed_ports").compactMap { UInt16($0) },
        text: try row["description"]),
      expression: try row["expression"])
  }

  private static func node(_ row: DatabaseRow) throws(UnreadableColumn) -> NodeRecord? {
    let (hostText, endpointText): (String, String) = (try row["host"], try row["endpoint"])
    guard let host = IPv6Address(hostText), let endpoint = Endpoint(endpointText) else { return nil }
    var node = NodeRecord(
      id: try row["id"], key: try row["public_key"], createdAt: try row["created_at"], host: host, endpoint: endpoint,
      lastSeen: try row["last_seen"])
    node.rotatedAt = try row["rotated_at"]
    node.rotateCount = try row["rotate_count"]
    node.owner = try row["owner"]
    node.version = try row["version"]
    node.hostname = try row["hostname"]
    node.isPublic = try row["is_public"]
    node.tags = try words(row, "tags")
    node.isRegistered = try row["is_registered"]
    node.lanAddresses = try words(row, "lan_addresses").compactMap { Endpoint($0) }
    node.isRelayOnly = try row["is_relay_only"]
    node.provesFreshly = try row["proves_freshly"]
    return node
  }
}
