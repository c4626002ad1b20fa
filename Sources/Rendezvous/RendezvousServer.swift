// A running rendezvous: registry, beacon, status page. Started by pilot-rendezvous, by pilot-tun for its embedded one,
// and by tests.

import Glibc
package import Logging
import NIOCore
import NIOPosix
import NIOSSL
import Synchronization
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
      let beacon = try await listening("beacon", configuration.beaconListen) {
        try await Self.bindBeacon($0, on: beaconThread)
      }
      channels.append(beacon)
      guard let beaconEndpoint = Endpoint(beacon.localAddress) else { throw ChannelError.unknownLocalAddress }
      let service = try RegistryService(
        configuration, store: store, table: BeaconTable(), admission: ClientAdmission(configuration),
        beaconPort: beaconEndpoint.port, counters: counters, logger: logger)
      let checks = await bindChecks(beside: beaconEndpoint, on: beaconThread)
      if let checks { channels.append(checks) }
      let compat = try await attach(service, to: beacon, checks: checks)
      let registry = try await listening("registry", configuration.registryListen) {
        try await RegistryListener.bind(
          $0, service: service, tls: tls?.context, compat: compat, takesPlain: true, on: registryThreads)
      }
      channels.append(registry)
      let secure = try await listenForTLS(service, tls?.context, compat, on: registryThreads)
      if let secure { channels.append(secure) }
      guard let registryEndpoint = Endpoint(registry.localAddress) else { throw ChannelError.unknownLocalAddress }
      var http: Endpoint?
      if let listen = configuration.httpListen {
        let page = try await listening("status page", listen) {
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

  private static func bindBeacon(_ endpoint: Endpoint, on group: any EventLoopGroup) async throws -> any Channel {
    try await DatagramBootstrap(group: group)
      .channelOption(ChannelOptions.socketOption(.so_rcvbuf), value: 4 << 20)
      .channelOption(ChannelOptions.socketOption(.so_sndbuf), value: 4 << 20)
      .channelOption(ChannelOptions.datagramVectorReadMessageCount, value: 32)
      .channelOption(ChannelOptions.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 32 * 2048))
      .channelOption(ChannelOptions.autoRead, value: false)
      .bind(to: SocketAddress(endpoint)).get()
  }

  /// The port after the beacon's own. Its answers are never fragmented, so that what arrives tells the path's MTU. It
  /// is only there to be asked about NATs: without it, for somebody else has the port, everything else works.
  private func bindChecks(beside beacon: Endpoint, on group: any EventLoopGroup) async -> (any Channel)? {
    let port = configuration.beaconListen.port
    let wanted = Endpoint(address: beacon.address, port: port == 0 || port == .max ? 0 : port + 1)
    do {
      let channel = try await Self.bindBeacon(wanted, on: group)
      for (level, name) in [(IPPROTO_IPV6, IPV6_MTU_DISCOVER), (IPPROTO_IP, IP_MTU_DISCOVER)] {
        let option = ChannelOptions.Types.SocketOption(level: .init(CInt(level)), name: .init(name))
        // A socket of one family refuses the other's option.
        try? await channel.setOption(option, value: Int(IP_PMTUDISC_PROBE)).get()
      }
      return channel
    } catch {
      logger.notice("the beacon answers no checks", metadata: ["port": "\(wanted.port)", "error": "\(error)"])
      return nil
    }
  }

  /// The beacon asks the registry, which must know the beacon's port: bound first, it reads only from now on.
  private func attach(
    _ service: RegistryService, to channel: any Channel, checks: (any Channel)?
  ) async throws -> CompatBeacon {
    let isIPv6 = channel.localAddress?.protocol == .inet6
    let beacon = Beacon(
      service, isIPv6: isIPv6, isForChecks: false, otherPort: Endpoint(checks?.localAddress)?.port ?? 0)
    try await channel.pipeline.addHandler(beacon).get()
    try await channel.setOption(ChannelOptions.autoRead, value: true).get()
    if let checks {
      let other = Beacon(
        service, isIPv6: isIPv6, isForChecks: true, otherPort: Endpoint(channel.localAddress)?.port ?? 0)
      try await checks.pipeline.addHandler(other).get()
      try await checks.setOption(ChannelOptions.autoRead, value: true).get()
    }
    service.setNotifier { node in
      channel.eventLoop.execute { beacon.notify(node, channel) }
    }
    return CompatBeacon(beacon: beacon, channel: channel)
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
      return try await listening("TLS port", listen.endpoint) {
        try await RegistryListener.bind($0, service: service, tls: tls, compat: compat, takesPlain: false, on: group)
      }
    } catch let error as RendezvousError where listen.isDefault {
      logger.notice(
        "nodes without UDP are not served: the TLS port cannot be had",
        metadata: ["port": "\(listen.endpoint.port)", "error": "\(error.message)"])
      return nil
    }
  }

  /// Binds; `::` gives way to `0.0.0.0` where the kernel has no IPv6.
  private func listening(
    _ what: String, _ endpoint: Endpoint, _ bind: (Endpoint) async throws -> any Channel
  ) async throws -> any Channel {
    do {
      return try await bind(endpoint)
    } catch let error as IOError where error.errnoCode == EAFNOSUPPORT && endpoint.address.isUnspecified {
      let v4 = Endpoint(address: IPv6Address(mappedIPv4: 0), port: endpoint.port)
      logger.notice("no IPv6 in this kernel", metadata: ["listening": "\(v4)"])
      return try await bind(v4)
    } catch let error as IOError {
      throw RendezvousError(
        .cannotListen, "cannot listen on \(endpoint) for the \(what): \(String(cString: strerror(error.errnoCode)))",
        hint: error.errnoCode == EADDRINUSE
          ? "another program has this port: stop it or choose another" : "choose an address of this machine")
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
