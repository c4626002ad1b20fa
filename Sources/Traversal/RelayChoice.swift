// Through which relay frames to one peer go, as a pure state machine: (event, time) -> actions. Control owns one for each
// peer. For PathMachine the relay is one way; this says which beacon, or which node that relays, stands behind it
// (docs/nat-traversal.md, "Several relays").
//
// Rules:
// - Only while the path to the peer is the relay and in use are relays measured: at once, then every minute, by sealed
//   pings through each. The nearest one is taken, by a quarter and two milliseconds at least, never twice in a minute.
// - Of two ends the one with the lower id chooses, and tells the other, who follows: both use the same relay.
// - When frames through the relay stay without answer, all relays are asked five times a second; another one that
//   answers while the present one is silent is taken, by whichever end notices.

package import Wire

package struct RelayChoice: Sendable {
  package typealias Relay = TunnelControl.Relay

  package enum Event: Sendable {
    /// What both ends can be reached through, best guess first; at most `most`.
    case ways([Relay])
    /// A genuine frame of the peer came by it.
    case heard(Relay)
    /// The peer sends through it.
    case told(Relay)
    /// A ping through it came back.
    case answered(Relay, roundTrip: UInt64)
    /// The path through the relay is silent.
    case doubted
    case tick
  }

  package enum Action: Equatable, Sendable {
    /// Send a sealed ping through it.
    case probe(Relay)
    /// From now on frames go through it; nil: there is none.
    case use(Relay?)
    /// Tell the peer which one is in use.
    case tell
  }

  package struct Way: Equatable, Sendable {
    package let relay: Relay
    package internal(set) var roundTrip: UInt64?
    package internal(set) var answeredAt: UInt64 = 0
    package internal(set) var probes: UInt32 = 0
    package internal(set) var answers: UInt32 = 0
    var heardAt: UInt64 = 0
    var failures: UInt8 = 0
    var penaltyUntil: UInt64 = 0
    var isProven: Bool { answeredAt != 0 || heardAt != 0 }
  }

  private struct Round: Sendable {
    var began: UInt64
    var volleys = 0
    var nextAt: UInt64
    let isUrgent: Bool
  }

  package enum Limits {
    static let millisecond: UInt64 = 1_000_000
    static let second: UInt64 = 1_000_000_000
    package static let most = 8
    static let measured: [UInt64] = [0, 250 * millisecond, 750 * millisecond]
    static let urgentGap = 200 * millisecond
    static let urgentVolleys = 8
    /// How long the present relay may leave a round's pings without answer before another one takes over.
    static let patience = 900 * millisecond
    static let urgentPatience = 350 * millisecond
    static let lastWait = second
    package static let measureGap = 60 * second
    package static let calm = 60 * second
    static let mostPenalty = 900 * second
    /// One that carried frames for this long before it died begins with the first penalty again.
    static let forgiven = 600 * second
  }

  package private(set) var ways: [Way] = []
  package private(set) var present: Relay?
  private var round: Round?
  private var nextMeasureAt: UInt64 = 0
  private var switchedAt: UInt64 = 0
  /// A first measurement may choose at once.
  private var isFresh = true
  /// Of the two ends the one that chooses.
  private let leads: Bool

  package init(leads: Bool) { self.leads = leads }

  package subscript(relay: Relay) -> Way? { ways.first { $0.relay == relay } }

  /// The present relay carried something.
  package var isProven: Bool { present.flatMap { self[$0]?.isProven } ?? false }

  /// `isUsed`: the path to the peer is the relay, and packets are sent.
  package mutating func handle(_ event: Event, isUsed: Bool, now: UInt64) -> [Action] {
    var actions: [Action] = []
    switch event {
    case .ways(let list): take(list, now, &actions)
    case .heard(let relay):
      change(relay) { $0.heardAt = now }
      // Nothing is known of the present one: the peer is there.
      if relay != present, self[relay] != nil, !isProven { use(relay, now, &actions) }
    case .told(let relay):
      guard relay != present, let way = self[relay] else { break }
      if leads {
        // It left ours, or has not heard yet: the pings tell, and it hears again at the end.
        beginUrgent(now)
      } else if now >= way.penaltyUntil {
        use(relay, now, &actions, announces: false)
      }
    case .answered(let relay, let roundTrip):
      change(relay) {
        $0.roundTrip =
          $0.roundTrip.map { roundTrip < $0 ? (roundTrip + $0) / 2 : (7 * $0 + roundTrip) / 8 } ?? roundTrip
        $0.answeredAt = now
        $0.answers &+= 1
      }
      replaceDead(now, &actions)
    case .doubted:
      // Its answer in a round under way says nothing of what happened since.
      if let round, let present = present.flatMap({ self[$0] }), present.answeredAt >= round.began { self.round = nil }
      beginUrgent(now)
    case .tick: break
    }
    run(isUsed, now, &actions)
    return actions
  }

  /// When `tick` is due; nil while there is nothing to measure.
  package func nextDeadline(isUsed: Bool, now: UInt64) -> UInt64? {
    if let round { return round.nextAt }
    return isUsed && ways.count > 1 ? max(nextMeasureAt, now) : nil
  }

  // MARK: Ways

  private mutating func take(_ list: [Relay], _ now: UInt64, _ actions: inout [Action]) {
    let before = ways
    ways = []
    for relay in list.prefix(Limits.most) where self[relay] == nil {
      ways.append(before.first { $0.relay == relay } ?? Way(relay: relay))
    }
    if ways.contains(where: { way in !before.contains { $0.relay == way.relay } }) { nextMeasureAt = 0 }
    if let present, self[present] != nil { return }
    let living = ways.filter { now >= $0.penaltyUntil }
    let next = living.filter { $0.roundTrip != nil }.min { $0.roundTrip ?? 0 < $1.roundTrip ?? 0 }
    use((next ?? living.first ?? ways.first)?.relay, now, &actions)
  }

  private mutating func change(_ relay: Relay, _ body: (inout Way) -> Void) {
    guard let index = ways.firstIndex(where: { $0.relay == relay }) else { return }
    body(&ways[index])
  }

  private mutating func use(_ relay: Relay?, _ now: UInt64, _ actions: inout [Action], announces: Bool = true) {
    guard relay != present else { return }
    present = relay
    switchedAt = now
    actions.append(.use(relay))
    if announces { actions.append(.tell) }
  }

  // MARK: Rounds

  private mutating func beginUrgent(_ now: UInt64) {
    guard ways.count > 1, round?.isUrgent != true else { return }
    round = Round(began: now, nextAt: now, isUrgent: true)
  }

  private mutating func run(_ isUsed: Bool, _ now: UInt64, _ actions: inout [Action]) {
    if round == nil, isUsed, ways.count > 1, now >= nextMeasureAt {
      round = Round(began: now, nextAt: now, isUrgent: false)
    }
    guard var running = round, now >= running.nextAt else { return }
    let most = running.isUrgent ? Limits.urgentVolleys : Limits.measured.count
    guard running.volleys < most else {
      round = nil
      nextMeasureAt = now + Limits.measureGap
      weigh(since: running.began, now, &actions)
      return
    }
    for index in ways.indices where ways[index].answeredAt < running.began || ways[index].answeredAt == 0 {
      ways[index].probes &+= 1
      actions.append(.probe(ways[index].relay))
    }
    running.volleys += 1
    if running.volleys == most {
      running.nextAt = now + Limits.lastWait
    } else {
      running.nextAt =
        running.isUrgent ? now + Limits.urgentGap : running.began + Limits.measured[running.volleys]
    }
    round = running
    replaceDead(now, &actions)
  }

  /// In a round: another one answered, the present one did not, for long enough.
  private mutating func replaceDead(_ now: UInt64, _ actions: inout [Action]) {
    guard let round, round.volleys > 1, let present = present.flatMap({ self[$0] }), present.answeredAt < round.began
    else { return }
    let patience = max(
      round.isUrgent ? Limits.urgentPatience : Limits.patience, min(2 * (present.roundTrip ?? 0), Limits.second))
    guard now >= round.began + patience else { return }
    let living = ways.filter { $0.relay != present.relay && $0.answeredAt >= round.began }
    let unpunished = living.filter { now >= $0.penaltyUntil }
    let best = (unpunished.isEmpty ? living : unpunished).min { $0.roundTrip ?? 0 < $1.roundTrip ?? 0 }
    guard let best else { return }
    let wasGood = now > switchedAt + Limits.forgiven
    change(present.relay) {
      if wasGood { $0.failures = 0 }
      $0.failures = min($0.failures + 1, 6)
      $0.penaltyUntil = now + min(Limits.calm << UInt64($0.failures - 1), Limits.mostPenalty)
      $0.roundTrip = nil
    }
    use(best.relay, now, &actions)
  }

  /// The end of a round: is another one nearer?
  private mutating func weigh(since began: UInt64, _ now: UInt64, _ actions: inout [Action]) {
    guard leads else { return }
    let answered = ways.filter { $0.answeredAt >= began && now >= $0.penaltyUntil }
    if let best = answered.min(by: { $0.roundTrip ?? 0 < $1.roundTrip ?? 0 }), best.relay != present,
      let rival = best.roundTrip, let own = present.flatMap({ self[$0]?.roundTrip }),
      rival + max(own / 4, 2 * Limits.millisecond) <= own, isFresh || now >= switchedAt + Limits.calm
    {
      use(best.relay, now, &actions)
    } else {
      actions.append(.tell)
    }
    isFresh = false
  }
}
