// The node's directory service: registers, keeps registered, answers "who is this?" and "who has this name?", runs
// the trust handshake. Owned by TunControl's Node. Registration and liveness: Directory+Service.swift; questions:
// Directory+Queries.swift; trust: Directory+Trust*.swift.

package import Logging
package import NIOCore
import NIOPosix
package import Session
package import Wire

/// One node at one registry. Everything it learns goes to the `NodeStore`, and what it cannot ask it reads there.
///
/// - `run()` is the service; nothing is sent before it runs. Cancel its task to stop.
/// - `events` has one consumer.
package actor Directory {
  package nonisolated let configuration: DirectoryConfiguration
  package nonisolated let store: NodeStore
  package nonisolated let client: RegistryClient
  package nonisolated let events: AsyncStream<DirectoryEvent>

  package internal(set) var state = DirectoryState.connecting
  /// Own node id: given by the registry, or remembered from the last run while the registry is away.
  package internal(set) var node: UInt32?
  /// Own networks, 0 included.
  package internal(set) var networks: [UInt16] = [0]
  /// The hostname that the registry took, and why it did not.
  package internal(set) var hostname: String?
  package internal(set) var hostnameProblem: DirectoryError?
  /// Configured networks that refused us, and why.
  package internal(set) var networkProblems: [UInt16: DirectoryError] = [:]
  /// The endpoint that the registry tells others.
  package internal(set) var observedEndpoint: Endpoint?

  let logger: Logger
  let publish: AsyncStream<DirectoryEvent>.Continuation
  var timing: DirectoryTiming { configuration.timing }

  // What the node wants the registry to know. INVARIANT: every registration is built from these by
  // `registration()`, so that no path forgets one (an override that was lost on re-registration is a classic).
  var announcement: Announcement
  var wantedHostname: String?
  var tags: [String]
  package internal(set) var isPublic: Bool
  /// Every request for trust is approved.
  var approvesAutomatically: Bool
  var memberships: [NetworkMembership]

  // Service (Directory+Service.swift)
  var sleeper: Task<Void, Never>?
  /// Ends with the wait before the next dial.
  var redialWait: Task<Void, Never>?
  var isWakePending = false
  var wantsRegistration = false
  var registeredOn: UInt64?
  var failedHeartbeats = 0
  var nextPoll = ContinuousClock.now
  var lastPoll: ContinuousClock.Instant?
  var busyUntil = ContinuousClock.now
  var chores: [Chore] = []
  /// Trusted peers that the registry does not know (yet): after it lost its state both ends have to come back before
  /// either can report the pair. Reported again at `nextReport`, in growing intervals.
  var unreported: Set<UInt32> = []
  var nextReport = ContinuousClock.now
  var reportWait = Duration.seconds(1)

  // Trust messages (Directory+TrustMessages.swift)
  var trustMessenger: TrustMessenger?
  var trustChecks = TrustChecks()
  var trustWriter = TrustWriter()
  /// Messages on their way, by peer.
  var lastMessages: [UInt32: LastMessage] = [:]
  /// Peers that are being told yes, and those that are told what they missed: not twice at a time.
  var answersUnderWay: Set<UInt32> = []
  var withdrawalsUnderWay: Set<UInt32> = []

  /// Those who wait for trust with a peer (Directory+Trust.swift).
  var trustTellers: [UInt64: (peer: UInt32, teller: AsyncStream<Void>.Continuation)] = [:]
  var lastTeller: UInt64 = 0

  // Queries (Directory+Queries.swift)
  var records: [UInt32: Cached<RecordResult>] = [:]
  var names: [String: Cached<NameResult>] = [:]
  var recordsInFlight: [UInt32: Task<RecordResult, Never>] = [:]
  var namesInFlight: [String: Task<NameResult, Never>] = [:]
  /// Names of networks (Directory+Groups.swift).
  var groups: Cached<[UInt16: String]>?
  var groupsInFlight: Task<[UInt16: String]?, Never>?

  package init(
    configuration: DirectoryConfiguration, store: NodeStore, announcement: Announcement, logger: Logger,
    group: any EventLoopGroup = .singletonMultiThreadedEventLoopGroup
  ) {
    self.configuration = configuration
    self.store = store
    self.announcement = announcement
    self.logger = logger
    client = RegistryClient(
      host: configuration.registryHost, port: configuration.registryPort, identity: { store.identity },
      timing: configuration.timing, detour: configuration.detour, group: group)
    (events, publish) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(4096))
    wantedHostname = configuration.hostname
    tags = configuration.tags
    isPublic = configuration.isPublic
    approvesAutomatically = configuration.approvesAutomatically
    memberships = configuration.networks
  }

  package nonisolated var identity: Identity { store.identity }

  /// `host:port`, as stored with the node's own id.
  nonisolated var registryName: String { "\(configuration.registryHost):\(configuration.registryPort)" }

  var signer: RegistrySigner? { node.map { RegistrySigner(node: $0, identity: identity) } }

  func requireSigner() throws(DirectoryError) -> RegistrySigner {
    guard let signer else {
      throw DirectoryError(
        .notRegistered, "this node has no address yet: its registry has not answered",
        hint: "pilot-tun status shows the state of the registry")
    }
    return signer
  }

  func setState(_ new: DirectoryState) {
    guard new != state else { return }
    state = new
    publish.yield(.stateChanged(new))
  }
}

// MARK: - What the node says about itself

extension Directory {
  /// The one place where the registration record is built.
  package func registration() -> Registration {
    let label = identity.publicKey.bytes.prefix(6).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    return Registration(
      listenAddress: announcement.listenAddress,
      owner: configuration.owner ?? "\(label)@nodes.pilotprotocol.network", version: configuration.version,
      lanEndpoints: Array(announcement.lanEndpoints.prefix(16)), isRelayOnly: configuration.isRelayOnly)
  }

  /// The tunnel endpoint changed: registers again when it differs.
  package func announce(_ new: Announcement) {
    guard new != announcement else { return }
    announcement = new
    registerAgain()
  }

  /// Asks for a new registration, for instance after a network change.
  package func registerAgain() {
    wantsRegistration = true
    wake()
  }

  /// Changes the hostname for this run ("" or nil clears). Returns the name as kept.
  @discardableResult
  package func setHostname(_ name: String?) async throws(DirectoryError) -> String? {
    let wanted = name.flatMap { $0.isEmpty ? nil : $0 }
    if let wanted, HostnameRule.normalize(wanted) == nil {
      throw DirectoryError(
        .badRequest, "\(wanted) cannot be a hostname",
        hint: "1 to 63 letters a-z, digits, hyphens inside; not localhost, backbone, broadcast")
    }
    let me = try requireSigner()
    let kept = try await client.setHostname(wanted?.lowercased() ?? "", as: me)
    wantedHostname = wanted
    hostname = kept.isEmpty ? nil : kept
    hostnameProblem = nil
    return hostname
  }

  package func setTags(_ new: [String]) async throws(DirectoryError) {
    try await client.setTags(new, as: requireSigner())
    tags = new
  }

  /// For requests from now on.
  package func setApproval(isAutomatic: Bool) { approvesAutomatically = isAutomatic }

  package func setVisibility(isPublic new: Bool) async throws(DirectoryError) {
    try await client.setVisibility(isPublic: new, as: requireSigner())
    isPublic = new
  }

  /// Joins now and after every registration of this run.
  @discardableResult
  package func join(_ network: NetworkMembership) async throws(DirectoryError) -> PilotAddress {
    let me = try requireSigner()
    let address = try await client.joinNetwork(network, as: me)
    memberships.removeAll { $0.id == network.id }
    memberships.append(network)
    setNetworks(networks + [network.id])
    return address
  }

  package func leave(_ network: UInt16) async throws(DirectoryError) {
    try await client.leaveNetwork(network, as: requireSigner())
    memberships.removeAll { $0.id == network }
    setNetworks(networks.filter { $0 != network })
  }

  package func listNetworks() async throws(DirectoryError) -> [NetworkInfo] { try await client.listNetworks() }

  package func policy(of network: UInt16) async throws(DirectoryError) -> NetworkPolicy {
    try await client.networkPolicy(network)
  }

  /// Gives the address's entry up; the registry keeps key to id. The service should be stopped afterwards: its next
  /// heartbeat would register again.
  package func deregister() async throws(DirectoryError) { try await client.deregister(as: requireSigner()) }

  func setNetworks(_ new: [UInt16]) {
    let sorted = Set(new).union([0]).sorted()
    guard let node, sorted != networks else { return }
    networks = sorted
    records.removeAll()
    store.note(own: OwnRegistration(registry: registryName, node: node, networks: sorted))
    publish.yield(.registered(node: node, address: PilotAddress(network: 0, node: node), networks: sorted))
    tellOfTrust(with: nil)
  }
}
