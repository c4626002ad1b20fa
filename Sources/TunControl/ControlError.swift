// The one error type of this room. Everything that reaches a person or an agent from here is one of these.

import Wire

/// An error with a stable code, what happened, and what to do next (docs/errors.md lists the codes).
///
/// `isUsage` marks wrong command lines and configurations: the program then exits with status 2 instead of 1.
package struct ControlError: ExplainedError, Equatable {
  package var code: String
  package var message: String
  package var hint: String?
  package var isUsage = false
  /// What a wrong configuration is wrong about.
  package var subject: Subject?

  /// The setting, when it is a known one, and where it stands, when that is a file.
  package struct Subject: Equatable, Sendable {
    package var setting: Setting?
    package var place: SourcePlace?
  }

  package init(
    _ code: String, _ message: String, hint: String? = nil, isUsage: Bool = false, subject: Subject? = nil
  ) {
    self.code = code
    self.message = message
    self.hint = hint
    self.isUsage = isUsage
    self.subject = subject
  }

  /// Wraps any error; explained ones keep their three fields.
  package init(_ error: any Error) {
    if let error = error as? ControlError {
      self = error
    } else if let error = error as? any ExplainedError {
      self.init(error.code, error.message, hint: error.hint)
    } else {
      self.init("internal", "\(error)", hint: "report it with what `pilot-tun bugreport` collects")
    }
  }
}

extension ControlError: CustomStringConvertible {
  package var description: String { hint.map { "\(message) (\($0))" } ?? message }
}
