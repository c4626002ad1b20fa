// What goes into a LocalSocketServer besides bytes, and its bounds (wire/ipc §2, §11).

/// A connection of the socket. Never used again for another one.
package struct ClientID: Hashable, Sendable {
  package var number: UInt64
}

/// A stream as clients know it: the `conn` of the protocol, unique over all clients, counting from 1.
package struct StreamID: Hashable, Sendable {
  package var number: UInt32

  package init(_ number: UInt32) { self.number = number }
}

/// A question that somebody else answers. Never used again for another one.
package struct RequestID: Hashable, Sendable {
  package var number: UInt64
}

/// What a request failed of, as the client is told: one line that is not empty.
package struct LocalError: Error, Equatable, Sendable {
  package var text: String

  package init(_ text: String) { self.text = text }
}

/// Why a dial came to nothing.
package enum LocalDialFailure: Equatable, Sendable {
  /// Nothing listens on the port.
  case refused
  /// Nobody answered.
  case timedOut
  /// The dial was never sent; the text is what the client is told.
  case unreachable(String)
  /// Given up here.
  case canceled

  /// Official clients look for `dial timeout`, and people for the others (wire/ipc §4).
  var text: String {
    switch self {
    case .refused: "connection refused"
    case .timedOut: "dial timeout"
    case .unreachable(let text): text
    case .canceled: "context canceled"
    }
  }
}

/// Bounds, in bytes, frames and nanoseconds. Those that a client can notice are the deployed ones.
package struct LocalSocketLimits: Sendable {
  /// A longer frame ends the connection that it came on.
  package static let framePayload = 1 << 20
  /// Data of one Recv, and the longest JSON reply.
  package static let replyBody = framePayload - 64
  /// Data of one datagram: its packet's length field has 16 bits.
  static let datagramData = 0xFFFF
  static let tags = 3
  /// Longest Handshake/Wait, in milliseconds.
  static let waitMilliseconds: UInt32 = 30_000

  package var clients = 1024
  /// Of one client, those under way included.
  package var streamsPerClient = 4096
  package var streams = 65_536
  /// Requests of one client that are not answered yet.
  package var requestsPerClient = 1024
  /// The queue to one client is full from here: its streams close their windows and it misses datagrams.
  package var queuedFrames = 256
  package var queuedBytes = 1 << 20
  /// No request is read of a client with so many unread replies.
  package var repliesBytes = 4 << 20
  /// Who leaves so much unread is disconnected.
  package var mostQueuedBytes = 64 << 20
  /// A client that takes nothing for so long is disconnected.
  package var stalled: UInt64 = 10_000_000_000
  /// From a dial to `dial timeout`.
  package var dial: UInt64 = 32_000_000_000
  /// The official driver loses a CloseOK that overtakes the program's accept. Seen with 1.18.0; not needed any more
  /// once its listeners hand over streams that ended before.
  package var closeNoticeDelay: UInt64 = 20_000_000

  package init() {}
}

/// Counted losses.
package enum LocalSocketCount: String, Sendable, CaseIterable {
  /// A datagram that a client with a full queue did not get.
  case clientQueueFull = "client-queue-full"
  /// A connection above the limit.
  case clientLimit = "client-limit"
  /// A connection that ended by a frame above the limit.
  case frameTooLong = "client-frame-too-long"
  /// A client that did not read.
  case clientStalled = "client-stalled"
}
