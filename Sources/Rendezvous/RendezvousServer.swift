// A running rendezvous: registry, beacon, status page. Started by pilot-rendezvous, by pilot-tun for its embedded one,
// and by tests.

import Glibc
package import Logging
import NIOCore
import NIOPosix
import NIOSSL
import Synchronization
import Telemetry
package import Wire

package final class RendezvousServer: Sendable {
  package static let version = "0.1.0"

  /// What was bound, with the ports that the kernel chose where 0 was asked for.
  package struct Bound: Sendable {
    package var registry: Endpoint
    package var beacon: Endpoint
    /// The beacon's second port, which answers checks (wire/tunnel §4.6); nil when it could not be bound.
    package var checks: Endpoint?
    package var http: Endpoint?
    /// TLS for nodes without UDP; nil: there is none, or its default port could not be bound.
    package var tls: Endpoint?
    /// SHA-256 of the certificate in lower-case hexadecimal, what clients pin; nil without TLS.
    package var certificatePin: String?
  }

  private struct Running: Sendable {
    var directory: StateDirectory
    var service: RegistryService
    var channels: [any Channel]
    var groups: [MultiThreadedEventLoopGroup]
    var ticks: [RepeatedTask]
  }

  package let counters = Counters()
  private let configuration: RendezvousConfiguration
  private let logger: Logger
  private let running = Mutex<Running?>(nil)

  package init(configuration: RendezvousConfiguration, logger: Logger) {
    self.configuration = configuration
    self.logger = logger
  }

  /// Opens the state directory and binds all sockets. Throws `RendezvousError`; then nothing is left open.
  package func start() async throws -> Bound {
    let tls = try makeTLS()
    let directory = try StateDirectory(configuration.stateDirectory)
    // The beacon has a thread of its own: a registry that is busy must not delay relayed packets.
    let registryThreads = MultiThreadedEventLoopGroup(numberOfThreads: max(1, configuration.threads))
    let beaconThread = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let groups = [registryThreads, beaconThread]
    var channels: [any Channel] = []
    do {
      let store = try RegistryStore(directory: directory.path)
      let sockets = BeaconSockets(configuration: configuration, logger: logger)
      let (beacon, checks) = try await sockets.bind(on: beaconThread)
      channels.append(beacon)
      if let checks { channels.append(checks) }
      guard let beaconEndpoint = Endpoint(beacon.localAddress) else { throw ChannelError.unknownLocalAddress }
      let service = try RegistryService(
        configuration, store: store, table: BeaconTable(), admission: ClientAdmission(configuration),
        beaconPort: beaconEndpoint.port, counters: counters, logger: logger)
      // The beacon asks the registry, which must know the beacon's port: bound first, it reads only from now on.
      let handler = try await sockets.attach(
        service, table: service.table, counters: counters, to: beacon, checks: checks)
      service.setNotifier { node in
        beacon.eventLoop.execute { handler.notify(node, beacon) }
      }
      let compat = CompatBeacon(beacon: handler, channel: beacon)
      let registry = try await listening("registry", configuration.registryListen, logger: logger) {
        try await RegistryListener.bind(
          $0, service: service, tls: tls?.context, compat: compat, takesPlain: true, on: registryThreads)
      }
      channels.append(registry)
      let secure = try await listenForTLS(service, tls?.context, compat, on: registryThreads)
      if let secure { channels.append(secure) }
      guard let registryEndpoint = Endpoint(registry.localAddress) else { throw ChannelError.unknownLocalAddress }
      var http: Endpoint?
      if let listen = configuration.httpListen {
        let page = try await listening("status page", listen, logger: logger) {
          try await StatusPage.bind($0, service: service, on: registryThreads)
        }
        channels.append(page)
        http = Endpoint(page.localAddress)
      }
      let started = Running(
        directory: directory, service: service, channels: channels, groups: groups,
        ticks: [startTicking(service, on: registryThreads.next())])
      running.withLock { $0 = started }
      return Bound(
        registry: registryEndpoint, beacon: beaconEndpoint, checks: Endpoint(checks?.localAddress), http: http,
        tls: Endpoint(secure?.localAddress), certificatePin: tls?.pin)
    } catch {
      for channel in channels { try? await channel.close().get() }
      for group in groups { try? await group.shutdownGracefully() }
      directory.release()
      throw error
    }
  }

  /// Closes everything, writes what is still to be written. Does nothing when it does not run.
  package func shutdown() async {
    let stopping = running.withLock { running in
      defer { running = nil }
      return running
    }
    guard let stopping else { return }
    for tick in stopping.ticks { tick.cancel() }
    for channel in stopping.channels { try? await channel.close().get() }
    await stopping.service.close()
    for group in stopping.groups { try? await group.shutdownGracefully() }
    stopping.directory.release()
  }

  /// Returns when each of its threads has gone round its loop, which shows that none stands still.
  package func pulse() async {
    let groups = running.withLock { $0?.groups ?? [] }
    for group in groups {
      for eventLoop in group.makeIterator() { try? await eventLoop.submit {}.get() }
    }
  }

  /// Open connections to the registry.
  package var connections: Int { running.withLock { $0?.service.admission.connections ?? 0 } }

  /// Nodes on a WebSocket.
  package var compatClients: Int { running.withLock { $0?.service.compat.count ?? 0 } }

  // MARK: Parts

  /// Once in a while: write when nodes were last heard of, forget old bindings of the beacon.
  private func startTicking(_ service: RegistryService, on eventLoop: any EventLoop) -> RepeatedTask {
    eventLoop.scheduleRepeatedTask(initialDelay: .seconds(30), delay: .seconds(30)) { _ in
      service.flushSeen()
      service.table.sweep(now: service.now)
    }
  }

  /// The port that nodes reach where UDP is blocked. One that nobody asked for is let go when it cannot be bound.
  private func listenForTLS(
    _ service: RegistryService, _ tls: NIOSSLContext?, _ compat: CompatBeacon, on group: any EventLoopGroup
  ) async throws -> (any Channel)? {
    guard let listen = configuration.tlsListen else { return nil }
    guard let tls else {
      throw RendezvousError(
        .invalidSetting, "tls_listen needs a certificate", hint: "give tls_certificate and tls_key as well")
    }
    do {
      return try await listening("TLS port", listen.endpoint, logger: logger) {
        try await RegistryListener.bind($0, service: service, tls: tls, compat: compat, takesPlain: false, on: group)
      }
    } catch let error as RendezvousError where listen.isDefault {
      logger.warning(
        "nodes without UDP are not served: the TLS port cannot be had (tls_listen = \"off\" does without it)",
        metadata: Logger.Metadata(describing: error))
      return nil
    }
  }

  private func makeTLS() throws -> (context: NIOSSLContext, pin: String)? {
    switch (configuration.tlsCertificate, configuration.tlsKey) {
    case (nil, nil): return nil
    case (let certificate?, let key?):
      do {
        let certificates = try NIOSSLCertificate.fromPEMFile(certificate)
        guard let leaf = certificates.first else { throw NIOSSLError.failedToLoadCertificate }
        let chain = certificates.map(NIOSSLCertificateSource.certificate)
        let key = try NIOSSLPrivateKey(file: key, format: .pem)
        var settings = TLSConfiguration.makeServerConfiguration(certificateChain: chain, privateKey: .privateKey(key))
        settings.minimumTLSVersion = .tlsv13
        let pin = Cryptography.hexadecimal(Cryptography.sha256(try leaf.toDERBytes()))
        return (try NIOSSLContext(configuration: settings), pin)
      } catch {
        throw RendezvousError(
          .certificateUnusable, "cannot use the TLS certificate \(certificate): \(error)",
          hint: "tls_certificate and tls_key name PEM files that belong together")
      }
    default:
      throw RendezvousError(
        .invalidSetting, "tls_certificate and tls_key go together", hint: "give both files or none")
    }
  }
}
