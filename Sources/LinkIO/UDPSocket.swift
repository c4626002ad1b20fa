// The underlay socket: dual stack, DF set, large buffers, offloads probed. Opened by control, owned by a worker, which
// calls pt_udp_send and pt_udp_receive on `fd` by itself.

import Shim
package import Wire

package struct UDPSocket: ~Copyable {
  /// Non-blocking.
  package let fd: Int32
  /// 6: dual stack; 4: this kernel has no IPv6. What pt_udp_send wants to know.
  package let family: Int32
  /// As bound; the port is the kernel's choice when 0 was asked for.
  package let local: Endpoint
  /// Bytes the kernel granted, without its own overhead.
  package let receiveBufferSize: Int
  package let sendBufferSize: Int
  package private(set) var offloads: [OffloadState]

  /// 7 MiB: a train of 64 KiB per peer for a hundred peers, or 5 ms at 10 Gbit/s.
  package static let wantedBufferSize: Int32 = 7 << 20

  /// Binds any address, with both families.
  package init(port: UInt16, disabled: Set<String> = []) throws(LinkError) {
    try self.init(local: Endpoint(address: IPv6Address(high: 0, low: 0), port: port), disabled: disabled)
  }

  /// `disabled` holds names of `OffloadState` that stay off: `udp-gso`, `udp-gro`.
  package init(local wanted: Endpoint, disabled: Set<String> = []) throws(LinkError) {
    var raw = pt_endpoint(wanted)
    var family: Int32 = 0
    let fd = pt_udp_open(&raw, &family)
    guard fd >= 0 else { throw Self.openError(fd, wanted) }

    self = try UDPSocket(fd: fd, family: family, disabled: disabled)
  }

  /// Goes on with a socket that an earlier run bound and left open: what came meanwhile waits in it, and NATs and peers
  /// see no change. The descriptor is this value's from now on; it is closed when it does not fit.
  ///
  /// `takesAnyPort`: another port than the wanted one is as good.
  /// Errors: `descriptorUnusable` when it is no unconnected UDP socket, or bound elsewhere.
  package init(
    adopting descriptor: Int32, local wanted: Endpoint, takesAnyPort: Bool, disabled: Set<String> = []
  ) throws(LinkError) {
    var family: Int32 = 0
    var raw = pt_endpoint()
    var result = pt_udp_adopt(descriptor, &family)
    if result == 0 { result = pt_udp_local(descriptor, &raw) }
    guard result == 0 else {
      pt_close(descriptor)
      throw LinkError(
        .descriptorUnusable, call: "getsockopt", number: -result,
        context: "What was kept of the last run is no UDP socket that can be used", hint: LinkError.descriptorHint)
    }
    func isEverything(_ address: IPv6Address) -> Bool { address.isUnspecified || address.mappedIPv4 == 0 }
    let bound = Endpoint(raw)
    let isSameAddress =
      bound.address == wanted.address || isEverything(bound.address) && isEverything(wanted.address)
    guard isSameAddress, takesAnyPort || bound.port == wanted.port else {
      pt_close(descriptor)
      throw LinkError(
        .descriptorUnusable, call: "getsockname", number: 0,
        context: "The socket kept from the last run is bound to \(bound), not to \(wanted)",
        hint: LinkError.descriptorHint)
    }
    self = try UDPSocket(fd: descriptor, family: family, disabled: disabled)
  }

  private init(fd: Int32, family: Int32, disabled: Set<String>) throws(LinkError) {
    var raw = pt_endpoint()
    var receive: Int32 = 0
    var send: Int32 = 0
    _ = pt_udp_set_buffers(fd, Self.wantedBufferSize, &receive, &send)
    let result = pt_udp_local(fd, &raw)
    guard result == 0 else {
      pt_close(fd)
      throw LinkError.failed("getsockname", result, "Cannot read the address of the UDP socket")
    }
    self.fd = fd
    self.family = family
    local = Endpoint(raw)
    receiveBufferSize = Int(receive)
    sendBufferSize = Int(send)
    offloads = [
      Self.state("udp-gso", disabled, pt_udp_probe_gso(fd)),
      Self.state("udp-gro", disabled, disabled.contains("udp-gro") ? 0 : pt_udp_set_gro(fd, 1)),
    ]
  }

  deinit { pt_close(fd) }

  package func isOn(_ offload: String) -> Bool { offloads.contains { $0.name == offload && $0.isOn } }

  /// Switches one offload off while running.
  package mutating func disable(_ offload: String, reason: String) {
    for index in offloads.indices where offloads[index].name == offload && offloads[index].isOn {
      if offload == "udp-gro" { _ = pt_udp_set_gro(fd, 0) }
      offloads[index].isOn = false
      offloads[index].reason = reason
    }
  }

  private static func state(_ name: String, _ disabled: Set<String>, _ result: Int32) -> OffloadState {
    if disabled.contains(name) { return OffloadState(name: name, isOn: false, reason: "switched off by configuration") }
    guard result == 0 else {
      return OffloadState(name: name, isOn: false, reason: "the kernel refused it: \(ErrorNumber.text(-result))")
    }
    return OffloadState(name: name, isOn: true)
  }

  private static func openError(_ result: Int32, _ wanted: Endpoint) -> LinkError {
    let context = "Cannot bind UDP \(wanted)"
    switch -result {
    case ErrorNumber.addressInUse:
      return LinkError(
        .udpPortTaken, call: "bind", number: -result, context: context,
        hint: "Another program has that port (`ss -ulpn 'sport = :\(wanted.port)'` names it): choose another one, "
          + "or 0 for any free port.")
    case ErrorNumber.addressUnavailable:
      return LinkError(
        .udpAddressUnavailable, call: "bind", number: -result, context: context,
        hint: "No interface of this machine has that address (`ip address`). Leave it out to bind all of them.")
    case ErrorNumber.accessDenied, ErrorNumber.notPermitted:
      return LinkError(
        .kernelCallFailed, call: "bind", number: -result, context: context,
        hint: "Ports below 1024 need root or CAP_NET_BIND_SERVICE: choose a higher one.")
    case ErrorNumber.familyNotSupported:
      return LinkError(
        .udpAddressUnavailable, call: "bind", number: -result, context: context,
        hint: "This kernel has no IPv6: bind an IPv4 address, or none.")
    default:
      return LinkError.failed("socket(AF_INET6, SOCK_DGRAM)", result, context)
    }
  }
}
