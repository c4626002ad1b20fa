// Everything that can be set about a rendezvous. Filled by the command, by pilot-tun for its embedded one, by tests.

package import Wire

/// A network that exists from the start, so that a fleet needs no administrator's client.
package struct NetworkSpecification: Hashable, Sendable {
  package var name: String
  /// The shared secret of a token network; nil for an open one.
  package var token: String?

  package init(name: String, token: String?) {
    self.name = name
    self.token = token
  }

  /// Parses `NAME:open` and `NAME:token:SECRET`.
  package init(_ text: String) throws(RendezvousError) {
    let parts = text.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false).map(String.init)
    let malformed = RendezvousError(
      .invalidSetting, "“\(text.prefix { $0 != ":" })…” describes no network",
      hint: "NAME:open, NAME:token:@FILE or NAME:token:SECRET")
    guard parts.count >= 2, Names.isValidNetworkName(parts[0]) else { throw malformed }
    switch (parts[1], parts.count) {
    case ("open", 2): self.init(name: parts[0], token: nil)
    case ("token", 3) where !parts[2].isEmpty: self.init(name: parts[0], token: parts[2])
    default: throw malformed
    }
  }
}

/// Bounds on what strangers can make the rendezvous hold or do. Times are seconds.
package struct RendezvousLimits: Sendable {
  /// Largest registry frame in bytes; a longer one is refused before anything is allocated (wire/registry §1.3).
  package var frameSize = 1 << 20
  package var jsonDepth = 64
  package var idleTime = 300.0
  package var unfinishedFrameTime = 30.0
  package var writeTime = 5.0
  package var connections = 100_000
  package var connectionsPerSource = 256
  /// Bytes that unfinished long frames of all connections may hold together.
  package var unfinishedBytes = 64 << 20
  package var nodes = 1_000_000
  /// Keys never seen before, per source: this many at once, then this many a second; more wait (§9.6).
  package var newKeysBurst = 64.0
  package var newKeysPerSecond = 4.0
  /// How long a registration waits for the end of the node's connections from another host: longer than a probe takes
  /// to end one without a client, shorter than clients wait for a reply (8 s ours, 30 s official ones).
  package var displacementTime = 7.0
  /// Per source address.
  package var requestsPerSecond = 2000.0
  package var lookupsPerSecond = 500.0
  package var handshakeRequestsPerMinute = 120.0
  package var inboxSize = 100
  package var reportsPerNode = 10_000
  /// Beacon: relayed datagrams a second and node, discovers a second and source host, punches a second and node.
  package var relayedPerSecond = 50_000.0
  package var discoversPerSecond = 200.0
  package var punchesPerSecond = 10.0
  /// Datagrams a second and source host, of whatever kind.
  package var datagramsPerSecond = 200_000.0

  package init() {}
}

package struct RendezvousConfiguration: Sendable {
  /// Holds the database and what belongs to it; made when missing.
  package var stateDirectory: String
  package var registryListen: Endpoint
  package var beaconListen: Endpoint
  /// The status page; nil is none.
  package var httpListen: Endpoint?
  /// Beacons that clients are told about; none means "the one you have configured".
  package var advertisedBeacon: Endpoint?
  /// Beacons that run by themselves, for nodes of pilot-tun.
  package var moreBeacons: [Endpoint] = []
  package var adminToken: String?
  /// Refuses the administrator's token on connections that are neither TLS nor loopback (§9.9).
  package var adminNeedsTLS = false
  /// PEM files. With both, TLS and plain frames share the registry port, and `tlsListen` is served.
  package var tlsCertificate: String?
  package var tlsKey: String?
  /// TLS alone, for nodes without UDP: registry frames, and the beacon in a WebSocket. nil is none. A default that
  /// cannot be bound is a notice, what somebody asked for is an error.
  package var tlsListen: (endpoint: Endpoint, isDefault: Bool)?
  package var networks: [NetworkSpecification] = []
  /// Sources that the per-source limits do not count.
  package var exemptSources: [SourceNetwork] = ["127.0.0.0/8", "::1"].compactMap { SourceNetwork($0) }
  /// A client on this machine may name the address at which others reach it; anyone else is taken at the source
  /// address of the connection (§3.4).
  package var believesLocalClients = true
  /// A signed change is only taken from the host that registered the node: signatures carry no time, so whoever
  /// sees one could repeat it elsewhere (§9.1).
  package var bindsChangesToHost = true
  /// Connections of one host opened within 0.25 s count as one client for reading (§5.4).
  package var groupsConnections = true
  package var limits = RendezvousLimits()
  /// Without heartbeat this long (seconds) a node disappears from lookup and resolve; its id stays.
  package var reapTime = 1800
  /// The name of an absent node is kept for its key this long (seconds).
  package var nameReservation = 86_400
  package var threads = 2
  /// Where a key's search for an id begins. Replaced by tests that need collisions.
  package var derivation: @Sendable (Bytes32) -> UInt32 = NodeIdentifier.derived
  /// Milliseconds of wall time that never jumps back. Replaced by tests.
  package var clock: @Sendable () -> Int64 = SteadyClock().milliseconds

  package init(
    stateDirectory: String,
    registryListen: Endpoint = Endpoint(address: IPv6Address(high: 0, low: 0), port: 9000),
    beaconListen: Endpoint = Endpoint(address: IPv6Address(high: 0, low: 0), port: 9001),
    httpListen: Endpoint? = nil
  ) {
    self.stateDirectory = stateDirectory
    self.registryListen = registryListen
    self.beaconListen = beaconListen
    self.httpListen = httpListen
  }
}
