// Hosts, the networks they are on, and the routers between: what VirtualNetwork+Routing carries datagrams through.
//
//     core (public) -- router (carrier NAT) -- segment -- router (home NAT) -- segment (LAN) -- hosts
//
// Every segment but the core has one router as its way out. Private addresses repeat from LAN to LAN, as they do.

package import Wire

/// One cable: of a host, or of a router towards the outside.
package struct LinkConditions: Sendable {
  package var isUp = true
  package var passesUDP = true
  /// Added in each direction.
  package var latency: UInt64 = 0
  package var loss = 0.0
  /// IP packets; bigger ones vanish, or are refused to the sender.
  package var mtu = 1500
  package var refusesTooBig = false
  package init() {}
}

/// Who reads a host's socket.
package protocol VirtualSocket: AnyObject {
  func receive(_ payload: VirtualPayload, from source: Endpoint)
  /// The same at another port than the host's own.
  func receive(_ payload: VirtualPayload, from source: Endpoint, at port: UInt16)
  /// The kernel, or ICMP, refused a datagram; `mtu` when it was too big.
  func refused(to destination: Endpoint, mtu: Int?)
}

extension VirtualSocket {
  package func receive(_ payload: VirtualPayload, from source: Endpoint, at port: UInt16) {}
}

package final class VirtualSegment {
  enum Owner {
    case host(VirtualHost)
    case router(VirtualRouter)
  }

  package let name: String
  package var latency: UInt64 = 300_000
  package internal(set) var router: VirtualRouter?
  var owners: [IPv6Address: Owner] = [:]

  init(name: String) { self.name = name }
}

/// A router with a NAT for IPv4 and perhaps a firewall for IPv6. Without the latter IPv6 passes.
package final class VirtualRouter {
  package var nat: VirtualNAT
  package var firewall: VirtualNAT?
  package var link = LinkConditions()
  package unowned let inner: VirtualSegment
  package unowned let outer: VirtualSegment

  init(nat: VirtualNAT, inner: VirtualSegment, outer: VirtualSegment) {
    self.nat = nat
    self.inner = inner
    self.outer = outer
  }

  package func flush() {
    nat.flush()
    firewall?.flush()
  }

  /// The provider gives the router another IPv4 address.
  package func renumber(to address: IPv6Address) {
    outer.owners[nat.external] = nil
    nat.renumber(to: address)
    outer.owners[address] = .router(self)
  }
}

package final class VirtualHost {
  package let id: UInt32
  package var link = LinkConditions()
  package private(set) var port: UInt16
  /// Ports of further sockets that are open.
  var openPorts: Set<UInt16> = []
  package private(set) var addresses: [(address: IPv6Address, segment: VirtualSegment)] = []
  package weak var socket: (any VirtualSocket)?

  package init(id: UInt32, port: UInt16 = 4000) {
    self.id = id
    self.port = port
  }

  /// Plugs it in. An IPv6 address is routed to its segment from all those above.
  package func join(_ segment: VirtualSegment, as address: IPv6Address) {
    addresses.append((address, segment))
    segment.owners[address] = .host(self)
    guard address.mappedIPv4 == nil else { return }
    var router = segment.router
    while let above = router {
      above.outer.owners[address] = .router(above)
      router = above.outer.router
    }
  }

  /// Pulls all cables out.
  package func leave() {
    for (address, segment) in addresses {
      segment.owners[address] = nil
      guard address.mappedIPv4 == nil else { continue }
      var router = segment.router
      while let above = router {
        above.outer.owners[address] = nil
        router = above.outer.router
      }
    }
    addresses = []
  }

  /// Moves it to another place, with another socket if need be.
  package func move(to segment: VirtualSegment, as address: IPv6Address, port: UInt16? = nil) {
    leave()
    if let port { self.port = port }
    join(segment, as: address)
  }

  package var endpoints: [Endpoint] { addresses.map { Endpoint(address: $0.address, port: port) } }

  /// The own address for a destination: on its network if possible, else the first of its family.
  func origin(for destination: IPv6Address) -> (address: IPv6Address, segment: VirtualSegment)? {
    let isIPv4 = destination.mappedIPv4 != nil
    var first: (address: IPv6Address, segment: VirtualSegment)?
    for own in addresses where (own.address.mappedIPv4 != nil) == isIPv4 {
      if addresses.count == 1 || own.segment.owners[destination] != nil { return own }
      if first == nil { first = own }
    }
    return first
  }
}
