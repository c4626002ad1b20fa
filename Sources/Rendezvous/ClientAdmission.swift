// Which connections are let in, and with whom they belong together. Used by RegistryListener.

import Synchronization
import Wire

/// Counts connections, overall and by source, and groups those that were opened together.
final class ClientAdmission: Sendable {
  private struct Table {
    var total = 0
    var bySource: [IPv6Address: Int] = [:]
    var groups: [IPv6Address: ClientGroup] = [:]
    var unfinishedBytes = 0
  }

  private let table = Mutex(Table())
  private let limits: RendezvousLimits
  private let exempt: [SourceNetwork]
  private let groups: Bool
  private static let groupingMilliseconds: Int64 = 250

  init(_ configuration: RendezvousConfiguration) {
    limits = configuration.limits
    exempt = configuration.exemptSources
    groups = configuration.groupsConnections
  }

  func isExempt(_ host: IPv6Address) -> Bool { exempt.contains { $0.contains(host) } }

  var connections: Int { table.withLock { $0.total } }

  /// False when there are too many already. Every true is followed by one `leave`.
  func enter(_ host: IPv6Address) -> Bool {
    let key = host.limitKey
    let isExempt = isExempt(host)
    return table.withLock { table in
      guard table.total < limits.connections else { return false }
      guard isExempt || table.bySource[key, default: 0] < limits.connectionsPerSource else { return false }
      table.total += 1
      table.bySource[key, default: 0] += 1
      return true
    }
  }

  func leave(_ host: IPv6Address) {
    let key = host.limitKey
    table.withLock { table in
      table.total -= 1
      let left = table.bySource[key, default: 1] - 1
      table.bySource[key] = left > 0 ? left : nil
    }
  }

  /// The group of a connection that opens now.
  func group(of host: IPv6Address, now: Int64) -> ClientGroup? {
    guard groups else { return nil }
    return table.withLock { table in
      if let group = table.groups[host], now - group.openedAt <= Self.groupingMilliseconds { return group }
      // Older groups live on in their connections; here nobody asks for them again.
      if table.groups.count >= 1024 {
        table.groups = table.groups.filter { now - $0.value.openedAt <= Self.groupingMilliseconds }
      }
      let group = ClientGroup(openedAt: now)
      table.groups[host] = group
      return group
    }
  }

  /// Room for a long frame that has begun to arrive. Every true is followed by one `release`.
  func reserve(_ bytes: Int) -> Bool {
    table.withLock { table in
      guard table.unfinishedBytes + bytes <= limits.unfinishedBytes else { return false }
      table.unfinishedBytes += bytes
      return true
    }
  }

  func release(_ bytes: Int) { table.withLock { $0.unfinishedBytes -= bytes } }
}
