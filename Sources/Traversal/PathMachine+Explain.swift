// What `explain PEER` and `status` say of a path.

import Wire

extension PathMachine {
  /// Lines for a person: the present path, why and since when, what comes next, and the stretches before.
  package func explanation(now: UInt64) -> [String] {
    guard let present = history.last else { return ["no path: \(PathReason.noCandidate.rawValue)"] }
    func age(_ time: UInt64) -> String { "\((now &- min(time, now)) / 1_000_000_000) s" }
    var lines = ["\(present.path.description) for \(age(present.since)): \(present.reason.rawValue)"]
    if present.path == .relay, let next = nextDeadline, next >= now {
      lines.append("next try for a direct path in \((next - now) / 1_000_000_000) s")
    }
    for stretch in history.dropLast().reversed() {
      lines.append("before: \(stretch.path.description) from \(age(stretch.since)) ago: \(stretch.reason.rawValue)")
    }
    return lines
  }
}

extension Path: CustomStringConvertible {
  package var description: String {
    switch self {
    case .none: "none"
    case .direct(let endpoint): "direct \(endpoint)"
    case .relay: "relay"
    }
  }
}
