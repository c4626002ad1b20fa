// `pilot-tun up` from the first check to the last file removed: makes the parts in order, runs the node, reacts to
// signals. Called by PilotTunCommand.

import Directory
import Engine
import Glibc
import JSON
import LinkIO
import Logging
import NIOCore
import NIOPosix
import Rendezvous
import ServiceManager
import Settings
import Telemetry
import TLSTransport
import Wire

package enum NodeProgram {
  /// Runs until SIGTERM, SIGINT, `pilot-tun down` or a failure (thrown). Nothing is left behind but the state.
  ///
  /// `reread` reads all settings again, for SIGHUP and `pilot-tun reload`. With a `command` the overlay is in the command's
  /// network namespace, and the node ends with it.
  package static func run(
    _ configuration: NodeConfiguration, environment: [String: String], isJSON: Bool = false,
    reread: @escaping @Sendable () throws -> NodeConfiguration, command: WrappedCommand? = nil
  ) async throws(ControlError) {
    var passed = PassedDescriptors(environment: environment, process: getpid())
    let logger = Logger(label: "pilot-tun")
    let notifier = ServiceNotifier(environment: environment, process: getpid())
    let record = StartRecord(&passed, notifier: notifier)
    record?.begin(logger)
    do {
      try await run(
        configuration, environment: environment, isJSON: isJSON, reread: reread, command: command, passed: passed,
        notifier: notifier, logger: logger)
    } catch {
      record?.failed(error)
      throw error
    }
    record?.endedAsAsked()
  }

  private static func run(
    _ configuration: NodeConfiguration, environment: [String: String], isJSON: Bool,
    reread: @escaping @Sendable () throws -> NodeConfiguration, command: WrappedCommand?, passed: PassedDescriptors,
    notifier: ServiceNotifier, logger: Logger
  ) async throws(ControlError) {
    let signals = try ProcessSignals.stream()
    try refuseUnusable(configuration)
    let adminToken = try configuration.adminTokenFile.map { path throws(ControlError) in
      try AdminToken(path: path, credentials: Credentials(environment: environment))
    }
    try Privileges.check()
    logger.info(
      "starting", metadata: ["version": "\(PilotTunVersion.text)", "interface": "\(configuration.interface)"])
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let parts: NodeParts
    do {
      let kept = KeptDescriptors(passed, notifier: notifier, logger: logger)
      parts = try await makeParts(
        configuration, kept: kept, logger: logger, group: group, namespace: command?.namespace)
    } catch {
      throw ControlError(error)
    }
    do {
      try Watchdog.start(notifier, watching: parts.engine)
    } catch {
      await parts.rendezvous?.shutdown()
      throw error
    }
    let node = Node(
      configuration: configuration, adminToken: adminToken, logger: logger, parts: parts, notifier: notifier,
      group: group, reread: reread)
    let control: ControlServer
    do {
      control = try await ControlServer(
        path: configuration.controlSocket, group: group, logger: logger, service: node)
    } catch {
      await parts.rendezvous?.shutdown()
      throw error
    }
    let metrics: MetricsServer?
    do {
      metrics = try await startMetrics(configuration, node: node, group: group, logger: logger)
    } catch {
      await control.close()
      await parts.rendezvous?.shutdown()
      throw error
    }
    // A service manager clears the runtime directory by itself.
    if !notifier.isManaged { SocketGuard.start(path: configuration.controlSocket) }
    let listener = Task {
      for await signal in signals {
        switch signal {
        case .end: node.stop()
        case .reload: Task { _ = try? await node.reload() }
        }
      }
    }
    let announcer = Task {
      await node.waitUntilReady()
      guard !Task.isCancelled else { return }
      if let command {
        if configuration.isRendezvousEmbedded {
          Output.standardError("others join with: \(joinLine(configuration))")
        }
        command.start(configuration, environment: environment, logger: logger) { node.stop() }
      } else {
        announce(await node.status(), configuration, isJSON: isJSON)
      }
    }
    let reason = await node.run()
    await command?.end()
    listener.cancel()
    announcer.cancel()
    await metrics?.close()
    await control.close()
    // What the last events and the last commands changed.
    parts.store.close()
    if let failure = await node.failure { throw failure }
    if let reason {
      throw ControlError("node_failed", reason, hint: "the log above says more; the state directory keeps the identity")
    }
    logger.info("stopped")
  }

  private static func refuseUnusable(_ configuration: NodeConfiguration) throws(ControlError) {
    // Before anything is made: a path that cannot be used is a mistake of the command line.
    if case .file(let path) = configuration.dns { _ = try ResolverFile(path) }
  }

  private static func startMetrics(
    _ configuration: NodeConfiguration, node: Node, group: any EventLoopGroup, logger: Logger
  ) async throws(ControlError) -> MetricsServer? {
    guard let endpoint = configuration.metrics else { return nil }
    let server = try await MetricsServer(
      endpoint, group: group, crowded: { Task { await node.count("metrics-connection-limit") } },
      source: { await node.metrics() })
    logger.info("metrics", metadata: ["endpoint": "\(server.endpoint)"])
    return server
  }

  // MARK: Parts

  private static func makeParts(
    _ configuration: NodeConfiguration, kept: KeptDescriptors, logger: Logger, group: any EventLoopGroup,
    namespace: OverlayNamespace?
  ) async throws -> NodeParts {
    var kept = kept
    let store = try NodeStore(directory: configuration.stateDirectory, logger: logger)
    let disabled = disabledOffloads()
    let socket = try kept.socket(configuration.listen, disabled: disabled)
    let rendezvous = try await startRendezvous(configuration, logger: logger)
    do {
      let tun =
        try namespace.map { try OverlayNamespace.openTun(configuration.interface, disabled: disabled, in: $0) }
        ?? kept.tun(name: configuration.interface, disabled: disabled)
      let engine = try Engine(tun: tun, socket: socket, configuration: EngineConfiguration(mtu: configuration.mtu))
      let recent = kept.recentPeers()
      kept.keep(tun: engine.descriptors.tun, socket: engine.descriptors.socket, peers: recent)
      let port = engine.localEndpoint.port
      // A file of authorities that cannot be used is told now, not when TLS is needed.
      let dialer = try configuration.tls.map { settings throws(TransportError) in try TLSDialer(settings) }
      for warning in dialer?.warnings ?? [] { logger.warning("\(warning)") }
      let directory = Directory(
        configuration: directoryConfiguration(configuration, dialer), store: store,
        announcement: Announcement(listenAddress: configuration.advertise?.description ?? "127.0.0.1:\(port)"),
        logger: logger, group: group)
      return NodeParts(
        store: store, directory: directory, dialer: dialer, engine: engine, rendezvous: rendezvous, recentPeers: recent,
        namespace: namespace)
    } catch {
      await rendezvous?.shutdown()
      throw error
    }
  }

  /// Offloads that operators and tests switch off for the whole run: `PILOT_TUN_DISABLE_OFFLOADS=tun-tso,udp-gso`.
  private static func disabledOffloads() -> Set<String> {
    let text = ProcessEnvironment.all["PILOT_TUN_DISABLE_OFFLOADS"] ?? ""
    return Set(text.split(separator: ",").map { String(trimming: $0) })
  }

  private static func startRendezvous(
    _ configuration: NodeConfiguration, logger: Logger
  ) async throws -> RendezvousServer? {
    guard configuration.isRendezvousEmbedded else { return nil }
    let any = IPv6Address(high: 0, low: 0)
    var settings = RendezvousConfiguration(
      stateDirectory: configuration.stateDirectory + "/rendezvous",
      registryListen: Endpoint(address: any, port: NodeConfiguration.registryPort),
      beaconListen: Endpoint(address: any, port: NodeConfiguration.beaconPort))
    settings.threads = 1
    let server = RendezvousServer(configuration: settings, logger: Logger(label: "rendezvous"))
    do {
      _ = try await server.start()
    } catch let error as RendezvousError {
      throw ControlError(
        error.code, "no rendezvous is configured and an own one cannot start: \(error.message)",
        hint: "join an existing one with --rendezvous HOST; if one runs on this machine: --rendezvous 127.0.0.1")
    }
    return server
  }

  private static func directoryConfiguration(
    _ configuration: NodeConfiguration, _ dialer: TLSDialer?
  ) -> DirectoryConfiguration {
    let registry = configuration.registry ?? HostPort(host: "127.0.0.1", port: NodeConfiguration.registryPort)
    var result = DirectoryConfiguration(
      registryHost: registry.host, registryPort: registry.port, hostname: configuration.hostname,
      tags: configuration.tags, isPublic: configuration.isPublic, isRelayOnly: configuration.isRelayOnly,
      networks: configuration.networks,
      approvesAutomatically: configuration.trustAutoApprove, version: "pilot-tun \(PilotTunVersion.text)")
    result.detour = Node.registryDetour(dialer, configuration)
    return result
  }

  // MARK: Ready

  private static func announce(_ status: JSONValue, _ configuration: NodeConfiguration, isJSON: Bool) {
    let join = configuration.isRendezvousEmbedded ? joinLine(configuration) : nil
    if isJSON {
      let keys = ["address", "ipv6", "node_id", "hostname", "interface", "pid"]
      var data = Dictionary(keys.map { ($0, status[$0] ?? .null) }, uniquingKeysWith: { $1 })
      data["join"] = JSONValue(join)
      return Output.show(.object(data), isJSON: true) { _ in "" }
    }
    if let join { Output.line("no rendezvous configured, so this node runs one; others join with: \(join)") }
    let name = status.string("hostname")
    Output.line(
      "ready: \(status.string("address")) · \(status.string("ipv6")) on \(status.string("interface"))"
        + (name.isEmpty ? "" : " · \(name).pilot"))
  }

  private static func joinLine(_ configuration: NodeConfiguration) -> String {
    let own = LocalAddresses.list(except: configuration.interface).first?.description ?? "127.0.0.1"
    return "pilot-tun up --rendezvous \(own.contains(":") ? "[\(own)]" : own)"
  }
}

/// What the node needs of the system before anything is made.
enum Privileges {
  static func check() throws(ControlError) {
    guard SmallFile.exists("/dev/net/tun") else {
      throw ControlError(
        "tun_unavailable", "/dev/net/tun does not exist",
        hint: "load the module (modprobe tun), or give the container the device: --device /dev/net/tun")
    }
    guard hasNetAdmin(status: (try? SmallFile.read("/proc/self/status")) ?? []) else {
      throw ControlError(
        "net_admin_missing", "this process may not configure network interfaces (CAP_NET_ADMIN)",
        hint:
          "run it as root, or give the service AmbientCapabilities=CAP_NET_ADMIN; in a container: --cap-add NET_ADMIN")
    }
  }

  /// Bit 12 of the effective capabilities (capabilities(7)). When /proc does not tell, the kernel will.
  static func hasNetAdmin(status: [UInt8]) -> Bool {
    for line in String(decoding: status, as: UTF8.self).split(separator: "\n") where line.hasPrefix("CapEff:") {
      guard let bits = UInt64(String(trimming: line.dropFirst(7)), radix: 16) else { return true }
      return bits & 1 << 12 != 0
    }
    return true
  }
}
