// Bytes between a stream and its socket, both ways, each as far as the other side takes them.
//
// Streams have no half-close: a FIN ends both directions, and what the peer still had to say is lost (wire/tunnel §5.6).
// So the end of a local side is passed on at once only where the peer can have nothing more to say that matters: from a
// server. A client that ended (`nc -N`, `ssh` at logout, HTTP/1.0) gets its answer first: its end is passed on when the
// peer has been quiet for 2 s.

import Shim
import Streams

extension GatewayLoop {
  static let quietLasts = 2 * second
  /// How long a local side may go on sending after its peer has ended; what it sends is thrown away.
  static let drainLasts = 30 * second
  static let undeliveredLasts = 600 * second

  func pump(_ connection: Connection) {
    guard connection.phase == .open, connection.descriptor >= 0 else { return }
    if let stream = connection.stream { streams.look(stream) }
    guard toSocket(connection), toStream(connection) else {
      // The program aborted: so does the stream.
      return endConnection(connection, isAborted: true)
    }
    finish(connection)
  }

  /// False when the socket failed.
  private func toSocket(_ connection: Connection) -> Bool {
    while connection.canSend {
      if connection.sent == connection.outgoing.count {
        connection.outgoing = []
        connection.sent = 0
        guard let stream = connection.stream else { break }
        connection.outgoing = streams.read(stream, Self.bufferSize, now: now)
        guard !connection.outgoing.isEmpty else { break }
        connection.quietSince = now
      }
      let result = connection.outgoing.withUnsafeBytes { bytes in
        pt_socket_send(connection.descriptor, bytes.baseAddress! + connection.sent, bytes.count - connection.sent)
      }
      if result == -11 {
        connection.canSend = false
      } else if result < 0 {
        return false
      } else {
        connection.sent += Int(result)
      }
    }
    return true
  }

  private func toStream(_ connection: Connection) -> Bool {
    while connection.canReceive, !connection.hasLocalEnded {
      let room = connection.stream.map { streams.writable($0) } ?? 0
      // With the peer's end said, whatever comes is thrown away.
      let isDiscarding = connection.hasEnded
      guard room > 0 || isDiscarding else { break }
      let limit = isDiscarding ? Self.bufferSize : min(room, Self.bufferSize)
      let result = pt_socket_receive(connection.descriptor, buffer, limit)
      if result == -11 {
        connection.canReceive = false
      } else if result < 0 {
        return false
      } else if result == 0 {
        connection.hasLocalEnded = true
        connection.quietSince = now
      } else if let stream = connection.stream, !isDiscarding {
        _ = streams.write(stream, UnsafeRawBufferPointer(start: buffer, count: Int(result)), now: now)
      }
    }
    return true
  }

  /// Passes ends on.
  private func finish(_ connection: Connection) {
    let isDelivered = connection.sent == connection.outgoing.count
    if !connection.hasEnded, isDelivered, hasPeerEnded(connection) {
      connection.hasEnded = true
      _ = pt_socket_end(connection.descriptor)
      connection.deadline = now + Self.drainLasts
      // What the program had sent before is of no use any more: it is read so that the end can come.
      guard toStream(connection) else { return endConnection(connection, isAborted: true) }
    }
    guard connection.hasLocalEnded else { return }
    if connection.hasEnded { return endDelivered(connection) }
    guard let stream = connection.stream, !connection.isClosing else { return }
    if !connection.isOutbound {
      connection.isClosing = true
      streams.close(stream, now: now)
    } else if connection.deadline == .max {
      connection.deadline = now + Self.quietLasts
    }
  }

  /// Both sides have said all they had to, or the program goes on talking to nobody: the end, once the program's kernel
  /// has every byte. A program that does not read for 10 minutes loses them.
  private func endDelivered(_ connection: Connection) {
    let left = pt_socket_unacknowledged(connection.descriptor)
    if connection.endsAt == .max || left < connection.undelivered { connection.endsAt = now + Self.undeliveredLasts }
    connection.undelivered = left
    guard left > 0, now < connection.endsAt else {
      return endConnection(connection, isAborted: !connection.hasLocalEnded)
    }
    connection.deadline = now + Self.second
  }

  private func hasPeerEnded(_ connection: Connection) -> Bool {
    guard let stream = connection.stream else { return connection.isStreamOver }
    return streams.hasRemoteEnded(stream) && streams.readable(stream) == 0
  }

  /// A deadline of an open connection: the peer has been quiet after the program ended, or the program goes on sending
  /// after the peer ended.
  func expireOpen(_ connection: Connection) {
    guard !connection.hasEnded else { return endDelivered(connection) }
    guard connection.hasLocalEnded, let stream = connection.stream, !connection.isClosing else { return }
    // The peer can answer only what it has, and the program take only what it reads.
    if !streams.isFlushed(stream) || connection.sent < connection.outgoing.count { connection.quietSince = now }
    guard now >= connection.quietSince + Self.quietLasts else {
      connection.deadline = max(now + Self.quietLasts / 4, connection.quietSince + Self.quietLasts)
      return
    }
    connection.isClosing = true
    streams.close(stream, now: now)
  }
}
