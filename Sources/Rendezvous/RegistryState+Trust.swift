// Who trusts whom and who asked whom. Used by the trust requests, resolve, and the beacon's punch check.

import Wire

extension RegistryState {
  /// Both ends have said so. One end alone opens nothing (wire/registry §9.2).
  func isPair(_ a: UInt32, _ b: UInt32) -> Bool {
    trust[a]?.contains(b) == true && trust[b]?.contains(a) == true
  }

  /// A pair, or members of one network; the backbone does not count.
  func areRelated(_ a: UInt32, _ b: UInt32) -> Bool {
    if a == b || isPair(a, b) { return true }
    guard let first = networksOfNode[a], let second = networksOfNode[b] else { return false }
    return !first.isDisjoint(with: second)
  }

  /// Whether `requester` may learn where `target` is.
  func mayReach(_ requester: UInt32, _ target: NodeRecord) -> Bool {
    target.isPublic || areRelated(requester, target.id)
  }

  mutating func setTrust(_ node: UInt32, in peer: UInt32) {
    guard trust[node, default: []].insert(peer).inserted else { return }
    note(.trust(node, peer, isTrusted: true))
  }

  @discardableResult
  mutating func removeTrust(_ node: UInt32, in peer: UInt32) -> Bool {
    guard trust[node]?.remove(peer) != nil else { return false }
    if trust[node]?.isEmpty == true { trust[node] = nil }
    note(.trust(node, peer, isTrusted: false))
    return true
  }

  // MARK: Handshakes through the registry

  mutating func record(_ request: HandshakeRecord) {
    handshakes[request.target, default: [:]][request.sender] = request
    note(.handshake(request))
  }

  @discardableResult
  mutating func forgetHandshake(from sender: UInt32, to target: UInt32) -> Bool {
    guard handshakes[target]?.removeValue(forKey: sender) != nil else { return false }
    if handshakes[target]?.isEmpty == true { handshakes[target] = nil }
    note(.noHandshake(sender: sender, target: target))
    return true
  }

  mutating func queue(_ response: ResponseRecord) {
    responses[response.requester, default: [:]][response.peer] = response
    note(.response(response))
  }

  /// What waits for `node`, oldest first; it does not wait any longer afterwards.
  mutating func takeInbox(of node: UInt32) -> (requests: [HandshakeRecord], responses: [ResponseRecord]) {
    let waiting = (handshakes[node] ?? [:]).values.filter { $0.state == .waiting }
      .sorted { ($0.at, $0.sender) < ($1.at, $1.sender) }
    for request in waiting {
      var delivered = request
      delivered.state = .delivered
      record(delivered)
    }
    let answers = (responses.removeValue(forKey: node) ?? [:]).values.sorted { ($0.at, $0.peer) < ($1.at, $1.peer) }
    if !answers.isEmpty { note(.noResponses(requester: node)) }
    return (waiting, answers)
  }

  /// Everything that waits for, or was asked of, a node that leaves.
  mutating func dropInbox(of node: UInt32) {
    for sender in (handshakes[node] ?? [:]).keys { forgetHandshake(from: sender, to: node) }
    if responses.removeValue(forKey: node) != nil { note(.noResponses(requester: node)) }
  }
}
