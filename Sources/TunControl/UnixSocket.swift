// Blocking Unix stream sockets for the command-line side, and the question whether anyone answers at a path.

import Glibc

package enum UnixSocket {
  /// Connects, or returns the negative errno.
  package static func connect(_ path: String) -> Int32 {
    var address = sockaddr_un()
    let bytes = Array(path.utf8)
    guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { return -ENAMETOOLONG }
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { return -errno }
    let result = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard result == 0 else {
      let number = errno
      close(descriptor)
      return -number
    }
    return descriptor
  }

  /// Whether a process listens there. A full backlog or a forbidden socket also means that one does.
  package static func isAnswering(_ path: String) -> Bool {
    let descriptor = connect(path)
    if descriptor >= 0 { close(descriptor) }
    return descriptor >= 0 || descriptor == -EAGAIN || descriptor == -EACCES || descriptor == -EPERM
  }
}
