// A registry that does what a test tells it: by default it answers as a well-behaved one; a script may answer
// differently, keep silent, close, or send anything.

import JSON
import NIOCore
import NIOPosix
import Synchronization
import Wire

@testable import Directory

final class ScriptedRegistry: Sendable {
  enum Act: Sendable {
    case reply(JSONValue)
    case error(String)
    case bytes([UInt8])
    case silence
    case close
    /// What the well-behaved registry answers.
    case normal
  }

  struct Request: Sendable {
    var type: String
    var body: JSONValue
    /// Counts connections from 1.
    var connection: Int
  }

  let requests = Watch<Request>()
  /// Asked for every request; the acts are done in order.
  /// A bare function in a generic box is wrapped once more each time it passes through: a structure is not.
  private struct Script {
    var acts: @Sendable (Request) -> [Act]
  }
  private let script = Mutex(Script { _ in [.normal] })
  private let state = Mutex(State())

  private struct State {
    var server: (any Channel)?
    var clients: [any Channel] = []
    var connections = 0
    var received: [String: Int] = [:]
  }

  var port: UInt16 { UInt16(state.withLock { $0.server?.localAddress?.port } ?? 0) }
  var connections: Int { state.withLock { $0.connections } }

  init(host: String = "127.0.0.1") async throws {
    try await start(host: host)
  }

  /// Listens; on the given port when it stood there before.
  func start(host: String = "127.0.0.1", port: UInt16 = 0) async throws {
    let server = try await ServerBootstrap(group: .singletonMultiThreadedEventLoopGroup)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .childChannelInitializer { [self] channel in
        let number = state.withLock { state in
          state.connections += 1
          state.clients.append(channel)
          return state.connections
        }
        return channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(ScriptedHandler(registry: self, number: number))
        }
      }
      .bind(host: host, port: Int(port)).get()
    state.withLock { $0.server = server }
  }

  /// Closes the port and every connection, as a killed registry does.
  func stop() async {
    let (server, clients) = state.withLock { state in
      defer { (state.server, state.clients) = (nil, []) }
      return (state.server, state.clients)
    }
    try? await server?.close().get()
    await closeClients(clients)
  }

  /// Closes the connections only.
  func hangUp() async {
    await closeClients(
      state.withLock { state in
        defer { state.clients = [] }
        return state.clients
      })
  }

  private func closeClients(_ clients: [any Channel]) async {
    for client in clients { try? await client.close().get() }
  }

  /// Sends bytes that nobody asked for.
  func blurt(_ bytes: [UInt8]) async {
    for client in state.withLock({ $0.clients }) {
      try? await client.writeAndFlush(ByteBuffer(bytes: bytes)).get()
    }
  }

  func follow(_ new: @escaping @Sendable (Request) -> [Act]) { script.withLock { $0.acts = new } }

  /// Requests of this type that came, those included that are being answered: who has an answer is counted.
  func count(_ type: String) -> Int { state.withLock { $0.received[type] ?? 0 } }

  /// The `number`th request of this type, counted from 1.
  @discardableResult
  func request(_ type: String, number: Int = 1) async -> Request {
    let seen = Mutex(0)
    let found = await requests.first { request in
      request.type == type
        && seen.withLock { seen in
          seen += 1
          return seen == number
        }
    }
    // Only when the time of the test is over; the limit is what it fails with.
    return found ?? Request(type: type, body: .null, connection: 0)
  }

  fileprivate func acts(for request: Request) -> [Act] {
    state.withLock { $0.received[request.type, default: 0] += 1 }
    let acts = script.withLock { $0 }.acts(request)
    return acts.map { if case .normal = $0 { Self.normal(request) } else { $0 } }
  }

  /// Ids are the first bytes of the key, so that the same key has the same id.
  static func node(of request: Request) -> UInt32 {
    guard let text = request.body["public_key"]?.text, let key = Base64.decode(text), key.count == 32 else { return 7 }
    return UInt32(key[0]) << 16 | UInt32(key[1]) << 8 | 1
  }

  private static func normal(_ request: Request) -> Act {
    var members: [String: JSONValue] = ["type": .text(request.type + "_ok")]
    let node = request.body["node_id"]?.integer ?? 0
    switch request.type {
    case "register":
      let id = self.node(of: request)
      members["node_id"] = .whole(id)
      members["address"] = .text("0:0000.\(hex(id >> 16)).\(hex(id & 0xFFFF))")
      members["observed_addr"] = .text("203.0.113.9:4000")
    case "lookup":
      members["node_id"] = .integer(node)
      members["public_key"] = .text(Base64.encode([UInt8](repeating: UInt8(truncatingIfNeeded: node), count: 32)))
      members["networks"] = .list([.integer(0)])
      members["hostname"] = .text("peer-\(node)")
      members["public"] = .bool(true)
      members["last_seen_unix"] = .integer(1_795_372_279)
    case "resolve":
      members["node_id"] = .integer(node)
      members["real_addr"] = .text("198.51.100.7:4242")
      members["lan_addrs"] = .list(of: ["192.168.77.5:4242"])
    case "resolve_hostname":
      let name = request.body["hostname"]?.text ?? ""
      guard name.hasPrefix("peer-"), let id = Int64(name.dropFirst(5)) else {
        return .error("hostname \"\(name)\" not found")
      }
      members["node_id"] = .integer(id)
      members["last_seen_unix"] = .integer(1_795_372_279)
    case "set_hostname": members["hostname"] = request.body["hostname"]
    case "poll_handshakes":
      members["requests"] = .list([])
      members["responses"] = .list([])
    case "join_network": members["network_id"] = request.body["network_id"]
    case "rotate_key":
      members["node_id"] = .integer(node)
      members["public_key"] = request.body["new_public_key"]
    case "check_trust": members["trusted"] = .bool(false)
    default: break
    }
    return .reply(.object(members))
  }

  private static func hex(_ value: UInt32) -> String {
    let digits = String(value & 0xFFFF, radix: 16, uppercase: true)
    return String(repeating: "0", count: 4 - digits.count) + digits
  }
}

private final class ScriptedHandler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  private let registry: ScriptedRegistry
  private let number: Int
  private var received = ByteBuffer()

  init(registry: ScriptedRegistry, number: Int) {
    self.registry = registry
    self.number = number
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    var bytes = unwrapInboundIn(data)
    received.writeBuffer(&bytes)
    while let body = try? RegistryFrame.decode(from: &received) {
      let request = ScriptedRegistry.Request(type: body["type"]?.text ?? "", body: body, connection: number)
      for act in registry.acts(for: request) { perform(act, context) }
      registry.requests.add(request)
    }
  }

  private func perform(_ act: ScriptedRegistry.Act, _ context: ChannelHandlerContext) {
    var buffer = ByteBuffer()
    switch act {
    case .reply(let value): try? RegistryFrame.encode(value, into: &buffer)
    case .error(let text):
      try? RegistryFrame.encode(.object(["type": .text("error"), "error": .text(text)]), into: &buffer)
    case .bytes(let bytes): buffer.writeBytes(bytes)
    case .silence, .normal: return
    case .close: return context.close(promise: nil)
    }
    context.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
  }
}
