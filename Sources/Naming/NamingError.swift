// Why the resolver stub could not start. Thrown by StubServer.start; reaches the operator.
import Wire

package struct NamingError: ExplainedError, Equatable {
  package let code: String
  package let message: String
  package let hint: String?

  /// - Parameters:
  ///   - transport: `udp` or `tcp`.
  ///   - errorNumber: what the kernel said, nil when the failure had none.
  static func bind(_ endpoint: Endpoint, transport: String, errorNumber: Int32?, text: String) -> NamingError {
    let message = "cannot listen for name queries on \(endpoint) (\(transport)): \(text)"
    switch errorNumber {
    case .some(ErrorNumber.addressInUse):
      return NamingError(
        code: "resolver_address_in_use", message: message,
        hint: "another program answers there; find it with `ss -lnp 'sport = :\(endpoint.port)'`")
    case .some(ErrorNumber.addressNotAvailable):
      return NamingError(
        code: "resolver_address_missing", message: message,
        hint: "the address must be on the interface first; look with `ip -6 address`")
    case .some(ErrorNumber.permission), .some(ErrorNumber.notPermitted):
      return NamingError(
        code: "resolver_permission_denied", message: message,
        hint: "a port below 1024 needs root or CAP_NET_BIND_SERVICE")
    case .some(ErrorNumber.familyNotSupported):
      return NamingError(
        code: "resolver_no_ipv6", message: message,
        hint: "IPv6 is switched off in this kernel or namespace (sysctl net.ipv6.conf.all.disable_ipv6)")
    default:
      return NamingError(
        code: "resolver_unavailable", message: message,
        hint: "names are not answered here; peers are reached by address, and a restart of the node tries again")
    }
  }
}

/// Linux error numbers this room tells apart (asm-generic/errno.h).
enum ErrorNumber {
  static let notPermitted: Int32 = 1
  static let permission: Int32 = 13
  static let familyNotSupported: Int32 = 97
  static let addressInUse: Int32 = 98
  static let addressNotAvailable: Int32 = 99
}
