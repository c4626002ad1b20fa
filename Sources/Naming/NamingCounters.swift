// What the stub did, by name. Read by `status` and the metrics page.
import Synchronization

/// Everything the stub counts. The raw value is the name operators see.
package enum NamingCounter: String, CaseIterable, Sendable {
  case queriesUDP = "queries_udp"
  case queriesTCP = "queries_tcp"
  /// Answers by response code. NODATA is a NOERROR without records (RFC 2308 §2.2).
  case answersFound = "answers_found"
  case answersNoData = "answers_nodata"
  case answersNoName = "answers_nxdomain"
  case answersServerFailure = "answers_servfail"
  case answersRefused = "answers_refused"
  case answersFormatError = "answers_formerr"
  case answersNotImplemented = "answers_notimp"
  case answersBadVersion = "answers_badvers"
  case answersTruncated = "answers_truncated"
  /// Shorter than a DNS header, or a response: never answered, so that two servers cannot keep each other busy.
  case droppedNotQuery = "dropped_not_query"
  /// From source port 0, which nobody can be answered at.
  case droppedSource = "dropped_source"
  /// From another machine.
  case droppedForeign = "dropped_foreign"
  case droppedRateLimit = "dropped_rate_limit"
  /// More lookups under way than `maximumLookups`.
  case droppedBusy = "dropped_busy"
  /// The answer found the socket's send buffer full, or the socket closed.
  case droppedSend = "dropped_send"
  case lookupTimeouts = "lookup_timeouts"
  /// The source named an address outside the overlay or a name that is no hostname.
  case lookupInvalid = "lookup_invalid"
  case connectionsAccepted = "tcp_accepted"
  case connectionsRefused = "tcp_refused"
  case connectionsIdle = "tcp_idle_closed"
  case connectionsBroken = "tcp_malformed_closed"
}

/// A set of counters, safe to use from any thread.
package final class NamingCounters: Sendable {
  private let values = Mutex([UInt64](repeating: 0, count: NamingCounter.allCases.count))
  private static let positions = Dictionary(
    uniqueKeysWithValues: NamingCounter.allCases.enumerated().map { ($1, $0) })

  package init() {}

  package func add(_ counter: NamingCounter) {
    guard let position = Self.positions[counter] else { return }
    values.withLock { $0[position] &+= 1 }
  }

  package subscript(_ counter: NamingCounter) -> UInt64 {
    guard let position = Self.positions[counter] else { return 0 }
    return values.withLock { $0[position] }
  }

  /// All counters by their operator names.
  package var snapshot: [String: UInt64] {
    let now = values.withLock { $0 }
    return Dictionary(uniqueKeysWithValues: NamingCounter.allCases.enumerated().map { ($1.rawValue, now[$0]) })
  }
}
