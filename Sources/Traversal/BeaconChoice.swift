// Which beacons a node keeps itself known to, and which of them is its home, as a pure state machine: (event, time) ->
// actions. Control owns one; nothing here knows a socket or a clock (docs/nat-traversal.md, "Several beacons").
//
// Rules:
// - All beacons are asked at once in the beginning and when the network changed; from then on those that the node is
//   known to at the interval that keeps a NAT open, the others every ten minutes.
// - The nearest healthy one is home. Another one takes over when it is nearer by a quarter and two milliseconds, never
//   twice in a minute; one that died is not home again for a minute, longer each time, while another one works.
// - The node is known to three: its home, the first healthy one in the order of the list, which is where nodes meet that
//   know nothing of each other, and the next nearest; and for a while to those that peers are reached through.
// - Four questions without an answer, half a second apart, and a beacon is dead: on a bad link two or three get lost.

package import Wire

package struct BeaconChoice: Sendable {
  package enum Event: Sendable {
    /// The beacons there are, in the operator's order. At most `most`; those that stay keep what is known of them.
    case listed([Endpoint])
    /// A beacon answered, and where it sees our socket. Nothing for one that was not asked: `expects` tells.
    case answered(Endpoint, seen: Endpoint)
    /// The owner asked by itself.
    case asked(Endpoint)
    /// Frames through a relay stay without answer.
    case doubted
    /// The beacons shall hear of us at once: the node has an id now, or the directory is back.
    case renewed
    case networkChanged
    /// A peer is reached through this one.
    case wanted(Endpoint)
    case tick
  }

  package enum Action: Equatable, Sendable {
    case ask(Endpoint)
    case home(Endpoint?)
    /// `known` changed.
    case known
  }

  package struct Beacon: Equatable, Sendable {
    package let endpoint: Endpoint
    /// Smoothed, nanoseconds.
    package internal(set) var roundTrip: UInt64?
    /// Where it sees our socket.
    package internal(set) var seen: Endpoint?
    package internal(set) var answeredAt: UInt64 = 0
    /// Questions without answer in a row.
    package internal(set) var misses: UInt8 = 0
    /// Of the first question without answer, and of the last; 0: none is open.
    var firstAskedAt: UInt64 = 0
    var askedAt: UInt64 = 0
    var nextAt: UInt64 = 0
    var wantedUntil: UInt64 = 0
    /// Not home again of free will before.
    var penaltyUntil: UInt64 = 0
    var failures: UInt8 = 0

    package var isHealthy: Bool { answeredAt != 0 && misses < Limits.deadlyMisses }
    var distance: UInt64 { roundTrip ?? .max / 4 }
  }

  package enum Limits {
    static let millisecond: UInt64 = 1_000_000
    static let second: UInt64 = 1_000_000_000
    package static let most = 8
    /// Those that the node keeps itself known to, and at most, with those that peers are reached through.
    static let known = 3
    static let mostKnown = 5
    static let deadlyMisses: UInt8 = 4
    static let patience = 500 * millisecond
    /// Answers count for this long.
    package static let answerLasts = 3 * second
    /// After the first question of all: the nearest wins, whoever was first.
    static let race = 500 * millisecond
    package static let calm = 60 * second
    static let mostPenalty = 900 * second
    /// One that was home for this long before it died begins with the first penalty again.
    static let forgiven = 600 * second
    static let farInterval = 600 * second
    static let firstRetry = 5 * second
    static let mostRetry = 60 * second
    package static let wantedLasts = 120 * second
    /// What is due so soon is asked with what is due now: one wake-up.
    static let together = 4 * second
  }

  package private(set) var beacons: [Beacon] = []
  package private(set) var home: Endpoint?
  /// Home first.
  package private(set) var known: [Endpoint] = []
  /// How often those that the node is known to are asked.
  package var interval: UInt64 = 25 * Limits.second
  /// How often home is, if not so; the owner sets it while peers are spoken with.
  package var homeInterval: UInt64?
  private var raceUntil: UInt64 = 0
  private var switchedAt: UInt64 = 0

  package init() {}

  package subscript(endpoint: Endpoint) -> Beacon? { beacons.first { $0.endpoint == endpoint } }

  package func contains(_ endpoint: Endpoint) -> Bool { beacons.contains { $0.endpoint == endpoint } }

  /// Whether the beacon owes an answer.
  package func expects(_ endpoint: Endpoint, now: UInt64) -> Bool {
    self[endpoint].map { $0.askedAt != 0 && now < $0.askedAt + Limits.answerLasts } ?? false
  }

  /// The first healthy one in the order of the list, or the first.
  package var meetingPoint: Endpoint? { (beacons.first(where: \.isHealthy) ?? beacons.first)?.endpoint }

  package mutating func handle(_ event: Event, now: UInt64) -> [Action] {
    var actions: [Action] = []
    switch event {
    case .listed(let list): take(list, now, &actions)
    case .answered(let endpoint, let seen): answered(endpoint, seen, now)
    case .asked(let endpoint): change(endpoint) { $0.ask(now) }
    case .doubted, .renewed:
      var isRenewal = false
      if case .renewed = event { isRenewal = true }
      let isHomeWell = home.flatMap { self[$0]?.isHealthy } ?? false
      // One that was silent may be back, and a peer's frames may go through it.
      let asked = isHomeWell ? beacons.filter { known.contains($0.endpoint) || !$0.isHealthy } : beacons
      for endpoint in asked.map(\.endpoint) {
        // Many peers may doubt at one time.
        guard isRenewal || now >= (self[endpoint]?.answeredAt ?? 0) + Limits.patience else { continue }
        ask(endpoint, now, &actions)
      }
    case .networkChanged:
      raceUntil = now + Limits.race
      for index in beacons.indices {
        beacons[index].roundTrip = nil
        beacons[index].misses = 0
        beacons[index].firstAskedAt = 0
        beacons[index].askedAt = 0
        ask(beacons[index].endpoint, now, &actions)
      }
    case .wanted(let endpoint):
      let interval = interval
      change(endpoint) {
        $0.wantedUntil = now + Limits.wantedLasts
        $0.nextAt = min($0.nextAt, max(now, $0.answeredAt + interval))
      }
    case .tick: break
    }
    run(now, &actions)
    return actions
  }

  /// When `tick` is due.
  package var nextDeadline: UInt64 {
    var deadline = UInt64.max
    for beacon in beacons {
      deadline = min(deadline, beacon.firstAskedAt != 0 ? beacon.askedAt + Limits.patience : beacon.nextAt)
    }
    if raceUntil != 0 { deadline = min(deadline, raceUntil) }
    return deadline
  }

  // MARK: Events

  private mutating func take(_ list: [Endpoint], _ now: UInt64, _ actions: inout [Action]) {
    let before = beacons
    beacons = []
    for endpoint in list.prefix(Limits.most) where !contains(endpoint) {
      beacons.append(before.first { $0.endpoint == endpoint } ?? Beacon(endpoint: endpoint))
    }
    if home == nil { raceUntil = now + Limits.race }
    for beacon in beacons where beacon.answeredAt == 0 { ask(beacon.endpoint, now, &actions) }
  }

  private mutating func answered(_ endpoint: Endpoint, _ seen: Endpoint, _ now: UInt64) {
    guard expects(endpoint, now: now) else { return }
    let interval = interval
    change(endpoint) {
      // An answer may be that to an earlier question: the longest time that it can have taken.
      let sample = now - min(now, $0.firstAskedAt == 0 ? $0.askedAt : $0.firstAskedAt)
      $0.roundTrip = $0.roundTrip.map { sample < $0 ? (sample + $0) / 2 : (7 * $0 + sample) / 8 } ?? sample
      $0.seen = seen
      $0.answeredAt = now
      $0.misses = 0
      $0.askedAt = 0
      $0.firstAskedAt = 0
      $0.nextAt = now + interval
    }
  }

  // MARK: Time

  private mutating func run(_ now: UInt64, _ actions: inout [Action]) {
    for index in beacons.indices {
      let beacon = beacons[index]
      guard beacon.firstAskedAt != 0, now >= beacon.askedAt + Limits.patience else { continue }
      beacons[index].misses = min(beacon.misses + 1, 250)
      if beacon.misses + 1 < Limits.deadlyMisses {
        beacons[index].askedAt = now
        actions.append(.ask(beacon.endpoint))
      } else {
        // Its answer still counts for a while.
        beacons[index].firstAskedAt = 0
        let gap = Limits.firstRetry << UInt64(min(beacon.misses + 1 - Limits.deadlyMisses, 6))
        beacons[index].nextAt = now + min(gap, Limits.mostRetry)
      }
    }
    choose(now, &actions)
    let isDue = beacons.contains { $0.firstAskedAt == 0 && $0.nextAt <= now }
    guard isDue else { return }
    for beacon in beacons where beacon.nextAt <= now + (beacon.isHealthy ? Limits.together : 0) {
      ask(beacon.endpoint, now, &actions)
    }
  }

  private mutating func ask(_ endpoint: Endpoint, _ now: UInt64, _ actions: inout [Action]) {
    guard let beacon = self[endpoint], beacon.askedAt == 0 || now >= beacon.askedAt + Limits.patience else { return }
    change(endpoint) { $0.ask(now) }
    actions.append(.ask(endpoint))
  }

  private mutating func change(_ endpoint: Endpoint, _ body: (inout Beacon) -> Void) {
    guard let index = beacons.firstIndex(where: { $0.endpoint == endpoint }) else { return }
    body(&beacons[index])
  }

  // MARK: Choice

  private mutating func choose(_ now: UInt64, _ actions: inout [Action]) {
    let isRace = raceUntil != 0
    if now >= raceUntil { raceUntil = 0 }
    let healthy = beacons.filter(\.isHealthy).sorted { $0.distance < $1.distance }
    let unpunished = healthy.filter { now >= $0.penaltyUntil }
    let best = unpunished.first ?? healthy.first
    if let present = home.flatMap({ self[$0] }), present.isHealthy {
      // A round trip that is not known since the network changed is being asked for.
      if let best, best.endpoint != present.endpoint, best.penaltyUntil <= now, let own = present.roundTrip,
        let rival = best.roundTrip, rival + max(own / 4, 2 * Limits.millisecond) <= own,
        isRace || now >= switchedAt + Limits.calm
      {
        move(to: best.endpoint, now, &actions)
      }
    } else if best != nil || home.map({ !contains($0) }) ?? false {
      if let home {
        let wasGood = now > switchedAt + Limits.forgiven
        change(home) {
          if wasGood { $0.failures = 0 }
          $0.failures = min($0.failures + 1, 6)
          $0.penaltyUntil = now + min(Limits.calm << UInt64($0.failures - 1), Limits.mostPenalty)
        }
      }
      move(to: best?.endpoint, now, &actions)
    }
    note(healthy, now, &actions)
  }

  private mutating func move(to endpoint: Endpoint?, _ now: UInt64, _ actions: inout [Action]) {
    home = endpoint
    switchedAt = now
    actions.append(.home(endpoint))
  }

  private mutating func note(_ healthy: [Beacon], _ now: UInt64, _ actions: inout [Action]) {
    var list = [home, meetingPoint].compactMap { $0 }
    if list.first == list.last { list = Array(list.prefix(1)) }
    for standby in healthy where list.count < Limits.known && !list.contains(standby.endpoint) {
      list.append(standby.endpoint)
    }
    list += beacons.filter { $0.wantedUntil > now }.map(\.endpoint)
    var distinct: [Endpoint] = []
    for endpoint in list where !distinct.contains(endpoint) && distinct.count < Limits.mostKnown {
      distinct.append(endpoint)
    }
    for index in beacons.indices where beacons[index].isHealthy {
      // Out of those that are kept: measured now and then. Into them: at once if it is time.
      var gap = distinct.contains(beacons[index].endpoint) ? interval : Limits.farInterval
      if beacons[index].endpoint == home, let homeInterval { gap = min(gap, homeInterval) }
      beacons[index].nextAt = beacons[index].answeredAt + gap
    }
    guard distinct != known else { return }
    known = distinct
    actions.append(.known)
  }
}

extension BeaconChoice.Beacon {
  mutating func ask(_ now: UInt64) {
    if firstAskedAt == 0 { firstAskedAt = now }
    askedAt = now
  }
}
