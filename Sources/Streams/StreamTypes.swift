// What goes into a StreamMachine and what comes out: segments, ends, times.

package import Wire

/// One segment of a stream, without its addresses and ports (wire/tunnel §5).
package struct StreamSegment: Equatable, Sendable {
  package var flags: PilotFlags
  package var sequence: UInt32
  package var acknowledgement: UInt32
  /// Free segments of the sender's receive buffer, 1152 bytes each.
  package var window: UInt16
  package var payload: [UInt8]

  package init(
    flags: PilotFlags, sequence: UInt32, acknowledgement: UInt32 = 0, window: UInt16 = 0, payload: [UInt8] = []
  ) {
    self.flags = flags
    self.sequence = sequence
    self.acknowledgement = acknowledgement
    self.window = window
    self.payload = payload
  }
}

/// Why a stream is over.
package enum StreamEnd: String, Sendable {
  /// Both sides are done.
  case finished
  /// RST in answer to our SYN: nothing listens there.
  case refused
  /// RST later, or `abort()` here.
  case reset
  /// Nobody answered the SYN.
  case unanswered
  /// A segment was sent as often as allowed, or probes of a silent peer came back with nothing.
  case timedOut
}

/// Sizes and times of streams, in bytes and nanoseconds; those of the deployed daemons where they meet ours
/// (wire/tunnel §5, §13).
package enum StreamLimits {
  static let millisecond: UInt64 = 1_000_000
  static let second: UInt64 = 1_000_000_000
  /// Payload of a full segment, and the unit of the window.
  package static let segmentSize = 1152
  /// As small as paths make a full segment.
  static let leastSegmentSize = 256
  /// Segments of the receive buffer.
  package static let windowSegments = 512
  package static let receiveBuffer = windowSegments * segmentSize
  /// Segments kept ahead of a gap; official daemons keep as many.
  package static let earlySegments = 128
  /// Segments in flight: what a receiver with a gap can keep, and the segment that is missing. More, up to the window, on
  /// a way that loses nothing: a quarter of what arrived since the last loss.
  static let flightSegments = earlySegments + 1
  static let cleanFlightShare = 4
  /// Bytes that `write` takes ahead of what is in flight.
  package static let sendBuffer = 512 * 1024
  /// When the SYN is sent again, and when a dial has failed.
  static let synTimes = [0, 250, 750, 1750, 3250].map { $0 * millisecond }
  static let dialLasts = 4750 * millisecond
  static let firstTimeout = second
  static let leastTimeout = 200 * millisecond
  static let mostTimeout = 10 * second
  /// Transmissions of one segment.
  static let transmissions = 8
  static let delayedAck = 5 * millisecond
  /// Segments that are acknowledged at once when a stream begins, and after a pause.
  static let quickAcks = 32
  static let pause = 500 * millisecond
  /// How long a short segment waits for more behind an unacknowledged short one.
  static let shortWait = 40 * millisecond
  /// Segments that try a closed window: the first soon, then at twice the distance up to the longest timeout.
  static let probeFirst = 20 * millisecond
  static let probes = 40
  static let keepaliveAfter = 60 * second
  static let keepaliveGap = 15 * second
  static let keepalives = 3
  static let keepaliveLasts = 120 * second
  /// Longer than anybody repeats a SYN: one that comes later on a stream opens another (its dialer started anew).
  static let synLasts = 20 * second
  /// An empty acknowledgement may be a question. It is answered when we said nothing for this long (with our window all
  /// but closed, for the shorter time), and not when it answers a question of ours: so two ends never go on answering
  /// each other's answers while a round trip is shorter.
  static let answerGap = 10 * second
  static let closedAnswerGap = second
  static let lingers = 10 * second
  /// How long a FIN waits for the data before it.
  static let finWaits = 15 * second
}

/// The earlier of two times, if any.
func earliest(_ a: UInt64?, _ b: UInt64?) -> UInt64? {
  guard let a else { return b }
  return b.map { min(a, $0) } ?? a
}

extension UInt32 {
  /// Modulo 2^32, as sequence numbers compare.
  func isBefore(_ other: UInt32) -> Bool { Int32(bitPattern: self &- other) < 0 }
  func isAfter(_ other: UInt32) -> Bool { Int32(bitPattern: self &- other) > 0 }
}
