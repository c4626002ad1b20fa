// What every error that reaches a person or an agent carries (docs/errors.md lists the codes).

/// An error with a stable code, what happened, and what to do next. `--json` prints the same three fields.
public protocol ExplainedError: Error, Sendable {
  /// Stable, lower case, words joined by `_`: `device_unavailable`.
  var code: String { get }
  /// One sentence: what was tried, what came back.
  var message: String { get }
  /// What to do next, or nil when there is nothing to advise.
  var hint: String? { get }
}
