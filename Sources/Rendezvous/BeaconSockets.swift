// The two UDP sockets of a beacon: its own, and the one beside it that answers checks. Bound for RendezvousServer and
// BeaconServer.

import Glibc
import Logging
import NIOCore
import NIOPosix
import Wire

struct BeaconSockets: Sendable {
  let configuration: RendezvousConfiguration
  let logger: Logger

  /// Neither reads before `attach`.
  func bind(on group: any EventLoopGroup) async throws -> (beacon: any Channel, checks: (any Channel)?) {
    let beacon = try await listening("beacon", configuration.beaconListen, logger: logger) {
      try await Self.bind($0, on: group)
    }
    guard let endpoint = Endpoint(beacon.localAddress) else { throw ChannelError.unknownLocalAddress }
    return (beacon, await bindChecks(beside: endpoint, on: group))
  }

  /// Has the sockets answer, by the rules of the authority.
  func attach(
    _ authority: any BeaconAuthority, table: BeaconTable, counters: Counters, to channel: any Channel,
    checks: (any Channel)?
  ) async throws -> Beacon {
    let isIPv6 = channel.localAddress?.protocol == .inet6
    func handler(isForChecks: Bool, otherPort: UInt16) -> Beacon {
      Beacon(
        authority, table: table, limits: configuration.limits, counters: counters, logger: logger, isIPv6: isIPv6,
        isForChecks: isForChecks, otherPort: otherPort)
    }
    let beacon = handler(isForChecks: false, otherPort: Endpoint(checks?.localAddress)?.port ?? 0)
    try await channel.pipeline.addHandler(beacon).get()
    try await channel.setOption(ChannelOptions.autoRead, value: true).get()
    if let checks {
      let other = handler(isForChecks: true, otherPort: Endpoint(channel.localAddress)?.port ?? 0)
      try await checks.pipeline.addHandler(other).get()
      try await checks.setOption(ChannelOptions.autoRead, value: true).get()
    }
    return beacon
  }

  private static func bind(_ endpoint: Endpoint, on group: any EventLoopGroup) async throws -> any Channel {
    try await DatagramBootstrap(group: group)
      .channelOption(ChannelOptions.socketOption(.so_rcvbuf), value: 4 << 20)
      .channelOption(ChannelOptions.socketOption(.so_sndbuf), value: 4 << 20)
      .channelOption(ChannelOptions.datagramVectorReadMessageCount, value: 32)
      .channelOption(ChannelOptions.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 32 * 2048))
      .channelOption(ChannelOptions.autoRead, value: false)
      .bind(to: SocketAddress(endpoint)).get()
  }

  /// The port after the beacon's own. Its answers are never fragmented, so that what arrives tells the path's MTU. It
  /// is only there to be asked about NATs: without it, for somebody else has the port, everything else works.
  private func bindChecks(beside beacon: Endpoint, on group: any EventLoopGroup) async -> (any Channel)? {
    let port = configuration.beaconListen.port
    let wanted = Endpoint(address: beacon.address, port: port == 0 || port == .max ? 0 : port + 1)
    do {
      let channel = try await Self.bind(wanted, on: group)
      for (level, name) in [(IPPROTO_IPV6, IPV6_MTU_DISCOVER), (IPPROTO_IP, IP_MTU_DISCOVER)] {
        let option = ChannelOptions.Types.SocketOption(level: .init(CInt(level)), name: .init(name))
        // A socket of one family refuses the other's option.
        try? await channel.setOption(option, value: Int(IP_PMTUDISC_PROBE)).get()
      }
      return channel
    } catch {
      logger.notice("the beacon answers no checks", metadata: ["port": "\(wanted.port)", "error": "\(error)"])
      return nil
    }
  }
}

/// Binds; `::` gives way to `0.0.0.0` where the kernel has no IPv6.
func listening(
  _ what: String, _ endpoint: Endpoint, logger: Logger, _ bind: (Endpoint) async throws -> any Channel
) async throws -> any Channel {
  do {
    return try await bind(endpoint)
  } catch let error as IOError where error.errnoCode == EAFNOSUPPORT && endpoint.address.isUnspecified {
    let v4 = Endpoint(address: IPv6Address(mappedIPv4: 0), port: endpoint.port)
    logger.notice("no IPv6 in this kernel", metadata: ["listening": "\(v4)"])
    return try await bind(v4)
  } catch let error as IOError {
    throw RendezvousError(
      .cannotListen, "cannot listen on \(endpoint) for the \(what): \(String(cString: strerror(error.errnoCode)))",
      hint: listeningHint(error.errnoCode))
  }
}

private func listeningHint(_ number: CInt) -> String {
  switch number {
  case EADDRINUSE: "another program has this port: stop it or choose another"
  case EACCES, EPERM:
    "ports below 1024 need root or CAP_NET_BIND_SERVICE (docs/rendezvous.md, TLS), or choose a higher one"
  case EADDRNOTAVAIL: "choose an address of this machine"
  default: "choose another address or port"
  }
}
