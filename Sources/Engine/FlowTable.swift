// Which flows local programs opened to peers that may only answer (Admission.repliesOnly). Worker only.

internal import Wire

/// A direct-mapped table of flow tags and times. A collision forgets the older flow, which then has to send again:
/// never the other way round, an answer to nothing does not come in by accident (48-bit tag).
struct FlowTable: ~Copyable {
  private struct Entry {
    var tag: UInt64
    var time: UInt64
  }
  private static let size = 8192
  /// 5 minutes, as the official daemon's reply window (wire/tunnel §7.6).
  static let lifetime: UInt64 = 300_000_000_000
  private let entries: UnsafeMutablePointer<Entry>
  private let seed: UInt64

  init(seed: UInt64) {
    entries = .allocate(capacity: Self.size)
    entries.initialize(repeating: Entry(tag: 0, time: 0), count: Self.size)
    self.seed = seed
  }

  deinit { entries.deallocate() }

  @inline(__always)
  private func tag(node: UInt32, next: UInt8, local: UInt16, remote: UInt16) -> UInt64 {
    var value = (UInt64(node) << 32 | UInt64(local) << 16 | UInt64(remote)) ^ seed
    value = (value ^ UInt64(next) << 56) &* 0x9E37_79B9_7F4A_7C15
    value ^= value >> 29
    value = value &* 0xBF58_476D_1CE4_E5B9
    return (value ^ value >> 32) | 1
  }

  /// Ports that name the flow, `(source, destination)`; echo messages use their identifier for both. nil when the
  /// packet has none (then only ICMPv6 errors may come back).
  @inline(__always)
  static func ports(_ packet: UnsafeRawPointer, _ length: Int) -> (next: UInt8, source: UInt16, destination: UInt16)? {
    let next = packet.load(fromByteOffset: 6, as: UInt8.self)
    guard length >= 48 else { return nil }
    switch next {
    case 6, 17, 132:
      return (
        next, UInt16(bigEndian: packet.loadUnaligned(fromByteOffset: 40, as: UInt16.self)),
        UInt16(bigEndian: packet.loadUnaligned(fromByteOffset: 42, as: UInt16.self))
      )
    case 58:
      let kind = packet.load(fromByteOffset: 40, as: UInt8.self)
      guard kind == 128 || kind == 129 else { return nil }
      let identifier = UInt16(bigEndian: packet.loadUnaligned(fromByteOffset: 44, as: UInt16.self))
      return (next, identifier, identifier)
    default: return nil
    }
  }

  /// A local packet leaves for `node`. An echo reply answers and opens nothing.
  ///
  /// `openingOnly`: TCP counts from its SYN on. Else any packet will do, so that a flow outlives the table (a restart,
  /// a collision); but then a server's answers on a connection that came in would hold it open.
  @inline(__always)
  mutating func note(node: UInt32, packet: UnsafeRawPointer, length: Int, now: UInt64, openingOnly: Bool) {
    guard let flow = Self.ports(packet, length) else { return }
    let tag = tag(node: node, next: flow.next, local: flow.source, remote: flow.destination)
    let entry = Int(tag >> 16) & (Self.size - 1)
    if flow.next == 58, packet.load(fromByteOffset: 40, as: UInt8.self) == 129 { return }
    if openingOnly, flow.next == 6, entries[entry].tag != tag {
      guard length >= 60, packet.load(fromByteOffset: 53, as: UInt8.self) & 0x12 == 0x02 else { return }
    }
    entries[entry] = Entry(tag: tag, time: now)
  }

  /// Whether a packet from `node` answers a flow noted less than the lifetime ago.
  @inline(__always)
  func answers(node: UInt32, packet: UnsafeRawPointer, length: Int, now: UInt64) -> Bool {
    guard let flow = Self.ports(packet, length) else { return false }
    // A SYN without ACK opens a connection, an echo request asks: neither is ever an answer.
    if flow.next == 6 {
      guard length >= 60, packet.load(fromByteOffset: 53, as: UInt8.self) & 0x12 != 0x02 else { return false }
    }
    if flow.next == 58, packet.load(fromByteOffset: 40, as: UInt8.self) == 128 { return false }
    let tag = tag(node: node, next: flow.next, local: flow.destination, remote: flow.source)
    let entry = entries[Int(tag >> 16) & (Self.size - 1)]
    return entry.tag == tag && now &- entry.time < Self.lifetime
  }
}
