// What a sealed frame carries, told by its first nibble (docs/design.md §4). The engine sorts opened frames with
// `InnerKind`; control reads and writes `TunnelControl`.

/// The kind of an inner frame.
@frozen
public enum InnerKind: Equatable, Sendable {
  /// First nibble 6: an IPv6 packet, as it came from the TUN.
  case ipv6
  /// First nibble 1: a Pilot packet with its 34-byte header.
  case pilot
  /// First nibble 0: a message of this program's own, see `TunnelControl`.
  case control
  /// First nibble 2: a part of a packet that is too large for the path, see `SplitFrame`.
  case part
  /// No bytes: authentic, but nothing.
  case empty
  /// Any other nibble: dropped and counted.
  case reserved

  @inlinable @inline(__always)
  public init(_ base: UnsafeRawPointer, count: Int) {
    guard count > 0 else {
      self = .empty
      return
    }
    switch base.loadByte(0) >> 4 {
    case 6: self = .ipv6
    case 1: self = .pilot
    case 0: self = .control
    case 2: self = .part
    default: self = .reserved
    }
  }

  public init(_ bytes: some Collection<UInt8>) {
    guard let first = bytes.first else {
      self = .empty
      return
    }
    self = withUnsafeBytes(of: first) { byte in
      guard let base = byte.baseAddress else { return .empty }
      return InnerKind(base, count: 1)
    }
  }
}

/// What a peer can do, as bits. Unknown bits are kept and mean nothing.
public struct TunnelCapabilities: OptionSet, Hashable, Sendable {
  public var rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  /// Takes raw IPv6 inner frames.
  public static let rawIPv6 = TunnelCapabilities(rawValue: 1)
  /// Joins packets that come in two frames.
  public static let splitPackets = TunnelCapabilities(rawValue: 2)
}

/// A control message between two pilot-tun nodes, inside a sealed frame; all integers big-endian.
///
///     0         1      2
///     | 0x0V    | kind | body…
///
/// - `V`: layout version, 0. Another version, and a kind we do not know, are dropped and counted, so that a newer node
///   may send them to an older one. Bytes after the body are ignored for the same reason.
/// - kind 1, capabilities: `flags u32`.
/// - kind 2, candidates: `count u8 || count × (IPv6 or IPv4-mapped address 16, port u16)`: where the sender's tunnel
///   socket may be reached, at most 16. It replaces what was told before, and asks the receiver to try its ways now.
/// - kind 3, translation: `how u8`: how the sender's NAT gives out ports; 0 unknown, 1 the same one whoever is sent to,
///   2 another one for each destination. Others count as unknown.
/// - kind 4, ports opened: `first u16 || last u16`: the sender opened ports in this range of its NAT towards the receiver,
///   which may try them. `first` is at least 1 and not above `last`.
/// - kind 5, relays: `count u8 || count × (type u8, IPv6 or IPv4-mapped address 16 or node u32 and 12 zeros, port u16)`:
///   the relays that the sender can be reached through, at most 8, first the one that it sends through to the receiver.
///   Type 0 is a beacon by its endpoint, type 1 a node that relays (port 0). Other types are skipped. Replaces what was
///   told before.
/// - kind 6, relay offer: `isOffered u8`: whether the sender relays for the receiver.
public enum TunnelControl: Equatable, Sendable {
  case capabilities(TunnelCapabilities)
  case candidates([Endpoint])
  case translation(UInt8)
  case portsOpened(ClosedRange<UInt16>)
  case relays([Relay])
  case relayOffer(isOffered: Bool)

  /// A relay, as one node names it to another.
  public enum Relay: Hashable, Sendable {
    case beacon(Endpoint)
    case node(UInt32)
  }

  public static let capabilitiesKind: UInt8 = 1
  public static let candidatesKind: UInt8 = 2
  public static let translationKind: UInt8 = 3
  public static let portsOpenedKind: UInt8 = 4
  public static let mostCandidates = 16
  public static let relaysKind: UInt8 = 5
  public static let mostRelays = 8
  public static let relayOfferKind: UInt8 = 6

  public init?(_ bytes: some Collection<UInt8>) {
    var reader = ByteReader(Array(bytes))
    guard reader.byte() == 0, let kind = reader.byte() else { return nil }
    switch kind {
    case Self.capabilitiesKind:
      guard let flags = reader.u32() else { return nil }
      self = .capabilities(TunnelCapabilities(rawValue: flags))
    case Self.candidatesKind:
      guard let count = reader.byte(), count <= Self.mostCandidates else { return nil }
      var endpoints: [Endpoint] = []
      for _ in 0..<count {
        guard let high = reader.u64(), let low = reader.u64(), let port = reader.u16() else { return nil }
        endpoints.append(Endpoint(address: IPv6Address(high: high, low: low), port: port))
      }
      self = .candidates(endpoints)
    case Self.translationKind:
      guard let how = reader.byte() else { return nil }
      self = .translation(how)
    case Self.portsOpenedKind:
      guard let first = reader.u16(), let last = reader.u16(), first > 0, first <= last else { return nil }
      self = .portsOpened(first...last)
    case Self.relaysKind:
      guard let relays = Self.relays(&reader) else { return nil }
      self = .relays(relays)
    case Self.relayOfferKind:
      guard let isOffered = reader.byte() else { return nil }
      self = .relayOffer(isOffered: isOffered != 0)
    default: return nil
    }
  }

  private static func relays(_ reader: inout ByteReader) -> [Relay]? {
    guard let count = reader.byte(), count <= mostRelays else { return nil }
    var relays: [Relay] = []
    for _ in 0..<count {
      guard let type = reader.byte(), let high = reader.u64(), let low = reader.u64(), let port = reader.u16() else {
        return nil
      }
      switch type {
      case 0: relays.append(.beacon(Endpoint(address: IPv6Address(high: high, low: low), port: port)))
      case 1: relays.append(.node(UInt32(high >> 32)))
      default: break
      }
    }
    return relays
  }

  public func encoded() -> [UInt8] {
    var bytes: [UInt8] = [0]
    switch self {
    case .capabilities(let flags):
      bytes.append(Self.capabilitiesKind)
      bytes.appendBig(flags.rawValue)
    case .candidates(let endpoints):
      let list = endpoints.prefix(Self.mostCandidates)
      bytes += [Self.candidatesKind, UInt8(list.count)]
      for endpoint in list {
        bytes.appendBig(endpoint.address.high)
        bytes.appendBig(endpoint.address.low)
        bytes.appendBig(endpoint.port)
      }
    case .translation(let how): bytes += [Self.translationKind, how]
    case .portsOpened(let ports):
      bytes.append(Self.portsOpenedKind)
      bytes.appendBig(ports.lowerBound)
      bytes.appendBig(ports.upperBound)
    case .relays(let relays):
      let list = relays.prefix(Self.mostRelays)
      bytes += [Self.relaysKind, UInt8(list.count)]
      for relay in list {
        switch relay {
        case .beacon(let endpoint):
          bytes.append(0)
          bytes.appendBig(endpoint.address.high)
          bytes.appendBig(endpoint.address.low)
          bytes.appendBig(endpoint.port)
        case .node(let node):
          bytes.append(1)
          bytes.appendBig(UInt64(node) << 32)
          bytes.appendBig(UInt64(0))
          bytes.appendBig(UInt16(0))
        }
      }
    case .relayOffer(let isOffered): bytes += [Self.relayOfferKind, isOffered ? 1 : 0]
    }
    return bytes
  }
}
