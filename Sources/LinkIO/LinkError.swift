// What goes wrong between us and the kernel: TUN device, netlink, UDP socket. Thrown by this target, shown by control.

import Wire

/// A failed call to the kernel, with the remedy where one is known.
package struct LinkError: ExplainedError, Equatable {
  /// Stable codes; the raw value is what people and agents read.
  package enum Code: String, Sendable, CaseIterable {
    case tunUnavailable = "tun_unavailable"
    case netAdminMissing = "net_admin_missing"
    case interfaceNameTaken = "interface_name_taken"
    case interfaceNameInvalid = "interface_name_invalid"
    case ipv6Disabled = "ipv6_disabled"
    case addressInUse = "address_in_use"
    case routeTaken = "route_taken"
    case userNamespaceUnavailable = "user_namespace_unavailable"
    case udpPortTaken = "udp_port_taken"
    case udpAddressUnavailable = "udp_address_unavailable"
    /// Something that an earlier run left open does not serve this one.
    case descriptorUnusable = "descriptor_unusable"
    case kernelCallFailed = "kernel_call_failed"
  }

  package var kind: Code
  /// The call as a person would look it up: `open(/dev/net/tun)`, `RTM_NEWADDR fd50:…/128`.
  package var call: String
  /// The positive error number; 0 when no call failed but a state was found that cannot work.
  package var number: Int32
  /// What was being done, or what was found instead.
  package var context: String
  package var hint: String?

  package init(_ kind: Code, call: String, number: Int32, context: String, hint: String? = nil) {
    self.kind = kind
    self.call = call
    self.number = number
    self.context = context
    self.hint = hint
  }

  package var code: String { kind.rawValue }

  package var message: String {
    number == 0 ? context : "\(context): \(call) failed with \(ErrorNumber.text(number))"
  }
}

extension LinkError: CustomStringConvertible {
  package var description: String { hint.map { "\(message). \($0)" } ?? message }
}

extension LinkError {
  /// The error of `call` that returned `-number`, with the remedies that hold for any call.
  static func failed(_ call: String, _ result: Int64, _ context: String) -> LinkError {
    let number = Int32(truncatingIfNeeded: -result)
    switch number {
    case ErrorNumber.notPermitted, ErrorNumber.accessDenied:
      return LinkError(
        .netAdminMissing, call: call, number: number, context: context,
        hint: "Run it as root, or give the service CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN).")
    case ErrorNumber.notSupported, ErrorNumber.familyNotSupported:
      return LinkError(.ipv6Disabled, call: call, number: number, context: context, hint: ipv6Hint)
    default:
      return LinkError(.kernelCallFailed, call: call, number: number, context: context, hint: unusualHint)
    }
  }

  package static func failed(_ call: String, _ result: Int32, _ context: String) -> LinkError {
    failed(call, Int64(result), context)
  }

  /// For errno that tell of nothing that is usually wrong.
  private static let unusualHint =
    "See what the kernel says (`dmesg | tail`) and whether limits are reached (`ulimit -a`); then report it with what "
    + "`pilot-tun bugreport` collects."

  static let descriptorHint = "Nothing to do: a new one is made."

  static let ipv6Hint =
    "The overlay needs IPv6 inside this machine (not on its network): remove ipv6.disable=1 from the kernel command "
    + "line, or load the module with `modprobe ipv6`."
}
