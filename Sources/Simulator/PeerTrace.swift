// What a simulated peer keeps for reports and invariants: the last things that happened, the silences, and the
// endpoints that were sent to without having proved themselves.

import Traversal
package import Wire

/// The last things that happened to one peer of a node. Failing tests print them.
package struct PeerTrace {
  enum What {
    case sent(isRelayed: Bool)
    case unsent
    case opened(InnerKind, isRelayed: Bool)
    case ended(VirtualFate)
    case path(Path)
    case punchRequest
    case suspects

    var text: String {
      switch self {
      case .sent(let isRelayed): isRelayed ? "-> relay" : "->"
      case .unsent: "nowhere to send"
      case .opened(let kind, let isRelayed): "<- \(kind)\(isRelayed ? " relayed" : "")"
      case .ended(let fate): "   ended: \(fate.rawValue)"
      case .path(let path): "path \(path)"
      case .punchRequest: "asks for a punch"
      case .suspects: "doubts the session"
      }
    }
  }

  private struct Line {
    var time: UInt64
    var what: What
    var endpoint: Endpoint?
  }

  let limit: Int
  private var ring: [Line] = []
  private var oldest = 0

  init(limit: Int) { self.limit = limit }

  mutating func append(_ what: What, _ endpoint: Endpoint?, at time: UInt64) {
    let line = Line(time: time, what: what, endpoint: endpoint)
    if ring.count < limit { return ring.append(line) }
    ring[oldest] = line
    oldest = (oldest + 1) % limit
  }

  /// Times and texts, oldest first.
  func lines(of node: UInt32) -> [(time: UInt64, text: String)] {
    (ring[oldest...] + ring[..<oldest]).map { line in
      (line.time, "\(node) \(line.what.text) \(line.endpoint.map { "\($0)" } ?? "")")
    }
  }
}

/// How long data stayed away from one end while the other sent. Times of the network.
struct SilenceWatch {
  /// Silence counts from here, or from the last data; 0: it does not count.
  var since: UInt64 = 0
  private(set) var longest: UInt64 = 0
  private(set) var longestEndedAt: UInt64 = 0

  /// Data came.
  mutating func end(at now: UInt64) {
    guard since != 0 else { return }
    if now > since, now - since > longest {
      longest = now - since
      longestEndedAt = now
    }
    since = max(since, now)
  }

  /// The other end stopped sending a moment ago.
  mutating func stop(at now: UInt64) {
    end(at: now)
    since = 0
  }

  mutating func reset(since start: UInt64) {
    since = start
    longest = 0
  }
}

/// The endpoints that a node sent to directly, and whether anything genuine ever came from there.
package struct Contacts {
  package struct Contact {
    package var isProven = false
    /// The most in any minute, counted in minutes that begin with a datagram.
    package var worstMinute = 0
    var minuteBeganAt: UInt64 = 0
    var inMinute = 0
  }

  package private(set) var all: [Endpoint: Contact] = [:]
  private var lastProven: Endpoint?

  mutating func count(_ endpoint: Endpoint, at now: UInt64) {
    if endpoint == lastProven { return }
    var contact = all[endpoint] ?? Contact()
    if contact.isProven {
      lastProven = endpoint
      return
    }
    if contact.minuteBeganAt == 0 || now > contact.minuteBeganAt + 60_000_000_000 {
      contact.minuteBeganAt = now
      contact.inMinute = 0
    }
    contact.inMinute += 1
    contact.worstMinute = max(contact.worstMinute, contact.inMinute)
    all[endpoint] = contact
  }

  mutating func prove(_ endpoint: Endpoint) {
    if endpoint == lastProven { return }
    all[endpoint, default: Contact()].isProven = true
    lastProven = endpoint
  }
}
