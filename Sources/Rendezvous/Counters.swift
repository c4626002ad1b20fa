// Named counts of everything done and refused. Shown by the status page; read by tests.

import Synchronization

/// What the rendezvous counts. The raw value is the metric's name after `pilot_rendezvous_`.
package enum Counter: String, CaseIterable, Sendable {
  case connectionsAccepted = "connections_accepted_total"
  case connectionsRefused = "connections_refused_total"
  case framesMalformed = "frames_malformed_total"
  case framesUnfinished = "frames_unfinished_total"
  case clientsNotReading = "clients_not_reading_total"
  case requests = "requests_total"
  case requestsRefused = "requests_refused_total"
  case requestsUnknown = "requests_unknown_total"
  case requestsLimited = "requests_rate_limited_total"
  case signaturesBad = "signatures_bad_total"
  /// Good ones of nodes that prove their key with a nonce, on connections without such a proof.
  case signaturesStale = "signatures_stale_total"
  case registrations = "registrations_total"
  case registrationsNew = "registrations_new_total"
  case registrationsDelayed = "registrations_delayed_total"
  case heartbeats = "heartbeats_total"
  case commits = "commits_total"
  case commitsFailed = "commits_failed_total"
  case datagramsLimited = "beacon_rate_limited_total"
  case datagramsMalformed = "beacon_malformed_total"
  case discovers = "beacon_discovers_total"
  case discoversUnbound = "beacon_discovers_unbound_total"
  case discoversSpoofed = "beacon_discovers_spoofed_total"
  case checks = "beacon_checks_total"
  case punches = "beacon_punches_total"
  case punchesRefused = "beacon_punches_refused_total"
  case relayed = "beacon_relayed_total"
  case relayedBytes = "beacon_relayed_bytes_total"
  case relayUnknownTarget = "beacon_relay_unknown_target_total"
  case relaySpoofed = "beacon_relay_spoofed_total"
  case relayNotWritten = "beacon_relay_not_written_total"
  case notifications = "beacon_notifications_total"
  case compatAccepted = "compat_connections_total"
  /// Connections that did not prove in time which node they are.
  case compatRefused = "compat_refused_total"
  /// Datagrams for nodes on a WebSocket that do not read fast enough, or whose connection ended first.
  case compatNotWritten = "compat_not_written_total"
  /// Why such connections ended, when the node did not end them itself.
  case compatMalformed = "compat_malformed_total"
  case compatLost = "compat_lost_total"
  case compatSilent = "compat_silent_total"
  case compatReplaced = "compat_replaced_total"
  case compatRevoked = "compat_revoked_total"
}

package final class Counters: Sendable {
  private static let index = Dictionary(
    uniqueKeysWithValues: Counter.allCases.enumerated().map { ($0.element, $0.offset) })
  private let values = Mutex([UInt64](repeating: 0, count: Counter.allCases.count))

  package init() {}

  package func add(_ counter: Counter, _ amount: Int = 1) {
    guard let index = Self.index[counter] else { return }
    values.withLock { $0[index] &+= UInt64(amount) }
  }

  /// Both counts of what was relayed.
  func addRelayed(_ datagrams: Int, bytes: Int) {
    add(.relayed, datagrams)
    add(.relayedBytes, bytes)
  }

  package subscript(counter: Counter) -> UInt64 {
    guard let index = Self.index[counter] else { return 0 }
    return values.withLock { $0[index] }
  }

  /// All counts at one moment, in the order of declaration.
  package var snapshot: [(Counter, UInt64)] {
    let copy = values.withLock { $0 }
    return Array(zip(Counter.allCases, copy))
  }
}
