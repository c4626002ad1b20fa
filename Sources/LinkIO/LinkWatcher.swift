// Tells that links, addresses or routes of this machine changed. Polled by control, which then looks at endpoints anew.

import Shim

package struct LinkWatcher: ~Copyable {
  package struct Changes: OptionSet, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    package static let link = Changes(rawValue: PT_NETLINK_LINK)
    package static let address = Changes(rawValue: PT_NETLINK_ADDRESS)
    package static let route = Changes(rawValue: PT_NETLINK_ROUTE)
  }

  private let handle: UnsafeMutableRawPointer

  package init() throws(LinkError) {
    var error: Int32 = 0
    let groups = PT_NETLINK_LINK | PT_NETLINK_ADDRESS | PT_NETLINK_ROUTE
    guard let handle = pt_netlink_open(groups, &error) else {
      throw LinkError.failed("socket(NETLINK_ROUTE)", error, "Cannot watch the network configuration")
    }
    self.handle = handle
  }

  deinit { pt_netlink_close(handle) }

  /// Becomes readable when something changed.
  package var fd: Int32 { pt_netlink_fd(handle) }

  /// Reads all pending notifications; empty when there are none. Never blocks. When the kernel had to drop some,
  /// everything counts as changed.
  package func drain() throws(LinkError) -> Changes {
    let result = pt_netlink_drain(handle)
    guard result >= 0 else { throw LinkError.failed("recv(NETLINK_ROUTE)", result, "Cannot watch the network") }
    return Changes(rawValue: UInt32(result))
  }
}
