// What the gateway keeps of official clients on this machine: the machine of their protocol, their sockets, the streams
// behind their numbers.

import LocalSocket
import Streams
import Wire

final class LocalSide {
  /// Echo and trust messages are the node's own.
  static let reservedPorts: Set<UInt16> = [PilotPort.echo, PilotPort.handshake]
  /// How long a dial waits for a session with the peer (wire/tunnel §3.7).
  static let sessionWithin: UInt64 = 10_000_000_000
  /// Datagrams that wait for a session, of all clients: a broadcast may go to many, and they hold memory.
  static let mostWaiting = 4096
  static let mostWaitingBytes = 16 << 20

  struct Client {
    var descriptor: Int32
    // Edge-triggered: true until the kernel says EAGAIN.
    var canRead = true
    var canWrite = true
    /// End of file or a read error came.
    var isAtEnd = false
  }

  struct Dial {
    var to: PilotAddress
    var port: UInt16
    var deadline: UInt64
  }

  struct Datagram {
    var to: PilotAddress
    var packet: PilotPacket
    var confirm: RequestID?
    var deadline: UInt64
  }

  let path: String
  /// Device and inode of the socket file, so that only our own is removed.
  let identity: (UInt64, UInt64)
  let listener: Int32
  var server = LocalSocketServer(reservedPorts: reservedPorts)
  var clients: [ClientID: Client] = [:]
  /// By the low half of the client's number, which is in its epoll tag.
  var clientsByTag: [UInt32: ClientID] = [:]
  /// Streams by the numbers that clients know; dials that wait for a session have none yet.
  var streams: [UInt32: Streams.StreamID] = [:]
  var dials: [UInt32: Dial] = [:]
  var datagrams: [Datagram] = []
  var waitingBytes: Int { datagrams.reduce(0) { $0 + $1.packet.payload.count } }
  var nextPort = PilotPort.firstEphemeral
  /// Clients to read from and write to in this turn.
  var busy: Set<ClientID> = []

  init(path: String, listener: Int32, identity: (UInt64, UInt64)) {
    self.path = path
    self.listener = listener
    self.identity = identity
  }
}
