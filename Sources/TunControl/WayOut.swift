// Which way packets to a beacon leave this machine: another one means another NAT, although all addresses are as before.
// Looked at by Node when links, addresses or routes changed.

import LinkIO
import Wire

struct WayOut: Equatable {
  let target: Endpoint
  /// Ours, as the kernel would take it; nil: there is no way.
  let source: IPv6Address?
  /// Of the default route by IPv4, if there is one: machines on two networks may have the same address on both.
  let gateway: IPv6Address?

  /// - except: the overlay's own interface.
  init(to target: Endpoint, except interface: String) {
    let table = (try? SmallFile.read("/proc/net/route")) ?? []
    self.init(
      target: target, source: target.sourceAddress,
      gateway: DefaultGateway.parse(String(decoding: table, as: UTF8.self), except: interface))
  }

  init(target: Endpoint, source: IPv6Address?, gateway: IPv6Address?) {
    self.target = target
    self.source = source
    self.gateway = gateway
  }

  /// There is a way, and it is another one than before. Of another beacon nothing is known.
  func isNews(after before: WayOut?) -> Bool {
    guard let before, before.target == target, source != nil else { return false }
    return self != before
  }
}
