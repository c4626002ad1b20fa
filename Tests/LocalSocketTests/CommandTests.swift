// Every command of wire/ipc §5 in both directions, and each malformed twin of §5.1.

import LocalSocket
import Testing
import Wire

@Suite("Local socket: commands") struct CommandTests {
  struct QueryVector: CustomTestStringConvertible, Sendable {
    var number: UInt8
    var body: [UInt8]
    var query: LocalQuery
    var reply: UInt8
    var testDescription: String { "\(query)" }
  }

  private static let json = Array(#"{"a":1}"#.utf8)

  static let queries: [QueryVector] = [
    QueryVector(number: 0x0D, body: [], query: .info, reply: 0x0E),
    QueryVector(number: 0x21, body: [], query: .health, reply: 0x22),
    QueryVector(
      number: 0x0F, body: [1, 0, 0, 0, 9] + Array("hi".utf8),
      query: .handshake(.send(node: 9, justification: "hi")), reply: 0x10),
    QueryVector(number: 0x0F, body: [2, 0, 0, 0, 9], query: .handshake(.approve(node: 9)), reply: 0x10),
    QueryVector(
      number: 0x0F, body: [3, 0, 0, 0, 9] + Array("no".utf8), query: .handshake(.reject(node: 9, reason: "no")),
      reply: 0x10),
    QueryVector(number: 0x0F, body: [4], query: .handshake(.pending), reply: 0x10),
    QueryVector(number: 0x0F, body: [5], query: .handshake(.trusted), reply: 0x10),
    QueryVector(number: 0x0F, body: [6, 0, 1, 0x18, 0x52], query: .handshake(.revoke(node: 71762)), reply: 0x10),
    QueryVector(
      number: 0x0F, body: [7, 0, 0, 0, 9, 0, 0, 5, 0xDC], query: .handshake(.wait(node: 9, milliseconds: 1500)),
      reply: 0x10),
    QueryVector(
      number: 0x0F, body: [7, 0, 0, 0, 9, 0xFF, 0xFF, 0xFF, 0xFF],
      query: .handshake(.wait(node: 9, milliseconds: 30_000)), reply: 0x10),
    QueryVector(number: 0x11, body: Array("agent-b".utf8), query: .resolve(name: "agent-b"), reply: 0x12),
    QueryVector(number: 0x13, body: [], query: .setHostname(""), reply: 0x14),
    QueryVector(number: 0x13, body: Array("x".utf8), query: .setHostname("x"), reply: 0x14),
    QueryVector(number: 0x15, body: [1], query: .setVisibility(isPublic: true), reply: 0x16),
    QueryVector(number: 0x15, body: [0], query: .setVisibility(isPublic: false), reply: 0x16),
    QueryVector(number: 0x15, body: [2], query: .setVisibility(isPublic: false), reply: 0x16),
    QueryVector(number: 0x17, body: [], query: .deregister, reply: 0x18),
    QueryVector(number: 0x19, body: Array(#"["a","b","c"]"#.utf8), query: .setTags(["a", "b", "c"]), reply: 0x1A),
    QueryVector(number: 0x19, body: Array("[]".utf8), query: .setTags([]), reply: 0x1A),
    QueryVector(number: 0x19, body: Array("null".utf8), query: .setTags([]), reply: 0x1A),
    QueryVector(number: 0x1B, body: Array("http://h/".utf8), query: .setWebhook(url: "http://h/"), reply: 0x1C),
    QueryVector(number: 0x1B, body: [], query: .setWebhook(url: ""), reply: 0x1C),
    QueryVector(number: 0x1F, body: [1], query: .network(.list), reply: 0x20),
    QueryVector(
      number: 0x1F, body: [2, 0, 3] + Array("tok".utf8), query: .network(.join(network: 3, token: "tok")), reply: 0x20),
    QueryVector(number: 0x1F, body: [3, 0, 3], query: .network(.leave(network: 3)), reply: 0x20),
    QueryVector(number: 0x1F, body: [4, 0, 3], query: .network(.members(network: 3)), reply: 0x20),
    QueryVector(
      number: 0x1F, body: [5, 0, 3, 0, 0, 0, 1], query: .network(.invite(network: 3, node: 1)), reply: 0x20),
    QueryVector(number: 0x1F, body: [6], query: .network(.pollInvites), reply: 0x20),
    QueryVector(number: 0x1F, body: [7, 0, 3, 1], query: .network(.respond(network: 3, accepts: true)), reply: 0x20),
    QueryVector(number: 0x1F, body: [7, 0, 3, 0], query: .network(.respond(network: 3, accepts: false)), reply: 0x20),
    QueryVector(number: 0x23, body: [2, 0, 7], query: .managed(.status(network: 7)), reply: 0x24),
    QueryVector(number: 0x23, body: [4, 0, 7], query: .managed(.cycle(network: 7)), reply: 0x24),
    QueryVector(number: 0x23, body: [7, 0, 7], query: .managed(.reconcile(network: 7)), reply: 0x24),
    QueryVector(number: 0x23, body: [5, 0, 0, 7], query: .managed(.policy(network: 7)), reply: 0x24),
    QueryVector(
      number: 0x23, body: [5, 1, 0, 7, 0, 2, 8, 9] + json,
      query: .managed(.setPolicy(network: 7, token: [8, 9], json: json)), reply: 0x24),
    QueryVector(
      number: 0x23, body: [6, 0, 0, 7, 0, 0, 0, 1], query: .managed(.memberTags(network: 7, node: 1)), reply: 0x24),
    QueryVector(
      number: 0x23, body: [6, 1, 0, 7, 0, 0, 0, 1] + json,
      query: .managed(.setMemberTags(network: 7, node: 1, json: json)), reply: 0x24),
    QueryVector(number: 0x25, body: [], query: .rotateKey, reply: 0x26),
    QueryVector(number: 0x2D, body: [0, 0, 0, 1], query: .preferDirect(node: 1), reply: 0x2E),
    QueryVector(number: 0x2F, body: json, query: .submitBadge(json: json), reply: 0x30),
    QueryVector(number: 0x31, body: json, query: .enrollRecovery(json: json), reply: 0x32),
    QueryVector(number: 0x33, body: json, query: .signEnvelope(json: json), reply: 0x34),
    QueryVector(number: 0x35, body: json, query: .verifyEnvelope(json: json), reply: 0x36),
  ]

  @Test("a question reaches the node, and its answer the client under the next number", arguments: queries)
  func question(vector: QueryVector) throws {
    var bench = SocketBench()
    let id = bench.connect()
    bench.send(id, frame(vector.number, vector.body), frame(vector.number, vector.body))
    let asked = asked(bench.actions())
    #expect(asked.map(\.query) == [vector.query, vector.query])
    let first = try #require(asked.first).id
    let second = try #require(asked.last).id
    #expect(bench.read(id).isEmpty)
    bench.server.answered(first, .success(Self.json), now: bench.now)
    bench.server.answered(first, .success(Self.json), now: bench.now)
    bench.server.answered(second, .failure(LocalError("registry: no")), now: bench.now)
    let replies = bench.read(id)
    #expect(replies == [[vector.reply] + Self.json, error("registry: no")])
  }

  @Test("a broadcast is answered without a body")
  func broadcast() throws {
    var bench = SocketBench()
    let id = bench.connect()
    bench.send(id, frame(0x29, [0, 3, 0x10, 0, 0, 2, 0x61, 0x62, 5, 6]))
    let request = try #require(asked(bench.actions()).first)
    #expect(request.query == .broadcast(network: 3, port: 0x1000, token: [0x61, 0x62], data: [5, 6]))
    bench.server.answered(request.id, .success(Self.json), now: bench.now)
    let replies = bench.read(id)
    #expect(replies == [[0x2A]])
  }

  struct Twin: CustomTestStringConvertible, Sendable {
    var number: UInt8
    var body: [UInt8]
    var text: String?
    var testDescription: String { text ?? "silence for \(number)" }

    init(_ number: UInt8, _ body: [UInt8], _ text: String?) {
      self.number = number
      self.body = body
      self.text = text
    }
  }

  static let twins: [Twin] = [
    Twin(0x01, [], "bind: missing port"), Twin(0x01, [1], "bind: missing port"),
    Twin(0x01, [0, 7], "port 7 already bound"), Twin(0x01, [1, 0xBC], "port 444 already bound"),
    Twin(0x03, [], "dial: missing address/port"), Twin(0x03, [0, 0, 0, 0, 0, 1, 0], "dial: missing address/port"),
    Twin(0x06, [], nil), Twin(0x06, [0, 0, 0], nil), Twin(0x06, [0, 0, 0, 1], nil), Twin(0x06, [0, 0, 0, 1, 9], nil),
    Twin(0x0B, [], nil), Twin(0x0B, [0, 0, 0, 0, 0, 1, 0], nil),
    Twin(0x0B, [0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 1, 5], nil),
    Twin(0x08, [], "close: missing conn_id"), Twin(0x08, [0, 0, 1], "close: missing conn_id"),
    Twin(0x39, [], "sendto: missing header"), Twin(0x39, [0, 0, 0, 0, 0, 1, 0], "sendto: missing header"),
    Twin(
      0x39, [0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 1, 5],
      "sendto: broadcast address requires admin token: use broadcast"),
    Twin(
      0x39, peerBytes + [0, 1] + [UInt8](repeating: 1, count: 65_536),
      "sendto: marshal: payload too large: 65536 bytes (max 65535)"),
    Twin(0x0F, [], "handshake: missing sub-command"), Twin(0x0F, [0], "handshake: unknown sub-command 0x00"),
    Twin(0x0F, [0xAB], "handshake: unknown sub-command 0xAB"),
    Twin(0x0F, [1, 0, 0, 0], "handshake send: missing node_id"), Twin(0x0F, [2], "handshake approve: missing node_id"),
    Twin(0x0F, [3, 0], "handshake reject: missing node_id"), Twin(0x0F, [6], "handshake revoke: missing node_id"),
    Twin(0x0F, [7, 0, 0, 0, 1], "handshake wait: payload must be 8 bytes (node_id, timeout_ms)"),
    Twin(0x11, [], "resolve_hostname: missing hostname"), Twin(0x15, [], "set_visibility: missing value"),
    Twin(0x19, [], "set_tags: invalid JSON: at byte 0"),
    Twin(0x19, Array("[1]".utf8), "set_tags: invalid JSON: not an array of strings"),
    Twin(0x19, Array(#"{"a":"b"}"#.utf8), "set_tags: invalid JSON: not an array of strings"),
    Twin(0x19, Array(#"["a"] x"#.utf8), "set_tags: invalid JSON: at byte 6"),
    Twin(0x19, [UInt8](repeating: 0x5B, count: 100_000), "set_tags: invalid JSON: at byte 64"),
    Twin(0x19, Array(#"["a","b","c","d"]"#.utf8), "set_tags: maximum 3 tags allowed"),
    Twin(0x1F, [], "network: missing sub-command"), Twin(0x1F, [9], "network: unknown sub-command 0x09"),
    Twin(0x1F, [2, 0], "network join: missing network_id"), Twin(0x1F, [3], "network leave: missing network_id"),
    Twin(0x1F, [4], "network members: missing network_id"),
    Twin(0x1F, [5, 0, 1, 0], "network invite: missing node_id"),
    Twin(0x1F, [7, 0, 1], "network respond-invite: missing answer"),
    Twin(0x23, [], "managed: missing sub-command"), Twin(0x23, [3], "managed: unknown sub-command 0x03"),
    Twin(0x23, [2], "managed status: missing network_id"), Twin(0x23, [5], "managed policy: missing operation"),
    Twin(0x23, [5, 2], "managed policy: unknown operation 0x02"),
    Twin(0x23, [5, 1, 0, 7, 0, 3, 1, 1], "managed policy: truncated token"),
    Twin(0x23, [6, 0, 0, 7, 0], "managed member-tags: missing node_id"),
    Twin(0x29, [0, 1, 0, 1, 0], "broadcast: missing header"),
    Twin(0x29, [0, 1, 0, 1, 0, 2, 9], "broadcast: truncated token"),
    Twin(0x2D, [], "prefer_direct: payload must be 4 bytes (node_id)"),
    Twin(0x2D, [0, 0, 0, 1, 0], "prefer_direct: payload must be 4 bytes (node_id)"),
    Twin(0x37, [], "unbind: port is required"), Twin(0x37, [0, 80, 0], "unbind: port is required"),
    Twin(0x37, [0, 80], "unbind: port is not owned by this client"),
    Twin(0x2B, [], nil), Twin(0x2B, [1, 2, 3], nil),
  ]

  @Test("a bad request is told so or met with silence, and the connection goes on", arguments: twins)
  func bad(twin: Twin) {
    var bench = SocketBench()
    let id = bench.connect()
    // The Close of nothing comes last, and is answered.
    let replies = bench.answer(id, frame(twin.number, twin.body), frame(0x08, [0, 0, 0, 77]))
    #expect(replies == (twin.text.map { [error($0)] } ?? []) + [[0x09, 0, 0, 0, 77]])
    #expect(bench.server.wantsInput(id))
  }

  @Test("every number that is no request is unknown, and its text says which")
  func unknown() {
    let known: Set<UInt8> = [
      0x01, 0x03, 0x06, 0x08, 0x0B, 0x0D, 0x0F, 0x11, 0x13, 0x15, 0x17, 0x19, 0x1B, 0x1F, 0x21, 0x23, 0x25, 0x29, 0x2B,
      0x2D, 0x2F, 0x31, 0x33, 0x35, 0x37, 0x39,
    ]
    var bench = SocketBench()
    let id = bench.connect()
    for number in UInt8.min...UInt8.max where !known.contains(number) {
      let digits = String(number, radix: 16, uppercase: true)
      let text = "unknown command: 0x" + (digits.count == 1 ? "0" : "") + digits
      let replies = bench.answer(id, frame(number, [1, 2, 3]))
      #expect(replies == [error(text)])
    }
  }

  @Test("an error is one line that is not empty, and one for a datagram begins with its prefix")
  func errorTexts() throws {
    var bench = SocketBench()
    let id = bench.connect()
    let texts = ["", "a\r\nb", String(repeating: "é", count: 5000)]
    for _ in texts { bench.send(id, frame(0x0D)) }
    let requests = asked(bench.actions())
    for (request, text) in zip(requests, texts) {
      bench.server.answered(request.id, .failure(LocalError(text)), now: bench.now)
    }
    let replies = bench.read(id)
    #expect(replies == [error("failed"), error("a  b"), error(String(repeating: "é", count: 1000))])

    bench.send(id, frame(0x39, peerBytes + [0, 9, 1]), frame(0x39, peerBytes + [0, 9]))
    for action in bench.actions() {
      guard case .sendDatagram(peer, 9, let data, let request?) = action else {
        Issue.record("\(action)")
        continue
      }
      let answer: Result<[UInt8], LocalError> = .failure(LocalError(data.isEmpty ? "sendto: closed" : "no route"))
      bench.server.answered(request, answer, now: bench.now)
    }
    let refusals = bench.read(id)
    #expect(refusals == [error("sendto: no route"), error("sendto: closed")])
  }

  @Test("a reply above the limit of a frame is an error instead, and one at the limit is sent")
  func longReply() throws {
    var bench = SocketBench()
    let id = bench.connect()
    bench.send(id, frame(0x0D), frame(0x0D))
    let requests = asked(bench.actions()).map(\.id)
    let longest = [UInt8](repeating: 0x20, count: LocalSocketLimits.replyBody)
    bench.server.answered(requests[0], .success(longest + [0x20]), now: bench.now)
    bench.server.answered(requests[1], .success(longest), now: bench.now)
    let replies = bench.read(id)
    #expect(replies == [error("the reply is too long for a frame: 1048513 bytes"), [0x0E] + longest])
  }
}
