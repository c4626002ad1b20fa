// The administrator's token of the registry, for the verbs of official clients that need one (`broadcast`, tags of
// members). It stands in a file of its own, for command lines and environments are seen by others. Read by NodeProgram.

package import Settings

package struct AdminToken: Sendable {
  let text: String

  package init(_ text: String) { self.text = text }

  /// A file with one line, which others may not read.
  package init(path: String, credentials: Credentials = Credentials()) throws(ControlError) {
    do throws(SecretFault) {
      text = try credentials.secret(at: path)
    } catch {
      throw ControlError(
        "admin_token_unusable", "the administrator's token: \(error.message)", hint: error.hint, isUsage: true)
    }
  }

  /// Takes the same time whatever the difference.
  func matches(_ other: [UInt8]) -> Bool {
    let own = Array(text.utf8)
    guard own.count == other.count else { return false }
    var difference: UInt8 = 0
    for (a, b) in zip(own, other) { difference |= a ^ b }
    return difference == 0
  }
}
