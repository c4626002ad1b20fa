// What peers send to port 1001, on disk: forms that the official pilotctl reads, bounds, files that are resumed.

import Gateway
import Glibc
import JSON
import Services
import Shim
import Testing
import Wire

@testable import TunControl

/// A folder of this test, gone with it.
private final class Folder {
  let path: String

  init() {
    var template = Array("/tmp/inbox-tests-XXXXXX".utf8CString)
    path = template.withUnsafeMutableBufferPointer {
      $0.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) } ?? ""
    }
  }

  deinit { Self.remove(path) }

  private static func remove(_ path: String) {
    guard path.hasPrefix("/tmp/inbox-tests-") else { return }
    for name in names(path) where unlink("\(path)/\(name)") != 0 { remove("\(path)/\(name)") }
    rmdir(path)
  }

  static func names(_ path: String) -> [String] {
    guard let folder = opendir(path) else { return [] }
    defer { closedir(folder) }
    var names: [String] = []
    while let entry = readdir(folder) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names.sorted()
  }

  func names(_ kind: String) -> [String] { Self.names("\(path)/\(kind)") }

  func read(_ kind: String, _ name: String) -> [UInt8] { (try? SmallFile.read("\(path)/\(kind)/\(name)")) ?? [] }
}

@Suite("Inbox")
struct InboxTests {
  private let folder = Folder()
  private static let wall: UInt64 = 1_795_371_370_449_544_192
  private static let peer = PilotAddress(network: 0, node: 1)

  private func keeper(_ quota: InboxFolder.Quota = .init(), trusted: Set<UInt32> = [1]) -> InboxKeeper {
    InboxKeeper(
      InboxSettings(
        path: folder.path, quota: quota, isTrusted: { trusted.contains($0) }, wall: { Self.wall }, complain: { _ in },
        answer: { _, _ in }))
  }

  private func message(_ text: String, _ tag: MessageTag = MessageTag()) -> ExchangeRequest {
    .message(.text, Array(text.utf8), tag)
  }

  @Test("a message is a file in the form that pilotctl reads, for its user only")
  func form() throws {
    var keeper = keeper()
    let result = keeper.keep(message("answer", MessageTag(id: "7a3b", replyTo: "a6e0")), 1, Self.peer)
    #expect(result == .kept(isRepeated: false))
    let name = try #require(folder.names("inbox").first)
    #expect(name.hasPrefix("TEXT-20261122-1816") && name.hasSuffix(".json") && name.utf8.count == 36, "\(name)")
    let text = String(decoding: folder.read("inbox", name), as: UTF8.self)
    let expected =
      #"{"bytes":6,"data":"answer","data_encoding":"utf8","from":"0:0000.0000.0001","message_id":"7a3b","#
      + #""received_at":"2026-11-22T18:16:10.449544192Z","reply_to":"a6e0","type":"TEXT"}"#
    #expect(text == expected)
    var information = stat()
    #expect(stat("\(folder.path)/inbox/\(name)", &information) == 0 && information.st_mode & 0o777 == 0o600)
    #expect(folder.names("partial").isEmpty)
    _ = keeper.keep(.message(.binary, [0xFF, 0xFE], MessageTag()), 1, Self.peer)
    _ = keeper.keep(.message(.text, [0xC0], MessageTag()), 1, Self.peer)
    for name in folder.names("inbox").filter({ $0 != name }) {
      let value = try JSONValue(parsing: folder.read("inbox", name))
      #expect(value.string("data_encoding") == "base64" && ["//4=", "wA=="].contains(value.string("data_b64")))
    }
  }

  @Test("a message that comes again is kept once; the same id of another peer is another message")
  func repeated() {
    var keeper = keeper()
    _ = keeper.keep(message("a", MessageTag(id: "x")), 1, Self.peer)
    let again = keeper.keep(message("a", MessageTag(id: "x")), 2, Self.peer)
    #expect(again == .kept(isRepeated: true))
    let other = keeper.keep(message("a", MessageTag(id: "x")), 3, PilotAddress(network: 0, node: 2))
    #expect(other == .kept(isRepeated: false) && folder.names("inbox").count == 2)
  }

  @Test("files get a name that nobody else has, near the one that the peer gave them")
  func files() {
    var keeper = keeper()
    for name in ["f.txt", "f.txt", "noend", ".hidden", String(repeating: "x", count: 250) + ".txt"] {
      let result = keeper.keep(.file(name: name, content: [1, 2], MessageTag()), 1, Self.peer)
      #expect(result == .kept(isRepeated: false), "\(name)")
    }
    let names = folder.names("received")
    #expect(names.count == 5 && names.allSatisfy { folder.read("received", $0) == [1, 2] })
    #expect(names.count { $0.hasPrefix("f-20261122-") && $0.hasSuffix(".txt") } == 2)
    #expect(names.contains { $0.hasPrefix(".hidden-2026") } && names.allSatisfy { $0.utf8.count <= 255 })
  }

  @Test("a full inbox refuses with the reason; strangers together fill half of it")
  func quota() {
    var quota = InboxFolder.Quota()
    quota.messages = 4
    quota.fileBytes = 100
    var keeper = keeper(quota)
    let stranger = PilotAddress(network: 0, node: 9)
    var results: [ExchangeResult] = []
    for _ in 0..<3 { results.append(keeper.keep(message("a"), 1, stranger)) }
    #expect(results == [.kept(isRepeated: false), .kept(isRepeated: false), .failed("the inbox is full")])
    results = (0..<3).map { _ in keeper.keep(message("a"), 1, Self.peer) }
    #expect(results == [.kept(isRepeated: false), .kept(isRepeated: false), .failed("the inbox is full")])
    let large = keeper.keep(.file(name: "f", content: [UInt8](repeating: 0, count: 101), MessageTag()), 1, Self.peer)
    #expect(large == .failed("the folder for files is full"))
    quota.spare = 1 << 60
    var other = self.keeper(quota)
    #expect(other.keep(message("a"), 1, Self.peer) == .failed("the inbox is full"))
    quota.messages = 100
    other = self.keeper(quota)
    #expect(other.keep(message("a"), 1, Self.peer) == .failed("the disk is full"))
  }

  @Test("a folder that cannot be written is answered with the reason")
  func unwritable() throws {
    try SmallFile.write([1], to: folder.path + "/inbox")
    var keeper = keeper()
    guard case .failed(let reason) = keeper.keep(message("a"), 1, Self.peer) else {
      Issue.record("kept in a file")
      return
    }
    #expect(!reason.isEmpty)
  }

  // MARK: Files in pieces

  private func request(_ kind: UInt8, _ rest: [UInt8], id: UInt8 = 5) throws -> ExchangeRequest {
    var exchange = DataExchange()
    var payload = [kind] + [UInt8](repeating: id, count: 16) + rest
    payload = [0, 0, 0, 7, 0, 0, UInt8(payload.count >> 8), UInt8(payload.count & 255)] + payload
    exchange.received(payload)
    guard case .keep(let request) = exchange.next(wall: 0) else { throw FileFailure(number: 0, call: "no request") }
    return request
  }

  private func offer(_ content: [UInt8], _ name: String = "f.bin", digest: [UInt8]? = nil, id: UInt8 = 5) throws
    -> ExchangeRequest
  {
    var hash = [UInt8](repeating: 0, count: 32)
    pt_sha256(content, content.count, &hash)
    var rest: [UInt8] = []
    rest.appendBig(UInt64(content.count))
    rest += digest ?? hash
    rest.appendBig(UInt32(4))
    rest.appendBig(UInt16(name.utf8.count))
    return try request(1, rest + name.utf8, id: id)
  }

  private func chunk(_ offset: UInt64, _ bytes: [UInt8], id: UInt8 = 5) throws -> ExchangeRequest {
    var rest: [UInt8] = []
    rest.appendBig(offset)
    return try request(2, rest + bytes, id: id)
  }

  @Test("a file in pieces is checked and placed; one that broke off goes on where it stopped")
  func resumed() throws {
    var keeper = keeper()
    let content: [UInt8] = [1, 2, 3, 4, 5, 6, 7]
    let offer = try offer(content)
    var results = [keeper.keep(offer, 1, Self.peer), keeper.keep(try chunk(0, [1, 2, 3, 4]), 1, Self.peer)]
    #expect(results == [.fileStream(.begins(at: 0)), .fileStream(.has(upTo: 4))])
    keeper.work(.ended(stream: 1))
    #expect(folder.names("received").isEmpty && folder.names("partial").count == 1)
    results = [
      keeper.keep(offer, 2, Self.peer), keeper.keep(try chunk(0, [1]), 2, Self.peer),
      keeper.keep(try chunk(4, [5, 6, 7]), 2, Self.peer), keeper.keep(try request(4, []), 2, Self.peer),
    ]
    #expect(
      results == [
        .fileStream(.begins(at: 4)), .fileStream(.has(upTo: 4)), .fileStream(.has(upTo: 7)), .fileStream(.complete),
      ])
    let name = try #require(folder.names("received").first)
    #expect(name.hasPrefix("f-2026") && name.hasSuffix(".bin") && folder.read("received", name) == content)
    #expect(folder.names("partial").isEmpty)
    keeper.close()
  }

  @Test("a file that is another than announced is not kept, nor one that is not whole or was given up")
  func damaged() throws {
    var keeper = keeper()
    let wrong = try offer([1, 2], digest: [UInt8](repeating: 1, count: 32))
    _ = keeper.keep(wrong, 1, Self.peer)
    _ = keeper.keep(try chunk(0, [1, 2]), 1, Self.peer)
    let damaged = keeper.keep(try request(4, []), 1, Self.peer)
    #expect(damaged == .failed("the file's SHA-256 is another"))
    _ = keeper.keep(try offer([1, 2]), 1, Self.peer)
    let short = keeper.keep(try request(4, []), 1, Self.peer)
    #expect(short == .failed("the file is not whole"))
    _ = keeper.keep(try offer([1, 2]), 1, Self.peer)
    let aborted = keeper.keep(try request(7, []), 1, Self.peer)
    #expect(aborted == .noted && folder.names("partial").isEmpty)
    for piece in [try chunk(6, [7]), try chunk(0, [1, 2, 3])] {
      _ = keeper.keep(try offer([1, 2]), 1, Self.peer)
      let refused = keeper.keep(piece, 1, Self.peer)
      #expect(refused == .fileStream(.aborted("a piece is missing, or they are more than announced")))
    }
    #expect(folder.names("received").isEmpty)
    let unknown = [
      keeper.keep(try chunk(0, [1]), 1, Self.peer), keeper.keep(try request(4, []), 1, Self.peer),
      keeper.keep(try offer([1], "a/b"), 1, Self.peer),
    ]
    #expect(
      unknown == [
        .fileStream(.aborted("unknown transfer")), .failed("unknown transfer"), .failed("malformed file offer"),
      ])
  }

  @Test("one stream begins four files at most, and a file comes once at a time")
  func many() throws {
    var keeper = keeper()
    for id in UInt8(1)...4 {
      let begun = keeper.keep(try offer([id, id], id: id), 1, Self.peer)
      #expect(begun == .fileStream(.begins(at: 0)))
    }
    #expect(keeper.keep(try offer([9], id: 9), 1, Self.peer) == .failed("too many files at once"))
    #expect(keeper.keep(try offer([1, 1], id: 1), 2, Self.peer) == .failed("the same file is on its way already"))
    keeper.close()
  }

  @Test("what was announced has its room, before it came and while it comes")
  func promised() throws {
    var quota = InboxFolder.Quota()
    quota.fileBytes = 10
    var keeper = keeper(quota)
    let first = keeper.keep(try offer([1, 2, 3, 4, 5, 6], id: 1), 1, Self.peer)
    #expect(first == .fileStream(.begins(at: 0)))
    let second = try offer([7, 7, 7, 7, 7], id: 2)
    #expect(keeper.keep(second, 2, Self.peer) == .failed("the folder for files is full"))
    // Given up before a byte came, it takes no room any more.
    _ = keeper.keep(try request(7, [], id: 1), 1, Self.peer)
    #expect(keeper.keep(second, 2, Self.peer) == .fileStream(.begins(at: 0)))
    keeper.close()
  }
}
