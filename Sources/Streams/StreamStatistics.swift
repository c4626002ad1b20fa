// What one stream has done and how it stands, for those who look into it (`pilotctl connections`). Taken by the owner of
// the table on its own thread.

/// Since the stream began, and now. Bytes are users' bytes, segments those that carry some, as official daemons count.
package struct StreamStatistics: Equatable, Sendable {
  package var bytesSent: UInt64 = 0
  package var bytesReceived: UInt64 = 0
  package var segmentsSent: UInt64 = 0
  package var segmentsReceived: UInt64 = 0
  package var retransmissions: UInt64 = 0
  /// Of them those that later arrivals asked for, not a timer.
  package var fastRetransmissions: UInt64 = 0
  package var selectiveSent: UInt64 = 0
  package var selectiveReceived: UInt64 = 0
  /// Acknowledgements without news while something was in flight.
  package var duplicateAcknowledgements: UInt64 = 0

  // Now, in bytes.
  package var congestionWindow = 0
  /// 0 before the first congestion.
  package var slowStartThreshold = 0
  package var inFlight = 0
  package var unacknowledgedSegments = 0
  /// Segments that wait behind a gap.
  package var earlySegments = 0
  /// What the peer takes beyond what is in flight.
  package var peerWindow = 0
  package var window = 0
  /// Nanoseconds; 0 before the first measurement.
  package var roundTrip: UInt64 = 0
  package var roundTripVariation: UInt64 = 0
  /// Lost segments wait to be sent again.
  package var isRecovering = false

  package init() {}
}
