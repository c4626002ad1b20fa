// A virtual node's socket: what it sends, and whom what comes in belongs to.

import Session
import Traversal
package import Wire

extension VirtualNode {
  func send(_ payload: VirtualPayload, to endpoint: Endpoint, about peer: UInt32, from port: UInt16? = nil) {
    guard isRunning, !isAsleep else { return }
    network.send(payload, from: host, port: port, to: endpoint, about: peer)
  }

  package func receive(_ payload: VirtualPayload, from source: Endpoint, at port: UInt16) {
    guard isRunning, !isAsleep, let peer = peers.first(where: { $0.opening?.owns(port) == true }) else { return }
    if peer.opening?.won == port { return receive(payload, from: source) }
    peer.heard(payload, from: source, at: port)
  }

  package func refused(to destination: Endpoint, mtu: Int?) {
    for peer in peers { peer.refused(to: destination, mtu: mtu) }
  }

  package func receive(_ payload: VirtualPayload, from source: Endpoint) {
    guard isRunning, !isAsleep else { return }
    switch payload {
    case .frame, .plain: receive(payload, .direct(source))
    case .relayed(_, let inner):
      guard beacons.contains(source) else { return }
      cameBy = source
      receive(inner, .relayed)
      cameBy = nil
    case .beacon(let message): if beacons.contains(source) { receive(message, from: source) }
    default: break
    }
  }

  private func receive(_ payload: VirtualPayload, _ arrival: Arrival) {
    guard let peer = peers.count == 1 && !habits.isPlain ? peers[0] : sender(of: payload).flatMap(peer) else {
      return
    }
    if case .frame(let bytes) = payload, let name = FrameName(bytes) { network.arrivedFrames.insert(name) }
    peer.session?.receive(payload, from: arrival)
    peer.arm()
  }

  private func sender(of payload: VirtualPayload) -> UInt32? {
    switch payload {
    case .plain(let frame): return frame.receiver == id ? frame.sender : nil
    case .frame(let bytes):
      var reader = ByteReader(bytes)
      _ = reader.u32()
      return reader.u32()
    default: return nil
    }
  }

  /// Tells the directory where we are.
  func announce() {
    guard directoryEndpoint == nil else { return }
    let reflexive = observed.map { [$0] } ?? []
    let own = host.endpoints.filter { !reflexive.contains($0) }
    network.directory.announce(
      id, VirtualDirectory.Record(endpoints: reflexive + own, key: identity.publicKey))
  }

  /// In the same /24 or /64 as one of our own addresses.
  func isNear(_ address: IPv6Address) -> Bool {
    host.addresses.contains { own in
      if let a = own.address.mappedIPv4, let b = address.mappedIPv4 { return a >> 8 == b >> 8 }
      return own.address.mappedIPv4 == nil && address.mappedIPv4 == nil && own.address.high == address.high
    }
  }
}
