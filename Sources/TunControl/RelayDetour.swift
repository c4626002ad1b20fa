// Where UDP is blocked: a socket on this machine that the worker takes for the beacon, and a connection by TLS behind it.
// What the worker sends there travels as messages of a WebSocket, and back. Made and driven by Node+Transport.
//
// The worker knows nothing of it: to its loop this is a beacon with another endpoint, with batches, offloads and counters
// as for any other. Neither side waits for the other: what the connection does not take in time is dropped and counted.

import NIOCore
import NIOPosix
import Synchronization
import TLSTransport
import Wire

final class RelayDetour: Sendable {
  /// The beacon, as far as the worker is concerned.
  let endpoint: Endpoint
  private let channel: any Channel
  /// One thread, of the socket and of the connection behind it.
  private let group: MultiThreadedEventLoopGroup
  private let link = Mutex<CompatLink?>(nil)
  private let refusals = Atomic<UInt64>(0)

  /// Datagrams of the worker that the connection had no room for, or that came while there was none, or went down with it.
  var refused: UInt64 { refusals.load(ordering: .relaxed) }

  /// Larger ones never come: frames of the largest interface MTU are below.
  private static let largestDatagram = 10_240
  private static let batch = 32
  private static let bufferSize = 4 << 20

  /// `worker`: where its socket is bound. Only from there does this socket take anything, and only from here does the
  /// worker take it for the beacon's word: the kernel gives the port to nobody else.
  static func open(worker: Endpoint) async throws -> RelayDetour {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    do {
      return try await open(worker: worker, on: group)
    } catch {
      try? await group.shutdownGracefully()
      throw error
    }
  }

  private static func open(worker: Endpoint, on group: MultiThreadedEventLoopGroup) async throws -> RelayDetour {
    var target = worker
    if worker.address.isUnspecified || worker.address.mappedIPv4 == 0 {
      target.address = IPv6Address(mappedIPv4: 0x7F00_0001)
    }
    let channel = try await DatagramBootstrap(group: group)
      .channelOption(ChannelOptions.socketOption(.so_rcvbuf), value: bufferSize)
      .channelOption(ChannelOptions.socketOption(.so_sndbuf), value: bufferSize)
      .channelOption(ChannelOptions.datagramVectorReadMessageCount, value: batch)
      .channelOption(
        ChannelOptions.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: batch * largestDatagram)
      )
      .channelOption(ChannelOptions.autoRead, value: false)
      .connect(to: SocketAddress(ipAddress: target.address.description, port: Int(target.port))).get()
    guard let host = channel.localAddress?.ipAddress.flatMap({ IPv6Address($0) }),
      let port = channel.localAddress?.port.flatMap({ UInt16(exactly: $0) })
    else { throw ChannelError.unknownLocalAddress }
    let detour = RelayDetour(Endpoint(address: host, port: port), channel, group)
    try await channel.pipeline.addHandler(WorkerSide(detour)).get()
    try await channel.setOption(ChannelOptions.autoRead, value: true).get()
    return detour
  }

  private init(_ endpoint: Endpoint, _ channel: any Channel, _ group: MultiThreadedEventLoopGroup) {
    self.endpoint = endpoint
    self.channel = channel
    self.group = group
  }

  /// Nobody opens it again once it is closed, as NIO does after an error of the socket.
  var isOpen: Bool { channel.isActive }

  /// Connects; `use` makes it the one that frames go by.
  func dial(
    _ dialer: TLSDialer, as credentials: CompatLink.Credentials, ended: @escaping @Sendable (TransportError) -> Void
  ) async throws(TransportError) -> CompatLink {
    let channel = channel
    guard let worker = channel.remoteAddress else {
      throw TransportError(.connectionEnded, "the socket towards the tunnel is closed")
    }
    return try await CompatLink.open(
      dialer, as: credentials, on: channel.eventLoop,
      deliver: { channel.write(AddressedEnvelope(remoteAddress: worker, data: $0), promise: nil) },
      flush: { channel.flush() },
      lost: { [weak self] number in _ = self?.refusals.add(UInt64(number), ordering: .relaxed) }, ended: ended)
  }

  /// The connection before, if there is one, is closed.
  func use(_ link: CompatLink) { replace(link) }

  func hangUp() { replace(nil) }

  private func replace(_ new: CompatLink?) {
    let old = link.withLock { link in
      defer { link = new }
      return link
    }
    old?.close()
  }

  fileprivate func send(_ datagram: ByteBuffer) {
    let isTaken = link.withLock { $0 }?.send(datagram) ?? false
    if !isTaken { refusals.add(1, ordering: .relaxed) }
  }

  /// Its thread ends, too. Not to be used after that.
  func close() async {
    hangUp()
    try? await channel.close()
    try? await group.shutdownGracefully()
  }
}

private final class WorkerSide: ChannelInboundHandler, Sendable {
  typealias InboundIn = AddressedEnvelope<ByteBuffer>

  private let detour: RelayDetour

  init(_ detour: RelayDetour) { self.detour = detour }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) { detour.send(unwrapInboundIn(data).data) }

  /// The worker's socket is gone or not there yet: that is for others to notice.
  func errorCaught(context: ChannelHandlerContext, error: any Error) {}
}
