// The way of a datagram: up through the routers of its sender as it is sent, across, and down through those of its
// receiver as it arrives, so that a NAT's filter is asked when the datagram is there.

import SeededRandom
package import Wire

extension VirtualNetwork {
  /// A datagram from a host's socket. `peer`: the node it is meant for, for reports. `port`: of another socket.
  package func send(
    _ payload: VirtualPayload, from host: VirtualHost, port: UInt16? = nil, to destination: Endpoint, about peer: UInt32
  ) {
    record(payload, from: host.id)
    log("\(host.id) -> \(destination) \(payload.name)")
    let header = destination.isIPv4 ? 28 : 48
    let origin = host.origin(for: destination.address)
    let datagram = VirtualDatagram(
      payload: payload,
      source: Endpoint(address: origin?.address ?? destination.address, port: port ?? host.port),
      destination: destination, from: host.id, to: peer, size: payload.size + header, sender: host)
    guard let origin, host.link.isUp else {
      end(datagram, host.link.isUp ? .noRoute : .linkDown)
      return refuse(datagram, mtu: nil)
    }
    var delay: UInt64 = 0
    guard passes(host.link, datagram, &delay) else { return }
    climb(datagram, origin.segment, delay)
  }

  private func climb(_ sent: VirtualDatagram, _ first: VirtualSegment, _ before: UInt64) {
    var datagram = sent
    var segment = first
    var delay = before
    while true {
      if segment.owners[datagram.destination.address] != nil { return cross(datagram, segment, delay) }
      guard let router = segment.router else { return end(datagram, .noRoute) }
      guard passes(router.link, datagram, &delay), translate(&datagram, router) else { return }
      delay += segment.latency
      segment = router.outer
    }
  }

  /// Outward through a router.
  private func translate(_ datagram: inout VirtualDatagram, _ router: VirtualRouter) -> Bool {
    let (source, destination) = (datagram.source, datagram.destination)
    if destination.isIPv4 {
      if destination.address == router.nat.external, !router.nat.behaviour.hairpins {
        end(datagram, .noHairpin)
        return false
      }
      guard let outer = router.nat.outbound(from: source, to: destination, now: now, using: &generator) else {
        end(datagram, .noPort)
        return false
      }
      datagram.source = outer
    } else {
      _ = router.firewall?.outbound(from: source, to: destination, now: now, using: &generator)
    }
    return true
  }

  /// Over the segment that sender and receiver have in common. The core's conditions are the core's.
  private func cross(_ datagram: VirtualDatagram, _ segment: VirtualSegment, _ before: UInt64) {
    guard segment === core else {
      return schedule(after: before + segment.latency) { [weak self] in self?.descend(datagram, segment) }
    }
    for _ in 0..<(generator.chance(conditions.duplication) ? 2 : 1) {
      if generator.chance(conditions.loss) {
        end(datagram, .lost)
        return
      }
      var delay = before + UInt64.random(in: conditions.latency, using: &generator)
      if generator.chance(conditions.reordering) {
        delay += UInt64.random(in: 0...conditions.reorderDelay, using: &generator)
      }
      schedule(after: delay) { [weak self] in self?.descend(datagram, segment) }
    }
  }

  private func descend(_ arrived: VirtualDatagram, _ common: VirtualSegment) {
    var datagram = arrived
    var segment = common
    var delay: UInt64 = 0
    while true {
      switch segment.owners[datagram.destination.address] {
      case nil: return end(datagram, .noRoute)
      case .host(let host):
        guard passes(host.link, datagram, &delay) else { return }
        if delay == 0 { return deliver(datagram, host) }
        return schedule(after: delay) { [weak self] in self?.deliver(datagram, host) }
      case .router(let router):
        guard passes(router.link, datagram, &delay), admit(&datagram, router) else { return }
        segment = router.inner
        delay += segment.latency
      }
    }
  }

  /// Inward through a router.
  private func admit(_ datagram: inout VirtualDatagram, _ router: VirtualRouter) -> Bool {
    let verdict: Result<Endpoint, VirtualNAT.Refusal>?
    if datagram.destination.isIPv4 {
      verdict = router.nat.inbound(from: datagram.source, to: datagram.destination, now: now)
    } else {
      verdict = router.firewall?.inbound(from: datagram.source, to: datagram.destination, now: now)
    }
    switch verdict {
    case nil: return true
    case .success(let inner):
      datagram.destination = inner
      return true
    case .failure(let refusal):
      end(datagram, refusal == .filtered ? .filtered : .noMapping)
      return false
    }
  }

  private func deliver(_ datagram: VirtualDatagram, _ host: VirtualHost) {
    let port = datagram.destination.port
    guard port == host.port || host.openPorts.contains(port), let socket = host.socket else {
      return end(datagram, .closedPort)
    }
    if !blackholes.isEmpty, blackholes.contains([datagram.sender.id, host.id]) { return end(datagram, .blackhole) }
    if port != host.port { return socket.receive(datagram.payload, from: datagram.source, at: port) }
    socket.receive(datagram.payload, from: datagram.source)
  }

  private func passes(_ link: LinkConditions, _ datagram: VirtualDatagram, _ delay: inout UInt64) -> Bool {
    delay += link.latency
    var fate: VirtualFate?
    if !link.isUp {
      fate = .linkDown
    } else if !link.passesUDP {
      fate = .udpBlocked
    } else if datagram.size > link.mtu {
      fate = .tooBig
      if link.refusesTooBig { refuse(datagram, mtu: link.mtu) }
    } else if generator.chance(link.loss) {
      fate = .lost
    }
    guard let fate else { return true }
    end(datagram, fate)
    return false
  }

  /// Tells the sender, a moment later: it may be in the middle of something.
  private func refuse(_ datagram: VirtualDatagram, mtu: Int?) {
    let (host, destination) = (datagram.sender, datagram.destination)
    schedule(after: 1000) { host.socket?.refused(to: destination, mtu: mtu) }
  }
}
