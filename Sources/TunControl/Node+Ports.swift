// Ports opened in numbers, for a peer whose NAT filters by port while ours maps by destination, and the other way round
// (docs/nat-traversal.md): runs PortOpener, hands the socket that won to the worker, sends what PortSpray says.

import Directory
import Engine
import LinkIO
import Logging
import Session
import Shim
import Traversal
import Wire

extension Node {
  /// Openings at a time, and sprays in a minute, whoever asks.
  private static let mostOpenings = 2
  private static let mostSprays = 4
  private static let minute: UInt64 = 60_000_000_000

  /// What path machines have to know of this machine's network.
  var ownNetwork: OwnNetwork {
    OwnNetwork(
      hasIPv4: lanAddresses.contains { $0.mappedIPv4 != nil }, hasIPv6: lanAddresses.contains { $0.mappedIPv4 == nil },
      translation: translation)
  }

  var mayOpenPorts: Bool { configuration.hardNAT == .auto && !configuration.isRelayOnly }

  // MARK: Our NAT maps by destination

  func openPorts(_ peer: PeerState, towards target: Endpoint) {
    giveUpPort(of: peer)
    guard let beacon = udpBeacon, beacon.isIPv4, transport.carrier == .udp, openings < Self.mostOpenings,
      !peer.isOpeningPorts, peers.values.count(where: { $0.openedEndpoint != nil }) < Engine.extraSockets
    else { return count("ports-refused") }
    let machine = PortOpener(target: target, beacon: beacon, entropy: entropy.next())
    let news: AsyncStream<(news: PortOpener.News, fd: Int32)>
    do {
      news = try SocketThread.start(machine, name: "pilot-ports", local: engine.localEndpoint.address) { news in
        if case .won(let socket) = news { socket } else { nil }
      }
    } catch {
      return goWithout(error)
    }
    openings += 1
    peer.isOpeningPorts = true
    tally("ports-opened")
    logger.info("opening ports", metadata: ["peer": "\(peer.address)", "towards": "\(target)"])
    let node = peer.node
    Task {
      for await (news, fd) in news { heard(news, fd, of: node, from: target) }
      openings -= 1
      peers[node]?.isOpeningPorts = false
    }
  }

  private func heard(_ news: PortOpener.News, _ fd: Int32, of node: UInt32, from target: Endpoint) {
    guard let peer = peers[node] else { return pt_close(fd) }
    switch news {
    case .opened(let first, let last):
      guard let relay = relayEndpoint(to: peer), peer.path.path == .relay else { return }
      sendControl(TunnelControl.portsOpened(first...last).encoded(), to: peer, path: .relay(beacon: relay))
    case .failed: tally("ports-failed")
    case .won:
      guard fd >= 0, peer.path.path == .relay else { return pt_close(fd) }
      var granted: (Int32, Int32) = (0, 0)
      _ = pt_udp_set_buffers(fd, UDPSocket.wantedBufferSize, &granted.0, &granted.1)
      if engine.offloads.contains(where: { $0.name == "udp-gro" && $0.isOn }) { _ = pt_udp_set_gro(fd, 1) }
      guard engine.submit(.adoptSocket(peer.index, fd, to: target)) else {
        pt_close(fd)
        return count("command-queue-full")
      }
      tally("ports-met")
      peer.openedEndpoint = target
      walk(peer, .portOpened(target))
    }
  }

  /// The worker could not take the socket: there is no port, and the path through it comes to nothing by itself.
  func refusePort(of peer: PeerIndex, to target: Endpoint) {
    count("ports-refused")
    // The row may be another peer's by now.
    guard let peer = nodesByIndex[peer].flatMap({ peers[$0] }), peer.openedEndpoint == target else { return }
    peer.openedEndpoint = nil
  }

  /// The mapping dies with the path through it.
  func releasePort(of peer: PeerState, before: EnginePath) {
    guard let opened = peer.openedEndpoint, before == .direct(opened) else { return }
    giveUpPort(of: peer)
  }

  /// One that won and led nowhere is of no use any more: on another network, or when ports are opened once more.
  func giveUpPort(of peer: PeerState) {
    guard let opened = peer.openedEndpoint, peer.enginePath != .direct(opened) else { return }
    peer.openedEndpoint = nil
    tell(.releaseSocket(peer.index))
  }

  // MARK: The peer's does

  /// The peer opened ports of its NAT for us: they are tried. Only at the address that the directory tells for it, only
  /// while there is nothing but the relay, and rarely: a peer must not have us send to others.
  func spray(_ ports: ClosedRange<UInt16>, of peer: PeerState, by arrival: Arrival) {
    let now = Clock.now()
    sprayedAt.removeAll { now >= $0 + Self.minute }
    guard mayOpenPorts, case .relayed = arrival, peer.path.path == .relay, isUsed(peer), translation != .dependent,
      let address = peer.record.endpoints.first?.address, address.mappedIPv4 != nil, !address.isLoopback,
      ports.lowerBound >= PortOpener.firstPort
    else { return count("ports-refused") }
    // The peer tells it twice.
    guard now >= peer.sprayedAt + Self.minute || peer.sprayedAt == 0 else { return }
    guard sprayedAt.count < Self.mostSprays else { return count("ports-refused") }
    sprayedAt.append(now)
    peer.sprayedAt = now
    tally("ports-tried")
    var spray = PortSpray(address: address, ports: ports, entropy: entropy.next())
    let node = peer.node
    Task {
      while peers[node]?.path.path == .relay {
        let batch = spray.next()
        guard !batch.isEmpty else { return }
        for endpoint in batch { tell(.sendDatagram(PunchFrame.bytes, to: endpoint)) }
        try? await Task.sleep(for: .nanoseconds(PortSpray.gap))
      }
    }
  }
}
