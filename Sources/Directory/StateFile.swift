// Reading and writing the small files of the state directory so that a crash leaves the old or the new one whole.
// Used by NodeStore and IdentityFile.

import Glibc
import Synchronization

/// A failed system call, with what it was about.
struct StateFileError: Error, Sendable {
  var call: String
  var path: String
  var errno: Int32

  var isMissing: Bool { errno == ENOENT }
  var text: String { "\(call) \(path): \(String(cString: strerror(errno)))" }
}

/// What is on disk, with the permission bits.
struct StateFileContent: Sendable {
  var bytes: [UInt8]
  var mode: UInt32
}

enum StateFile {
  /// Reads a regular file of at most `limit` bytes; symbolic links are not followed.
  static func read(_ path: String, limit: Int) throws(StateFileError) -> StateFileContent {
    let file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
    guard file >= 0 else { throw StateFileError(call: "open", path: path, errno: errno) }
    defer { close(file) }
    var status = stat()
    guard fstat(file, &status) == 0 else { throw StateFileError(call: "stat", path: path, errno: errno) }
    guard status.st_mode & S_IFMT == S_IFREG else { throw StateFileError(call: "open", path: path, errno: EINVAL) }
    guard status.st_size <= limit else { throw StateFileError(call: "read", path: path, errno: EFBIG) }
    var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
    var done = 0
    while done < bytes.count {
      let count = bytes.withUnsafeMutableBytes { Glibc.read(file, $0.baseAddress! + done, $0.count - done) }
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else { throw StateFileError(call: "read", path: path, errno: errno) }
      if count == 0 { break }
      done += count
    }
    return StateFileContent(bytes: Array(bytes.prefix(done)), mode: UInt32(status.st_mode) & 0o7777)
  }

  /// Writes a temporary file (0600) beside `path`, fsyncs it, puts it in place, fsyncs the directory.
  /// - `replaces` false: an existing file stays as it is and the call fails with EEXIST.
  static func write(_ bytes: [UInt8], to path: String, replaces: Bool = true) throws(StateFileError) {
    let temporary = path + ".new"
    // O_NOFOLLOW and the unlink before: what lies there is a leftover of a crash, or not ours to write to.
    unlink(temporary)
    let file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
    guard file >= 0 else { throw StateFileError(call: "open", path: temporary, errno: errno) }
    do throws(StateFileError) {
      var done = 0
      while done < bytes.count {
        let count = bytes.withUnsafeBytes { Glibc.write(file, $0.baseAddress! + done, $0.count - done) }
        if count < 0, errno == EINTR { continue }
        guard count > 0 else { throw StateFileError(call: "write", path: temporary, errno: errno) }
        done += count
      }
      guard fsync(file) == 0 else { throw StateFileError(call: "fsync", path: temporary, errno: errno) }
    } catch {
      close(file)
      unlink(temporary)
      throw error
    }
    close(file)
    let placed = replaces ? rename(temporary, path) : link(temporary, path)
    let reason = errno
    if placed != 0 || !replaces { unlink(temporary) }
    guard placed == 0 else { throw StateFileError(call: replaces ? "rename" : "link", path: path, errno: reason) }
    try syncDirectory(of: path)
  }

  /// Removes what a crash in the middle of `write` left. Only with the lock held.
  static func removeLeftover(of path: String) {
    unlink(path + ".new")
  }

  /// Makes a rename or link durable.
  private static func syncDirectory(of path: String) throws(StateFileError) {
    let directory = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
    let file = open(directory.isEmpty ? "/" : directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard file >= 0 else { throw StateFileError(call: "open", path: directory, errno: errno) }
    defer { close(file) }
    // EINVAL: a file system without directory fsync has nothing to make durable this way.
    guard fsync(file) == 0 || errno == EINVAL else {
      throw StateFileError(call: "fsync", path: directory, errno: errno)
    }
  }

  /// Makes the directory (0700) and its parents (0755) where they are missing.
  static func makeDirectory(_ path: String) throws(StateFileError) {
    var status = stat()
    if stat(path, &status) == 0 {
      guard status.st_mode & S_IFMT == S_IFDIR else {
        throw StateFileError(call: "mkdir", path: path, errno: ENOTDIR)
      }
      return
    }
    let parts = path.split(separator: "/")
    var present = path.hasPrefix("/") ? "" : "."
    for (index, part) in parts.enumerated() {
      present += "/" + part
      if mkdir(present, index == parts.count - 1 ? 0o700 : 0o755) != 0, errno != EEXIST {
        throw StateFileError(call: "mkdir", path: present, errno: errno)
      }
    }
  }

  /// Renames a file that makes no sense to `path.broken-N`; returns the new name, nil when that failed.
  static func moveAside(_ path: String, time: Int64) -> String? {
    let target = "\(path).broken-\(time)"
    return rename(path, target) == 0 ? target : nil
  }
}

/// The lock that keeps two nodes out of one state directory: flock on `lock`, held while this lives. The kernel
/// drops it with the process, so a SIGKILL leaves nothing to clean.
final class StateLock: Sendable {
  private let descriptor: Mutex<Int32?>

  var isHeld: Bool { descriptor.withLock { $0 != nil } }

  func release() {
    descriptor.withLock { descriptor in
      if let file = descriptor { close(file) }
      descriptor = nil
    }
  }

  init(directory: String) throws(DirectoryError) {
    let path = directory + "/lock"
    let file = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
    guard file >= 0 else {
      throw NodeStore.unavailable(StateFileError(call: "open", path: path, errno: errno))
    }
    guard flock(file, LOCK_EX | LOCK_NB) == 0 else {
      let reason = errno
      var text = [UInt8](repeating: 0, count: 32)
      let count = max(0, pread(file, &text, text.count, 0))
      close(file)
      guard reason == EWOULDBLOCK else {
        throw NodeStore.unavailable(StateFileError(call: "flock", path: path, errno: reason))
      }
      let holder = String(decoding: text.prefix(count).prefix { (0x30...0x39).contains($0) }, as: UTF8.self)
      throw DirectoryError(
        .stateDirectoryLocked,
        "another node uses the state directory \(directory)\(holder.isEmpty ? "" : " (process \(holder))")",
        hint: "stop that node, or give this one its own --state-dir")
    }
    let text = Array("\(getpid())\n".utf8)
    if ftruncate(file, 0) == 0 { _ = pwrite(file, text, text.count, 0) }
    descriptor = Mutex(file)
  }

  deinit { release() }
}
