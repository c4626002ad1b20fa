// The command-line side of the control socket. Blocking; one request per connection.

import Glibc
package import JSON
import LinkIO

package struct ControlClient {
  package let path: String
  /// A reply with a hundred thousand peers fits.
  static let replyLimit = 64 << 20
  private static let connectionHint = "the node may be ending, or be too busy: try again, and look at its log"

  package init(path: String) { self.path = path }

  /// Sends the request and returns the final answer. `onPart` sees the parts of a streamed one.
  /// `timeout` in seconds is the longest silence between two lines.
  package func call(
    _ request: ControlRequest, timeout: Int = 15, onPart: (JSONValue) -> Void = { _ in }
  ) throws(ControlError) -> JSONValue {
    let descriptor = try connect()
    defer { close(descriptor) }
    var limit = timeval(tv_sec: timeout, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    try write(request.encoded, to: descriptor)
    var pending: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 64 * 1024)
    while true {
      if let end = pending.firstIndex(of: UInt8(ascii: "\n")) {
        let line = Array(pending[..<end])
        pending.removeFirst(end + 1)
        switch try ControlReply(parsing: line) {
        case .part(let data): onPart(data)
        case .done(let data): return data
        case .failed(let error): throw error
        }
        continue
      }
      guard pending.count < Self.replyLimit else {
        throw ControlError(
          "invalid_reply", "the node's answer is longer than \(Self.replyLimit >> 20) MB",
          hint: "does a pilot-tun node serve \(path)? Restart it with the version of this tool")
      }
      let count = read(descriptor, &chunk, chunk.count)
      if count > 0 {
        pending += chunk[..<count]
      } else if count == 0 {
        throw ControlError(
          "connection_failed", "the node closed the control connection without an answer",
          hint: "it may be stopping; look at its log")
      } else if errno == EAGAIN {
        throw ControlError("timeout", "the node did not answer within \(timeout) s", hint: "look at its log")
      } else if errno != EINTR {
        throw ControlError("connection_failed", "reading from \(path): \(errorText(errno))", hint: Self.connectionHint)
      }
    }
  }

  private func connect() throws(ControlError) -> Int32 {
    let descriptor = UnixSocket.connect(path)
    if descriptor >= 0 { return descriptor }
    switch -descriptor {
    case ENOENT, ECONNREFUSED, ENOTDIR:
      throw ControlError(
        "not_running", "no node answers on \(path)",
        hint: "start one with `pilot-tun up`, or name its socket with --control-socket or PILOT_TUN_CONTROL_SOCKET")
    case EACCES, EPERM:
      throw ControlError(
        "permission_denied", "this user may not use \(path)",
        hint: "run it as root or as the node's user, or join the group pilot-tun (usermod -aG pilot-tun USER)")
    default:
      throw ControlError(
        "connection_failed", "connecting to \(path): \(errorText(-descriptor))", hint: Self.connectionHint)
    }
  }

  private func write(_ bytes: [UInt8], to descriptor: Int32) throws(ControlError) {
    var rest = bytes[...]
    while !rest.isEmpty {
      // MSG_NOSIGNAL: a node that goes away must not end this process by SIGPIPE.
      let count = rest.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
      if count < 0, errno == EINTR { continue }
      guard count > 0 else {
        throw ControlError(
          "connection_failed", "writing to \(path): \(errorText(errno))", hint: Self.connectionHint)
      }
      rest = rest.dropFirst(count)
    }
  }

  /// Waits until nothing answers on the socket any more: the node has taken its interface away.
  package func waitUntilGone(seconds: Int = 15) throws(ControlError) {
    for _ in 0..<(seconds * 20) {
      if !SmallFile.exists(path) || !UnixSocket.isAnswering(path) { return }
      usleep(50_000)
    }
    throw ControlError("timeout", "the node still runs after \(seconds) s", hint: "look at its log")
  }
}
