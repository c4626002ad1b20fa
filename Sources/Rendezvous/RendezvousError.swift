// What can go wrong at the edges of the rendezvous: configuration, state directory, sockets. Shown by the command.

import Wire

/// An error of the rendezvous that reaches a person: a stable code, what happened, what to do next.
package struct RendezvousError: ExplainedError, CustomStringConvertible {
  package enum Kind: String, Sendable {
    /// A setting has no meaning. The hint names the accepted form.
    case invalidSetting = "invalid_setting"
    /// The configuration file cannot be read.
    case configurationUnreadable = "configuration_unreadable"
    /// A file that holds a token cannot be used.
    case secretUnusable = "secret_unusable"
    /// The state directory or the database in it cannot be used.
    case stateUnusable = "state_unusable"
    /// Another rendezvous works on this state directory.
    case stateInUse = "state_in_use"
    /// The database was written by a newer release.
    case stateTooNew = "state_too_new"
    /// A listening address cannot be bound.
    case cannotListen = "cannot_listen"
    /// The TLS certificate or key cannot be used.
    case certificateUnusable = "certificate_unusable"

    /// Whether it is a mistake in what the operator wrote, which trying again does not mend (exit status 2; the unit
    /// does not restart then). Sockets and the state directory may be there with the next try.
    package var isMistakeOfSettings: Bool {
      switch self {
      case .invalidSetting, .configurationUnreadable, .secretUnusable, .certificateUnusable: true
      case .stateUnusable, .stateInUse, .stateTooNew, .cannotListen: false
      }
    }
  }

  package var kind: Kind
  package var message: String
  package var hint: String?

  package init(_ kind: Kind, _ message: String, hint: String? = nil) {
    self.kind = kind
    self.message = message
    self.hint = hint
  }

  package var code: String { kind.rawValue }
  package var description: String { hint.map { "\(message) (\($0))" } ?? message }
}
