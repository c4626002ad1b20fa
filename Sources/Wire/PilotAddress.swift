// The 48-bit Pilot address and its text form. Used by every layer above. wire/tunnel §1.1.

/// A Pilot address: 16-bit network, 32-bit node. Six bytes on the wire, big-endian.
///
///     0         2                   6
///     | network | node              |
///
/// Text form `D:NNNN.HHHH.LLLL`: network in decimal, network in hex, high and low half of the node in hex.
/// The node id is global: the same node has one address per network it is in.
@frozen
public struct PilotAddress: Hashable, Sendable {
  public var network: UInt16
  public var node: UInt32

  /// Bytes on the wire.
  public static let byteCount = 6
  /// The node half of a broadcast address.
  public static let broadcastNode: UInt32 = 0xFFFF_FFFF

  @inlinable
  public init(network: UInt16, node: UInt32) {
    self.network = network
    self.node = node
  }

  /// Parses the text form. Returns nil for anything but the exact form: four hex digits in each group (either
  /// case), a hex network that equals the decimal one, no sign, no blank, no port.
  public init?(_ text: some StringProtocol) {
    let bytes = Array(text.utf8)
    guard let colon = bytes.firstIndex(of: UInt8(ascii: ":")), (1...5).contains(colon) || colon > 0,
      bytes.count == colon + 1 + 14
    else { return nil }
    var decimal = 0
    for byte in bytes[..<colon] {
      guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) else { return nil }
      decimal = decimal * 10 + Int(byte - UInt8(ascii: "0"))
      guard decimal <= 0xFFFF else { return nil }
    }
    var groups: (UInt32, UInt32, UInt32) = (0, 0, 0)
    let tail = bytes[(colon + 1)...]
    guard tail[colon + 5] == UInt8(ascii: "."), tail[colon + 10] == UInt8(ascii: "."),
      let first = Self.hexGroup(tail[(colon + 1)..<(colon + 5)]),
      let second = Self.hexGroup(tail[(colon + 6)..<(colon + 10)]),
      let third = Self.hexGroup(tail[(colon + 11)..<(colon + 15)])
    else { return nil }
    groups = (first, second, third)
    guard groups.0 == UInt32(decimal) else { return nil }
    self.init(network: UInt16(decimal), node: groups.1 << 16 | groups.2)
  }

  private static func hexGroup(_ digits: ArraySlice<UInt8>) -> UInt32? {
    var value: UInt32 = 0
    for digit in digits {
      switch digit {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): value = value << 4 | UInt32(digit - UInt8(ascii: "0"))
      case UInt8(ascii: "a")...UInt8(ascii: "f"): value = value << 4 | UInt32(digit - UInt8(ascii: "a") + 10)
      case UInt8(ascii: "A")...UInt8(ascii: "F"): value = value << 4 | UInt32(digit - UInt8(ascii: "A") + 10)
      default: return nil
      }
    }
    return value
  }
}

extension PilotAddress: CustomStringConvertible {
  /// The canonical text form: decimal network, upper-case hex groups.
  public var description: String {
    func group(_ value: UInt32) -> String {
      let digits = String(value & 0xFFFF, radix: 16, uppercase: true)
      return String(repeating: "0", count: 4 - digits.count) + digits
    }
    return "\(network):\(group(UInt32(network))).\(group(node >> 16)).\(group(node))"
  }
}
