// The second way to a registry, for networks that let its own port not through: TLS on TCP 443 (wire/registry §1.4).
// TunControl gives the way, RegistryClient takes it when the first one fails.

package import NIOCore

/// Dials the same registry otherwise.
package struct RegistryDetour: Sendable {
  /// Makes a connection that is ready to carry frames.
  package typealias Dial = @Sendable (any EventLoop) async throws -> any Channel

  package var dial: Dial
  /// The registry's own port is not tried.
  package var isOnly: Bool
  /// A dial of the registry's own port has this long for itself.
  package var headStart: Duration = .seconds(2)

  package init(isOnly: Bool, dial: @escaping Dial) {
    self.isOnly = isOnly
    self.dial = dial
  }
}

/// When the detour is tried: at once when it was what worked last, rarely when it never does. Pure.
struct DetourTiming {
  private static let firstRest = Duration.seconds(10)
  private static let longestRest = Duration.seconds(300)

  private var restUntil: ContinuousClock.Instant?
  private var rest = Self.firstRest
  /// The last connection went by the detour.
  private(set) var isPreferred = false

  /// nil: not now.
  func headStart(_ detour: RegistryDetour?, now: ContinuousClock.Instant) -> Duration? {
    guard let detour else { return nil }
    if isPreferred || detour.isOnly { return .zero }
    if let restUntil, now < restUntil { return nil }
    return detour.headStart
  }

  mutating func connected(byDetour: Bool) { self = Self(isPreferred: byDetour) }

  /// Both ways failed.
  mutating func failed(now: ContinuousClock.Instant) {
    isPreferred = false
    restUntil = now + rest
    rest = min(rest * 2, Self.longestRest)
  }

  init() {}
  private init(isPreferred: Bool) { self.isPreferred = isPreferred }
}

/// Two ways at once: the first connection wins, the other is closed.
enum RegistryRace {
  struct Winner: Sendable {
    var channel: any Channel
    var isDetour: Bool
  }

  private enum Step: Sendable {
    case connected(Winner)
    case failed(any Error, isDetour: Bool)
    case headStartOver
  }

  /// Throws the error of the first way, and tells that of the other as well.
  static func run(
    headStart: Duration?, plain: (@Sendable () async throws -> any Channel)?,
    detour: @escaping @Sendable () async throws -> any Channel
  ) async throws -> Winner {
    try await withThrowingTaskGroup(of: Step.self) { group in
      @Sendable func attempt(_ isDetour: Bool, _ dial: @Sendable () async throws -> any Channel) async -> Step {
        do {
          return .connected(Winner(channel: try await dial(), isDetour: isDetour))
        } catch {
          return .failed(error, isDetour: isDetour)
        }
      }
      var running = 0
      var isDetourDue = headStart != nil
      var failures: (plain: (any Error)?, detour: (any Error)?) = (nil, nil)
      func takeDetour() {
        guard isDetourDue else { return }
        isDetourDue = false
        running += 1
        group.addTask { await attempt(true, detour) }
      }
      if let plain {
        running += 1
        group.addTask { await attempt(false, plain) }
        if let headStart, headStart > .zero {
          group.addTask {
            try? await Task.sleep(for: headStart)
            return .headStartOver
          }
        } else {
          takeDetour()
        }
      } else {
        takeDetour()
      }
      var winner: Winner?
      while running > 0, winner == nil, let step = try await group.next() {
        switch step {
        case .connected(let channel): winner = channel
        case .failed(let error, let isDetour):
          running -= 1
          if isDetour { failures.detour = error } else { failures.plain = error }
          takeDetour()
        case .headStartOver: takeDetour()
        }
      }
      group.cancelAll()
      while let step = try await group.next() {
        if case .connected(let late) = step { late.channel.close(promise: nil) }
      }
      if let winner { return winner }
      throw RaceFailure(plain: failures.plain, detour: failures.detour)
    }
  }
}

/// Why neither way led anywhere.
struct RaceFailure: Error {
  var plain: (any Error)?
  var detour: (any Error)?
}
