// Endpoint to and from the shim's form, inlined into Engine's loops.

public import Shim
public import Wire

extension pt_endpoint {
  /// The scope stays 0: link-local addresses are no endpoints of the overlay.
  @inlinable
  public init(_ endpoint: Endpoint) {
    self.init()
    let high = endpoint.address.high.bigEndian
    let low = endpoint.address.low.bigEndian
    withUnsafeMutableBytes(of: &address) { bytes in
      bytes.storeBytes(of: high, as: UInt64.self)
      bytes.storeBytes(of: low, toByteOffset: 8, as: UInt64.self)
    }
    port = endpoint.port
  }
}

extension Endpoint {
  @inlinable
  public init(_ raw: pt_endpoint) {
    let address = withUnsafeBytes(of: raw.address) { bytes in
      IPv6Address(
        high: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)),
        low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
    }
    self.init(address: address, port: raw.port)
  }
}
