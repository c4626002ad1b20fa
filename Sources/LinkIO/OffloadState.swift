// One kernel offload and whether it is in use. Shown by `status`; Engine may switch one off at run time.

/// Names in use: `tun-vnet`, `tun-csum`, `tun-tso`, `tun-uso`, `udp-gso`, `udp-gro`.
package struct OffloadState: Equatable, Hashable, Sendable {
  package var name: String
  package var isOn: Bool
  /// Why it is off; nil while it is on.
  package var reason: String?

  package init(name: String, isOn: Bool, reason: String? = nil) {
    self.name = name
    self.isOn = isOn
    self.reason = reason
  }
}
