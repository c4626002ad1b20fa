// What the tests of this room share: a directory made of tables, sockets with deadlines, short ways to write queries.
import Dispatch
import Glibc
import Logging
import Naming
import Synchronization
import Wire

let papers = OverlayMapping.address(for: PilotAddress(network: 0, node: 0x0001_2F3A))
let quiet = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

/// A directory of one node, with ways to be slow or away. Counts what it is asked.
final class TableSource: NameSource {
  enum Mood: Sendable { case well, away, hanging }
  private let mood = Mutex(Mood.well)
  private let asked = Mutex<[String]>([])
  let ttl: UInt32

  init(_ mood: Mood = .well, ttl: UInt32 = 30) {
    self.ttl = ttl
    self.mood.withLock { $0 = mood }
  }

  func recover() { mood.withLock { $0 = .well } }

  var questions: [String] { asked.withLock { $0 } }

  func address(of name: String) async -> NameAnswer {
    asked.withLock { $0.append(name) }
    switch mood.withLock({ $0 }) {
    case .well:
      if name == "papers" { return .between }
      return name == "specialist-papers" ? .found(papers, ttl: ttl) : .notFound
    case .away: return .unavailable
    case .hanging:
      // Ends by cancellation only.
      try? await Task.sleep(for: .seconds(600))
      return .unavailable
    }
  }

  func address(of name: String, in group: String) async -> NameAnswer {
    group == "papers" ? await address(of: name) : .notFound
  }

  func name(of address: IPv6Address) async -> PointerAnswer {
    switch mood.withLock({ $0 }) {
    case .well: address == papers ? .found("specialist-papers", group: nil, ttl: ttl) : .notFound
    case .away, .hanging: .unavailable
    }
  }
}

/// A name of a test, which must be one.
func name(_ text: String) -> DNSName {
  guard let name = DNSName(text) else { preconditionFailure("no name: \(text)") }
  return name
}

func query(_ text: String, _ type: DNSRecordType, edns: DNSExtension? = nil) -> [UInt8] {
  DNSMessage.query(id: 0x1234, name(text), type, edns: edns).encoded()
}

/// Runs a query through the pure answerer, the table giving what is to be looked up.
func answer(
  _ bytes: [UInt8], by transport: NameAnswerer.Transport = .udp, from source: TableSource = TableSource()
) async -> DNSMessage? {
  switch NameAnswerer.begin(bytes, by: transport) {
  case .drop: return nil
  case .respond(let response): return DNSMessage(response.bytes)
  case .lookUp(let pending):
    switch pending.need {
    case .address(let name, let group):
      let answer = if let group { await source.address(of: name, in: group) } else { await source.address(of: name) }
      return DNSMessage(NameAnswerer.finish(pending, answer).bytes)
    case .name(let address):
      return DNSMessage(NameAnswerer.finish(pending, await source.name(of: address)).bytes)
    }
  }
}

/// Runs blocking calls off the threads that tasks share.
func blocking<Value: Sendable>(_ body: @escaping @Sendable () -> Value) async -> Value {
  await withCheckedContinuation { continuation in
    DispatchQueue.global().async { continuation.resume(returning: body()) }
  }
}

/// A plain socket connected to the stub on ::1, every call with a deadline of 5 s.
final class Client: Sendable {
  let descriptor: Int32

  init?(_ endpoint: Endpoint?, stream: Bool = false) {
    guard let endpoint else { return nil }
    let kind = stream ? Int32(SOCK_STREAM.rawValue) : Int32(SOCK_DGRAM.rawValue)
    descriptor = socket(AF_INET6, kind, 0)
    guard descriptor >= 0 else { return nil }
    var limit = timeval(tv_sec: 5, tv_usec: 0)
    for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
      setsockopt(descriptor, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
    }
    var address = sockaddr_in6()
    address.sin6_family = sa_family_t(AF_INET6)
    address.sin6_port = endpoint.port.bigEndian
    address.sin6_addr = in6addr_loopback
    let status = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in6>.size))
      }
    }
    guard status == 0 else { return nil }
  }

  deinit { close(descriptor) }

  func send(_ bytes: [UInt8]) async {
    await blocking { [descriptor] in _ = Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) }
  }

  /// What one `recv` gives; empty at the end of the stream, nil when the deadline passed or the connection broke.
  func receive() async -> [UInt8]? {
    await blocking { [descriptor] in
      var buffer = [UInt8](repeating: 0, count: 65536)
      let count = recv(descriptor, &buffer, buffer.count, 0)
      return count < 0 ? nil : Array(buffer[..<count])
    }
  }

  /// One message of a stream.
  func receiveFramed() async -> [UInt8]? {
    await blocking { [descriptor] in
      func exactly(_ count: Int) -> [UInt8]? {
        var out: [UInt8] = []
        while out.count < count {
          var buffer = [UInt8](repeating: 0, count: count - out.count)
          let got = recv(descriptor, &buffer, buffer.count, 0)
          guard got > 0 else { return nil }
          out += buffer[..<got]
        }
        return out
      }
      guard let length = exactly(2) else { return nil }
      return exactly(Int(length[0]) << 8 | Int(length[1]))
    }
  }

  func exchange(_ bytes: [UInt8]) async -> DNSMessage? {
    await send(bytes)
    return await receive().flatMap { DNSMessage($0) }
  }

  func finishSending() { shutdown(descriptor, Int32(SHUT_WR)) }
}

func framed(_ bytes: [UInt8]) -> [UInt8] { [UInt8(bytes.count >> 8), UInt8(bytes.count & 255)] + bytes }

/// A stub on ::1 at a port of the kernel's choice.
func withStub(
  _ source: TableSource = TableSource(), _ adjust: (inout StubServer.Configuration) -> Void = { _ in },
  clock: (@Sendable () -> UInt64)? = nil, _ body: (StubServer) async throws -> Void
) async throws {
  var configuration = StubServer.Configuration(
    endpoint: Endpoint(address: IPv6Address(high: 0, low: 1), port: 0))
  adjust(&configuration)
  let stub =
    if let clock {
      StubServer(source: source, configuration: configuration, logger: quiet, clock: clock)
    } else {
      StubServer(source: source, configuration: configuration, logger: quiet)
    }
  try await stub.start()
  do {
    try await body(stub)
  } catch {
    await stub.stop()
    throw error
  }
  await stub.stop()
}
