// The address of this machine that the kernel would send from. Used by TunControl's WayOut and DefaultGateway.

import Shim
package import Wire

extension Endpoint {
  /// Ours, as the kernel would take it towards this; nil without a way there. Nothing is sent.
  package var sourceAddress: IPv6Address? {
    var source = [UInt8](repeating: 0, count: 16)
    guard address.bytes.withUnsafeBufferPointer({ pt_source_address($0.baseAddress, port, &source) }) == 0 else {
      return nil
    }
    return source.withUnsafeBytes { IPv6Address($0.baseAddress!, at: 0) }
  }
}
