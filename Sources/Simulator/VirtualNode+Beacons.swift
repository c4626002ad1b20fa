// Which beacons know a virtual node, and where they see its socket: the real BeaconChoice with what Node+Beacon of the
// control plane does around it, proofs included.

import Session
import Traversal
import Wire

extension VirtualNode {
  /// Gives the choice of beacons an event and carries its actions out.
  func steer(_ event: BeaconChoice.Event) {
    for action in beaconChoice.handle(event, now: now) {
      switch action {
      case .ask(let beacon):
        send(.beacon(.discover(node: id, key: identity.publicKey)), to: beacon, about: 0)
      case .home(let home):
        if let seen = home.flatMap({ beaconChoice[$0]?.seen }) { noteObserved(seen, isNewMapping: false) }
      case .known: break
      }
    }
    let next = beaconChoice.nextDeadline
    guard next < beaconTick else { return }
    beaconTick = next
    schedule(at: next) { [weak self] in
      guard let self, beaconTick == next else { return }
      beaconTick = .max
      if isRunning { steer(.tick) }
    }
  }

  func receive(_ message: BeaconMessage, from beacon: Endpoint) {
    switch message {
    case .discoverReply(let seen): _ = answered(seen, by: beacon)
    case .discoverChallenge(let seen, let challenge):
      guard answered(seen, by: beacon) else { return }
      let signature = identity.sign(BeaconMessage.proofText(node: id, challenge: challenge))
      let proof = BeaconMessage.provenDiscover(
        node: id, key: identity.publicKey, challenge: challenge, signature: signature)
      send(.beacon(proof), to: beacon, about: 0)
      steer(.asked(beacon))
    case .punchCommand(let endpoint):
      for _ in 0..<3 {
        contacts.count(endpoint, at: network.now)
        send(.punch, to: endpoint, about: 0)
      }
    default: break
    }
  }

  private func answered(_ seen: Endpoint, by beacon: Endpoint) -> Bool {
    guard beaconChoice.expects(beacon, now: now) else { return false }
    let before = beaconChoice[beacon]?.seen
    steer(.answered(beacon, seen: seen))
    if beacon == beaconChoice.home { noteObserved(seen, isNewMapping: before.map { $0 != seen } ?? false) }
    return true
  }

  /// `isNewMapping`: the same beacon saw us elsewhere before.
  private func noteObserved(_ endpoint: Endpoint, isNewMapping: Bool) {
    guard endpoint != observed else { return }
    let before = observed
    observed = endpoint
    announce()
    if isNewMapping, before?.address != endpoint.address, now > networkChangedAt + 10_000_000_000 {
      return networkChanged()
    }
    for peer in peers where peer.isUsed {
      if isNewMapping { peer.walk(.mappingChanged) }
      peer.tellCandidates()
    }
  }
}
