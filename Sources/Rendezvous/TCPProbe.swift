// Asks the kernel whether the other end of a TCP connection is still there. Used when a node registers from elsewhere
// while it seems to be connected.

import Glibc
import NIOCore

enum TCPProbe {
  /// A dead end is found out in about five seconds; then the connection closes by itself.
  private static let eager: [(name: CInt, value: CInt)] = [
    (TCP_KEEPINTVL, 1), (TCP_KEEPCNT, 4), (TCP_USER_TIMEOUT, 5000), (TCP_KEEPIDLE, 1),
  ]
  /// The kernel's own, as far as it matters.
  private static let usual: [(name: CInt, value: CInt)] = [
    (TCP_KEEPINTVL, 75), (TCP_KEEPCNT, 9), (TCP_USER_TIMEOUT, 0), (TCP_KEEPIDLE, 7200),
  ]

  static func start(on channel: any Channel) {
    set(eager, on: channel)
    // The idle time last, as it starts the timer; and not for ever, as whoever wants to could keep us probing.
    channel.eventLoop.scheduleTask(in: .seconds(15)) { set(usual, on: channel) }
  }

  private static func set(_ options: [(name: CInt, value: CInt)], on channel: any Channel) {
    for (name, value) in options {
      _ = channel.setOption(ChannelOptions.tcpOption(.init(rawValue: name)), value: Int(value))
    }
  }
}
