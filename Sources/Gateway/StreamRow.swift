// What the gateway tells of its streams, for those who ask the node (`pilotctl connections`).

package import Wire

/// A stream of a local client, or of a service, as `pilotctl connections` shows it. Sizes in bytes, windows included.
package struct StreamRow: Equatable, Sendable {
  package enum State: String, Sendable {
    case synSent = "SYN_SENT"
    case synReceived = "SYN_RECV"
    case established = "ESTABLISHED"
    case finWait = "FIN_WAIT"
    case closeWait = "CLOSE_WAIT"
    case timeWait = "TIME_WAIT"
    case closed = "CLOSED"
  }

  package var id: UInt32
  package var localPort: UInt16
  package var remote: PilotAddress
  package var remotePort: UInt16
  package var state: State
  package var bytesSent: UInt64 = 0
  package var bytesReceived: UInt64 = 0
  package var segmentsSent: UInt64 = 0
  package var segmentsReceived: UInt64 = 0
  package var retransmissions: UInt64 = 0
  package var fastRetransmissions: UInt64 = 0
  package var congestionWindow = 0
  package var slowStartThreshold = 0
  package var inFlight = 0
  /// Free bytes of the peer's receive buffer; nil prints a dash.
  package var peerWindow: Int?
  package var window = 0
  package var roundTripMilliseconds = 0.0
  package var roundTripVariance = 0.0
  package var isInRecovery = false

  package init(id: UInt32, localPort: UInt16, remote: PilotAddress, remotePort: UInt16, state: State) {
    self.id = id
    self.localPort = localPort
    self.remote = remote
    self.remotePort = remotePort
    self.state = state
  }
}

/// What the owner of the streams and of the local socket adds to Info and Health.
package struct LocalStatus: Equatable, Sendable {
  package var streams: [StreamRow]
  /// Bound ports, those of the node's own services included.
  package var ports: Int

  package init(streams: [StreamRow] = [], ports: Int = 0) {
    self.streams = streams
    self.ports = ports
  }

  /// Those that TIME_WAIT keeps are listed and not counted.
  package var open: [StreamRow] { streams.filter { $0.state != .timeWait && $0.state != .closed } }
}
