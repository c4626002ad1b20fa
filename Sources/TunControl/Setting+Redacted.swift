// Values of settings as they may be shown. Used by errors, `config show` and bug reports.

import Settings

extension Setting {
  /// The text as it may be shown: `7:TOKEN` without its token.
  package func redacted(_ text: String) -> String {
    guard declaration.isSecret, let colon = text.firstIndex(of: ":") else { return text }
    let rest = text[text.index(after: colon)...]
    return rest.hasPrefix("@") ? text : text[...colon] + "(redacted)"
  }
}
