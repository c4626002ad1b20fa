// What a LocalSocketServer wants done, and what it keeps of each client and stream.

package import Wire

extension LocalSocketServer {
  /// Carried out in order by whoever owns the socket and the streams.
  package enum Action: Equatable, Sendable {
    /// Answered with `opened` or `failed`.
    case dial(StreamID, PilotAddress, port: UInt16)
    /// Nobody waits for this dial any more; what is said about it later is ignored.
    case cancelDial(StreamID)
    /// At most as many bytes as the stream has room for.
    case send(StreamID, [UInt8])
    /// A full close behind everything that was sent. The stream is forgotten here.
    case close(StreamID)
    /// The port is taken, or free again: streams that come to it are announced with `arrived`.
    case bind(port: UInt16)
    case unbind(port: UInt16)
    /// With a request: answered once the datagram is handed to the tunnel, or not.
    case sendDatagram(PilotAddress, port: UInt16, [UInt8], confirm: RequestID?)
    case ask(RequestID, LocalQuery)
    /// The queue of this client has room again: its streams may be read (`wantsData`).
    case resume(ClientID)
    /// Close the connection. The client is forgotten for all that concerns its socket.
    case disconnect(ClientID)
  }

  struct Client: Sendable {
    enum Phase: Sendable {
      case open
      /// No more requests come; what was asked is still answered.
      case finishing
      /// The connection is closed. What came before it did is still carried out.
      case gone
    }

    /// A Send that waits for room in its stream; nothing behind it is carried out.
    struct BlockedSend: Sendable {
      var stream: StreamID
      var data: ArraySlice<UInt8>
    }

    var phase = Phase.open
    /// What is queued for it is thrown away.
    var isDeaf = false
    var reader = FrameReader()
    var output = OutputQueue()
    var blocked: BlockedSend?
    /// Under way, open, and those that only wait for the rest of a blocked Send.
    var streams: Set<StreamID> = []
    var ports: Set<UInt16> = []
    /// Requests without an answer, dials included.
    var unanswered = 0
    /// Those that are answered in order, and the answers that came ahead of others.
    var ordered: [RequestID] = []
    var early: [RequestID: [UInt8]] = [:]
    /// Everything that came is carried out, its streams are closed, its ports are free.
    var isReleased = false
    /// When bytes were last taken, or the queue began to count.
    var lastWritten: UInt64 = 0
  }

  struct Stream: Sendable {
    enum Phase: Equatable, Sendable {
      case dialing
      case open(since: UInt64)
      /// Another client closed it: what its owner sent before is still taken.
      case draining
    }

    var client: ClientID
    var phase: Phase
    /// What it takes, less what it was sent.
    var room = 0
    /// Sent by actions that were not taken yet: an announcement of room does not know of them.
    var untaken = 0
  }

  struct Request: Sendable {
    var client: ClientID
    var command: LocalCommand
  }

  /// A CloseOK that waits so as not to come too soon behind the stream's beginning.
  struct CloseNotice: Sendable {
    var client: ClientID
    var due: UInt64
  }
}
