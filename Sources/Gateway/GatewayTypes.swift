// What control tells the gateway and what the gateway tells control.

package import Engine
package import LocalSocket
package import Services
package import Wire

package enum GatewayCommand: Sendable {
  /// The node's own addresses, one per network; the first is the backbone's.
  case setLocal([PilotAddress])
  /// A peer has a row. Told before the worker learns of it, so that no segment comes earlier.
  case peer(PeerIndex, node: UInt32, isAdmitted: Bool)
  /// Whether the peer may open streams to every port.
  case setAdmitted(node: UInt32, Bool)
  /// The path to the peer takes packets of this many bytes; 0 or less: not known, full segments.
  case setPathLimit(node: UInt32, Int)
  /// Frames can be sealed for the peer from now on: dials that waited for it begin.
  case ready(node: UInt32)
  /// The peer's session is gone: dials wait again.
  case lost(node: UInt32)
  /// No way to the peer: dials that waited for it fail.
  case unreachable(node: UInt32)
  /// The peer's streams end at once: its trust was withdrawn.
  case forget(node: UInt32)
  /// The peer's row is gone.
  case gone(node: UInt32)
  /// Writes the bytes to a stream of the peer's port, in one segment, and closes it 0.5 s after they arrived.
  case message(PilotAddress, port: UInt16, [UInt8], done: @Sendable (Bool) -> Void)
  /// One datagram to each of these, as from a local client; it is not told who could not be reached.
  case datagrams(from: PilotAddress, to: [PilotAddress], port: UInt16, [UInt8])
  /// Serves official clients (pilotctl, SDK) on a Unix socket at this path.
  case serveLocal(path: String)
  /// The node's answer to a question of a local client.
  case answer(RequestID, Result<[UInt8], LocalError>)
  /// What became of a job for the inbox.
  case kept(job: UInt64, ExchangeResult)
  /// Ends all streams and connections, and the thread.
  case stop
}

/// What the gateway asks while it works. Called on its thread: must not block.
package struct GatewayHooks: Sendable {
  /// Nanoseconds since 1970.
  package var wall: @Sendable () -> UInt64
  /// Whether a node that is not admitted may bring a trust message.
  package var takesTrustMessages: @Sendable (UInt32) -> Bool
  /// Keeps what peers send to port 1001; nil: the node has no services for official clients.
  package var keep: (@Sendable (InboxJob) -> Void)?

  package init(
    wall: @escaping @Sendable () -> UInt64, takesTrustMessages: @escaping @Sendable (UInt32) -> Bool,
    keep: (@Sendable (InboxJob) -> Void)? = nil
  ) {
    self.wall = wall
    self.takesTrustMessages = takesTrustMessages
    self.keep = keep
  }
}

/// For whoever keeps messages and files.
package enum InboxJob: Sendable {
  /// Answered with `kept`. `stream`: file streams belong to the stream that began them.
  case keep(ExchangeRequest, job: UInt64, stream: UInt64, from: PilotAddress)
  /// The stream is gone, and its unfinished files with it.
  case ended(stream: UInt64)
}

package enum GatewayEvent: Sendable {
  /// A dial waits for a session with this peer.
  case wanted(PilotAddress)
  /// The first segment of a stream that a peer opened to the handshake port.
  case handshakeMessage([UInt8], from: UInt32)
  /// A local client asks; to be answered in any order, with what there is of streams now.
  case ask(RequestID, LocalQuery, LocalStatus)
  /// The local socket cannot be served.
  case localSocketFailed(GatewayError)
}

/// Counted refusals, as `status` shows them.
package enum GatewayCount: String, Sendable, CaseIterable {
  case segmentMalformed = "stream-segment-malformed"
  case segmentSpoofed = "stream-segment-spoofed"
  case wrongDestination = "stream-wrong-destination"
  case openingMalformed = "stream-opening-malformed"
  case connectionLimit = "stream-connection-limit"
  case connectionUnclaimed = "stream-connection-unclaimed"
  case connectFailed = "stream-connect-failed"
  case commandQueueFull = "stream-command-queue-full"
  case clientForeign = "client-of-another-user"
  case datagramUndeliverable = "client-datagram-undeliverable"
  case nodeBehind = "stream-event-queue-full"
  case exchangeMalformed = "stream-exchange-malformed"
  case exchangeMemory = "stream-exchange-memory"
}

/// Why the gateway could not start.
package struct GatewayError: ExplainedError {
  package let code: String
  package let message: String
  package let hint: String?

  package init(code: String, message: String, hint: String?) {
    self.code = code
    self.message = message
    self.hint = hint
  }
}
