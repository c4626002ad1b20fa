// What goes wrong on the way to a rendezvous by TLS on TCP 443. Thrown by everything in this room; shown by `status`,
// `netcheck` and the log (docs/errors.md).

import Wire

/// An error of the TLS transport. `code` is stable. No text of it ever holds a credential.
package struct TransportError: ExplainedError, Equatable {
  package enum Code: String, Sendable, CaseIterable {
    /// No connection: refused, no route, no answer in time, or the name does not resolve.
    case tlsUnreachable = "tls_unreachable"
    /// The other end does not speak TLS as we do, or ended the handshake.
    case tlsFailed = "tls_failed"
    /// Signed by nobody we trust.
    case certificateUntrusted = "certificate_untrusted"
    /// Not valid any more, or not yet.
    case certificateExpired = "certificate_expired"
    /// A good certificate of another host.
    case certificateNameMismatch = "certificate_name_mismatch"
    /// The file of `tls-ca-file` holds no certificates.
    case authoritiesUnusable = "tls_ca_file_unusable"
    /// No connection to the proxy.
    case proxyUnreachable = "proxy_unreachable"
    /// The proxy wants credentials, or others (407).
    case proxyCredentials = "proxy_credentials_refused"
    /// The proxy connects to no such place (403 and the like), or answered nonsense.
    case proxyRefused = "proxy_refused"
    /// `proxy-credentials-command` failed, or printed nothing of use.
    case credentialsCommand = "proxy_credentials_command_failed"
    /// TLS works, and no rendezvous answers behind it.
    case notARendezvous = "tls_not_a_rendezvous"
    /// The rendezvous did not take our proof of who we are.
    case identityRefused = "tls_identity_refused"
    /// A connection that stood has ended.
    case connectionEnded = "tls_connection_ended"
  }

  package var reason: Code
  package var message: String
  package var hint: String?

  package var code: String { reason.rawValue }

  package init(_ reason: Code, _ message: String, hint: String? = nil) {
    self.reason = reason
    self.message = message
    self.hint = hint ?? reason.usualHint
  }
}

extension TransportError: CustomStringConvertible {
  package var description: String { hint.map { "\(message) (\($0))" } ?? message }
}

extension TransportError.Code {
  /// What to do where the place that failed knows nothing better.
  fileprivate var usualHint: String {
    switch self {
    case .tlsUnreachable: "does the rendezvous serve TLS (--tls-certificate)? Is TCP 443 open, or only through a proxy?"
    case .tlsFailed: "is it the TLS port of a rendezvous, and no middlebox in between?"
    case .certificateUntrusted: "tls-ca-file, the package ca-certificates, and this machine's clock"
    case .certificateExpired: "this machine's clock, or whoever runs the rendezvous renews its certificate"
    case .certificateNameMismatch: "rendezvous-tls has to name the host of the certificate"
    case .authoritiesUnusable: "tls-ca-file names a PEM file that the node's user can read"
    case .proxyUnreachable: "check the setting `proxy`, or HTTPS_PROXY"
    case .proxyCredentials: "USER:PASSWORD in the URL of the proxy, or proxy-credentials-command"
    case .proxyRefused: "ask whoever runs the proxy to allow CONNECT to port 443 of the rendezvous"
    case .credentialsCommand: "run proxy-credentials-command by hand as the node's user"
    case .notARendezvous: "rendezvous-tls names a host and port where a rendezvous serves TLS"
    case .identityRefused: "`registry` and `rendezvous-tls` have to be the same rendezvous"
    case .connectionEnded: "nothing: the node connects again by itself"
    }
  }
}
