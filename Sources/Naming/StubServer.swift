// The resolver stub: DNS over UDP and TCP on one address and port. Started and stopped by the node.
package import Logging
package import NIOCore
import NIOPosix
import Synchronization
package import Wire

/// Serves the zones of `Zone` from a `NameSource`.
///
/// - Binds only to the address it is given, never forwards, never touches `/etc/resolv.conf`.
/// - Everything is bounded: queries a second per source, lookups under way, connections, bytes per connection.
package final class StubServer: Sendable {
  package struct Configuration: Sendable {
    /// Must be on an interface of this network namespace when `start` is called.
    package var endpoint: Endpoint
    /// The addresses from which programs may ask: those of this machine.
    package var listClients: @Sendable () -> Set<IPv6Address> = LocalClients.system
    /// Queries a second that one source may keep up, and at once.
    package var queriesPerSecond: UInt32 = 500
    package var burst: UInt32 = 1000
    package var maximumLookups = 256
    package var maximumConnections = 64
    package var idleTimeout: Duration = .seconds(10)
    /// Below the 5 s that common resolvers wait.
    package var lookupTimeout: Duration = .seconds(4)
    /// Makes both sockets, bound, the second listening, where the address is not in the network namespace of the
    /// process; nil: they are made here. The server closes them.
    package var sockets: (@Sendable (Endpoint) throws(SocketFailure) -> (datagrams: CInt, streams: CInt))?

    package init(endpoint: Endpoint = Endpoint(address: OverlayMapping.resolver, port: 53)) {
      self.endpoint = endpoint
    }
  }

  /// The kernel's number for why a socket could not be bound.
  package struct SocketFailure: Error {
    package var number: Int32
    package init(number: Int32) { self.number = number }
  }

  private struct Running {
    var datagrams: any Channel
    var streams: any Channel
    var connections: ConnectionTable
    var desk: LookupDesk
    var endpoint: Endpoint
  }

  private enum State {
    case stopped
    case starting
    case running(Running)
  }

  package let counters = NamingCounters()
  private let source: any NameSource
  private let configuration: Configuration
  private let logger: Logger
  private let group: any EventLoopGroup
  private let clock: @Sendable () -> UInt64
  private let state = Mutex(State.stopped)

  /// - Parameters:
  ///   - group: whose threads serve the sockets; the process-wide one by default. Not shut down here.
  ///   - clock: nanoseconds of a monotonic clock, for the rate limit.
  package init(
    source: any NameSource, configuration: Configuration = Configuration(), logger: Logger,
    group: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton,
    clock: @escaping @Sendable () -> UInt64 = { NIODeadline.now().uptimeNanoseconds }
  ) {
    self.source = source
    self.configuration = configuration
    self.logger = logger
    self.group = group
    self.clock = clock
  }

  /// Where it listens: the configured endpoint, with the port the kernel chose when 0 was asked for. Nil while stopped.
  package var endpoint: Endpoint? {
    state.withLock { if case .running(let running) = $0 { running.endpoint } else { nil } }
  }

  /// Binds both sockets. Queries are answered when this returns. Does nothing when it already runs.
  package func start() async throws(NamingError) {
    let mayStart = state.withLock { state in
      guard case .stopped = state else { return false }
      state = .starting
      return true
    }
    guard mayStart else { return }
    do {
      let running = try await bind()
      state.withLock { $0 = .running(running) }
      logger.info("resolver stub listens", metadata: ["endpoint": "\(running.endpoint)"])
    } catch {
      state.withLock { $0 = .stopped }
      throw error
    }
  }

  /// Closes the sockets and all connections, cancels lookups, and returns when the address is free again.
  package func stop() async {
    let running: Running? = state.withLock { state in
      guard case .running(let running) = state else { return nil }
      state = .stopped
      return running
    }
    guard let running else { return }
    running.desk.close()
    try? await running.streams.close()
    await running.connections.closeAll()
    try? await running.datagrams.close()
  }

  private func bind() async throws(NamingError) -> Running {
    let desk = LookupDesk(
      source: source,
      limiter: QueryLimiter(
        rate: configuration.queriesPerSecond, burst: configuration.burst, seed: .random(in: .min ... .max)),
      clients: LocalClients(list: configuration.listClients),
      maximumLookups: configuration.maximumLookups, timeout: TimeAmount(configuration.lookupTimeout),
      counters: counters, clock: clock)
    var endpoint = configuration.endpoint
    let made: (datagrams: CInt, streams: CInt)?
    do {
      made = try configuration.sockets?(endpoint)
    } catch {
      throw NamingError.bind(endpoint, transport: "udp, tcp", errorNumber: error.number, text: "errno \(error.number)")
    }
    let datagrams: any Channel
    do {
      let bootstrap = DatagramBootstrap(group: group)
        .channelOption(.socketOption(.so_reuseaddr), value: 0)
        .channelInitializer { channel in
          channel.eventLoop.makeCompletedFuture {
            try channel.pipeline.syncOperations.addHandler(DatagramHandler(desk: desk))
          }
        }
      datagrams = try await
        (made.map { bootstrap.withBoundSocket($0.datagrams) } ?? bootstrap.bind(to: SocketAddress(endpoint))).get()
    } catch {
      throw NamingError.bind(endpoint, transport: "udp", error)
    }
    if let port = datagrams.localAddress?.port { endpoint.port = UInt16(truncatingIfNeeded: port) }
    let connections = ConnectionTable(maximum: configuration.maximumConnections)
    let idleTimeout = TimeAmount(configuration.idleTimeout)
    do {
      let bootstrap = ServerBootstrap(group: group)
        .serverChannelOption(.backlog, value: 64)
        .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
        .childChannelOption(.allowRemoteHalfClosure, value: true)
        .childChannelOption(.maxMessagesPerRead, value: 1)
        .childChannelInitializer { [counters] channel in
          guard connections.admit(channel) else {
            counters.add(.connectionsRefused)
            return channel.close()
          }
          return channel.eventLoop.makeCompletedFuture {
            try channel.pipeline.syncOperations.addHandler(StreamHandler(desk: desk, idleTimeout: idleTimeout))
          }
        }
      let streams = try await
        (made.map { bootstrap.withBoundSocket($0.streams) } ?? bootstrap.bind(to: SocketAddress(endpoint))).get()
      return Running(
        datagrams: datagrams, streams: streams, connections: connections, desk: desk, endpoint: endpoint)
    } catch {
      try? await datagrams.close()
      throw NamingError.bind(endpoint, transport: "tcp", error)
    }
  }
}

/// The open connections, so that their number has a limit and none outlives the server.
private final class ConnectionTable: Sendable {
  private let maximum: Int
  private let channels = Mutex<[ObjectIdentifier: any Channel]>([:])

  init(maximum: Int) { self.maximum = maximum }

  func admit(_ channel: any Channel) -> Bool {
    let id = ObjectIdentifier(channel)
    let isAdmitted = channels.withLock { channels in
      guard channels.count < maximum else { return false }
      channels[id] = channel
      return true
    }
    guard isAdmitted else { return false }
    channel.closeFuture.whenComplete { [self] _ in channels.withLock { _ = $0.removeValue(forKey: id) } }
    return true
  }

  func closeAll() async {
    for channel in channels.withLock({ Array($0.values) }) { try? await channel.close() }
  }
}

extension NamingError {
  fileprivate static func bind(_ endpoint: Endpoint, transport: String, _ error: any Error) -> NamingError {
    let system = error as? IOError
    return .bind(
      endpoint, transport: transport, errorNumber: system?.errnoCode,
      text: system.map { "\($0)" } ?? String(describing: error))
  }
}

extension SocketAddress {
  init(_ endpoint: Endpoint) throws {
    try self.init(ipAddress: "\(endpoint.address)", port: Int(endpoint.port))
  }
}

extension TimeAmount {
  fileprivate init(_ duration: Duration) {
    let (seconds, attoseconds) = duration.components
    self = .seconds(seconds) + .nanoseconds(attoseconds / 1_000_000_000)
  }
}
