// The administrator's token of the registry, for the verbs of official clients that need one (`broadcast`, tags of
// members). It stands in a file of its own, for command lines and environments are seen by others. Read by NodeProgram.

import Glibc

package struct AdminToken: Sendable {
  let text: String

  package init(_ text: String) { self.text = text }

  /// The file's first line. A file that others may read is refused.
  package init(path: String) throws(ControlError) {
    func unusable(_ reason: String, _ hint: String) -> ControlError {
      ControlError(
        "admin_token_unusable", "the administrator's token in \(path) cannot be used: \(reason)", hint: hint,
        isUsage: true)
    }
    let content: [UInt8]
    do {
      content = try SmallFile.read(path, limit: 4096)
    } catch {
      throw unusable(error.reason, "write the token into the file, readable by the node's user only")
    }
    var information = stat()
    guard stat(path, &information) == 0, information.st_mode & 0o077 == 0 else {
      throw unusable("other users may read it", "chmod 600 \(path)")
    }
    let text = String(trimming: String(decoding: content, as: UTF8.self))
    guard !text.isEmpty, !text.contains(where: \.isNewline) else {
      throw unusable("it is not one line", "the file holds the token and nothing else")
    }
    self.text = text
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
