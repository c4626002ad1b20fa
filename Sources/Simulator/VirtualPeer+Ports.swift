// Ports opened in numbers, in the simulated network: runs the PortOpener of the one end and the PortSpray of the other.

import Traversal
import Wire

/// The sockets of one PortOpener; the one that won stays.
struct VirtualOpening {
  var machine: PortOpener
  let target: Endpoint
  /// Local ports by the machine's numbers of sockets.
  var ports: [Int: UInt16] = [:]
  var won: UInt16?

  func owns(_ port: UInt16) -> Bool { won == port || ports.values.contains(port) }
}

extension VirtualNode {
  var ownNetwork: OwnNetwork {
    let addresses = host.endpoints
    return OwnNetwork(
      hasIPv4: addresses.contains { $0.isIPv4 }, hasIPv6: addresses.contains { !$0.isIPv4 }, translation: translation)
  }
}

extension VirtualPeer {
  func openPorts(towards target: Endpoint) {
    // One that won and was never proven.
    if opening?.won != nil { closeOpening() }
    guard opening == nil, let beacon = node.beacon else { return }
    opening = VirtualOpening(
      machine: PortOpener(target: target, beacon: beacon, entropy: node.random(below: .max)), target: target)
    tickOpening()
  }

  private func tickOpening() {
    guard let actions = opening?.machine.tick(node.now) else { return }
    perform(actions)
  }

  /// A datagram at one of the sockets.
  func heard(_ payload: VirtualPayload, from source: Endpoint, at port: UInt16) {
    guard let socket = opening?.ports.first(where: { $0.value == port })?.key else { return }
    var bytes: [UInt8] = [0xFF]
    if case .beacon(let message) = payload { bytes = message.encoded() }
    perform(opening?.machine.received(socket, from: source, bytes, node.now) ?? [])
  }

  private func perform(_ actions: [SocketAction<PortOpener.News>]) {
    for action in actions {
      switch action {
      case .send(let socket, let bytes, let endpoint):
        guard let port = port(of: socket) else { return }
        if let message = BeaconMessage(bytes) {
          node.send(.beacon(message), to: endpoint, about: 0, from: port)
        } else {
          punches += 1
          node.send(.punch, to: endpoint, about: id, from: port)
        }
      case .tell(.opened(let first, let last)):
        sendControl(TunnelControl.portsOpened(first...last).encoded(), by: .relay)
      case .tell(.won(let socket)):
        guard let port = opening?.ports[socket], let target = opening?.target else { return }
        node.host.openPorts.subtract(opening?.ports.values.filter { $0 != port } ?? [])
        opening?.won = port
        opening?.ports = [:]
        walk(.portOpened(target))
        return
      case .tell(.failed): return closeOpening()
      }
    }
    guard let next = opening?.machine.nextDeadline else { return }
    node.schedule(at: next) { [weak self] in
      guard let self, opening?.machine.nextDeadline == next else { return }
      tickOpening()
    }
  }

  private func port(of socket: Int) -> UInt16? {
    guard opening != nil else { return nil }
    if let known = opening?.ports[socket] { return known }
    node.nextSocketPort = node.nextSocketPort == 60_000 ? 30_000 : node.nextSocketPort + 1
    opening?.ports[socket] = node.nextSocketPort
    node.host.openPorts.insert(node.nextSocketPort)
    return node.nextSocketPort
  }

  func closeOpening() {
    if let opening { node.host.openPorts.subtract(Array(opening.ports.values) + [opening.won].compactMap { $0 }) }
    opening = nil
  }

  /// The peer opened ports of its NAT for us.
  func spray(_ ports: ClosedRange<UInt16>) {
    guard node.habits.opensPorts, path.path == .relay, isUsed, node.now >= sprayedUntil,
      let address = record?.endpoints.first?.address
    else { return }
    sprayedUntil = node.now + 60_000_000_000
    spray(PortSpray(address: address, ports: ports, entropy: node.random(below: .max)))
  }

  private func spray(_ spraying: PortSpray) {
    var spraying = spraying
    let batch = spraying.next()
    guard !batch.isEmpty, path.path == .relay else { return }
    for endpoint in batch {
      punches += 1
      node.send(.punch, to: endpoint, about: id)
    }
    node.schedule(after: PortSpray.gap) { [weak self] in self?.spray(spraying) }
  }
}
