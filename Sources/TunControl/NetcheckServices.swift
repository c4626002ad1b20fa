// Which services for port mappings the default gateway answers. Part of `pilot-tun netcheck`; changes nothing there.

import Glibc
import LinkIO
import PortMapping
import Shim
import Wire

extension Netcheck {
  /// nil without a default gateway. Two seconds for UPnP, less for the others, at once.
  static func services() async -> NetcheckReport.Router? {
    guard let network = DefaultGateway.network(except: "") else { return nil }
    async let upnp = RouterMapping.problem(at: network)
    var router = NetcheckReport.Router(gateway: network.server.address)
    router.services = (try? await DedicatedThread.run("pilot-netcheck") { heard(from: network) }) ?? []
    if await upnp == nil { router.services.insert(.upnp) }
    return router
  }

  /// Asks for the server's clock and the external address, thrice at most.
  private static func heard(from network: MappingNetwork) -> Set<MappingProtocol> {
    var services: Set<MappingProtocol> = []
    guard let socket = try? UDPSocket(port: 0, disabled: ["udp-gro"]) else { return [] }
    for _ in 0..<NetcheckMachine.tries {
      for question in [PCPMessage.announceRequest(client: network.local), NATPMPMessage.addressRequest] {
        _ = send(question, to: network.server, fd: socket.fd, family: socket.family)
      }
      let end = Clock.now() + NetcheckMachine.retryGap
      while services.count < 2, Clock.now() < end {
        var descriptor = pollfd(fd: socket.fd, events: Int16(POLLIN), revents: 0)
        if poll(&descriptor, 1, Int32((end - min(end, Clock.now())) / 1_000_000) + 1) > 0 {
          _ = pt_udp_drain_errors(socket.fd)
        }
        for (bytes, from) in receive(socket) where from == network.server {
          if let service = service(answering: bytes) { services.insert(service) }
        }
      }
      if services.count == 2 { break }
    }
    return services
  }

  /// A server answers the other protocol's question with “unsupported version”, in its own.
  static func service(answering bytes: [UInt8]) -> MappingProtocol? {
    if let response = PCPMessage.Response(bytes) {
      return response.result == .unsupportedVersion ? nil : .pcp
    }
    guard let response = NATPMPMessage.Response(bytes), response.answer != .failure(.unsupportedVersion) else {
      return nil
    }
    return .natPMP
  }
}
