// Configures our interface by netlink: MTU, queue length, addresses, the overlay route, up. Called by control at start
// and when the node joins or leaves a network. Nothing needs undoing: all of it goes with the interface.

import Shim
package import Wire

/// What the interface of the overlay shall be.
package struct LinkSettings: Sendable {
  package var name: String
  package var index: UInt32
  package var mtu: UInt32
  /// Packets that wait in the TUN; nil leaves the kernel's 500. A shorter queue is a lower delay under load.
  package var transmitQueueLength: UInt32?
  /// Each as /128, without duplicate address detection. The first one is the route's preferred source.
  package var addresses: [IPv6Address]
  package var routePrefix: IPv6Address
  package var routePrefixLength: UInt32

  package init(
    name: String, index: UInt32, mtu: UInt32 = 1400, transmitQueueLength: UInt32? = nil, addresses: [IPv6Address],
    routePrefix: IPv6Address, routePrefixLength: UInt32 = 48
  ) {
    self.name = name
    self.index = index
    self.mtu = mtu
    self.transmitQueueLength = transmitQueueLength
    self.addresses = addresses
    self.routePrefix = routePrefix
    self.routePrefixLength = routePrefixLength
  }
}

package struct LinkConfigurator: ~Copyable {
  private let handle: UnsafeMutableRawPointer

  package init() throws(LinkError) {
    var error: Int32 = 0
    guard let handle = pt_netlink_open(0, &error) else {
      throw LinkError.failed("socket(NETLINK_ROUTE)", error, "Cannot talk to the kernel's network configuration")
    }
    self.handle = handle
  }

  deinit { pt_netlink_close(handle) }

  /// Brings the interface to `settings`; what stands already stays, so it may be called again. Returns what works but not as it should (for the log and `status`).
  package func configure(_ settings: LinkSettings) throws(LinkError) -> [LinkError] {
    guard settings.mtu >= 1280 else {
      throw LinkError(
        .kernelCallFailed, call: "RTM_NEWLINK", number: 0,
        context: "MTU \(settings.mtu) of \(settings.name) is below 1280, the least IPv6 works with (RFC 8200 §5)",
        hint: "Set an MTU from 1280 to 1400.")
    }
    try enableIPv6(settings.name)
    for address in settings.addresses { try checkFree(address, index: settings.index, name: settings.name) }
    quieten(settings.name)

    var result = pt_link_set_mtu(handle, settings.index, settings.mtu)
    guard result == 0 else {
      throw LinkError.failed("RTM_NEWLINK IFLA_MTU", result, "Cannot set MTU \(settings.mtu) on \(settings.name)")
    }
    if let length = settings.transmitQueueLength {
      result = pt_link_set_txqueuelen(handle, settings.index, length)
      guard result == 0 else {
        throw LinkError.failed("RTM_NEWLINK IFLA_TXQLEN", result, "Cannot set the queue length of \(settings.name)")
      }
    }
    result = pt_link_up(handle, settings.index)
    guard result == 0 else {
      throw LinkError.failed("RTM_NEWLINK IFF_UP", result, "Cannot bring \(settings.name) up")
    }
    for address in settings.addresses { try add(address, index: settings.index, name: settings.name) }
    try addRoute(settings)
    return warnings()
  }

  /// Brings `lo` of a new network namespace up; its index is 1 everywhere.
  package func raiseLoopback() throws(LinkError) {
    let result = pt_link_up(handle, 1)
    guard result == 0 else { throw LinkError.failed("RTM_NEWLINK IFF_UP", result, "Cannot bring lo up") }
  }

  /// Adds one address as /128 nodad. One that stands already on this interface is no error.
  package func add(_ address: IPv6Address, index: UInt32, name: String) throws(LinkError) {
    try checkFree(address, index: index, name: name)
    let result = address.bytes.withUnsafeBufferPointer { pt_address_add(handle, index, $0.baseAddress, 128) }
    switch -result {
    case 0, ErrorNumber.exists:
      return
    case ErrorNumber.accessDenied:
      throw LinkError(
        .ipv6Disabled, call: "RTM_NEWADDR", number: -result, context: "Cannot add \(address) to \(name)",
        hint: Self.disabledHint(name))
    default:
      throw LinkError.failed("RTM_NEWADDR", result, "Cannot add \(address) to \(name)")
    }
  }

  /// Removes one address. One that is not there is no error.
  package func remove(_ address: IPv6Address, index: UInt32, name: String) throws(LinkError) {
    let result = address.bytes.withUnsafeBufferPointer { pt_address_remove(handle, index, $0.baseAddress, 128) }
    guard result == 0 || -result == ErrorNumber.addressUnavailable || -result == ErrorNumber.noDevice else {
      throw LinkError.failed("RTM_DELADDR", result, "Cannot remove \(address) from \(name)")
    }
  }

  private func addRoute(_ settings: LinkSettings) throws(LinkError) {
    let source = settings.addresses.first?.bytes
    let result = settings.routePrefix.bytes.withUnsafeBufferPointer { prefix in
      guard let source else {
        return pt_route_add(handle, settings.index, prefix.baseAddress, settings.routePrefixLength, nil)
      }
      return source.withUnsafeBufferPointer {
        pt_route_add(handle, settings.index, prefix.baseAddress, settings.routePrefixLength, $0.baseAddress)
      }
    }
    let route = "\(settings.routePrefix)/\(settings.routePrefixLength)"
    // EEXIST does not say whose route it is: ours from before is what we want.
    if result == -ErrorNumber.exists,
      RouteTable.hasRoute(settings.routePrefix, settings.routePrefixLength, settings.name)
    {
      return
    }
    guard result != -ErrorNumber.exists else {
      throw LinkError(
        .routeTaken, call: "RTM_NEWROUTE", number: -result, context: "Cannot route \(route) through \(settings.name)",
        hint: "Another interface has that route, perhaps of a node that is already running here: "
          + "see `ip -6 route show \(route)`.")
    }
    guard result == 0 else {
      throw LinkError.failed("RTM_NEWROUTE", result, "Cannot route \(route) through \(settings.name)")
    }
  }

  /// The kernel lets two interfaces carry one IPv6 address; packets would then go to whichever it likes.
  private func checkFree(_ address: IPv6Address, index: UInt32, name: String) throws(LinkError) {
    var holder: UInt32 = 0
    let result = address.bytes.withUnsafeBufferPointer { pt_address_find(handle, $0.baseAddress, &holder) }
    guard result >= 0 else {
      throw LinkError.failed("RTM_GETADDR", result, "Cannot list the addresses of this machine")
    }
    guard result == 0 || holder == index else {
      throw LinkError(
        .addressInUse, call: "RTM_GETADDR", number: 0,
        context: "\(address) is already on interface number \(holder), so \(name) cannot have it",
        hint: "See `ip -6 address show to \(address)`. Two nodes with one identity on one machine are not possible; "
          + "give the second one a state directory of its own.")
    }
  }

  /// `disable_ipv6` of a new interface comes from `conf/default`. Ours is ours to switch; others are not.
  private func enableIPv6(_ name: String) throws(LinkError) {
    let setting = KernelSetting.ipv6("disable_ipv6", of: name)
    let (value, error) = setting.read()
    guard error == 0 else {
      throw LinkError(
        .ipv6Disabled, call: "open(\(setting.path))", number: -error,
        context: "IPv6 is off in this kernel, so \(name) cannot carry the overlay", hint: LinkError.ipv6Hint)
    }
    guard value != "0" else { return }
    let written = setting.write("0")
    guard written == 0, setting.read().text == "0" else {
      throw LinkError(
        .ipv6Disabled, call: "write(\(setting.path))", number: written == 0 ? ErrorNumber.ioError : -written,
        context: "IPv6 is disabled for \(name) and cannot be enabled", hint: Self.disabledHint(name))
    }
  }

  /// No link-local address, router solicitation or autoconfiguration: nobody on the overlay would answer, and each is
  /// a packet that wakes the node. Only comfort: a kernel without these settings is as good.
  private func quieten(_ name: String) {
    for (key, value) in [("addr_gen_mode", "1"), ("accept_ra", "0"), ("router_solicitations", "0")] {
      _ = KernelSetting.ipv6(key, of: name).write(value)
    }
  }

  private func warnings() -> [LinkError] {
    // What this machine sends to its own addresses, also to the resolver's, passes `lo`.
    guard KernelSetting.ipv6("disable_ipv6", of: "lo").read().text == "1" else { return [] }
    return [
      LinkError(
        .ipv6Disabled, call: "read(/proc/sys/net/ipv6/conf/lo/disable_ipv6)", number: 0,
        context: "IPv6 is disabled on lo: local programs cannot reach this node's own addresses or its resolver",
        hint: "Set it with `sysctl net.ipv6.conf.lo.disable_ipv6=0`; other machines are reached all the same.")
    ]
  }

  private static func disabledHint(_ name: String) -> String {
    "Set net.ipv6.conf.default.disable_ipv6=0 before the start (docker: --sysctl net.ipv6.conf.default.disable_ipv6=0 "
      + "--sysctl net.ipv6.conf.all.disable_ipv6=0); /proc/sys must be writable to do it for \(name) alone."
  }
}
