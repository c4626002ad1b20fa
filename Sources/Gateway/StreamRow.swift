// What the gateway tells of its streams, for those who ask the node (`pilotctl connections`).

package import Streams
package import Wire

/// A stream of a local client, or of a service, as `pilotctl connections` shows it.
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
  package var statistics: StreamStatistics

  package init(
    id: UInt32, localPort: UInt16, remote: PilotAddress, remotePort: UInt16, state: State,
    statistics: StreamStatistics = StreamStatistics()
  ) {
    self.id = id
    self.localPort = localPort
    self.remote = remote
    self.remotePort = remotePort
    self.state = state
    self.statistics = statistics
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
