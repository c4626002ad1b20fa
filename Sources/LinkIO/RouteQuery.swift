// Which way the kernel would send packets to an address, rules and all tables considered, as `ip -6 route get` does. Used
// by TunControl's DefaultGateway.

import Shim
package import Wire

package struct RouteQuery: Equatable, Sendable {
  package var interface: UInt32
  /// nil: the destination is on the link.
  package var gateway: IPv6Address?
  /// The source address that the kernel would choose: one that stands, and is not deprecated while another is there.
  package var source: IPv6Address?

  /// Nothing is sent. nil without a route, and where the kernel has no IPv6.
  package init?(towards destination: IPv6Address) {
    var error: Int32 = 0
    guard let handle = pt_netlink_open(0, &error) else { return nil }
    defer { pt_netlink_close(handle) }
    var interface: UInt32 = 0
    var gateway = [UInt8](repeating: 0, count: 16)
    var source = gateway
    let result = destination.bytes.withUnsafeBufferPointer {
      pt_route_find(handle, $0.baseAddress, &interface, &gateway, &source)
    }
    guard result == 0, interface != 0 else { return nil }
    self.interface = interface
    self.gateway = Self.address(gateway)
    self.source = Self.address(source)
  }

  private static func address(_ bytes: [UInt8]) -> IPv6Address? {
    let address = bytes.withUnsafeBytes { IPv6Address($0.baseAddress!, at: 0) }
    return address == IPv6Address(high: 0, low: 0) ? nil : address
  }
}
