// What `pilot-tun netcheck` asks of beacons, and what the answers say of the NATs in between (RFC 4787, RFC 5780), as a
// pure state machine: (event, time) -> actions. Netcheck gives it two sockets and a clock; nothing here knows them.
//
// Two sockets, for what a NAT lets in depends on whom a socket sent to before: `probe` is what the questions are about,
// it sends to nobody but its home beacon until filtering is known; `helper` asks in its name. Steps, each for IPv4 and
// IPv6 at once:
// 1. reach: the helper asks every beacon. Who answers, how fast, and whether it serves checks (wire/tunnel §4.6).
// 2. home: the probe asks the nearest beacon where it is seen.
// 3. inward: the helper has others send to the probe (another beacon, the other port of the home), and sends to the
//    probe's outer endpoint itself: filtering and hairpin.
// 4. outward: the probe asks the others where they see it: mapping. The helper asks with packets of each size: MTU.

package import Wire

package struct NetcheckMachine: Sendable {
  package enum Socket: Hashable, Sendable { case probe, helper }

  package enum Event: Sendable {
    case received(Socket, from: Endpoint, [UInt8])
    /// The kernel did not take a datagram of that many bytes: no route, or longer than the interface's MTU.
    case refused(Socket, to: Endpoint, size: Int, isTooLong: Bool)
    case tick
  }

  package enum Action: Equatable, Sendable {
    case send(Socket, [UInt8], to: Endpoint)
  }

  /// Octets of an IP packet that are tried, largest first.
  package static let sizes = [
    1500, 1492, 1480, 1472, 1460, 1440, 1420, 1400, 1380, 1360, 1340, 1320, 1300, 1280,
  ]
  /// Nanoseconds between tries of a question, and to its end after the last one.
  package static let retryGap: UInt64 = 250_000_000
  package static let tries = 3

  private enum Subject: Equatable {
    case reach(Int)
    case home(Family)
    case otherHost(Family)
    case otherPort(Family)
    case hairpin(Family)
    case mapping(Family, isOtherHost: Bool)
    case size(Int, octets: Int)
  }

  package enum Family: Int, CaseIterable, Sendable { case ipv4, ipv6 }

  private struct Question {
    var subject: Subject
    var socket: Socket
    var message: BeaconMessage
    var target: Endpoint
    /// Where the answer is expected.
    var answeredAt: Socket
    /// A beacon that knows no checks answers this to the same question.
    var allowsDiscover = false
    var sends: [UInt64] = []
    var answer: Endpoint?
    var isOver = false
  }

  private enum Step: Int { case reach, home, inward, outward, done }

  package private(set) var report: NetcheckReport
  private var questions: [Question] = []
  private var step = Step.reach
  /// Question n sends the transactions `base + 8n + try`; unguessable, so nobody off the path can answer.
  private let base: UInt64
  private let local: [IPv6Address]

  /// `entropy`: any unguessable number. `local`: this machine's own addresses.
  package init(beacons: [(name: String, endpoint: Endpoint)], local: [IPv6Address], entropy: UInt64) {
    report = NetcheckReport(beacons: beacons.map { NetcheckReport.Beacon(name: $0.name, endpoint: $0.endpoint) })
    base = entropy
    self.local = local
  }

  package var isDone: Bool { step == .done }

  /// When `tick` is due; nil when all is known.
  package var nextDeadline: UInt64? {
    isDone ? nil : questions.filter { !$0.isOver }.compactMap { $0.sends.last.map { $0 + Self.retryGap } }.min()
  }

  package mutating func start(now: UInt64) -> [Action] {
    for index in report.beacons.indices {
      ask(.reach(index), .helper, to: report.beacons[index].endpoint, allowsDiscover: true)
    }
    return run(now)
  }

  package mutating func handle(_ event: Event, now: UInt64) -> [Action] {
    switch event {
    case .received(let socket, let from, let bytes): receive(socket, from, bytes, now)
    case .refused(let socket, let to, let size, let isTooLong):
      for index in questions.indices where !questions[index].isOver && questions[index].target == to {
        let question = questions[index]
        guard question.socket == socket, !isTooLong || question.message.size == size else { continue }
        questions[index].isOver = true
        if !isTooLong, case .reach(let beacon) = question.subject { report.beacons[beacon].hasRoute = false }
      }
    case .tick: break
    }
    return run(now)
  }

  // MARK: Asking

  private mutating func ask(
    _ subject: Subject, _ socket: Socket, to target: Endpoint, answerPort: UInt16 = 0, size: Int = 0,
    answeredAt: Socket? = nil, allowsDiscover: Bool = false
  ) {
    questions.append(
      Question(
        subject: subject, socket: socket,
        message: .check(transaction: 0, answerPort: answerPort, size: max(size, BeaconMessage.checkSize)),
        target: target, answeredAt: answeredAt ?? socket, allowsDiscover: allowsDiscover))
  }

  /// Sends what is due, ends what stays unanswered, and goes to the next step when nothing is open.
  private mutating func run(_ now: UInt64) -> [Action] {
    var actions: [Action] = []
    while true {
      for index in questions.indices where !questions[index].isOver {
        if let last = questions[index].sends.last, now < last + Self.retryGap { continue }
        if questions[index].sends.count == Self.tries {
          questions[index].isOver = true
        } else {
          send(index, now, &actions)
        }
      }
      guard !isDone, questions.allSatisfy(\.isOver) else { return actions }
      advance()
    }
  }

  private mutating func send(_ index: Int, _ now: UInt64, _ actions: inout [Action]) {
    let question = questions[index]
    guard case .check(_, let port, let size) = question.message else { return }
    let transaction = base &+ UInt64(index * 8 + question.sends.count)
    let message = BeaconMessage.check(transaction: transaction, answerPort: port, size: size)
    actions.append(.send(question.socket, message.encoded(), to: question.target))
    if question.allowsDiscover {
      actions.append(
        .send(question.socket, BeaconMessage.discover(node: 0, key: nil).encoded(), to: question.target))
    }
    questions[index].sends.append(now)
  }

  // MARK: Answers

  private mutating func receive(_ socket: Socket, _ from: Endpoint, _ bytes: [UInt8], _ now: UInt64) {
    switch BeaconMessage(bytes) {
    case .checkReply(let transaction, let seen, let other, let size)?:
      guard let (index, attempt) = question(transaction), questions[index].answeredAt == socket,
        from == questions[index].target, questions[index].message.size == size
      else { return }
      if case .reach(let beacon) = questions[index].subject { report.beacons[beacon].otherPort = other }
      // The helper asked for the probe's sake: what is seen is the helper's endpoint.
      settle(index, seen, sentAt: questions[index].sends[attempt], now)
    case .check(let transaction, _, _)?:
      // Our own, back through the NAT.
      guard let (index, attempt) = question(transaction), case .hairpin = questions[index].subject, socket == .probe
      else { return }
      settle(index, from, sentAt: questions[index].sends[attempt], now)
    case .discoverReply(let seen)?:
      let asked = questions.indices.first {
        questions[$0].allowsDiscover && questions[$0].target == from && questions[$0].socket == socket
          && questions[$0].answer == nil
      }
      guard let asked, let sentAt = questions[asked].sends.last else { return }
      settle(asked, seen, sentAt: sentAt, now, isOver: false)
    default: return
    }
  }

  private func question(_ transaction: UInt64) -> (Int, Int)? {
    let number = transaction &- base
    guard number < UInt64(questions.count * 8) else { return nil }
    let (index, attempt) = (Int(number / 8), Int(number % 8))
    guard attempt < questions[index].sends.count else { return nil }
    return (index, attempt)
  }

  /// A reply to discover is an answer, but the next try may still bring the one that tells more.
  private mutating func settle(_ index: Int, _ seen: Endpoint, sentAt: UInt64, _ now: UInt64, isOver: Bool = true) {
    questions[index].isOver = questions[index].isOver || isOver || questions[index].sends.count > 1
    questions[index].answer = seen
    let beacon: Int
    switch questions[index].subject {
    case .reach(let number): beacon = number
    case .size(let number, let octets):
      beacon = number
      report.beacons[number].mtu = max(report.beacons[number].mtu ?? 0, octets)
    default: return
    }
    let trip = now - min(now, sentAt)
    report.beacons[beacon].roundTrip = min(report.beacons[beacon].roundTrip ?? .max, trip)
  }

  // MARK: Steps

  private mutating func advance() {
    // Questions stay in their places: transactions count them.
    switch step {
    case .reach:
      step = .home
      for family in Family.allCases {
        guard let home = home(family) else { continue }
        ask(.home(family), .probe, to: report.beacons[home].endpoint, allowsDiscover: true)
      }
    case .home:
      step = .inward
      for family in Family.allCases { askInward(family) }
    case .inward:
      step = .outward
      for family in Family.allCases { askOutward(family) }
      for (index, beacon) in report.beacons.enumerated() where beacon.otherPort != 0 {
        let target = Endpoint(address: beacon.endpoint.address, port: beacon.otherPort)
        let header = target.isIPv4 ? 28 : 48
        for octets in Self.sizes {
          ask(.size(index, octets: octets), .helper, to: target, size: octets - header)
        }
      }
    case .outward, .done:
      step = .done
      for family in Family.allCases { conclude(family) }
    }
  }

  /// The nearest beacon that answered, those that serve checks first.
  private func home(_ family: Family) -> Int? {
    report.beacons.indices.filter { report.beacons[$0].family == family && report.beacons[$0].isReached }
      .min {
        let (a, b) = (report.beacons[$0], report.beacons[$1])
        return (a.otherPort == 0 ? 1 : 0, a.roundTrip ?? 0) < (b.otherPort == 0 ? 1 : 0, b.roundTrip ?? 0)
      }
  }

  /// Another one at another address; `serving`: one that answers checks.
  private func otherHost(_ family: Family, serving: Bool) -> NetcheckReport.Beacon? {
    guard let home = home(family) else { return nil }
    return report.beacons.first {
      $0.family == family && $0.isReached && $0.endpoint.address != report.beacons[home].endpoint.address
        && (!serving || $0.otherPort != 0)
    }
  }

  private func otherPort(_ family: Family) -> Endpoint? {
    guard let home = home(family), report.beacons[home].otherPort != 0 else { return nil }
    return Endpoint(address: report.beacons[home].endpoint.address, port: report.beacons[home].otherPort)
  }

  private func answer(_ subject: Subject) -> Endpoint? { questions.last { $0.subject == subject }?.answer }
  private func wasAsked(_ subject: Subject) -> Bool { questions.contains { $0.subject == subject } }

  private mutating func askInward(_ family: Family) {
    guard let outer = answer(.home(family)), let home = home(family) else { return }
    ask(.hairpin(family), .helper, to: outer, answeredAt: .probe)
    // A beacon answers to the address it sees: with a NAT of several addresses that may not be the probe's.
    guard answer(.reach(home))?.address == outer.address else { return }
    if let other = otherHost(family, serving: true) {
      ask(.otherHost(family), .helper, to: other.endpoint, answerPort: outer.port, answeredAt: .probe)
    }
    if let other = otherPort(family) {
      ask(.otherPort(family), .helper, to: other, answerPort: outer.port, answeredAt: .probe)
    }
  }

  private mutating func askOutward(_ family: Family) {
    guard answer(.home(family)) != nil else { return }
    if let other = otherPort(family) { ask(.mapping(family, isOtherHost: false), .probe, to: other) }
    if let other = otherHost(family, serving: false) {
      ask(.mapping(family, isOtherHost: true), .probe, to: other.endpoint, allowsDiscover: true)
    }
  }

  private mutating func conclude(_ family: Family) {
    guard let outer = answer(.home(family)) else { return }
    var result = NetcheckReport.Network(seen: outer, isTranslated: !local.contains(outer.address))
    let (port, host) = (
      answer(.mapping(family, isOtherHost: false)), answer(.mapping(family, isOtherHost: true))
    )
    if let port, port != outer {
      result.mapping = .addressAndPortDependent
    } else if let host {
      result.mapping = host == outer ? .endpointIndependent : port == nil ? .dependent : .addressDependent
    } else if port != nil {
      result.mapping = .notPortDependent
    }
    if answer(.otherHost(family)) != nil {
      result.filtering = .endpointIndependent
    } else if answer(.otherPort(family)) != nil {
      result.filtering = wasAsked(.otherHost(family)) ? .addressDependent : .notPortDependent
    } else if wasAsked(.otherPort(family)) {
      result.filtering = .addressAndPortDependent
    } else if wasAsked(.otherHost(family)) {
      result.filtering = .dependent
    }
    if result.isTranslated { result.hairpin = answer(.hairpin(family)) != nil }
    report.networks[family] = result
  }
}

extension BeaconMessage {
  /// Bytes of a check; nil for other messages.
  fileprivate var size: Int? {
    if case .check(_, _, let size) = self { size } else { nil }
  }
}
