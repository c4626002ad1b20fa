// The gateway's thread: waits for segments of the worker, commands of the node and its sockets; moves bytes between
// them. Parts: +Peers (who may, who is ready), +Streams (events of streams), +Connections (TCP), +Messages (port 444),
// +Local (official clients), +Services (ports 1001 and 1002).

import Engine
import Shim
import Streams
import Wire

/// What a stream serves.
enum StreamOwner {
  case echo
  case connection(UInt16)
  /// A message of ours, by number.
  case message(UInt32)
  /// A message of a peer on the handshake port.
  case inbox
  /// A peer's on port 1001 or 1002.
  case exchange
  case events
  /// A local client's, by the number it knows.
  case local(UInt32)
  /// Whatever comes is thrown away until the stream ends.
  case discard
}

final class GatewayLoop {
  static let second: UInt64 = 1_000_000_000

  // Tags of descriptors.
  static let commandsTag: UInt64 = 0
  static let segmentsTag: UInt64 = 1
  static let listenerTag: UInt64 = 2
  static let localListenerTag: UInt64 = 3
  static let connectionTag: UInt64 = 1 << 32
  static let clientTag: UInt64 = 2 << 32

  let engine: Engine
  let commands: Mailbox<GatewayCommand>
  let report: AsyncStream<GatewayEvent>.Continuation
  let tally: GatewayTally
  let hooks: GatewayHooks

  let epoll: Int32
  let listener: Int32
  let listenerPort: UInt16
  let buffer: UnsafeMutableRawPointer
  static let bufferSize = 262_144

  var now: UInt64 = 0
  var isRunning = true
  var addresses: [PilotAddress] = []
  var peers: [UInt32: GatewayPeer] = [:]
  var nodes: [PeerIndex: UInt32] = [:]

  var streams = StreamTable(entropy: SystemRandomNumberGenerator.word())
  var replies = ReplyWindow()
  var owners: [StreamID: StreamOwner] = [:]
  var connections: [UInt16: Connection] = [:]
  var tuples: [Connection.Tuple: UInt16] = [:]
  var flows = FlowNumbers()
  /// Something was left for the next turn: the loop must not sleep.
  var isUnsettled = false
  /// Connections whose stream or socket has news, once each.
  var pending: [UInt16] = []
  var messages: [UInt32: OutgoingMessage] = [:]
  var nextMessage: UInt32 = 0
  /// When streams of the handshake port end.
  var inboxes: [StreamID: UInt64] = [:]
  /// Official clients on this machine, once they are served.
  var local: LocalSide?
  /// What their daemons serve, at the same time.
  var services: ServiceSide?
  /// Commands for the worker, submitted once per turn.
  var output: [EngineCommand] = []

  init(
    engine: Engine, commands: Mailbox<GatewayCommand>, report: AsyncStream<GatewayEvent>.Continuation,
    tally: GatewayTally, hooks: GatewayHooks
  ) throws(GatewayError) {
    self.engine = engine
    self.commands = commands
    self.report = report
    self.tally = tally
    self.hooks = hooks
    epoll = pt_epoll_open()
    var port: UInt16 = 0
    listener = OverlayMapping.gateway.withBytes { pt_tcp_listen($0, 1024, &port) }
    listenerPort = port
    buffer = .allocate(byteCount: Self.bufferSize, alignment: 16)
    guard epoll >= 0, listener >= 0 else {
      throw GatewayError(
        code: "gateway_unavailable",
        message: "the gateway's sockets could not be made (errno \(-min(epoll, listener)))",
        hint: "raise the limit of open files (ulimit -n)")
    }
    pt_raise_file_limit()
    let results = [
      pt_epoll_add_level(epoll, commands.descriptor, Self.commandsTag),
      pt_epoll_add_level(epoll, engine.streamEventsDescriptor, Self.segmentsTag),
      // Edge-triggered: a connection that cannot be accepted for want of descriptors does not keep the loop busy.
      pt_epoll_add(epoll, listener, Self.listenerTag),
    ]
    if let failure = results.first(where: { $0 != 0 }) {
      throw GatewayError(
        code: "gateway_unavailable", message: "epoll refused a descriptor (errno \(-failure))",
        hint: "raise the limit of watched descriptors (fs.epoll.max_user_watches)")
    }
  }

  deinit {
    if epoll >= 0 { pt_close(epoll) }
    if listener >= 0 { pt_close(listener) }
    buffer.deallocate()
  }

  func count(_ reason: GatewayCount) { tally.count(reason.rawValue) }

  /// False when the node is 4,096 events behind, and this one is lost: dials and messages run into their deadlines.
  @discardableResult
  func tell(_ event: GatewayEvent) -> Bool {
    if case .dropped = report.yield(event) {
      count(.nodeBehind)
      return false
    }
    return true
  }

  // MARK: The loop

  func run() {
    pt_thread_name("pilot-gateway")
    var happened = [pt_happened](repeating: pt_happened(), count: 256)
    while isRunning {
      let ready = pt_epoll_wait(epoll, &happened, Int32(happened.count), timeout())
      now = pt_monotonic()
      var hasCommands = false
      var hasSegments = false
      for entry in happened.prefix(Int(max(ready, 0))) {
        switch entry.tag {
        case Self.commandsTag: hasCommands = true
        case Self.segmentsTag: hasSegments = true
        case Self.listenerTag: acceptConnections()
        case Self.localListenerTag: acceptClients()
        case Self.clientTag...: noteClient(entry)
        default: if entry.tag >= Self.connectionTag { noteReady(entry) }
        }
      }
      // Taken before the commands: what a command says of a peer is known when its segments are looked at.
      let events = hasSegments ? engine.takeStreamEvents() : []
      if hasCommands || !events.isEmpty { for command in commands.takeAll() { obey(command) } }
      for event in events { handle(event) }
      runTimers()
      settle()
      submit()
    }
    endAll()
  }

  /// Milliseconds until something is due, rounded up; -1: nothing is.
  private func timeout() -> Int32 {
    if isUnsettled { return 0 }
    var due = streams.nextDeadline ?? .max
    for connection in connections.values where connection.deadline < due { due = connection.deadline }
    for message in messages.values where message.deadline < due { due = message.deadline }
    for deadline in inboxes.values where deadline < due { due = deadline }
    if let expiry = flows.nextExpiry, expiry < due { due = expiry }
    if let deadline = localDeadline, deadline < due { due = deadline }
    guard due != .max else { return -1 }
    let time = pt_monotonic()
    guard due > time else { return 0 }
    return Int32(clamping: (due - time + 999_999) / 1_000_000)
  }

  private func runTimers() {
    if let due = streams.nextDeadline, due <= now { streams.tick(now) }
    for connection in connections.values where connection.deadline <= now { expire(connection) }
    for (number, message) in messages where message.deadline <= now { expire(message, number) }
    for (stream, deadline) in inboxes where deadline <= now {
      inboxes[stream] = nil
      streams.close(stream, now: now)
    }
    tickLocal()
    while let id = flows.expire(now) { output.append(.removeFlow(id)) }
  }

  /// Lets owners act until nothing happens any more, and collects what leaves. Bounded: a client that never stops
  /// talking waits for the next turn like everybody.
  func settle() {
    for _ in 0..<64 {
      flush()
      let isServing = serveLocal()
      let turn = pending
      pending = []
      for flow in turn {
        guard let connection = connections[flow] else { continue }
        connection.isPending = false
        pump(connection)
      }
      flush()
      isUnsettled = isServing || !pending.isEmpty
      if !isUnsettled { return }
    }
  }

  /// Events of streams go to their owners, segments that are due become commands, until there are no more of either.
  /// TCP is only marked: its sockets are served once per turn, in large pieces.
  func flush() {
    while true {
      let events = streams.takeEvents()
      for event in events { handle(event) }
      guard events.isEmpty else { continue }
      streams.flush(now)
      let packets = streams.takePackets()
      for packet in packets { send(packet) }
      if packets.isEmpty, !streams.hasEvents { return }
    }
  }

  func submit() {
    for (reason, number) in streams.takeCounts() { tally.count(reason.rawValue, number) }
    tally.setStreams(streams.count)
    guard !output.isEmpty else { return }
    // Segments that find the worker far behind are lost, and sent again by their streams.
    let lost = engine.submit(output)
    if lost > 0 { tally.count(GatewayCount.commandQueueFull.rawValue, lost) }
    output.removeAll(keepingCapacity: output.capacity <= 4096)
  }

  private func endAll() {
    endLocal()
    for connection in Array(connections.values) { endConnection(connection, isAborted: true) }
    for id in Array(owners.keys) { streams.abort(id, now: now) }
    settle()
    submit()
    for message in messages.values where !message.isDelivered { message.done(false) }
  }
}

extension SystemRandomNumberGenerator {
  /// Not 0.
  fileprivate static func word() -> UInt64 {
    var generator = SystemRandomNumberGenerator()
    return generator.next() | 1
  }
}

extension IPv6Address {
  /// The 16 bytes in network order, for the shim.
  func withBytes<Result>(_ body: (UnsafePointer<UInt8>) -> Result) -> Result {
    withUnsafeBytes(of: (high.bigEndian, low.bigEndian)) { bytes in
      // SAFETY: 16 bytes of two words, never empty.
      body(bytes.baseAddress!.assumingMemoryBound(to: UInt8.self))
    }
  }
}
