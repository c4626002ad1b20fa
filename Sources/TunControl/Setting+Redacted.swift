// Values of settings as they may be shown. Used by errors, `config show` and bug reports.

import Settings

extension Setting {
  /// The text as it may be shown: `7:TOKEN` without its token, a proxy without its credentials.
  package func redacted(_ text: String) -> String {
    guard declaration.isSecret else { return text }
    if self == .proxyCredentialsCommand { return "(redacted)" }
    if self == .proxy {
      guard let end = text.lastIndex(of: "@") else { return text }
      return "http://(redacted)" + text[end...]
    }
    guard let colon = text.firstIndex(of: ":") else { return text }
    let rest = text[text.index(after: colon)...]
    return rest.hasPrefix("@") ? text : text[...colon] + "(redacted)"
  }
}
