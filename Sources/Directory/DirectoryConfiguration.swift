// What a node tells `Directory` about itself, and the times it works by. Built by TunControl from the configuration.

package import Wire

/// A network to be in.
package struct NetworkMembership: Sendable, Equatable {
  package var id: UInt16
  /// For networks with the join rule `token`.
  package var token: String

  package init(id: UInt16, token: String = "") {
    self.id = id
    self.token = token
  }
}

/// The tunnel endpoint as this node believes it. Changes at run time: see `Directory.announce(_:)`.
package struct Announcement: Sendable, Equatable {
  /// Public endpoint when known (from the beacon or the operator), else the local one; `host:port`.
  package var listenAddress: String
  /// Addresses on private networks with the tunnel port.
  package var lanEndpoints: [Endpoint]

  package init(listenAddress: String, lanEndpoints: [Endpoint] = []) {
    self.listenAddress = listenAddress
    self.lanEndpoints = lanEndpoints
  }
}

/// What the directory service does for this node.
package struct DirectoryConfiguration: Sendable {
  /// IPv4, IPv6 (without brackets) or a host name.
  package var registryHost: String
  package var registryPort: UInt16
  package var hostname: String?
  package var tags: [String]
  package var isPublic: Bool
  package var isRelayOnly: Bool
  package var networks: [NetworkMembership]
  /// Approve every handshake without asking.
  package var approvesAutomatically: Bool
  /// The registry's owner label; nil: derived from the key as official daemons do (wire/registry §2.2).
  package var owner: String?
  /// Sent as `version` with the registration.
  package var version: String
  package var timing: DirectoryTiming
  /// Another way to the registry, where its port is not reached.
  package var detour: RegistryDetour?

  package init(
    registryHost: String, registryPort: UInt16 = 9000, hostname: String? = nil, tags: [String] = [],
    isPublic: Bool = false, isRelayOnly: Bool = false, networks: [NetworkMembership] = [],
    approvesAutomatically: Bool = false, owner: String? = nil, version: String = "pilot-tun",
    timing: DirectoryTiming = DirectoryTiming()
  ) {
    self.registryHost = registryHost
    self.registryPort = registryPort
    self.hostname = hostname
    self.tags = tags
    self.isPublic = isPublic
    self.isRelayOnly = isRelayOnly
    self.networks = networks
    self.approvesAutomatically = approvesAutomatically
    self.owner = owner
    self.version = version
    self.timing = timing
  }
}

/// Intervals and deadlines; the defaults are those of wire/registry §1.3, §2.5, §4.2. Tests shorten them.
package struct DirectoryTiming: Sendable {
  package var dialTimeout: Duration = .seconds(5)
  package var replyTimeout: Duration = .seconds(8)
  package var heartbeat: Duration = .seconds(60)
  package var poll: Duration = .seconds(60)
  /// Between polls for `busyPollPeriod` after an own request.
  package var busyPoll: Duration = .seconds(2)
  package var busyPollPeriod: Duration = .seconds(120)
  /// Never more than one poll in this time.
  package var pollGap: Duration = .seconds(2)
  /// First and longest wait before the next dial while the registry is away. With a lost dial (5 s, its SYN
  /// repeated at 1 s and 3 s) the longest keeps the node within 10 s of the registry's return.
  package var firstRedial: Duration = .milliseconds(200)
  package var longestRedial: Duration = .seconds(3)
  /// Once the registry was away for `longOutage`.
  package var laterRedial: Duration = .seconds(10)
  package var longOutage: Duration = .seconds(300)
  /// Longest wait after refused registrations: those are not healed by asking quickly.
  package var longestRefusedWait: Duration = .seconds(30)
  package var positiveLife: Duration = .seconds(60)
  package var negativeLife: Duration = .seconds(3)
  /// How long a trust request over the tunnel may take before the registry carries it.
  package var directAttempt: Duration = .seconds(3)
  /// How long any trust message may take, with the dial and its key exchange.
  package var messenger: Duration = .seconds(20)
  /// How long the tunnel stands after trust was withdrawn, so that the peer hears of it.
  package var farewell: Duration = .seconds(1)
  /// Between saves of the state files.
  package var saveInterval: Duration = .seconds(1)

  package init() {}
}
