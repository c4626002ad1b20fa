// The way of log lines to stderr: it waits for nobody, whatever stands at the other end. Used by LogDelivery.

import Glibc

/// Writes whole lines to one descriptor. Not for several threads at once.
struct LineWriter: ~Copyable {
  private enum Way {
    /// A file: writing does not wait for a reader.
    case plain
    /// A pipe or terminal, opened once more: whether a write may wait belongs to the open file, and the one that was
    /// inherited is others' as well.
    case reopened
    /// A socket, which is told with each call.
    case socket
    /// What cannot be opened once more, as it is another user's: it is asked before each piece. A pipe that is ready has
    /// room for PIPE_BUF bytes; a stopped terminal is not ready.
    case asked
  }

  private let descriptor: Int32
  private let way: Way
  /// The last line was cut off.
  private var isMidLine = false

  init(_ descriptor: Int32, mayReopen: Bool = true) {
    var status = stat()
    let kind = fstat(descriptor, &status) == 0 ? status.st_mode & S_IFMT : S_IFREG
    switch kind {
    case S_IFSOCK: (self.descriptor, way) = (descriptor, .socket)
    case S_IFIFO, S_IFCHR:
      let flags = O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC
      let other = mayReopen ? open("/proc/self/fd/\(descriptor)", flags) : -1
      (self.descriptor, way) = other >= 0 ? (other, .reopened) : (descriptor, .asked)
    default: (self.descriptor, way) = (descriptor, .plain)
    }
  }

  deinit { if case .reopened = way { close(descriptor) } }

  /// Whether all of the line was taken. After one that was cut off the next begins on a line of its own.
  mutating func write(_ line: String) -> Bool {
    let newline = UInt8(ascii: "\n")
    let bytes = (isMidLine ? [newline] : []) + Array(line.utf8) + [newline]
    var taken = 0
    while taken < bytes.count {
      let count = bytes.withUnsafeBytes { put(UnsafeRawBufferPointer(rebasing: $0[taken...])) }
      guard count > 0 else { break }
      taken += count
    }
    if taken > 0 { isMidLine = bytes[taken - 1] != newline }
    return taken == bytes.count
  }

  /// What was taken of it; 0 or less: nothing.
  private func put(_ bytes: UnsafeRawBufferPointer) -> Int {
    while true {
      let count =
        switch way {
        case .plain, .reopened: Glibc.write(descriptor, bytes.baseAddress, bytes.count)
        case .socket: send(descriptor, bytes.baseAddress, bytes.count, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
        case .asked: isReady ? Glibc.write(descriptor, bytes.baseAddress, min(bytes.count, Int(PIPE_BUF))) : 0
        }
      if count < 0, errno == EINTR { continue }
      return count
    }
  }

  private var isReady: Bool {
    var question = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
    return poll(&question, 1, 0) == 1 && question.revents & Int16(POLLOUT) != 0
  }
}
