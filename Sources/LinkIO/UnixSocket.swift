// Unix stream sockets as a client, and the question whether anyone answers at a path. Used by control, by the command
// lines and by the gateway before it takes a path.

import Shim

package enum UnixSocket {
  /// A blocking socket that is connected, or the negative errno.
  package static func connect(_ path: String) -> Int32 { pt_unix_connect(path, 0) }

  /// Whether a process listens there; never blocks. A full backlog or a forbidden socket also means that one does.
  package static func isAnswering(_ path: String) -> Bool {
    let descriptor = pt_unix_connect(path, 1)
    if descriptor >= 0 { pt_close(descriptor) }
    return descriptor >= 0
      || [ErrorNumber.tryAgain, ErrorNumber.accessDenied, ErrorNumber.notPermitted].contains(-descriptor)
  }
}
