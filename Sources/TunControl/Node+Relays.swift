// Through which relay frames to a peer go (RelayChoice), what nodes tell each other of their relays, and for whom this
// node is a relay itself (docs/nat-traversal.md, "Several relays" and "Nodes as relays").

import Directory
import Engine
import Logging
import Session
import Traversal
import Wire

extension Node {
  /// Trusted peers whose paths are kept open because they relay.
  private static let mostRelayNodes = 2
  /// A relay looks for its trusted peers this often; 64 of them at a time.
  private static let offerInterval: UInt64 = 600_000_000_000
  private static let mostOffers = 64
  private static let watchedInterval: UInt64 = 7_000_000_000
  private static let offerLasts: UInt64 = 600_000_000_000
  private static let retryInterval: UInt64 = 30_000_000_000

  // MARK: Which relay

  /// Gives the choice of the peer's relay an event and carries its actions out.
  func choose(_ peer: PeerState, _ event: RelayChoice.Event) {
    let actions = peer.relays.handle(event, isUsed: isRelayUsed(peer), now: Clock.now())
    for action in actions {
      switch action {
      case .probe(let relay):
        guard let endpoint = endpoint(of: relay) else { break }
        tally("probes-relayed")
        probe(peer, through: relay, at: endpoint)
        // A relay behind which our NAT changed its port refuses us until it hears of that by a sealed frame.
        if case .node(let node) = relay, let other = peers[node] { probe(other) }
      case .use(let relay):
        tally("relay-changes")
        logger.debug("relay", metadata: ["peer": "\(peer.address)", "relay": "\(relay.map { "\($0)" } ?? "none")"])
        publishPath(of: peer)
        walk(peer, .beacon(isAvailable: relay != nil))
        walk(peer, .relayMoved)
        // The other end may have noticed that it died, and we follow: is it home?
        steerBeacons(.doubted)
      case .tell: tellRelays(to: peer)
      }
    }
    if !actions.isEmpty { rearm(peer) }
  }

  /// Frames of programs go through the relay.
  func isRelayUsed(_ peer: PeerState) -> Bool {
    guard peer.path.path == .relay, peer.handshake.currentSession != nil else { return false }
    let lastUse = engine.statistics(of: peer.index).lastSend
    return lastUse != 0 && Clock.now() < lastUse + Keepalive.useLasts
  }

  /// Where wrapped frames for the peer go.
  func relayEndpoint(to peer: PeerState) -> Endpoint? { peer.relays.present.flatMap { endpoint(of: $0) } }

  private func endpoint(of relay: TunnelControl.Relay) -> Endpoint? {
    switch relay {
    case .beacon(let endpoint):
      guard transport.carrier == .tls else { return endpoint }
      return relay == tlsRelay ? tls.entrance : nil
    case .node(let node):
      guard case .direct(let endpoint)? = peers[node]?.enginePath else { return nil }
      return endpoint
    }
  }

  /// The beacon that TLS leads to, by its own endpoint, which is what peers know it by; by our socket that leads there
  /// while its name does not resolve. nil: the node is not on TLS.
  private var tlsRelay: TunnelControl.Relay? {
    guard let entrance = tls.entrance else { return nil }
    let beacons = configuration.beacons
    let beside = beacons.first { $0.host == configuration.registry?.host } ?? beacons.first
    return .beacon(beside.flatMap { resolvedBeacons[$0] } ?? entrance)
  }

  private func relay(at endpoint: Endpoint) -> TunnelControl.Relay? {
    if endpoint == tls.entrance { return tlsRelay }
    if beaconChoice.contains(endpoint) { return .beacon(endpoint) }
    return relayNodes.first { peers[$0]?.enginePath == .direct(endpoint) }.map { .node($0) }
  }

  /// Something of the peer came through a relay at this endpoint.
  func noteRelay(_ endpoint: Endpoint, of peer: PeerState) {
    if let relay = relay(at: endpoint) { choose(peer, .heard(relay)) }
  }

  /// Frames of a handshake go through what carried something before; after two tries in vain, and at first, through all
  /// that know us.
  func handshakeRelays(of peer: PeerState?) -> [Endpoint] {
    if let peer, peer.relays.isProven, peer.handshakeTries <= 2, let endpoint = relayEndpoint(to: peer) {
      return [endpoint]
    }
    var endpoints: [Endpoint] = []
    for relay in [beaconChoice.meetingPoint.map { .beacon($0) }].compactMap({ $0 }) + ownRelays {
      if let endpoint = endpoint(of: relay), !endpoints.contains(endpoint) { endpoints.append(endpoint) }
    }
    return Array(endpoints.prefix(4))
  }

  /// The relays that this node can be reached through, home first.
  private var ownRelays: [TunnelControl.Relay] {
    let nodes = relayNodes.map { TunnelControl.Relay.node($0) }
    if transport.carrier == .tls { return [tlsRelay].compactMap { $0 } + nodes }
    let beacons = beaconChoice.known.isEmpty ? [udpBeacon].compactMap { $0 } : beaconChoice.known
    return beacons.map { .beacon($0) } + nodes
  }

  /// What both can be reached through, as far as the peer told. Official daemons know one beacon, the registry's, which
  /// stands first in the list.
  func refreshWays(to peer: PeerState) {
    var ways: [TunnelControl.Relay] = []
    func add(_ relay: TunnelControl.Relay) { if !ways.contains(relay) { ways.append(relay) } }
    if let told = peer.toldRelays, peer.handshake.isAnnouncing || peer.handshake.currentSession == nil {
      for relay in told {
        switch relay {
        // Only what the operator named: nobody else says whom we send to. On TLS there is one beacon.
        case .beacon(let endpoint): if beaconChoice.contains(endpoint), self.endpoint(of: relay) != nil { add(relay) }
        case .node(let node): if relayNodes.contains(node) { add(relay) }
        }
      }
    } else if let first = tlsRelay ?? beaconChoice.beacons.first.map({ .beacon($0.endpoint) }) {
      add(first)
    }
    if peer.handshake.isAnnouncing || peer.handshake.currentSession == nil {
      for case .beacon(let endpoint) in ownRelays { add(.beacon(endpoint)) }
    }
    choose(peer, .ways(Array(ways.prefix(RelayChoice.Limits.most))))
    publishFallback(of: peer)
    walk(peer, .beacon(isAvailable: relayEndpoint(to: peer) != nil))
  }

  /// The carrier changed: what was reached one way is reached another way, or not at all, and peers hear what is left.
  func relaysMoved() {
    relaysVersion += 1
    for peer in peers.values {
      refreshWays(to: peer)
      publishPath(of: peer)
      walk(peer, .relayMoved)
      if isUsed(peer) { tellRelays(to: peer) }
    }
  }

  // MARK: What nodes tell each other

  /// Says through which relays this node can be reached, first the one that it sends through.
  func tellRelays(to peer: PeerState) {
    guard peer.handshake.isAnnouncing, peer.handshake.currentSession != nil else { return }
    peer.relaysTold = relaysVersion
    var list = [peer.relays.present].compactMap { $0 }
    for relay in ownRelays where !list.contains(relay) { list.append(relay) }
    // A socket of this machine means nothing elsewhere.
    list.removeAll { $0 == tls.entrance.map { .beacon($0) } }
    sendControl(TunnelControl.relays(list).encoded(), to: peer)
  }

  func learnRelays(_ relays: [TunnelControl.Relay], of peer: PeerState) {
    let isFirst = peer.toldRelays == nil
    peer.toldRelays = relays
    refreshWays(to: peer)
    if let first = relays.first { choose(peer, .told(first)) }
    keepReached(peer)
    if isFirst { tellRelays(to: peer) }
  }

  /// The beacons that the peer is reached through know us as long as that goes on.
  func keepReached(_ peer: PeerState) {
    for way in peer.relays.ways {
      if case .beacon(let endpoint) = way.relay,
        !beaconChoice.known.contains(endpoint) || way.relay == peer.relays.present
      {
        steerBeacons(.wanted(endpoint))
      }
    }
  }

  /// A session with one of our kind was confirmed.
  func introduceRelays(to peer: PeerState) {
    refreshWays(to: peer)
    tellRelays(to: peer)
    peer.isRelayedFor = false
    // It may be another run than the one that offered something. Official daemons know no such frame.
    if !noteRelaying(for: peer), peer.handshake.isAnnouncing {
      sendControl(TunnelControl.relayOffer(isOffered: false).encoded(), to: peer)
    }
  }

  /// A session began or ended.
  func noteSession(of peer: PeerState) {
    if peer.offersRelay { refreshRelayNodes() }
    if peer.handshake.currentSession == nil { noteRelaying(for: peer) }
  }

  // MARK: Nodes as relays

  /// Tells the worker whether frames of the peer are relayed here, and the peer when that changed. Membership of a network
  /// is not enough: in an open one that is anybody. Returns whether the peer was told.
  @discardableResult
  func noteRelaying(for peer: PeerState) -> Bool {
    guard configuration.isRelay else { return false }
    let isAllowed = peer.trust == .trusted && peer.handshake.isAnnouncing && peer.handshake.currentSession != nil
    guard isAllowed != peer.isRelayedFor else { return false }
    peer.isRelayedFor = isAllowed
    tell(.setRelaying(peer.index, isAllowed))
    sendControl(TunnelControl.relayOffer(isOffered: isAllowed).encoded(), to: peer)
    return true
  }

  /// The peer relays for us, or does not any more. It is used while we trust it, which we may not know yet.
  func noteOffer(_ isOffered: Bool, of peer: PeerState) {
    guard isOffered != peer.offersRelay else { return }
    peer.offersRelay = isOffered
    if !isOffered { store.noteRelay(peer.node, false) }
    refreshRelayNodes()
  }

  /// Which of the peers that relay are kept open: at most two, trusted, for they can watch whom we speak with, directly
  /// reached; those that are stay.
  func refreshRelayNodes() {
    func isFit(_ peer: PeerState) -> Bool {
      guard peer.offersRelay, peer.trust == .trusted, peer.handshake.currentSession != nil else { return false }
      if case .direct = peer.enginePath { return true }
      return false
    }
    let kept = relayNodes.filter { peers[$0].map(isFit) ?? false }
    let others = peers.values.filter { isFit($0) && !kept.contains($0.node) }.sorted { a, b in
      (a.path[a.path.path]?.roundTrip ?? .max, a.node) < (b.path[b.path.path]?.roundTrip ?? .max, b.node)
    }
    let chosen = Array((kept + others.map(\.node)).prefix(Self.mostRelayNodes))
    let isNews = chosen != relayNodes
    relayNodes = chosen
    tellRelayEndpoints()
    for peer in peers.values where !chosen.contains(peer.node) {
      if isNews { refreshWays(to: peer) }
      // The relay itself may have moved.
      if case .node? = peer.relays.present { publishPath(of: peer) }
    }
    guard isNews else { return }
    for node in chosen { store.noteRelay(node, true) }
    relaysVersion += 1
    for peer in peers.values where isUsed(peer) { tellRelays(to: peer) }
  }

  /// Where the worker takes wrapped frames from.
  func tellRelayEndpoints(beacons: [Endpoint]? = nil) {
    let beacons = tls.entrance.map { [$0] } ?? beacons ?? beaconChoice.beacons.map(\.endpoint)
    tell(.setRelays(beacons: beacons, nodes: relayNodes.compactMap { endpoint(of: .node($0)) }))
  }

  /// While peers are spoken with, home is asked often enough to be replaced within 10 s of its death, whether or not
  /// anything goes through it.
  func surveyBeacons() {
    let recent = Clock.now() - min(Clock.now(), Keepalive.useLasts)
    // A relay that is kept open counts as used; alone it needs no beacon.
    let isWatched = beaconChoice.beacons.count > 1 && peers.values.contains { $0.lastTraffic > recent }
    let interval: UInt64? = isWatched ? Self.watchedInterval : nil
    guard interval != beaconChoice.homeInterval else { return }
    beaconChoice.homeInterval = interval
    steerBeacons(.tick)
  }

  /// A relay sees to it that its trusted peers know of it, those that were quiet, too.
  func surveyRelays(_ now: UInt64) {
    guard configuration.isRelay, node != nil, directoryState.isConnected, now >= nextRelayOffers else { return }
    nextRelayOffers = now + Self.offerInterval
    let quiet = store.trustedNodes.filter { peers[$0]?.handshake.currentSession == nil }
    for node in quiet.shuffled(using: &entropy).prefix(Self.mostOffers) {
      want(PilotAddress(network: 0, node: node))
    }
  }

  /// The relays of the last run are asked at once whether they still relay: they may be all there is now.
  func resumeRelays() {
    for node in store.relays.prefix(2 * Self.mostRelayNodes) { want(PilotAddress(network: 0, node: node)) }
  }

  /// The path to a relay is kept open, and its session alive, whether or not packets are sent to it.
  func keepRelay(_ peer: PeerState, _ now: UInt64) {
    guard peer.offersRelay, peer.trust == .trusted,
      relayNodes.contains(peer.node) || relayNodes.count < Self.mostRelayNodes
    else { return }
    let lastReceive = engine.statistics(of: peer.index).lastReceive
    guard now < max(peer.createdAt, lastReceive) + Self.offerLasts else {
      // It is gone; it tells us when it comes back.
      peer.offersRelay = false
      return refreshRelayNodes()
    }
    peer.lastUse = now
    if peer.handshake.currentSession == nil {
      peer.leanedOnAt = 0
      guard !peer.handshake.isAttempting, now >= peer.relayTriedAt + Self.retryInterval else { return }
      peer.relayTriedAt = now
      return need(peer)
    }
    // Through it somebody is reached, or it is not directly reached yet: its path is watched as one in use.
    var isLeanedOn = true
    if case .direct = peer.enginePath {
      isLeanedOn = peers.values.contains { $0.relays.present == .node(peer.node) && isRelayUsed($0) }
    }
    peer.leanedOnAt = isLeanedOn ? now : 0
  }
}
