// The clock of a port mapping server: it starts anew when the server loses its mappings. PortMapper asks it with every
// answer.

struct ServerEpoch: Sendable {
  private var last: (server: UInt32, client: UInt64)?

  /// Whether the server has lost its mappings since the answer before (RFC 6887 §8.5; RFC 6886 §3.6 has the same
  /// tolerance in one direction). `now` in nanoseconds.
  mutating func hasRestarted(_ server: UInt32, now: UInt64) -> Bool {
    defer { last = (server, now) }
    guard let last else { return false }
    if Int64(server) + 1 < Int64(last.server) { return true }
    let serverDelta = Int64(server) - Int64(last.server)
    let clientDelta = Int64(now.subtractingReportingOverflow(last.client).partialValue / 1_000_000_000)
    return clientDelta + 2 < serverDelta - serverDelta / 16 || serverDelta + 2 < clientDelta - clientDelta / 16
  }
}
