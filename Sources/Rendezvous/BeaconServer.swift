// A beacon by itself, beside or far from the registry: discovers, checks and relaying for nodes that prove who they are.
// Started by `pilot-rendezvous beacon`.

package import Logging
import NIOCore
import NIOPosix
import Synchronization
package import Wire

package final class BeaconServer: Sendable {
  package struct Bound: Sendable {
    package var beacon: Endpoint
    /// The second port, which answers checks (wire/tunnel §4.6); nil when it could not be bound.
    package var checks: Endpoint?
  }

  private struct Running: Sendable {
    var channels: [any Channel]
    var group: MultiThreadedEventLoopGroup
    var tick: RepeatedTask
  }

  package let counters = Counters()
  private let configuration: RendezvousConfiguration
  private let logger: Logger
  private let running = Mutex<Running?>(nil)

  /// Of the configuration `beaconListen`, `limits` and `clock` count.
  package init(configuration: RendezvousConfiguration, logger: Logger) {
    self.configuration = configuration
    self.logger = logger
  }

  /// Binds the sockets. Throws `RendezvousError`; then nothing is left open.
  package func start() async throws -> Bound {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let sockets = BeaconSockets(configuration: configuration, logger: logger)
    do {
      let (beacon, checks) = try await sockets.bind(on: group)
      let authority = OpenAuthority(clock: configuration.clock)
      let table = BeaconTable()
      _ = try await sockets.attach(authority, table: table, counters: counters, to: beacon, checks: checks)
      guard let endpoint = Endpoint(beacon.localAddress) else { throw ChannelError.unknownLocalAddress }
      let tick = group.next().scheduleRepeatedTask(initialDelay: .seconds(30), delay: .seconds(30)) { _ in
        table.sweep(now: authority.now)
        authority.sweep()
      }
      running.withLock { $0 = Running(channels: [beacon, checks].compactMap { $0 }, group: group, tick: tick) }
      return Bound(beacon: endpoint, checks: Endpoint(checks?.localAddress))
    } catch {
      try? await group.shutdownGracefully()
      throw error
    }
  }

  /// Closes everything. Does nothing when it does not run.
  package func shutdown() async {
    let stopping = running.withLock { running in
      defer { running = nil }
      return running
    }
    guard let stopping else { return }
    stopping.tick.cancel()
    for channel in stopping.channels { try? await channel.close().get() }
    try? await stopping.group.shutdownGracefully()
  }

  /// Returns when its thread has gone round its loop, which shows that it does not stand still.
  package func pulse() async {
    guard let eventLoop = running.withLock({ $0?.group.next() }) else { return }
    try? await eventLoop.submit {}.get()
  }
}
