// What the NAT in front of this machine does, asked of the beacon from sockets of its own, so that no mapping in use is
// put at risk: how it gives out ports, and how long it keeps a mapping that nobody uses (RFC 5780 §4.3, §4.6). Pure; Node
// runs one at start and on each new network.

package import Wire

/// Sockets 0 to 5 each make a mapping, use it once more after 3 s as a tunnel would, and rest, each for another time.
/// Then the helper has the beacon answer to the mapping's outer port: whether it arrives tells whether the mapping still
/// is there. Socket 6 rests for no time: when even that answer stays away, the method does not work here.
package struct NATSurvey: SocketMachine {
  package enum News: Equatable, Sendable {
    /// Where the beacon sees this machine, and how the NAT gives out ports.
    case translation(PortTranslation, seen: Endpoint)
    /// A mapping lasts at least this long without use, nanoseconds; 0: not even the shortest rest. Nil: cannot be told.
    case lifetime(UInt64?)
  }

  private static let second: UInt64 = 1_000_000_000
  /// How long sockets 0 to 5 rest.
  package static let rests: [UInt64] = [20, 28, 45, 65, 95, 125].map { $0 * second }
  private static let control = rests.count
  private static let helper = rests.count + 1
  private static let tries = 3
  private static let gap = second / 2

  private struct Question {
    enum Subject { case seen, otherPort, again, wake }
    var subject: Subject
    var socket: Int
    var nextAt: UInt64
    var sent = 0
    var isAnswered = false
  }

  private let beacon: Endpoint
  private let local: [IPv6Address]
  private let entropy: UInt64
  /// Transactions are `entropy + position`; they stay in their places.
  private var questions: [Question] = []
  private var seen: [Int: Endpoint] = [:]
  private var otherPort: UInt16 = 0
  private var seenByOther: Endpoint?
  private var hasTold = false
  private var isOver = false

  /// `local`: this machine's own addresses. `entropy`: any unguessable number.
  package init(beacon: Endpoint, local: [IPv6Address], entropy: UInt64) {
    self.beacon = beacon
    self.local = local
    self.entropy = entropy
  }

  package var nextDeadline: UInt64? {
    if questions.isEmpty { return isOver ? nil : 0 }
    return isOver ? nil : questions.filter { !isDone($0) }.map(\.nextAt).min()
  }

  /// Nanoseconds between frames that keep a mapping open, when one lasts this long: some seconds less, 15 to 120 s.
  package static func keepalive(lifetime: UInt64) -> UInt64 {
    min(max(lifetime, 20 * second) - 5 * second, 120 * second)
  }

  private func isDone(_ question: Question) -> Bool { question.isAnswered || question.sent > Self.tries }

  package mutating func tick(_ now: UInt64) -> [SocketAction<News>] {
    guard !isOver else { return [] }
    if questions.isEmpty {
      for socket in 0...Self.helper { questions.append(Question(subject: .seen, socket: socket, nextAt: now)) }
    }
    var actions: [SocketAction<News>] = []
    for index in questions.indices where !isDone(questions[index]) && now >= questions[index].nextAt {
      questions[index].sent += 1
      questions[index].nextAt = now + Self.gap
      // The last wait is for late answers.
      if questions[index].sent <= Self.tries { actions += send(index) }
    }
    return actions + advance(now)
  }

  private func send(_ index: Int) -> [SocketAction<News>] {
    let question = questions[index]
    var (from, to, port) = (question.socket, beacon, UInt16(0))
    if question.subject == .otherPort { to = Endpoint(address: beacon.address, port: otherPort) }
    if question.subject == .wake {
      guard let outer = seen[question.socket] else { return [] }
      (from, port) = (Self.helper, outer.port)
    }
    let message = BeaconMessage.check(
      transaction: entropy &+ UInt64(index), answerPort: port, size: BeaconMessage.checkSize)
    return [.send(from, message.encoded(), to: to)]
  }

  package mutating func received(
    _ socket: Int, from: Endpoint, _ bytes: [UInt8], _ now: UInt64
  ) -> [SocketAction<News>] {
    guard case .checkReply(let transaction, let endpoint, let other, _)? = BeaconMessage(bytes),
      from.address == beacon.address
    else { return [] }
    let index = transaction &- entropy
    guard index < questions.count, questions[Int(index)].socket == socket, !questions[Int(index)].isAnswered else {
      return []
    }
    let subject = questions[Int(index)].subject
    guard from.port == (subject == .otherPort ? otherPort : beacon.port) else { return [] }
    questions[Int(index)].isAnswered = true
    switch subject {
    case .seen, .again:
      seen[socket] = endpoint
      if other != 0 { otherPort = other }
      if subject == .seen { plan(after: socket, now) }
    case .otherPort: seenByOther = endpoint
    case .wake: break
    }
    return advance(now)
  }

  /// Socket 0 asks the other port after it has rested, as a NAT may keep a mapping longer that two hosts use: it is the
  /// helper that asks for mappings.
  private mutating func plan(after socket: Int, _ now: UInt64) {
    if socket == Self.helper {
      if otherPort != 0 { questions.append(Question(subject: .otherPort, socket: socket, nextAt: now)) }
    } else {
      let again = now + 3 * Self.second
      questions.append(Question(subject: .again, socket: socket, nextAt: again))
      let rest = socket == Self.control ? 0 : Self.rests[socket]
      questions.append(Question(subject: .wake, socket: socket, nextAt: again + rest + Self.second))
    }
  }

  private func questionsAbout(_ socket: Int, _ subject: Question.Subject) -> Question? {
    questions.first { $0.socket == socket && $0.subject == subject }
  }

  /// What is known now: told once each.
  private mutating func advance(_ now: UInt64) -> [SocketAction<News>] {
    var actions: [SocketAction<News>] = []
    if !hasTold, let about = questionsAbout(Self.helper, .seen), isDone(about) {
      let other = questionsAbout(Self.helper, .otherPort)
      guard let outer = seen[Self.helper] else {
        // No beacon that serves checks.
        isOver = true
        return []
      }
      let isTranslated = !local.contains(outer.address)
      guard !isTranslated || other.map(isDone) ?? true else { return [] }
      hasTold = true
      let translation: PortTranslation =
        if !isTranslated { .independent } else {
          seenByOther.map { $0 == outer ? .independent : .dependent } ?? .unknown
        }
      actions.append(.tell(.translation(translation, seen: outer)))
      if !isTranslated {
        isOver = true
        return actions
      }
    }
    guard hasTold, questions.allSatisfy(isDone) || shortestDead != nil else { return actions }
    isOver = true
    let works = questionsAbout(Self.control, .wake)?.isAnswered == true
    let alive = Self.rests.indices.prefix { questionsAbout($0, .wake)?.isAnswered == true }
    return actions + [.tell(.lifetime(works ? alive.last.map { Self.rests[$0] } ?? 0 : nil))]
  }

  /// A rest that no mapping survived; the longer ones need not be waited for.
  private var shortestDead: Int? {
    Self.rests.indices.first { questionsAbout($0, .wake).map { isDone($0) && !$0.isAnswered } ?? false }
  }
}
