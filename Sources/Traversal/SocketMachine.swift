// What pure machines that live on sockets of their own have in common: PortOpener and NATSurvey. TunControl's
// SocketThread and the simulator run them.

package import Wire

package protocol SocketMachine: Sendable {
  associatedtype News: Sendable

  /// When `tick` is due; nil: the machine has ended, and its sockets with it.
  var nextDeadline: UInt64? { get }
  /// Times are monotonic nanoseconds. The first tick starts it.
  mutating func tick(_ now: UInt64) -> [SocketAction<News>]
  mutating func received(_ socket: Int, from: Endpoint, _ bytes: [UInt8], _ now: UInt64) -> [SocketAction<News>]
}

package enum SocketAction<News: Sendable>: Sendable {
  /// By the socket of this number, from 0; one that is not there yet is opened, at any free port.
  case send(Int, [UInt8], to: Endpoint)
  case tell(News)
}
