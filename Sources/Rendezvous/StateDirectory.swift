// The directory with the rendezvous' database, made when missing and held by one process. Used by RendezvousServer.

import Glibc

/// Holds the lock until it is released or the process ends, however it ends.
struct StateDirectory: Sendable {
  let path: String
  private let descriptor: Int32

  init(_ path: String) throws(RendezvousError) {
    self.path = path
    var information = stat()
    if stat(path, &information) != 0 {
      var prefix = ""
      for part in path.split(separator: "/") {
        prefix += (prefix.isEmpty && !path.hasPrefix("/") ? "" : "/") + part
        guard mkdir(prefix, 0o700) == 0 || errno == EEXIST else {
          throw RendezvousError(
            .stateUnusable, "cannot make the state directory \(path): \(String(cString: strerror(errno)))",
            hint: "choose another with --state-dir, or run as the user that owns it")
        }
      }
    }
    let lock = path + "/rendezvous.lock"
    descriptor = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else {
      throw RendezvousError(
        .stateUnusable, "cannot open \(lock): \(String(cString: strerror(errno)))",
        hint: "choose another directory with --state-dir, or run as the user that owns it")
    }
    guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
      Glibc.close(descriptor)
      throw RendezvousError(
        .stateInUse, "another rendezvous works on \(path)", hint: "stop it, or give this one another --state-dir")
    }
  }

  func release() { _ = Glibc.close(descriptor) }
}
