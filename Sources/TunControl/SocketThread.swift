// Runs a SocketMachine on UDP sockets of its own, on a thread that ends with the machine. Node+NAT surveys the NAT with
// one, Node+Ports opens ports towards a peer with one.

import Glibc
import LinkIO
import Shim
import Traversal
import Wire

enum SocketThread {
  /// What the machine tells, in order; the stream ends with it, and it with the stream: when nobody reads it any more, the
  /// thread and its sockets go at once. `handsOver`: with which news a socket leaves the machine: whoever reads it owns the
  /// descriptor, -1 with all other news. Errors: `thread_unavailable`.
  static func start<Machine: SocketMachine>(
    _ machine: Machine, name: String, local: IPv6Address,
    handsOver: @escaping @Sendable (Machine.News) -> Int? = { _ in nil }
  ) throws(ControlError) -> AsyncStream<(news: Machine.News, fd: Int32)> {
    let (stream, continuation) = AsyncStream<(news: Machine.News, fd: Int32)>.makeStream()
    let end = EndSignal()
    continuation.onTermination = { _ in end.give() }
    try DedicatedThread.start(name) {
      let body = Body(machine: machine, local: local, end: end)
      body.run { news in
        let fd = handsOver(news).map { body.take($0) } ?? -1
        if case .terminated = continuation.yield((news, fd)), fd >= 0 { close(fd) }
      }
      continuation.finish()
    }
    return stream
  }

  /// Given once; whoever polls the descriptor sees it. Without descriptors (-1) the machine runs to its own end.
  private final class EndSignal: Sendable {
    let descriptor = pt_eventfd()

    deinit { pt_close(descriptor) }
    func give() { pt_eventfd_signal(descriptor) }
  }

  private final class Body<Machine: SocketMachine> {
    private var machine: Machine
    private let local: IPv6Address
    private let end: EndSignal
    /// By the machine's numbers; -1: not open.
    private var sockets: [Int32] = []
    private var family: Int32 = 6
    private var buffer = [UInt8](repeating: 0, count: 2048)

    init(machine: Machine, local: IPv6Address, end: EndSignal) {
      self.end = end
      self.machine = machine
      self.local = local
    }

    deinit { for fd in sockets where fd >= 0 { close(fd) } }

    func take(_ socket: Int) -> Int32 {
      guard sockets.indices.contains(socket) else { return -1 }
      defer { sockets[socket] = -1 }
      return sockets[socket]
    }

    func run(_ tell: (Machine.News) -> Void) {
      while let deadline = machine.nextDeadline {
        let now = Clock.now()
        if now >= deadline { perform(machine.tick(now), tell) }
        guard let next = machine.nextDeadline else { return }
        let wait = next > Clock.now() ? Int32(clamping: (next - Clock.now()) / 1_000_000 + 1) : 0
        var polled = (sockets + [end.descriptor]).map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        guard poll(&polled, nfds_t(polled.count), wait) > 0 else { continue }
        if polled[sockets.count].revents != 0 { return }
        for index in sockets.indices where polled[index].revents != 0 { read(index, tell) }
      }
    }

    private func perform(_ actions: [SocketAction<Machine.News>], _ tell: (Machine.News) -> Void) {
      for action in actions {
        switch action {
        case .send(let socket, let bytes, let target):
          // Without descriptors or a route it is as if the datagram had been lost.
          let fd = descriptor(socket)
          if fd >= 0 { _ = Netcheck.send(bytes, to: target, fd: fd, family: family) }
        case .tell(let news): tell(news)
        }
      }
    }

    private func descriptor(_ socket: Int) -> Int32 {
      while sockets.count <= socket { sockets.append(-1) }
      if sockets[socket] < 0 {
        var raw = pt_endpoint(Endpoint(address: local, port: 0))
        sockets[socket] = pt_udp_open(&raw, &family)
      }
      return sockets[socket]
    }

    /// A flood must not keep us here.
    private func read(_ socket: Int, _ tell: (Machine.News) -> Void) {
      for _ in 0..<16 where sockets[socket] >= 0 {
        let got = buffer.withUnsafeMutableBytes { buffer -> (count: Int, from: Endpoint)? in
          var message = pt_receive()
          message.data = buffer.baseAddress
          message.capacity = UInt32(buffer.count)
          guard pt_udp_receive(sockets[socket], &message, 1) == 1 else { return nil }
          return (Int(message.length), Endpoint(message.from))
        }
        guard let got else { return }
        perform(machine.received(socket, from: got.from, Array(buffer.prefix(got.count)), Clock.now()), tell)
      }
    }
  }
}
