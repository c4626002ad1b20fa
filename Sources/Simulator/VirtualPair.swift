// Two virtual nodes that know each other from the directory, and what tests ask of them.

package import Session
package import Wire

package final class VirtualPair {
  package let network: VirtualNetwork
  package let a: VirtualNode
  package let b: VirtualNode

  /// `configuration` of both; `official`: b makes no announcement.
  package init(seed: UInt64, configuration: HandshakeMachine.Configuration = .init(), official: Bool = false) {
    network = VirtualNetwork(seed: seed)
    var other = configuration
    if official { other.announces = false }
    a = VirtualNode(
      id: 1, peer: 2, network: network, identity: Identity(seed: Self.seed(1)), configuration: configuration)
    b = VirtualNode(id: 2, peer: 1, network: network, identity: Identity(seed: Self.seed(2)), configuration: other)
    a.directoryKey = b.identity.publicKey
    b.directoryKey = a.identity.publicKey
    a.directoryEndpoint = b.endpoint
    b.directoryEndpoint = a.endpoint
  }

  deinit { network.shutDown() }

  package func start() {
    a.start()
    b.start()
  }

  package static func seed(_ number: UInt64) -> Bytes32 {
    var seed = Bytes32()
    seed.words = (number, number &* 3, number &* 5, number &* 7)
    return seed
  }

  /// Sends a packet every `interval` from both sides for `duration`, by the virtual clock. Does not run it.
  package func traffic(every interval: UInt64, for duration: UInt64) {
    var at: UInt64 = 0
    while at < duration {
      network.schedule(after: at) { [a] in if a.isRunning { a.sendPacket() } }
      network.schedule(after: at + interval / 2) { [b] in if b.isRunning { b.sendPacket() } }
      at += interval
    }
  }

  /// Packets of `sender` that did not arrive although the network delivered their frame, or that never left.
  package func unexplainedLosses(
    from sender: VirtualNode, to receiver: VirtualNode, after first: UInt64 = 0
  ) -> [UInt64] {
    let arrived = Set(receiver.received)
    return sender.offered.filter { number in
      guard number > first, !arrived.contains(number) else { return false }
      guard let frame = sender.carriedBy[number] else { return true }
      return network.arrivedFrames.contains(frame)
    }
  }
}
