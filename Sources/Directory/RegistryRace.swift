// Two ways to a registry at once: the first connection wins. Run by RegistryConnection.

import NIOCore
import Synchronization

/// A race of the registry's own port and the detour. It is over with the first connection, or when both failed, or when
/// who waits is cancelled: whoever is still under way then is cancelled, and closes what it gets all the same. Nobody
/// waits for it: it may hang in a command, or in a resolver.
final class RegistryRace: Sendable {
  typealias Dial = @Sendable () async throws -> any Channel

  struct Winner: Sendable {
    var channel: any Channel
    var isDetour: Bool
  }

  private struct State {
    var isOver = false
    /// Not started yet.
    var detour: Dial?
    var running = 0
    var failure = RaceFailure()
    var tasks: [Task<Void, Never>] = []
  }

  private let state: Mutex<State>
  private let winner: EventLoopPromise<Winner>

  private init(detour: @escaping Dial, on eventLoop: any EventLoop) {
    state = Mutex(State(detour: detour))
    winner = eventLoop.makePromise(of: Winner.self)
  }

  /// `headStart`: what the plain way has for itself; nil `plain`: there is none. Throws `RaceFailure` when neither way
  /// leads anywhere.
  static func run(
    headStart: Duration, plain: Dial?, detour: @escaping Dial, on eventLoop: any EventLoop
  ) async throws -> Winner {
    let race = RegistryRace(detour: detour, on: eventLoop)
    return try await withTaskCancellationHandler {
      if let plain {
        race.start(plain, isDetour: false)
        race.startDetour(after: headStart)
      } else {
        race.startDetour()
      }
      return try await race.winner.futureResult.get()
    } onCancel: {
      if race.end() { race.winner.fail(CancellationError()) }
    }
  }

  private func start(_ dial: @escaping Dial, isDetour: Bool) {
    state.withLock { state in
      guard !state.isOver else { return }
      state.running += 1
      state.tasks.append(
        Task {
          do {
            connected(Winner(channel: try await dial(), isDetour: isDetour))
          } catch {
            failed(error, isDetour: isDetour)
          }
        })
    }
  }

  private func startDetour(after headStart: Duration) {
    guard headStart > .zero else { return startDetour() }
    state.withLock { state in
      state.tasks.append(
        Task {
          try? await Task.sleep(for: headStart)
          startDetour()
        })
    }
  }

  /// Once, unless the race is over.
  private func startDetour() {
    if let detour = state.withLock({ $0.detour.take() }) { start(detour, isDetour: true) }
  }

  private func connected(_ candidate: Winner) {
    if end() { winner.succeed(candidate) } else { candidate.channel.close(promise: nil) }
  }

  private func failed(_ error: any Error, isDetour: Bool) {
    startDetour()
    let failure = state.withLock { state -> RaceFailure? in
      state.running -= 1
      if isDetour { state.failure.detour = error } else { state.failure.plain = error }
      return state.running == 0 ? state.failure : nil
    }
    if let failure, end() { winner.fail(failure) }
  }

  /// True for the one who ends it.
  private func end() -> Bool {
    let (isFirst, tasks) = state.withLock { state -> (Bool, [Task<Void, Never>]) in
      defer {
        state.isOver = true
        state.detour = nil
        state.tasks = []
      }
      return (!state.isOver, state.tasks)
    }
    for task in tasks { task.cancel() }
    return isFirst
  }
}

/// Why neither way led anywhere.
struct RaceFailure: Error {
  var plain: (any Error)?
  var detour: (any Error)?
}
