// Which services for port mappings and pinholes the default gateways answer. Part of `pilot-tun netcheck`; changes
// nothing there.

import Glibc
import LinkIO
import PortMapping
import Shim
import Wire

extension Netcheck {
  /// nil without a default gateway. Two seconds for UPnP, less for the others, at once. By IPv6 there is PCP only.
  static func services(_ family: MappingFamily) async -> NetcheckReport.Router? {
    guard let network = DefaultGateway.network(family, except: "") else { return nil }
    async let upnp = RouterMapping.problem(at: network)
    var router = NetcheckReport.Router(gateway: network.server.address)
    router.services = (try? await DedicatedThread.run("pilot-netcheck") { heard(from: network) }) ?? []
    if await upnp == nil { router.services.insert(.upnp) }
    return router
  }

  /// Asks for the server's clock and the external address, thrice at most.
  private static func heard(from network: MappingNetwork) -> Set<MappingProtocol> {
    var services: Set<MappingProtocol> = []
    // From the address that is to be let in: towards a link-local gateway the kernel would take another.
    let own = network.local.mappedIPv4 == nil ? network.local : IPv6Address(high: 0, low: 0)
    guard let socket = try? UDPSocket(local: Endpoint(address: own, port: 0), disabled: ["udp-gro"]) else { return [] }
    var questions = [PCPMessage.announceRequest(client: network.local)]
    if network.local.mappedIPv4 != nil { questions.append(NATPMPMessage.addressRequest) }
    for _ in 0..<NetcheckMachine.tries {
      for question in questions {
        _ = send(question, to: network.server, scope: network.scope, fd: socket.fd, family: socket.family)
      }
      let end = Clock.now() + NetcheckMachine.retryGap
      while services.count < questions.count, Clock.now() < end {
        var descriptor = pollfd(fd: socket.fd, events: Int16(POLLIN), revents: 0)
        if poll(&descriptor, 1, Int32((end - min(end, Clock.now())) / 1_000_000) + 1) > 0 {
          _ = pt_udp_drain_errors(socket.fd)
        }
        for (bytes, from) in receive(socket) where from == network.server {
          if let service = service(answering: bytes) { services.insert(service) }
        }
      }
      if services.count == questions.count { break }
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
