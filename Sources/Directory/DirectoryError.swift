// What goes wrong between a node and its registry or its state directory. Thrown by everything in this room and
// shown to people and agents by TunControl (docs/errors.md).

import Wire

/// An error of the directory room. `code` is stable.
package struct DirectoryError: ExplainedError, Equatable {
  /// The stable codes of this room.
  package enum Code: String, Sendable, CaseIterable {
    /// No connection, no answer in time, or the connection closed without one.
    case registryUnreachable = "registry_unreachable"
    /// The registry answered with an error of its own.
    case registryRefused = "registry_refused"
    /// The registry asks to slow down.
    case registryBusy = "registry_busy"
    /// The registry knows no such node, name or network.
    case notFound = "not_found"
    /// The registry's answer breaks the protocol.
    case badReply = "bad_reply"
    /// What the caller asked for cannot be sent (name, reason or list out of bounds).
    case badRequest = "bad_request"
    /// There is no request of this peer to approve or reject.
    case noSuchRequest = "no_such_request"
    /// This node has not been given an id by a registry yet.
    case notRegistered = "not_registered"
    case stateDirectoryUnavailable = "state_directory_unavailable"
    case stateDirectoryLocked = "state_directory_locked"
    case identityInsecure = "identity_insecure"
    case identityMalformed = "identity_malformed"
    case identityUnreadable = "identity_unreadable"
  }

  package var reason: Code
  package var message: String
  package var hint: String?
  /// What the registry itself said, for clients that are told just that.
  package var registryText: String?

  /// The code of what lies below, where that alone says what to do: a certificate that is refused, a proxy's answer.
  package var cause: String?

  package var code: String { cause ?? reason.rawValue }

  package init(_ reason: Code, _ message: String, hint: String? = nil, said registryText: String? = nil) {
    self.reason = reason
    self.message = message
    self.hint = hint ?? reason.usualHint
    self.registryText = registryText
  }

  /// Whether the registry may answer the same question later: nothing was learned about the thing asked for.
  package var isTransient: Bool {
    switch reason {
    case .registryUnreachable, .registryBusy, .badReply, .notRegistered: true
    default: false
    }
  }

  /// An error reply of the registry. The texts that matter are those of wire/registry §1.2 and §4.3; servers hide
  /// most others behind `request failed`.
  static func refusal(_ text: String, to operation: String) -> DirectoryError {
    let shown = String(text.prefix(300))
    if text.contains("rate limited") || text.contains("too many") {
      return DirectoryError(
        .registryBusy, "the registry limits \(operation): \(shown)", hint: "the node tries again by itself", said: shown
      )
    }
    if text.contains("not found") {
      return DirectoryError(.notFound, "the registry answered \(operation) with: \(shown)", said: shown)
    }
    // Names belong to keys (wire/registry §6.1): a node with a new identity does not get that of its former one.
    let hint =
      operation == "set_hostname" && text.contains("already in use")
      ? "it belongs to another node, or to the former identity of this one, until that gives it up or was away for a day; "
        + "the node goes on asking; another hostname works at once" : nil
    return DirectoryError(.registryRefused, "the registry refused \(operation): \(shown)", hint: hint, said: shown)
  }
}

extension DirectoryError.Code {
  /// What to do where the place that failed knows nothing better.
  fileprivate var usualHint: String {
    switch self {
    case .registryUnreachable: "is the rendezvous up, and its TCP port open (9000)? The node tries again by itself"
    case .registryRefused: "the registry's own words say why"
    case .registryBusy: "nothing: the node tries again by itself"
    case .notFound:
      "check the spelling, and that the other node is registered; private nodes show themselves to nodes they trust"
    case .badReply: "is that a Pilot registry? `registry` in the settings names it"
    case .badRequest: "mend what the message names"
    case .noSuchRequest: "pilot-tun trust pending"
    case .notRegistered: "pilot-tun status: the rendezvous has not answered yet"
    case .stateDirectoryUnavailable: "check path and permissions of the state directory (--state-dir)"
    case .stateDirectoryLocked: "stop the other node, or give this one a --state-dir of its own"
    case .identityInsecure: "chmod 600 the file; if others could read it, make a new identity"
    case .identityMalformed, .identityUnreadable:
      "restore the file from a backup; without it the node is a stranger with a new address"
    }
  }
}
