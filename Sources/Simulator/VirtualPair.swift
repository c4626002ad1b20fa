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
    a = Self.node(1, 2, network, configuration)
    b = Self.node(2, 1, network, other)
    a.directoryKey = b.identity.publicKey
    b.directoryKey = a.identity.publicKey
    a.directoryEndpoint = b.endpoint
    b.directoryEndpoint = a.endpoint
  }

  /// Directly in the core, without keepalives: a pair that is not used is silent.
  private static func node(
    _ id: UInt32, _ peer: UInt32, _ network: VirtualNetwork, _ configuration: HandshakeMachine.Configuration
  ) -> VirtualNode {
    let host = VirtualHost(id: id)
    host.join(network.core, as: IPv6Address(mappedIPv4: 0x0A00_0000 | id))
    var habits = VirtualNode.Habits()
    habits.keepalive = nil
    habits.surveyInterval = 1_000_000_000
    let node = VirtualNode(
      id: id, network: network, host: host, identity: Identity(seed: seed(UInt64(id))), habits: habits,
      configuration: configuration)
    node.addPeer(peer)
    return node
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
