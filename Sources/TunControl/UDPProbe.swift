// Asks beacons by UDP whether they answer, from a socket of its own: the worker listens to none of them while the node is
// on TLS. Used by Node+Transport.

import Glibc
import LinkIO
import Shim
import Wire

enum UDPProbe {
  private static let tries = 3
  private static let gap: UInt64 = 400_000_000

  /// Within little more than a second. Two answers are wanted: one may be late from before UDP was blocked.
  static func isAnswered(byAnyOf beacons: [Endpoint]) async -> Bool {
    guard !beacons.isEmpty else { return false }
    // Without a thread nothing is known, and the node stays as it is.
    return (try? await DedicatedThread.run("pilot-udp-probe") { asks(beacons) }) ?? false
  }

  private static func asks(_ beacons: [Endpoint]) -> Bool {
    guard let socket = try? UDPSocket(port: 0, disabled: ["udp-gro"]) else { return false }
    let question = BeaconMessage.discover(node: 0, key: nil).encoded()
    var answers = 0
    for _ in 0..<tries {
      for beacon in beacons { _ = Netcheck.send(question, to: beacon, fd: socket.fd, family: socket.family) }
      let end = Clock.now() + gap
      var isAnswered = false
      while !isAnswered, Clock.now() < end {
        var descriptor = pollfd(fd: socket.fd, events: Int16(POLLIN), revents: 0)
        if poll(&descriptor, 1, Int32((end - min(end, Clock.now())) / 1_000_000) + 1) > 0 {
          _ = pt_udp_drain_errors(socket.fd)
        }
        for (bytes, from) in Netcheck.receive(socket) where beacons.contains(from) {
          if case .discoverReply = BeaconMessage(bytes) { isAnswered = true }
        }
      }
      if isAnswered { answers += 1 }
      if answers == 2 { return true }
    }
    return false
  }
}
