// The credentials for a proxy: those of its URL, or what a command printed last. Owned by TLSDialer; all its connections
// share them.

import NIOPosix
import Synchronization

/// Runs the command when credentials are needed first, and again when the proxy refused what it printed; one at a time,
/// however many connections wait for it.
final class CredentialSource: Sendable {
  private typealias Outcome = Result<ProxyCredentials, TransportError>

  private struct State {
    var printed: ProxyCredentials?
    var run: Task<Outcome, Never>?
  }

  private let command: CredentialCommand
  private let state = Mutex(State())

  init(_ command: CredentialCommand) { self.command = command }

  /// Those of now, and whether the command was run for them.
  func current() async throws(TransportError) -> (credentials: ProxyCredentials, isFresh: Bool) {
    if let known = state.withLock({ $0.printed }) { return (known, false) }
    return (try await fresh(), true)
  }

  /// Others than the refused ones: somebody else may have asked for them already.
  func renewed(after refused: ProxyCredentials) async throws(TransportError) -> ProxyCredentials {
    forget(refused)
    return try await current().credentials
  }

  /// What the proxy refused is not offered again.
  func forget(_ refused: ProxyCredentials) {
    state.withLock { if $0.printed == refused { $0.printed = nil } }
  }

  private func fresh() async throws(TransportError) -> ProxyCredentials {
    let run = state.withLock { state in
      if let run = state.run { return run }
      let run = Task { await self.run() }
      state.run = run
      return run
    }
    return try await run.value.get()
  }

  private func run() async -> Outcome {
    let outcome: Outcome
    do {
      outcome = try await NIOThreadPool.singleton.runIfActive { [command] in
        Result { () throws(TransportError) in try command.run() }
      }
    } catch {
      outcome = .failure(TransportError(.credentialsCommand, "proxy-credentials-command cannot be run: \(error)"))
    }
    state.withLock { state in
      state.run = nil
      if case .success(let credentials) = outcome { state.printed = credentials }
    }
    return outcome
  }
}
