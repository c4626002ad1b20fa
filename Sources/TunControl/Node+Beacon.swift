// The beacon: where our socket is seen from outside, who wants to punch, frames through the relay (wire/tunnel §4).

import Directory
import Engine
import Logging
import Session
import Traversal
import Wire

extension Node {
  /// Behind a NAT the way back from the beacon closes after 30 s with some (RFC 4787 §4.3 wants 2 minutes).
  var discoverInterval: UInt64 {
    let isBehindNAT = observed.map { !lanAddresses.contains($0.address) && !$0.address.isLoopback } ?? true
    return isBehindNAT ? 25_000_000_000 : 60_000_000_000
  }

  /// Resolves the beacon's name; tried again with each discover while it fails.
  func findBeacon() async {
    guard let wanted = beaconAddress else { return }
    do {
      let found = try await HostResolver.endpoints(host: wanted.host, port: wanted.port)
      guard let endpoint = found.first(where: \.isIPv4) ?? found.first, endpoint != beacon else { return }
      beacon = endpoint
      beaconProblem = nil
      tell(.setBeacon(endpoint))
      beaconMoved()
    } catch {
      beaconProblem = error.message
      logOnce("beacon \(error.message)", "beacon: \(error.message)")
    }
  }

  /// The configured beacon; the embedded one by an address of this machine that peers can reach, so that it sees our
  /// socket as they do.
  private var beaconAddress: HostPort? {
    if let beacon = configuration.beacon { return beacon }
    let own = LocalAddresses.list(except: configuration.interface).first?.description ?? "127.0.0.1"
    return HostPort(host: own, port: NodeConfiguration.beaconPort)
  }

  /// Asks the beacon where our socket is seen; also tells it where to find us. Node 0 before the registration.
  func discover() {
    guard let beacon else { return }
    discoverSentAt = Clock.now()
    isDiscoverAwaited = true
    let message = BeaconMessage.discover(node: node ?? 0, key: store.identity.publicKey)
    tell(.sendDatagram(message.encoded(), to: beacon))
  }

  func receive(_ message: BeaconMessage) {
    switch message {
    case .discoverReply(let endpoint):
      // One for each question, and soon: nothing else tells that it is an answer.
      guard isDiscoverAwaited, let sentAt = discoverSentAt, Clock.now() < sentAt + 3_000_000_000 else {
        return count("beacon-unexpected")
      }
      isDiscoverAwaited = false
      guard endpoint != observed else { return }
      let before = observed
      observed = endpoint
      logger.info("socket seen by the beacon", metadata: ["endpoint": "\(endpoint)"])
      announce()
      if let before, before.address != endpoint.address, Clock.now() > networkChangedAt + 10_000_000_000 {
        networkChanged()
      } else {
        for peer in peers.values where isUsed(peer) { tellCandidates(to: peer) }
      }
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

  /// Asks the beacon to make the peer open its NAT for us.
  func punch(_ peer: PeerState) {
    guard let beacon, let node, !configuration.isRelayOnly, !peer.record.isRelayOnly else { return }
    let message = BeaconMessage.punchRequest(requester: node, target: peer.node, grant: nil)
    tell(.sendDatagram(message.encoded(), to: beacon))
  }

  /// Wraps a frame of a handshake for the peer.
  func relay(_ frame: [UInt8], to peer: UInt32) {
    guard let beacon, let node else { return }
    let message = BeaconMessage.relay(source: node, destination: peer, frame: frame)
    tell(.sendDatagram(message.encoded(), to: beacon))
  }

  // MARK: Our own place

  /// What the registry shall tell others about our socket.
  var announcement: Announcement {
    let port = engine.localEndpoint.port
    var lan = lanAddresses.map { Endpoint(address: $0, port: port) }
    // First: pilot-rendezvous takes one at our outer address for the port that everybody shall use, and keeps eight.
    if let mapped = mappedEndpoint { lan.insert(mapped, at: 0) }
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
    Task { await findBeacon() }
    Task { await findMappingServers() }
    discover()
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

  var isLoopback: Bool { mappedIPv4.map { $0 >> 24 == 127 } ?? (high == 0 && low == 1) }
}
