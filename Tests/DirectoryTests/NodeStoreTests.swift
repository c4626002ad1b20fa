// The state directory: identity, pins, caches, lock; what a crash or a careless hand may leave there.

import Glibc
import JSON
import Session
import Testing
import Wire

@testable import Directory

private func mode(_ path: String) -> UInt32 {
  var status = stat()
  return stat(path, &status) == 0 ? UInt32(status.st_mode) & 0o777 : 0
}

private func write(_ text: String, _ path: String, mode: mode_t = 0o600) {
  let file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
  _ = text.withCString { Glibc.write(file, $0, strlen($0)) }
  fchmod(file, mode)
  close(file)
}

private func text(_ path: String) -> String? {
  (try? StateFile.read(path, limit: 1 << 20)).map { String(decoding: $0.bytes, as: UTF8.self) }
}

private func files(_ path: String) -> [String] {
  guard let directory = opendir(path) else { return [] }
  defer { closedir(directory) }
  var names: [String] = []
  while let entry = readdir(directory) {
    names.append(
      withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      })
  }
  return names.filter { $0 != "." && $0 != ".." }.sorted()
}

@Suite("Identity file")
struct IdentityFileTests {
  @Test("a new state directory is 0700, its identity 0600 and in the official form")
  func creation() throws {
    let temporary = TemporaryDirectory()
    let path = temporary.path + "/a/b/state"
    let store = try NodeStore(directory: path, logger: quiet)
    #expect(mode(path) == 0o700)
    #expect(mode(path + "/identity.json") == 0o600)
    let value = try JSONValue(parsing: Array(#require(text(path + "/identity.json")).utf8))
    let secret = try #require(value["private_key"]?.text.flatMap { Base64.decode($0) })
    #expect(secret.count == 64)
    #expect(Array(secret.suffix(32)) == store.identity.publicKey.bytes)
    #expect(value["public_key"]?.text == Base64.encode(store.identity.publicKey.bytes))
    #expect(!files(path).contains { $0.hasSuffix(".new") })
  }

  @Test("the same key comes back after a restart, also next to what a crash left")
  func restart() throws {
    let temporary = TemporaryDirectory()
    let first = try NodeStore(directory: temporary.path, logger: quiet).identity.publicKey
    write("{\"half", temporary.path + "/identity.json.new")
    write("{\"half", temporary.path + "/peers.json.new")
    let store = try NodeStore(directory: temporary.path, logger: quiet)
    #expect(store.identity.publicKey == first)
    #expect(store.warnings.isEmpty)
    _ = store.pin(node: 1, key: first)
    store.flush()
    #expect(!files(temporary.path).contains { $0.hasSuffix(".new") })
  }

  @Test(
    "an identity that others can read or write is refused with the remedy, and left alone",
    arguments: [
      0o640, 0o604, 0o660, 0o666, 0o610,
    ] as [mode_t])
  func insecure(bits: mode_t) throws {
    let temporary = TemporaryDirectory()
    let path = temporary.path + "/identity.json"
    _ = try NodeStore(directory: temporary.path, logger: quiet)
    let before = text(path)
    chmod(path, bits)
    let error = #expect(throws: DirectoryError.self) { try NodeStore(directory: temporary.path, logger: quiet) }
    #expect(error?.code == "identity_insecure")
    #expect(error?.hint?.contains("chmod 600 \(path)") == true)
    #expect(text(path) == before)
    #expect(mode(path) == UInt32(bits))
  }

  static let zero32 = Base64.encode([UInt8](repeating: 0, count: 32))
  static let zero64 = Base64.encode([UInt8](repeating: 0, count: 64))

  @Test(
    "a damaged identity is refused and never overwritten",
    arguments: [
      "", "{", "[]", "{}", "{\"private_key\":\"\",\"public_key\":\"\"}", "{\"private_key\":\"\(zero64)\"}",
      "{\"private_key\":\"\(zero32)\",\"public_key\":\"\(zero32)\"}",
      "{\"private_key\":\"\(zero64)\",\"public_key\":\"\(zero32)\"}",
      String(repeating: "x", count: 5000),
    ])
  func malformed(content: String) throws {
    let temporary = TemporaryDirectory()
    let path = temporary.path + "/identity.json"
    write(content, path)
    let error = #expect(throws: DirectoryError.self) { try NodeStore(directory: temporary.path, logger: quiet) }
    #expect(error?.code == "identity_malformed")
    #expect(error?.hint != nil)
    #expect(text(path) == content)
  }

  @Test("a link or a directory in its place is refused and left alone")
  func notAFile() throws {
    let linked = TemporaryDirectory()
    write("secret of another program", linked.path + "/other")
    symlink(linked.path + "/other", linked.path + "/identity.json")
    #expect(
      #expect(throws: DirectoryError.self) { try NodeStore(directory: linked.path, logger: quiet) }?.code
        == "identity_malformed")
    #expect(text(linked.path + "/other") == "secret of another program")
    let folder = TemporaryDirectory()
    mkdir(folder.path + "/identity.json", 0o700)
    #expect(throws: DirectoryError.self) { try NodeStore(directory: folder.path, logger: quiet) }
  }

  @Test("an identity that appears meanwhile is not replaced")
  func exclusive() throws {
    let temporary = TemporaryDirectory()
    let path = temporary.path + "/file"
    try StateFile.write(Array("first".utf8), to: path, replaces: false)
    let error = #expect(throws: StateFileError.self) {
      try StateFile.write(Array("second".utf8), to: path, replaces: false)
    }
    #expect(error?.errno == EEXIST)
    #expect(text(path) == "first")
    #expect(files(temporary.path) == ["file"])
  }
}

@Suite("Node store")
struct NodeStoreTests {
  private let keyA = Bytes32([UInt8](repeating: 1, count: 32))!
  private let keyB = Bytes32([UInt8](repeating: 2, count: 32))!

  @Test("a second node is kept out of a state directory in use, and let in afterwards")
  func lock() throws {
    let temporary = TemporaryDirectory()
    do {
      let store = try NodeStore(directory: temporary.path, logger: quiet)
      let error = #expect(throws: DirectoryError.self) { try NodeStore(directory: temporary.path, logger: quiet) }
      #expect(error?.code == "state_directory_locked")
      #expect(error?.message.contains("process \(getpid())") == true)
      _ = store.identity
    }
    _ = try NodeStore(directory: temporary.path, logger: quiet)
  }

  @Test("a directory that cannot be made is an explained error")
  func unusable() throws {
    let temporary = TemporaryDirectory()
    write("", temporary.path + "/file")
    let error = #expect(throws: DirectoryError.self) {
      try NodeStore(directory: temporary.path + "/file/state", logger: quiet)
    }
    #expect(error?.code == "state_directory_unavailable")
  }

  @Test("the key of first contact is pinned, a changed one refused until it is accepted")
  func pins() throws {
    let temporary = TemporaryDirectory()
    do {
      let store = try NodeStore(directory: temporary.path, logger: quiet)
      #expect(store.pin(node: 9, key: keyA) == .new)
      #expect(store.pin(node: 9, key: keyA) == .same)
      #expect(store.pin(node: 9, key: keyB) == .changed(pinned: keyA))
      #expect(store.pinnedKey(node: 9) == keyA)
      store.flush()
    }
    let store = try NodeStore(directory: temporary.path, logger: quiet)
    #expect(store.pin(node: 9, key: keyB) == .changed(pinned: keyA))
    #expect(store.acceptKey(node: 9))
    #expect(store.pin(node: 9, key: keyB) == .new)
    #expect(store.pin(node: 9, key: keyA) == .changed(pinned: keyB))
    #expect(!store.acceptKey(node: 10))
  }

  @Test("what is known of a peer comes back after a restart")
  func records() throws {
    let temporary = TemporaryDirectory()
    let endpoint = try #require(Endpoint("[2001:db8::1]:4000"))
    let outer = try #require(IPv6Address("192.0.2.1"))
    let record = PeerRecord(
      node: 77, publicKey: keyA, hostname: "agent-b", isPublic: true, networks: [0, 3], tags: ["swift"],
      version: "1.18.0", endpoints: [endpoint], isRelayOnly: true, lastSeen: 5, fetched: 6)
    do {
      let store = try NodeStore(directory: temporary.path, logger: quiet)
      store.note(record)
      store.noteEndpoint(endpoint, of: 77)
      store.note(own: OwnRegistration(registry: "r:1", node: 5, networks: [0, 3]))
      store.note(mappingLifetime: 95_000_000_000, behind: outer)
      store.note(mappingLifetime: 20_000_000_000, behind: IPv6Address(high: 0, low: 1))
      store.note(mappingLifetime: nil, behind: IPv6Address(high: 0, low: 1))
      _ = store.changeTrust { $0.settle(77, now: 8) }
      for node: UInt32 in [77, 78, 79] { store.noteRelay(node, true) }
      _ = store.changeTrust { $0.settle(79, now: 8) }
      store.noteRelay(79, false)
      _ = store.changeTrust { $0.keepPending(78, HandshakeEntry(time: 9, justification: "let me \"in\"")) }
      store.flush()
    }
    let store = try NodeStore(directory: temporary.path, logger: quiet)
    let back = try #require(store.record(of: 77))
    #expect(back.isFromStore)
    #expect(back.saysTheSame(as: record))
    #expect(back.lastSeen == 5)
    #expect(store.node(named: "agent-b") == 77)
    #expect(store.lastEndpoints(of: 77) == [endpoint])
    #expect(store.ownRegistration == OwnRegistration(registry: "r:1", node: 5, networks: [0, 3]))
    #expect(store.mappingLifetime(behind: outer) == 95_000_000_000)
    #expect(store.mappingLifetime(behind: IPv6Address(high: 0, low: 1)) == nil)
    #expect(store.isTrusted(77))
    #expect(!store.isTrusted(78))
    #expect(store.relays == [77], "trusted, and relaying when last heard")
    #expect(store.trust { $0.pending[78]?.justification } == "let me \"in\"")
  }

  @Test(
    "damaged cache files are moved aside with a warning and the node starts",
    arguments: [
      "peers.json", "trust.json",
    ], ["", "{", "[]", "{\"version\":2}", "\u{0}\u{1}garbage"])
  func damaged(file: String, content: String) throws {
    let temporary = TemporaryDirectory()
    let key = try NodeStore(directory: temporary.path, logger: quiet).identity.publicKey
    write(content, temporary.path + "/" + file)
    let store = try NodeStore(directory: temporary.path, logger: quiet)
    #expect(store.identity.publicKey == key)
    #expect(store.warnings.count == 1)
    let aside = try #require(files(temporary.path).first { $0.hasPrefix(file + ".broken-") })
    #expect(text(temporary.path + "/" + aside)?.utf8.count == content.utf8.prefix { $0 != 0 }.count)
    #expect(!store.isTrusted(1))
  }

  @Test("a trust file with senseless lines trusts less, never more")
  func senselessTrust() throws {
    let temporary = TemporaryDirectory()
    write(
      """
      {"version":1,"trusted":[{"node_id":0},{"node_id":-1},{"node_id":"5"},{"node_id":4294967296},{"node_id":6}]}
      """, temporary.path + "/trust.json")
    let store = try NodeStore(directory: temporary.path, logger: quiet)
    #expect(store.trustedNodes == [6])
  }

  @Test("refused endpoints do not erase those that the registry gave before")
  func refusedEndpoints() throws {
    let temporary = TemporaryDirectory()
    let store = try NodeStore(directory: temporary.path, logger: quiet)
    let endpoint = try #require(Endpoint("192.0.2.7:4000"))
    store.note(PeerRecord(node: 4, endpoints: [endpoint]))
    store.note(PeerRecord(node: 4, isEndpointRefused: true))
    #expect(store.record(of: 4)?.endpoints == [endpoint])
  }

  @Test("a private node that does not show its name keeps the one it had, a public one has none")
  func hiddenNames() throws {
    let temporary = TemporaryDirectory()
    let store = try NodeStore(directory: temporary.path, logger: quiet)
    store.note(PeerRecord(node: 4, hostname: "alpha"))
    store.note(PeerRecord(node: 4))
    #expect(store.node(named: "alpha") == 4)
    #expect(store.record(of: 4)?.hostname == "alpha")
    store.forget(name: "alpha")
    #expect(store.node(named: "alpha") == nil)
    store.note(PeerRecord(node: 5, hostname: "beta", isPublic: true))
    store.note(PeerRecord(node: 5, isPublic: true))
    #expect(store.node(named: "beta") == nil)
  }

  @Test("the book of peers is bounded; the oldest news give way, trusted peers stay")
  func bounded() {
    var book = PeerBook()
    book.capacity = 200
    for node in UInt32(1)...1000 {
      book.update(node, now: Int64(node), keeps: { [1, 2] }) { entry in
        entry.record = PeerRecord(node: node, hostname: "n\(node)")
      }
    }
    #expect(book.entries.count <= 200)
    #expect(book.entry(1) != nil && book.entry(2) != nil && book.entry(1000) != nil)
    #expect(book.entry(3) == nil)
    #expect(book.node(named: "n3") == nil)
    #expect(book.node(named: "n1000") == 1000)
  }

  @Test("a hostname follows the node that has it now")
  func names() {
    var book = PeerBook()
    book.update(1, now: 1) { $0.record = PeerRecord(node: 1, hostname: "a") }
    book.update(2, now: 2) { $0.record = PeerRecord(node: 2, hostname: "a") }
    #expect(book.node(named: "a") == 2)
    book.update(1, now: 3) { $0.isRelay = true }
    #expect(book.node(named: "a") == 2, "other news of who had it")
    book.update(1, now: 3) { $0.record?.hostname = "b" }
    #expect(book.node(named: "a") == 2)
    #expect(book.node(named: "b") == 1)
    book.forget(name: "a")
    #expect(book.node(named: "a") == nil)
  }

  @Test("changes are saved by the service, soon and not one by one")
  func saving() async throws {
    let temporary = TemporaryDirectory()
    let store = try NodeStore(directory: temporary.path, logger: quiet)
    let service = Task { await store.run(saveInterval: .milliseconds(50)) }
    for node in UInt32(1)...500 { _ = store.pin(node: node, key: keyA) }
    try await eventually("all pins are on disk") {
      (text(temporary.path + "/peers.json") ?? "").components(of: "\"key\"") == 500
    }
    service.cancel()
    await service.value
  }
}

extension String {
  fileprivate func components(of word: String) -> Int {
    var count = 0
    var rest = self[...]
    while let range = rest.firstRange(of: word) {
      count += 1
      rest = rest[range.upperBound...]
    }
    return count
  }
}
