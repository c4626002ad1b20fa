// Beacon and directory of the virtual network. The beacon is a public host that knows a node by the endpoint its
// discover came from, under the rules of `pilot-rendezvous` (wire/tunnel §4): it works for a node as long as the node's
// NAT keeps the mapping. The directory answers questions; it is reached without UDP.

import Session
package import Wire

package final class VirtualBeacon: VirtualSocket {
  private struct Binding {
    var endpoint: Endpoint
    var at: UInt64
    var changedAt: UInt64
  }

  package static let lifetime: UInt64 = 600_000_000_000
  package static let changeInterval: UInt64 = 5_000_000_000

  package let host: VirtualHost
  package var isUp = true
  private unowned let network: VirtualNetwork
  private var bindings: [UInt32: Binding] = [:]
  /// Who shall prove that it is there.
  private var challenged: [UInt32: [Endpoint: UInt64]] = [:]

  init(network: VirtualNetwork, number: Int) {
    self.network = network
    host = VirtualHost(id: 0, port: 9001)
    host.join(network.core, as: IPv6Address(mappedIPv4: 0xC612_0001 + UInt32(number)))
    host.join(network.core, as: IPv6Address(high: 0x2001_0DB8_FFFF_0000, low: 1 + UInt64(number)))
    host.socket = self
  }

  package var endpoint: Endpoint { host.endpoints[0] }
  package var endpoint6: Endpoint { host.endpoints[1] }

  /// Its program ends and begins again: it knows nobody.
  package func restart() { (bindings, challenged) = ([:], [:]) }

  /// Where a node was last seen.
  package func binding(of node: UInt32) -> Endpoint? { bindings[node]?.endpoint }

  package func refused(to destination: Endpoint, mtu: Int?) {}

  package func receive(_ payload: VirtualPayload, from source: Endpoint) {
    guard isUp else { return }
    switch payload {
    case .beacon(.discover(let node, let key)):
      if node != 0, !bind(node, source), key != nil {
        // From another port so soon: its word takes a proof.
        // The same for each that comes from there: datagrams are doubled.
        let challenge = challenged[node]?[source] ?? network.now
        challenged[node, default: [:]][source] = challenge
        return send(.beacon(.discoverChallenge(source, challenge: challenge)), to: source, about: node)
      }
      send(.beacon(.discoverReply(source)), to: source, about: node)
    case .beacon(.provenDiscover(let node, let key, let challenge, let signature)):
      if challenged[node]?[source] == challenge, network.nodes[node]?.identity.publicKey == key,
        Ed25519.verify(signature, of: BeaconMessage.proofText(node: node, challenge: challenge), by: key)
      {
        bindings[node] = Binding(endpoint: source, at: network.now, changedAt: network.now)
      }
      send(.beacon(.discoverReply(source)), to: source, about: node)
    case .beacon(.punchRequest(let requester, let target, _)):
      guard isAt(requester, source) else { return refuse(requester, target, .beaconRefused) }
      guard let other = known(target) else { return refuse(requester, target, .beaconUnknown) }
      send(.beacon(.punchCommand(other)), to: source, about: requester)
      send(.beacon(.punchCommand(source)), to: other, about: target)
    case .relay(let sender, let target, let inner):
      guard isAt(sender, source) else { return refuse(sender, target, .beaconRefused) }
      guard let other = known(target) else { return refuse(sender, target, .beaconUnknown) }
      send(.relayed(source: sender, inner), to: other, about: target)
    case .beacon(.check(let transaction, _, let size)):
      send(
        .beacon(.checkReply(transaction: transaction, seen: source, otherPort: 0, size: size)), to: source, about: 0)
    default: break
    }
  }

  private func send(_ payload: VirtualPayload, to endpoint: Endpoint, about node: UInt32) {
    network.send(payload, from: host, to: endpoint, about: node)
  }

  private func refuse(_ sender: UInt32, _ target: UInt32, _ fate: VirtualFate) {
    network.log("   \(fate.rawValue): \(sender) to \(target)")
    network.nodes[sender]?.peer(target)?.note(.ended(fate), endpoint)
  }

  private func known(_ node: UInt32) -> Endpoint? {
    guard let binding = bindings[node], network.now <= binding.at + Self.lifetime else { return nil }
    return binding.endpoint
  }

  private func bind(_ node: UInt32, _ endpoint: Endpoint) -> Bool {
    let now = network.now
    guard var binding = bindings[node], now <= binding.at + Self.lifetime else {
      bindings[node] = Binding(endpoint: endpoint, at: now, changedAt: now)
      return true
    }
    if binding.endpoint != endpoint {
      guard now >= binding.changedAt + Self.changeInterval else { return false }
      binding.endpoint = endpoint
      binding.changedAt = now
    }
    binding.at = now
    bindings[node] = binding
    return true
  }

  /// Whether `node` is at `source`; one that is not known is bound by whatever it sends.
  private func isAt(_ node: UInt32, _ source: Endpoint) -> Bool {
    guard let known = known(node) else { return bind(node, source) }
    guard known == source else { return false }
    bindings[node]?.at = network.now
    return true
  }
}

/// Who is where.
package final class VirtualDirectory {
  package struct Record: Sendable {
    package var endpoints: [Endpoint]
    package var isRelayOnly = false
    package var key: Bytes32?
  }

  package var isUp = true
  package var latency: UInt64 = 20_000_000
  private var records: [UInt32: Record] = [:]

  package func announce(_ node: UInt32, _ record: Record) { if isUp { records[node] = record } }
  package func record(of node: UInt32) -> Record? { isUp ? records[node] : nil }
}
