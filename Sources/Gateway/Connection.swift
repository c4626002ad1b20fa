// One TCP connection of a local program or server that a stream carries: what the gateway knows of it.

import Streams
import Wire

final class Connection {
  enum Phase {
    /// A program's SYN waits until the peer has accepted the stream.
    case dialing
    /// The SYN went on to our listener; the kernel completes the connection.
    case accepting
    /// A peer's stream waits until the local server has accepted.
    case connecting
    case open
  }

  let flow: UInt16
  /// A program here opened it; else a peer did.
  let isOutbound: Bool
  let own: IPv6Address
  let ownPort: UInt16
  let peer: IPv6Address
  let peerPort: UInt16
  var phase: Phase
  var stream: StreamID?
  /// The program's SYN as the TUN gave it.
  var held: [UInt8] = []
  var descriptor: Int32 = -1

  // Edge-triggered: true until the kernel says EAGAIN.
  var canSend = false
  var canReceive = false
  /// Bytes of the stream that the socket has not taken yet.
  var outgoing: [UInt8] = []
  var sent = 0
  /// The local side ended (FIN), and when bytes of the peer last came since.
  var hasLocalEnded = false
  var quietSince: UInt64 = 0
  /// That end was passed on to the stream.
  var isClosing = false
  /// The stream is over: nothing can be written to it, everything of it was read into `outgoing`.
  var isStreamOver = false
  /// We told the local side that nothing more comes.
  var hasEnded = false
  /// When what is waited for has failed, or a quiet half-closed connection ends.
  var deadline: UInt64 = .max
  /// When an ended connection whose program does not read is given up.
  var endsAt: UInt64 = .max
  /// Bytes that its kernel had not acknowledged when it was last looked at.
  var undelivered: Int32 = 0
  /// Our socket's port, towards a local server.
  var socketPort: UInt16 = 0
  var isPending = false

  init(
    flow: UInt16, isOutbound: Bool, own: IPv6Address, ownPort: UInt16, peer: IPv6Address, peerPort: UInt16,
    phase: Phase, stream: StreamID?
  ) {
    self.flow = flow
    self.isOutbound = isOutbound
    self.own = own
    self.ownPort = ownPort
    self.peer = peer
    self.peerPort = peerPort
    self.phase = phase
    self.stream = stream
  }

  struct Tuple: Hashable {
    var own: IPv6Address
    var ownPort: UInt16
    var peer: IPv6Address
    var peerPort: UInt16
  }

  var tuple: Tuple { Tuple(own: own, ownPort: ownPort, peer: peer, peerPort: peerPort) }
}
