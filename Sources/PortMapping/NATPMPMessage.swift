// NAT-PMP (RFC 6886): the two questions of a client and their answers. PortMapper and netcheck use it.
//
//     external address   0 · 0                          -> 0 · 128 · result (2) · epoch (4) · IPv4 address (4)
//     map UDP            0 · 1 · reserved (2) · internal port · external port · lifetime (4)
//                                                       -> 0 · 129 · result (2) · epoch (4) · internal port ·
//                                                          external port · lifetime (4)
//
// A server that knows another version only answers the first 8 octets, with result 1.

package import Wire

package enum NATPMPMessage {
  package static let addressRequest: [UInt8] = [0, 0]

  /// Lifetime 0, with external port 0, gives the mapping back.
  package static func mapRequest(internalPort: UInt16, externalPort: UInt16, lifetime: UInt32) -> [UInt8] {
    var bytes: [UInt8] = [0, 1, 0, 0]
    bytes.appendBig(internalPort)
    bytes.appendBig(externalPort)
    bytes.appendBig(lifetime)
    return bytes
  }

  package enum Answer: Equatable, Sendable {
    case address(IPv6Address)
    case mapping(internalPort: UInt16, externalPort: UInt16, lifetime: UInt32)
    /// To which question is not always told.
    case failure(NATPMPResult)
  }

  package struct Response: Equatable, Sendable {
    package var epoch: UInt32
    package var answer: Answer

    /// nil: no response of this version, or one that no server sends.
    package init?(_ bytes: [UInt8]) {
      guard bytes.count <= 16 else { return nil }
      var reader = ByteReader(bytes)
      guard reader.byte() == 0, let kind = reader.byte(), kind & 0x80 != 0, let code = reader.u16(),
        let epoch = reader.u32()
      else { return nil }
      self.epoch = epoch
      guard code == 0 else {
        answer = .failure(NATPMPResult(code: code))
        return
      }
      switch kind {
      case 128:
        guard let address = reader.u32() else { return nil }
        answer = .address(IPv6Address(mappedIPv4: address))
      case 129:
        guard let inner = reader.u16(), let outer = reader.u16(), let lifetime = reader.u32() else { return nil }
        answer = .mapping(internalPort: inner, externalPort: outer, lifetime: lifetime)
      default: return nil
      }
    }
  }
}

/// §3.5. The text is for people.
package struct NATPMPResult: Equatable, Sendable, CustomStringConvertible {
  package var code: UInt16
  package init(code: UInt16) { self.code = code }

  package static let unsupportedVersion = NATPMPResult(code: 1)

  private static let names = [
    "success", "unsupported version", "not authorized", "network failure", "out of resources", "unsupported opcode",
  ]

  package var description: String {
    Int(code) < Self.names.count ? Self.names[Int(code)] : "result \(code)"
  }
}
