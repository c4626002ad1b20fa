// Groups by name: NAME.GROUP.pilot. Answered from the list of networks, which is asked for at most once a minute, and kept
// while the registry is away. Used by the resolver (TunControl's NodeNames).

/// Answer to "which group has this name?".
package enum GroupResult: Sendable, Equatable {
  case found(UInt16)
  case notFound
  /// The registry is away, and was never asked.
  case unavailable
}

extension Directory {
  /// The network of this name, when this node is a member of it.
  package func ownGroup(named name: String) async -> GroupResult {
    let own = networks.filter { $0 != 0 }
    guard !own.isEmpty else { return .notFound }
    guard let names = await groupNames() else { return .unavailable }
    return own.first { names[$0] == name }.map { .found($0) } ?? .notFound
  }

  /// The name of a network that this node is a member of.
  package func nameOfOwnGroup(_ network: UInt16) async -> String? {
    guard network != 0, networks.contains(network) else { return nil }
    return await groupNames()?[network]
  }

  /// nil when it cannot be told.
  package func isMember(_ node: UInt32, of network: UInt16) async -> Bool? {
    if node == self.node { return networks.contains(network) }
    switch await lookUp(node) {
    case .found(let record): return record.networks.contains(network)
    case .notFound: return false
    case .unavailable: return nil
    }
  }

  /// Names of networks; what was heard last when the registry does not answer now, nil when it never did.
  private func groupNames() async -> [UInt16: String]? {
    if let known = groups, known.expires > .now {
      // A group joined since is asked for, but not again and again when the registry does not show it.
      let isComplete = networks.allSatisfy { $0 == 0 || known.value[$0] != nil }
      if isComplete || ContinuousClock.now - known.fetched < .seconds(2) { return known.value }
    }
    guard state.isConnected else { return groups?.value }
    let task: Task<[UInt16: String]?, Never>
    if let running = groupsInFlight {
      task = running
    } else {
      task = Task {
        defer { groupsInFlight = nil }
        guard let list = try? await client.listNetworks() else { return groups?.value }
        let names = Dictionary(list.map { ($0.id, $0.name.lowercased()) }, uniquingKeysWith: { first, _ in first })
        groups = Cached(value: names, fetched: .now, expires: .now + .seconds(60))
        return names
      }
      groupsInFlight = task
    }
    return await task.value
  }
}
