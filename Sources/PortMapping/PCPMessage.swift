// PCP (RFC 6887): what a client sends and hears for a UDP mapping, octet by octet. PortMapper and netcheck use it.
//
//     request header (24)                            response header (24)
//     0  version = 2                                 0  version
//     1  R = 0 | opcode                              1  R = 1 | opcode
//     4  requested lifetime, seconds                 3  result code
//     8  client's address (16)                       4  lifetime, seconds
//                                                    8  epoch time, seconds
//     MAP, both ways (36): nonce (12) · protocol · reserved (3) · internal port · external port · external address (16)
//
// Options follow; ours has none, and those of a response do not concern us.

package import Wire

package struct PCPNonce: Equatable, Sendable {
  package var high: UInt64
  package var low: UInt32

  package init(high: UInt64, low: UInt32) {
    self.high = high
    self.low = low
  }
}

package enum PCPMessage {
  package static let version: UInt8 = 2
  package static let headerSize = 24
  package static let mapSize = 60
  /// No message is longer (§7).
  package static let largest = 1100
  package static let announce: UInt8 = 0
  package static let map: UInt8 = 1
  private static let udp: UInt8 = 17

  /// The mapping that a MAP speaks of. In a request `external` is a wish: zero means any.
  package struct Mapping: Equatable, Sendable {
    package var nonce: PCPNonce
    package var internalPort: UInt16
    package var external: Endpoint

    package init(nonce: PCPNonce, internalPort: UInt16, external: Endpoint) {
      self.nonce = nonce
      self.internalPort = internalPort
      self.external = external
    }
  }

  /// Lifetime 0 gives the mapping back. `client` is the address that the request is sent from.
  package static func mapRequest(_ mapping: Mapping, lifetime: UInt32, client: IPv6Address) -> [UInt8] {
    var bytes = header(map, lifetime: lifetime, client: client)
    bytes.appendBig(mapping.nonce.high)
    bytes.appendBig(mapping.nonce.low)
    bytes += [udp, 0, 0, 0]
    bytes.appendBig(mapping.internalPort)
    bytes.appendBig(mapping.external.port)
    bytes.appendBig(mapping.external.address.high)
    bytes.appendBig(mapping.external.address.low)
    return bytes
  }

  /// Changes nothing; the answer has the server's epoch.
  package static func announceRequest(client: IPv6Address) -> [UInt8] { header(announce, lifetime: 0, client: client) }

  private static func header(_ opcode: UInt8, lifetime: UInt32, client: IPv6Address) -> [UInt8] {
    var bytes: [UInt8] = [version, opcode, 0, 0]
    bytes.appendBig(lifetime)
    bytes.appendBig(client.high)
    bytes.appendBig(client.low)
    return bytes
  }

  package struct Response: Equatable, Sendable {
    package var opcode: UInt8
    package var result: PCPResult
    /// Seconds: of the mapping, or how long an error is going to stay.
    package var lifetime: UInt32
    package var epoch: UInt32
    /// With every MAP, errors included: they repeat the request's.
    package var mapping: Mapping?

    /// nil: no response of this version, or one that no server sends.
    package init?(_ bytes: [UInt8]) {
      guard bytes.count >= headerSize, bytes.count <= largest, bytes.count.isMultiple(of: 4) else { return nil }
      var reader = ByteReader(bytes)
      guard reader.byte() == version, let kind = reader.byte(), kind & 0x80 != 0, reader.byte() != nil,
        let code = reader.byte(), let lifetime = reader.u32(), let epoch = reader.u32(), reader.take(12) != nil
      else { return nil }
      opcode = kind & 0x7F
      result = PCPResult(code: code)
      self.lifetime = lifetime
      self.epoch = epoch
      guard opcode == map else { return }
      guard let high = reader.u64(), let low = reader.u32(), reader.byte() == udp, reader.take(3) != nil,
        let inner = reader.u16(), let port = reader.u16(), let addressHigh = reader.u64(), let addressLow = reader.u64()
      else {
        // A server that does not know the version or the opcode may answer with the header alone.
        guard result != .success else { return nil }
        return
      }
      let external = Endpoint(address: IPv6Address(high: addressHigh, low: addressLow), port: port)
      mapping = Mapping(nonce: PCPNonce(high: high, low: low), internalPort: inner, external: external)
    }
  }
}

/// §7.4. The text is for people.
package struct PCPResult: Equatable, Sendable, CustomStringConvertible {
  package var code: UInt8
  package init(code: UInt8) { self.code = code }

  package static let success = PCPResult(code: 0)
  package static let unsupportedVersion = PCPResult(code: 1)
  package static let unsupportedOpcode = PCPResult(code: 4)
  package static let unsupportedProtocol = PCPResult(code: 9)

  private static let names = [
    "success", "unsupported version", "not authorized", "malformed request", "unsupported opcode",
    "unsupported option", "malformed option", "network failure", "no resources", "unsupported protocol",
    "quota exceeded", "cannot provide that external port", "another NAT is in between", "too many remote peers",
  ]

  package var description: String {
    Int(code) < Self.names.count ? Self.names[Int(code)] : "result \(code)"
  }
}
