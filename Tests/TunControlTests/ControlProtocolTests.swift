// The control socket: requests, permissions, stale files, hostile clients.

import Directory
import Glibc
import JSON
import LinkIO
import Logging
import NIOCore
import NIOPosix
import Synchronization
import Testing
import TunControl

/// Answers every verb with itself; `ping` streams three parts; `explain` never answers.
private struct EchoService: ControlService {
  func answer(
    _ request: ControlRequest, emit: @escaping @Sendable (JSONValue) async throws -> Void
  ) async throws -> JSONValue {
    if request.verb == .ping { for number in 0..<3 { try await emit(["part": JSONValue(number)]) } }
    if request.verb == .explain { try await Task.sleep(for: .seconds(60)) }
    if request.verb == .resolve { throw ControlError("not_found", "no such name", hint: "look again") }
    return ["verb": .text(request.verb.rawValue), "arguments": request.arguments]
  }
}

/// A server in a directory of its own.
private struct Fixture {
  let directory: String
  var path: String { directory + "/control.sock" }

  init() {
    var template = Array("/tmp/pilot-control-XXXXXX".utf8CString)
    directory = template.withUnsafeMutableBufferPointer { String(cString: mkdtemp($0.baseAddress!)) }
  }

  func remove() {
    unlink(path)
    rmdir(directory)
  }

  func server(user: UInt32 = getuid(), groups: Set<UInt32> = []) async throws -> ControlServer {
    try await ControlServer(
      path: path, group: MultiThreadedEventLoopGroup.singleton, logger: Logger(label: "test"), service: EchoService(),
      credentials: { $0.eventLoop.makeSucceededFuture(PeerCredentials(user: user, groups: groups)) })
  }

  /// Blocking calls belong on a thread of their own: the server runs in this process.
  func onThread<Value: Sendable>(_ body: @escaping @Sendable () -> Value) async -> Value {
    do {
      return try await DedicatedThread.run("test-client", body)
    } catch {
      fatalError("\(error)")
    }
  }

  func call(_ request: ControlRequest) async -> Result<JSONValue, ControlError> {
    let path = path
    return await onThread {
      do throws(ControlError) {
        return .success(try ControlClient(path: path).call(request, timeout: 5))
      } catch {
        return .failure(error)
      }
    }
  }

  /// Sends bytes as they are and returns everything that comes until the end or `seconds` of silence.
  func raw(_ bytes: [UInt8], seconds: Int = 5) async -> String {
    let path = path
    return await onThread {
      let descriptor = UnixSocket.connect(path)
      guard descriptor >= 0 else { return "no connection" }
      defer { close(descriptor) }
      var limit = timeval(tv_sec: seconds, tv_usec: 0)
      setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
      _ = send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
      shutdown(descriptor, Int32(SHUT_WR))
      var all: [UInt8] = []
      var chunk = [UInt8](repeating: 0, count: 4096)
      while true {
        let count = read(descriptor, &chunk, chunk.count)
        guard count > 0 else { break }
        all += chunk[..<count]
      }
      return String(decoding: all, as: UTF8.self)
    }
  }
}

@Suite("Control socket")
struct ControlProtocolTests {
  @Test("a request is answered, and the socket file goes with the server")
  func answer() async throws {
    let fixture = Fixture()
    defer { fixture.remove() }
    let server = try await fixture.server()
    let answer = await fixture.call(ControlRequest(.trustRequest, ["peer": "a"]))
    #expect(answer == .success(["verb": "trust-request", "arguments": ["peer": "a"]]))
    await server.close()
    #expect(!SmallFile.exists(fixture.path))
  }

  @Test("the socket may be used by its owner and group only")
  func fileMode() async throws {
    let fixture = Fixture()
    defer { fixture.remove() }
    let server = try await fixture.server()
    var status = stat()
    #expect(lstat(fixture.path, &status) == 0)
    #expect(status.st_mode & 0o777 == 0o660)
    await server.close()
  }

  @Test("a streamed answer arrives part by part")
  func streaming() async throws {
    let fixture = Fixture()
    defer { fixture.remove() }
    let server = try await fixture.server()
    let path = fixture.path
    let parts = await fixture.onThread { () -> [JSONValue] in
      let seen = Mutex<[JSONValue]>([])
      _ = try? ControlClient(path: path).call(ControlRequest(.ping), timeout: 5) { part in
        seen.withLock { $0.append(part) }
      }
      return seen.withLock { $0 }
    }
    #expect(parts == [["part": 0], ["part": 1], ["part": 2]])
    await server.close()
  }

  @Test("a failure keeps its code, message and hint")
  func failure() async throws {
    let fixture = Fixture()
    defer { fixture.remove() }
    let server = try await fixture.server()
    let answer = await fixture.call(ControlRequest(.resolve))
    #expect(answer == .failure(ControlError("not_found", "no such name", hint: "look again")))
    await server.close()
  }

  @Test(
    "what is no request is refused with a code and the connection ends",
    arguments: [
      ("hello\n", "invalid_request"), ("{}\n", "invalid_request"), (#"{"verb":7}"# + "\n", "invalid_request"),
      (#"{"verb":"fly"}"# + "\n", "unknown_verb"), (#"{"verb":"status","arguments":3}"# + "\n", "invalid_request"),
      ("{\"verb\":\"status\"\u{0}}\n", "invalid_request"),
    ])
  func malformed(line: String, code: String) async throws {
    let fixture = Fixture()
    defer { fixture.remove() }
    let server = try await fixture.server()
    let answer = await fixture.raw(Array(line.utf8))
    #expect(answer.contains("\"code\":\"\(code)\""))
    #expect(answer.hasSuffix("\n"))
    await server.close()
  }

  @Test("a request without end is cut off at the limit")
  func oversized() async throws {
    let fixture = Fixture()
    defer { fixture.remove() }
    let server = try await fixture.server()
    let answer = await fixture.raw([UInt8](repeating: UInt8(ascii: " "), count: ControlRequest.lengthLimit + 100))
    #expect(answer.contains("request_too_long"))
    await server.close()
  }

  @Test("two requests in one write are answered in order")
  func pipelined() async throws {
    let fixture = Fixture()
    defer { fixture.remove() }
    let server = try await fixture.server()
    let path = fixture.path
    let answer = await fixture.onThread { () -> String in
      let descriptor = UnixSocket.connect(path)
      defer { close(descriptor) }
      let bytes = ControlRequest(.status).encoded + ControlRequest(.version).encoded
      _ = send(descriptor, bytes, bytes.count, 0)
      var all = ""
      var chunk = [UInt8](repeating: 0, count: 4096)
      while all.filter({ $0 == "\n" }).count < 2 {
        let count = read(descriptor, &chunk, chunk.count)
        guard count > 0 else { break }
        all += String(decoding: chunk[..<count], as: UTF8.self)
      }
      return all
    }
    let lines = answer.split(separator: "\n")
    #expect(lines.count == 2)
    #expect(lines.first?.contains("status") == true)
    #expect(lines.last?.contains("version") == true)
    await server.close()
  }

  @Test("a user who is neither root, the owner nor an operator reads the status and nothing else")
  func strangers() async throws {
    let fixture = Fixture()
    defer { fixture.remove() }
    let server = try await fixture.server(user: 54_321, groups: [54_321])
    #expect(try await fixture.call(ControlRequest(.status)).get()["verb"] == "status")
    for verb in [ControlVerb.down, .trustApprove, .ping, .peers, .trustList] {
      guard case .failure(let error) = await fixture.call(ControlRequest(verb)) else {
        Issue.record("\(verb) was allowed")
        continue
      }
      #expect(error.code == "permission_denied")
    }
    await server.close()
  }

  @Test("root, the node's user and members of the operators' group may do everything")
  func access() {
    func access(_ user: UInt32, _ groups: Set<UInt32>) -> ControlAccess {
      ControlAccess.of(PeerCredentials(user: user, groups: groups), nodeUser: 1000, operatorsGroup: 77)
    }
    #expect(access(0, []) == .everything)
    #expect(access(1000, []) == .everything)
    #expect(access(1001, [5, 77]) == .everything)
    #expect(access(1001, [5]) == .statusOnly)
    let noGroup = ControlAccess.of(PeerCredentials(user: 1, groups: [0]), nodeUser: 1000, operatorsGroup: nil)
    #expect(noGroup == .statusOnly)
    let file = "root:x:0:\npilot-tunnel:x:5:\npilot-tun:x:77:alice,bob\n"
    #expect(ControlAccess.groupNumber(of: "pilot-tun", in: file) == 77)
    #expect(ControlAccess.groupNumber(of: "pilot", in: file) == nil)
  }

  @Test("the kernel's word is asked when nobody stands in for it")
  func kernelCredentials() async throws {
    let fixture = Fixture()
    defer { fixture.remove() }
    let server = try await ControlServer(
      path: fixture.path, group: MultiThreadedEventLoopGroup.singleton, logger: Logger(label: "test"),
      service: EchoService())
    // This process is the node's own user.
    #expect(try await fixture.call(ControlRequest(.down)).get()["verb"] == "down")
    await server.close()
  }

  @Test("the socket of a killed node is replaced, the one of a living node is not")
  func staleSocket() async throws {
    let fixture = Fixture()
    defer { fixture.remove() }
    // Bound and abandoned, as a SIGKILL leaves it.
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(fixture.path.utf8)) }
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    let bound = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    #expect(bound == 0)
    close(descriptor)
    #expect(SmallFile.exists(fixture.path))
    let server = try await fixture.server()
    do {
      _ = try await fixture.server()
      Issue.record("a second server took the socket of a living one")
    } catch {
      #expect((error as? ControlError)?.code == "already_running")
    }
    #expect(try await fixture.call(ControlRequest(.version)).get()["verb"] == "version")
    await server.close()
  }

  @Test("a file that is no socket is left alone")
  func foreignFile() async throws {
    let fixture = Fixture()
    defer { fixture.remove() }
    try SmallFile.write(Array("precious".utf8), to: fixture.path)
    do {
      _ = try await fixture.server()
      Issue.record("the file was replaced")
    } catch {
      #expect((error as? ControlError)?.code == "control_socket_taken")
    }
    #expect(try SmallFile.read(fixture.path) == Array("precious".utf8))
  }

  @Test("without a node the tools say that none runs")
  func nobodyThere() async {
    let fixture = Fixture()
    defer { fixture.remove() }
    guard case .failure(let error) = await fixture.call(ControlRequest(.status)) else {
      Issue.record("somebody answered")
      return
    }
    #expect(error.code == "not_running")
    #expect(error.hint?.contains("pilot-tun up") == true)
  }
}
