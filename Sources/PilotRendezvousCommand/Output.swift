// Lines on standard output and standard error. Used by the subcommands.

import Glibc
import JSON

enum Output {
  /// The form of a success with --json.
  static func json(_ data: [String: JSONValue]) -> String {
    String(decoding: JSONValue.object(["status": .text("ok"), "data": .object(data)]).encoded, as: UTF8.self)
  }

  /// At once: who waits for a line reads from a pipe.
  static func write(_ line: String, to descriptor: Int32 = STDOUT_FILENO) {
    var rest = Array((line + "\n").utf8)[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
      if count < 0, errno == EINTR { continue }
      // A reader that left, or a full disk: nobody is there to be told.
      guard count > 0 else { return }
      rest = rest.dropFirst(count)
    }
  }
}
