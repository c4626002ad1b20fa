// The beacons: which of them know us, where our socket is seen from outside, who wants to punch, frames of handshakes
// through the relay (wire/tunnel §4). Which relay data takes is Node+Relays'.

import Directory
import Engine
import Logging
import Session
import Telemetry
import Traversal
import Wire

extension Node {
  /// Behind a NAT the way back from the beacon closes when its mapping ends (Node+NAT).
  var discoverInterval: UInt64 {
    let isBehindNAT = observed.map { !lanAddresses.contains($0.address) && !$0.address.isLoopback } ?? true
    return isBehindNAT ? keepaliveGap : 60_000_000_000
  }

  /// The beacon on UDP that is home; before any answered, the first.
  var udpBeacon: Endpoint? { beaconChoice.home ?? beaconChoice.beacons.first?.endpoint }

  /// Resolves the beacons' names, all at once; tried again while one fails. Where UDP is blocked, so is the resolver,
  /// often: no name waits for another.
  func findBeacons() async {
    let wanted = wantedBeacons
    var problem: String?
    await withTaskGroup(of: (HostPort, Result<Endpoint?, DirectoryError>).self) { group in
      for name in wanted {
        group.addTask {
          do throws(DirectoryError) {
            let found = try await HostResolver.endpoints(host: name.host, port: name.port)
            return (name, .success(found.first(where: \.isIPv4) ?? found.first))
          } catch {
            return (name, .failure(error))
          }
        }
      }
      for await (name, result) in group {
        switch result {
        case .success(let endpoint): resolvedBeacons[name] = endpoint
        // What it meant before holds until something else is known.
        case .failure(let error):
          problem = error.message
          logOnce("beacon \(error.message)", "beacon unknown", fields: Logger.Metadata(describing: error))
        }
        listBeacons()
      }
    }
    beaconProblem = problem
  }

  /// The beacons whose names are known, in the order wanted.
  private func listBeacons() {
    var found: [Endpoint] = []
    for endpoint in wantedBeacons.compactMap({ resolvedBeacons[$0] }) where !found.contains(endpoint) {
      found.append(endpoint)
    }
    guard found != beaconChoice.beacons.map(\.endpoint) else { return }
    // The worker first: it drops answers of whom it does not know.
    tellRelayEndpoints(beacons: found)
    steerBeacons(.listed(found))
    // Towards another first beacon nothing is known yet: what it is now is what a change is told from.
    if wayOut?.target != found.first { noteWayOut() }
    for peer in peers.values { refreshWays(to: peer) }
  }

  /// The configured beacons; the embedded one by an address of this machine that peers can reach, so that it sees our
  /// socket as they do.
  private var wantedBeacons: [HostPort] {
    var wanted = configuration.beacons
    if wanted.isEmpty {
      let own = LocalAddresses.list(except: configuration.interface).first?.description ?? "127.0.0.1"
      wanted = [HostPort(host: own, port: NodeConfiguration.beaconPort)]
    }
    return Array((wanted + toldBeacons.filter { !wanted.contains($0) }).prefix(NodeConfiguration.mostBeacons))
  }

  /// Asks where our socket is seen; also tells where to find us. Node 0 before the registration. The beacons that know us
  /// by UDP, or the rendezvous by TLS.
  func discover() {
    if transport.carrier == .tls {
      // Many peers may doubt at one time.
      guard let entrance = tls.entrance, Clock.now() > tls.toldAt + 500_000_000 else { return }
      tls.toldAt = Clock.now()
      sendDiscover(to: entrance)
    } else if beaconChoice.beacons.isEmpty {
      steer(.asked)
    } else {
      steerBeacons(.renewed)
    }
  }

  /// Asks the registry for more beacons. What it names stays until it names others: it may be away when they are needed.
  func learnBeacons() async {
    let told = await directory.beacons().compactMap { HostPort($0, defaultPort: nil) }
    guard !told.isEmpty, told != toldBeacons else { return }
    toldBeacons = Array(told.prefix(NodeConfiguration.mostBeacons))
    await findBeacons()
  }

  /// Gives the choice of beacons an event and carries its actions out. While the node is on TLS nobody is asked by UDP and
  /// there is nothing to choose; coming back counts as a change of network, which asks all of them.
  func steerBeacons(_ event: BeaconChoice.Event) {
    if transport.carrier == .tls {
      guard case .listed = event else { return }
    }
    beaconChoice.interval = discoverInterval
    for action in beaconChoice.handle(event, now: Clock.now()) {
      switch action {
      case .ask(let endpoint): ask(endpoint)
      case .home(let endpoint): homeChanged(to: endpoint)
      case .known:
        relaysVersion += 1
        for peer in peers.values {
          refreshWays(to: peer)
          if isUsed(peer) { tellRelays(to: peer) }
        }
      }
    }
    nextBeaconTick = transport.carrier == .tls ? .max : beaconChoice.nextDeadline
    arm()
  }

  private func homeChanged(to endpoint: Endpoint?) {
    tally("beacon-changes")
    let home = endpoint.flatMap { beaconChoice[$0] }
    logger.info(
      "home beacon",
      metadata: [
        "endpoint": "\(endpoint.map(\.description) ?? "none")", "rtt_ms": "\((home?.roundTrip ?? 0) / 1_000_000)",
      ])
    if let seen = home?.seen { noteObserved(seen, isNewMapping: false) }
    if endpoint != nil { surveyNAT() }
  }

  /// No answer of any of them is what shows that UDP is blocked (TransportChoice).
  private func ask(_ beacon: Endpoint) {
    steer(.asked)
    guard transport.carrier == .udp else { return }
    sendDiscover(to: beacon)
  }

  private func sendDiscover(to beacon: Endpoint) {
    let message = BeaconMessage.discover(node: node ?? 0, key: store.identity.publicKey)
    tell(.sendDatagram(message.encoded(), to: beacon))
  }

  /// Where our socket is seen, by the beacon that is home. `isNewMapping`: it saw it elsewhere before.
  private func noteObserved(_ endpoint: Endpoint, isNewMapping: Bool) {
    guard endpoint != observed else { return }
    let before = observed
    observed = endpoint
    // A mapping ended although it was kept open: the measurement holds no more.
    if isNewMapping, let outerAddress {
      mappingLifetime = nil
      store.note(mappingLifetime: nil, behind: outerAddress)
    }
    logger.info("socket seen by the beacon", metadata: ["endpoint": "\(endpoint)"])
    announce()
    if isNewMapping, before?.address != endpoint.address, Clock.now() > networkChangedAt + 10_000_000_000 {
      networkChanged()
    } else {
      for peer in peers.values where isUsed(peer) {
        // Another beacon may see another port of the same mapping.
        if isNewMapping { walk(peer, .mappingChanged) }
        tellCandidates(to: peer)
      }
    }
  }

  /// An answer to a question: one for each, and soon; nothing else tells that it is an answer.
  private func answered(_ seen: Endpoint, by from: Endpoint) -> Bool {
    // By TLS it is the connection that is seen, not our socket.
    guard transport.carrier == .udp else { return false }
    guard beaconChoice.expects(from, now: Clock.now()) else {
      count("beacon-unexpected")
      return false
    }
    tls.problem = nil
    steer(.answered)
    let before = beaconChoice[from]?.seen
    steerBeacons(.answered(from, seen: seen))
    if from == beaconChoice.home { noteObserved(seen, isNewMapping: before.map { $0 != seen } ?? false) }
    return true
  }

  func receive(_ message: BeaconMessage, from: Endpoint) {
    switch message {
    case .discoverReply(let endpoint): _ = answered(endpoint, by: from)
    case .discoverChallenge(let endpoint, let challenge):
      // Whoever could make us sign anything else by this would have to know what else begins like it.
      guard answered(endpoint, by: from), let node else { return }
      let proof = BeaconMessage.provenDiscover(
        node: node, key: store.identity.publicKey, challenge: challenge,
        signature: store.identity.sign(BeaconMessage.proofText(node: node, challenge: challenge)))
      tell(.sendDatagram(proof.encoded(), to: from))
      steerBeacons(.asked(from))
    case .punchCommand(let endpoint):
      guard !configuration.isRelayOnly else { return count("punch-ignored") }
      tally("punch-commands")
      for _ in 0..<3 { tell(.sendDatagram(PunchFrame.bytes, to: endpoint)) }
    case .notify(let kind):
      guard kind == BeaconMessage.notifyHandshakes else { return count("beacon-notify-unknown") }
      Task { await directory.pollNow() }
    default: count("beacon-unexpected")
    }
  }

  /// Asks the beacon where nodes meet to make the peer open its NAT for us.
  func punch(_ peer: PeerState) {
    guard let beacon = beaconChoice.meetingPoint, let node, !configuration.isRelayOnly, !peer.record.isRelayOnly,
      transport.carrier == .udp
    else { return }
    let message = BeaconMessage.punchRequest(requester: node, target: peer.node, grant: nil)
    tell(.sendDatagram(message.encoded(), to: beacon))
  }

  /// Wraps a frame of a handshake for the node: through the relay that carried something of it before, else through
  /// all that both may be known to. `peer`: its row, if it has one.
  func relay(_ frame: [UInt8], to target: UInt32, after peer: PeerState?) {
    guard let node else { return }
    let message = BeaconMessage.relay(source: node, destination: target, frame: frame).encoded()
    for endpoint in handshakeRelays(of: peer) { tell(.sendDatagram(message, to: endpoint)) }
  }

  // MARK: Our own place

  /// What the registry shall tell others about our socket.
  var announcement: Announcement {
    let port = engine.localEndpoint.port
    var lan = lanAddresses.map { Endpoint(address: $0, port: port) }
    // First: pilot-rendezvous takes one at our outer address for the port that everybody shall use, and keeps eight. A
    // pinhole is mostly one of our own addresses.
    for mapped in mappedEndpoints.reversed() {
      lan.removeAll { $0 == mapped }
      lan.insert(mapped, at: 0)
    }
    let listen: String
    if let advertise = configuration.advertise {
      listen = advertise.description
    } else if let mapped = leadingMappedEndpoint {
      listen = mapped.description
    } else if let observed, !observed.address.isLoopback {
      listen = observed.description
    } else {
      listen = (lan.first ?? Endpoint(address: IPv6Address(mappedIPv4: 0x7F00_0001), port: port)).description
    }
    return Announcement(listenAddress: listen, lanEndpoints: lan)
  }

  func announce() {
    let announcement = announcement
    Task { await directory.announce(announcement) }
  }

  /// Addresses of this machine changed: everybody learns the new ones, and paths are tried anew.
  func networkChanged() {
    networkChangedAt = Clock.now()
    forgetNAT()
    steer(.networkChanged)
    Task { await directory.networkChanged() }
    Task { await findBeacons() }
    Task { await findMappingServers() }
    if transport.carrier == .tls { discover() } else { steerBeacons(.networkChanged) }
    Task { await tryPathsAnew() }
  }

  /// A frame from the new address is what moves us in the peer's table: probes are the first. Thousands of peers have more
  /// ways than the worker takes commands at once, so those that are used come first and the worker is waited for.
  private func tryPathsAnew() async {
    let change = networkChangedAt
    let known = peers.values.filter { $0.handshake.currentSession != nil }
    for node in known.sorted(by: { $0.lastUse > $1.lastUse }).map(\.node) {
      while engine.isBehind {
        try? await Task.sleep(for: .milliseconds(1))
        // A later change begins with everybody again.
        guard networkChangedAt == change, !isStopping else { return }
      }
      guard let peer = peers[node], peer.handshake.currentSession != nil else { continue }
      offerEndpoints(to: peer)
      walk(peer, .networkChanged)
    }
  }
}

extension IPv6Address {
  /// Of RFC 1918, RFC 6598 (behind a carrier's NAT) or RFC 4193.
  var isPrivate: Bool {
    guard let v4 = mappedIPv4 else { return high >> 57 == 0x7E }
    return v4 >> 24 == 10 || v4 >> 20 == 0xAC1 || v4 >> 16 == 0xC0A8 || v4 >> 22 == 0x191
  }

  var isLinkLocal: Bool { mappedIPv4 == nil && high >> 54 == 0x3FA }

  /// 2000::/3, the only addresses of IPv6 that the Internet reaches (RFC 4291 §2.4).
  var isGlobalUnicast: Bool { high >> 61 == 1 }

  var isLoopback: Bool { mappedIPv4.map { $0 >> 24 == 127 } ?? (high == 0 && low == 1) }
}
