// A path machine, a clock, and ways that answer probes or do not: what the tests of the machine run on.

import Traversal
import Wire

struct PathBench {
  /// How a way behaves: nil does not answer.
  struct Way {
    var roundTrip: UInt64
    /// Inner bytes that pass.
    var limit = 1400
    /// So many probes of full size are lost, then none.
    var losses = 0
  }

  static let millisecond: UInt64 = 1_000_000
  static let second: UInt64 = 1_000_000_000

  var machine = PathMachine(seed: 42)
  private(set) var now: UInt64 = 1_000_000_000_000
  var ways: [Path: Way] = [:]
  /// A packet of use leaves every 100 ms; the peer's packets come by the present path when that way works.
  var isSending = false
  var isAnswered = true
  var activity = PathActivity()
  private(set) var log: [(at: UInt64, action: PathMachine.Action)] = []
  private var answers: [(at: UInt64, id: ProbeID, path: Path)] = []
  private var nextPacket: UInt64 = 0

  static func endpoint(_ last: UInt32, port: UInt16 = 4000) -> Endpoint {
    Endpoint(address: IPv6Address(mappedIPv4: 0xC633_6400 | last), port: port)
  }

  /// A peer that the directory knows at these endpoints, with a relay.
  init(_ known: [PathMachine.Known], hasBeacon: Bool = true, isRelayOnly: Bool = false) {
    feed(.beacon(isAvailable: hasBeacon))
    feed(.record(known, isRelayOnly: isRelayOnly))
  }

  mutating func feed(_ event: PathMachine.Event) {
    for action in machine.handle(event, activity: activity, now: now) {
      log.append((now, action))
      guard case .probe(let id, let path, let size) = action, let way = ways[path], size <= way.limit else { continue }
      if size == 1400, way.losses > 0 {
        ways[path]?.losses -= 1
        continue
      }
      answers.append((now + way.roundTrip, id, path))
    }
  }

  /// A handshake is answered by this way, and the session is there.
  mutating func connect(_ way: Path) {
    feed(.handshakeTry(1))
    if case .direct(let endpoint) = way { feed(.handshakeHeard(endpoint)) } else { feed(.handshakeHeard(nil)) }
    feed(.session(isUp: true))
  }

  mutating func run(_ duration: UInt64) {
    let end = now + duration
    while true {
      var next = end
      if let deadline = machine.nextDeadline(now) { next = min(next, max(deadline, now)) }
      if let answer = answers.map(\.at).min() { next = min(next, answer) }
      if isSending { next = min(next, max(nextPacket, now)) }
      now = next
      if isSending, nextPacket <= now {
        let hasRested = now > activity.sentAt + Self.second
        activity.sentAt = now
        nextPacket = now + 100 * Self.millisecond
        if isAnswered, ways[machine.path] != nil {
          activity.receivedAt = now + 1
          activity.onPathAt = now + 1
        }
        if hasRested { feed(.tick) }
      }
      if let index = answers.firstIndex(where: { $0.at <= now }) {
        let answer = answers.remove(at: index)
        activity.receivedAt = now
        // The answer is a frame from there.
        if answer.path == machine.path { activity.onPathAt = now }
        if case .direct(let from) = answer.path, answer.path != machine.path { feed(.moved(from)) }
        feed(.probeAnswered(answer.id, by: answer.path))
        continue
      }
      if let deadline = machine.nextDeadline(now), deadline <= now {
        feed(.tick)
        // A machine that wants to be called for ever would hang the test.
        precondition(log.count < 100_000)
        if machine.nextDeadline(now).map({ $0 <= now }) == true, now >= end { return }
        continue
      }
      if now >= end { return }
    }
  }

  /// Paths taken, in order, since a time.
  func paths(since: UInt64 = 0) -> [Path] {
    log.compactMap { if case .setPath(let path) = $0.action, $0.at >= since { path } else { nil } }
  }

  func probes(_ path: Path, since: UInt64 = 0) -> [UInt64] {
    log.compactMap { if case .probe(_, path, _) = $0.action, $0.at >= since { $0.at } else { nil } }
  }

  func count(_ action: PathMachine.Action, since: UInt64 = 0) -> Int {
    log.count { $0.action == action && $0.at >= since }
  }
}
