// The node: one actor that runs a handshake and a path machine per peer between the worker, the directory and the
// beacon. Made by NodeProgram. Its parts:
//
//   Node+Life      start of the services, readiness, end          Node+Beacon   discover, punch, notify
//   Node+Events    what the worker reports                        Node+Timers   deadlines, keepalives, reaping
//   Node+Peers     rows of peers, lookups, policy                 Node+Ping     control pings and their answers
//   Node+Strangers answers before the directory's                 Node+Gateway   streams and their sockets
//   Node+Handshake actions of the handshake machine               Node+Control  verbs of the control socket
//   Node+Path      actions of the path machine                    Node+Status   what `status` and `peers` show
//   Node+Trust     messages on port 444                           Node+LocalSocket  questions of official clients
//   Node+PortMapping  the port that the router opens              Node+NAT      what the NAT does, measured
//   Node+Ports     ports opened in numbers                        Node+Reload   settings that change while it runs
//   Node+Readiness  what the service manager is told              Node+Transport  UDP or TLS to the beacon
//   Node+Relays    through which relay, and for whom we are one
//
// Rules: nothing here runs per packet; whatever a stranger can cause is limited before it costs a lookup or a
// signature; every problem is logged once per cause and peer and counted from then on.

import Directory
import Engine
import Gateway
import LinkIO
import Logging
import Naming
import NIOCore
import PortMapping
import Rendezvous
import ServiceManager
import Session
import Synchronization
import Telemetry
import TLSTransport
import Traversal
import Wire

package actor Node {
  package nonisolated let configuration: NodeConfiguration
  nonisolated let adminToken: AdminToken?
  nonisolated let logger: Logger
  nonisolated let store: NodeStore
  nonisolated let directory: Directory
  nonisolated let engine: Engine
  nonisolated let gateway: Gateway
  /// What peers send to official clients.
  var inbox: Inbox?
  nonisolated let stub: StubServer?
  nonisolated let rendezvous: RendezvousServer?
  /// Holds the interface, when that is not where this process is.
  nonisolated let namespace: OverlayNamespace?
  nonisolated let notifier: ServiceNotifier
  /// Kept over restarts; nil without a service manager.
  nonisolated let recentPeers: RecentPeers?
  var keptPeers: [UInt32] = []
  nonisolated let reread: @Sendable () throws -> NodeConfiguration
  /// The settings in force: `configuration` with what was reloaded since.
  var settings: NodeConfiguration
  let startedAt = Clock.now()

  // Identity on the network, once the registry (or the last run) told it.
  var node: UInt32?
  var networks: [UInt16] = [0]
  var addresses: [IPv6Address] = []
  var directoryState = DirectoryState.connecting
  var isStubRunning = false
  var stubProblem: ControlError?
  nonisolated let hostNames: HostNames
  /// Why the node could not start: no threads, or the operator insisted on a way to resolve names that does not work.
  var failure: ControlError?
  /// With the address of the last run: ends when programs were shown to find names. The node is not ready before.
  var hostTold: Task<Void, Never>?
  var isReady = false
  /// The service manager was told that the start is over.
  var isStarted = false
  var toldStatus = ""
  var isStopping = false
  var warnings: [String] = []
  /// Any node may send to us. As configured, until a local client changes it; the gateway's thread reads it, too.
  nonisolated let visibility: Atomic<Bool>
  nonisolated var isPublic: Bool { visibility.load(ordering: .relaxed) }

  // Peers
  var peers: [UInt32: PeerState] = [:]
  var nodesByIndex: [PeerIndex: UInt32] = [:]
  var freeIndexes: [PeerIndex] = []
  var nextIndex: PeerIndex = 0
  /// Lookups under way, with what waits for them.
  var lookups: [UInt32: PendingLookup] = [:]
  /// Nodes that do not exist (or cannot be asked for now), until when.
  var absent: [UInt32: UInt64] = [:]
  var strangers = StrangerLimiter()
  var entropy = SystemRandomNumberGenerator()

  // Beacons: those that are reached by UDP, and the way to the rendezvous by TLS where that is blocked
  var beaconChoice = BeaconChoice()
  /// Those that the registry names besides the configured ones.
  var toldBeacons: [HostPort] = []
  /// What their names meant when they were last resolved.
  var resolvedBeacons: [HostPort: Endpoint] = [:]
  var transport: TransportChoice
  var tls: TLSParts
  var beaconProblem: String?
  /// Where the home beacon sees our socket.
  var observed: Endpoint?
  /// Trusted peers that relay, whose paths are kept open.
  var relayNodes: [UInt32] = []
  /// Counts changes of what `tellRelays` tells.
  var relaysVersion: UInt64 = 0
  var nextRelayOffers: UInt64 = 0
  var networkChangedAt: UInt64 = 0
  var lanAddresses: [IPv6Address] = []
  /// Towards the first beacon, when links, addresses or routes changed last.
  var wayOut: WayOut?

  // The NAT in front: what the survey found (on networks before: NodeStore)
  var translation = PortTranslation.unknown
  var mappingLifetime: UInt64?
  var outerAddress: IPv6Address?
  var natSurvey: Task<Void, Never>?
  /// Openings of ports under way, and when ports of peers were tried in the last minute.
  var openings = 0
  var sprayedAt: [UInt64] = []

  // Port mapping of each family, and the last UPnP call
  var mappingSeats: [MappingFamily: MappingSeat] = [:]
  var mappingCall: Task<Void, Never>?
  nonisolated let group: any EventLoopGroup

  // Timers
  var deadlines = DeadlineQueue()
  var timer: Task<Void, Never>?
  var timerAt = UInt64.max
  var nextDiscover: UInt64 = 0
  var nextBeaconTick: UInt64 = .max
  var nextSurvey: UInt64 = 0
  var nextLinkCheck: UInt64 = .max
  var sleptFor = Clock.sleep()
  var nextMapping: UInt64 = .max

  // Trust messages on port 444
  var trustMessages: [UInt32: TrustQueue] = [:]

  // Pings
  var pings: [UInt32: OutstandingPing] = [:]
  var nextPingSequence: UInt32 = 1

  /// Counted refusals of this room and of the handshake machines, by name.
  var counts: [String: UInt64] = [:]
  /// Events that are no refusals, by name.
  var tallies: [String: UInt64] = [:]
  var traffic = PathTraffic()
  var logged: Set<String> = []

  // Life
  let stops: AsyncStream<String?>
  let requestStop: AsyncStream<String?>.Continuation
  let readiness: AsyncStream<Void>
  let becameReady: AsyncStream<Void>.Continuation
  var onlineWaiters: [Int: CheckedContinuation<Bool, Never>] = [:]
  var lastWaiter = 0

  init(
    configuration: NodeConfiguration, adminToken: AdminToken?, logger: Logger, parts: NodeParts,
    notifier: ServiceNotifier,
    group: any EventLoopGroup, reread: @escaping @Sendable () throws -> NodeConfiguration
  ) {
    self.configuration = configuration
    settings = configuration
    self.reread = reread
    recentPeers = parts.recentPeers
    self.adminToken = adminToken
    self.logger = logger
    self.notifier = notifier
    self.group = group
    visibility = Atomic(configuration.isPublic)
    transport = TransportChoice(
      mode: configuration.tls == nil ? .udp : configuration.transport, now: Clock.now(),
      entropy: .random(in: 0...(.max)))
    tls = TLSParts(dialer: parts.dialer)
    store = parts.store
    directory = parts.directory
    engine = parts.engine
    gateway = Gateway(engine: parts.engine)
    rendezvous = parts.rendezvous
    namespace = parts.namespace
    if configuration.dns == .off {
      stub = nil
    } else {
      var stubSettings = StubServer.Configuration()
      if let namespace = parts.namespace {
        stubSettings.sockets = { endpoint throws(StubServer.SocketFailure) in try namespace.resolverSockets(endpoint) }
        stubSettings.listClients = {
          (try? namespace.inside { () throws(LinkError) in LocalClients.system() }) ?? []
        }
      }
      stub = StubServer(
        source: NodeNames(directory: parts.directory), configuration: stubSettings, logger: logger, group: group)
    }
    var names = configuration
    // The command's own resolv.conf names the stub; this machine's programs have nothing to do with it.
    if parts.namespace != nil { names.dns = .off }
    hostNames = HostNames(
      configuration: names, interface: (parts.engine.interfaceName, parts.engine.interfaceIndex), logger: logger
    )
    (stops, requestStop) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(4))
    (readiness, becameReady) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(1))
  }

  /// Counts something that was refused or ignored.
  func count(_ name: String) { counts[name, default: 0] += 1 }

  /// Counts something that happened as it should.
  func tally(_ name: String) { tallies[name, default: 0] += 1 }

  /// Tells the worker. It is 16,384 commands behind only when something is badly wrong: frames are lost then, which shows
  /// in `drops`.
  func tell(_ command: EngineCommand) {
    if !engine.submit(command) { count("command-queue-full") }
  }

  /// Something that the node can do without had to: there is no thread for it.
  func goWithout(_ error: ControlError) {
    count("thread-unavailable")
    logOnce("thread", error.message, fields: Logger.Metadata(describing: error))
  }

  /// Logs a cause once; further ones are only counted by the caller.
  func logOnce(
    _ cause: String, level: Logger.Level = .warning, _ message: String, fields: Logger.Metadata = [:]
  ) {
    guard logged.count < 4096, logged.insert(cause).inserted else { return }
    logger.log(level: level, "\(message)", metadata: fields.merging(["cause": "\(cause)"]) { own, _ in own })
  }

  /// Our address in the network that the peer was addressed in, or on the backbone.
  func ownAddress(in network: UInt16) -> PilotAddress? {
    node.map { PilotAddress(network: networks.contains(network) ? network : 0, node: $0) }
  }
}

/// What stands before the node begins: made in the order of NodeProgram.
struct NodeParts: Sendable {
  var store: NodeStore
  var directory: Directory
  /// To the rendezvous by TLS; nil where that is not wanted.
  var dialer: TLSDialer?
  var engine: Engine
  var rendezvous: RendezvousServer?
  var recentPeers: RecentPeers?
  var namespace: OverlayNamespace?
}

/// A lookup of a node that has no row yet.
struct PendingLookup: Sendable {
  /// A local program sends to it.
  var isWanted = false
  /// With the time of their coming.
  var frames: [(frame: InboundFrame, at: UInt64)] = []
  var isAnsweredAhead = false
  var advance: AdvanceAnswer?
  var waiters: [CheckedContinuation<RecordResult, Never>] = []
}

/// A frame of a node that has no row yet.
enum InboundFrame: Sendable {
  case keyExchange(KeyExchangeFrame, Arrival)
  case keyRequest(KeyRequestFrame, Arrival)
  case undecryptable([UInt8], Arrival)
}

/// How many unknown nodes a second may cause a lookup.
struct StrangerLimiter {
  private var tokens = 50.0
  private var filledAt: UInt64 = 0

  mutating func admit(_ now: UInt64) -> Bool {
    tokens = min(50, tokens + Double(now &- filledAt) / 1e9 * 20)
    filledAt = now
    guard tokens >= 1 else { return false }
    tokens -= 1
    return true
  }
}
