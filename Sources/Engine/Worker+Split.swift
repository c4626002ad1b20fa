// One packet in two frames, for paths that take less than 1280 bytes (Wire's SplitFrame), in both directions. Per packet.

internal import Session
internal import Shim
internal import Wire

extension Worker {
  /// Largest frame that the peer's path takes.
  @inline(__always)
  func frameLimit(_ row: UnsafeMutablePointer<PeerRow>) -> Int {
    row.pointee.innerMTU == 0 ? mtu : Int(row.pointee.innerMTU)
  }

  /// Largest packet: no Packet Too Big can make a sender's packets smaller than 1280 bytes (RFC 8201 §4).
  @inline(__always)
  func packetLimit(_ frameLimit: Int) -> Int { max(frameLimit, SplitFrame.largestPacket) }

  /// Seals a packet into one frame, or into two when the path takes less and the peer joins them. Without that it goes
  /// whole: the limit may be wrong, and nothing else is left. False: it could not be sealed.
  @inline(__always)
  mutating func sealPacket(
    _ packet: UnsafeRawPointer, length: Int, limit: Int, index: PeerIndex, row: UnsafeMutablePointer<PeerRow>,
    session: UnsafeMutablePointer<SessionRow>
  ) -> Bool {
    if length > limit, row.pointee.takesSplitPackets, length <= SplitFrame.largestPacket {
      return sealParts(packet, length: length, index: index, row: row, session: session)
    }
    guard let inner = beginFrame(length, index: index, row: row, session: session) else { return false }
    sealFrame(inner, from: packet, length: length, session: session)
    if row.pointee.rested.left > 0 { sendTwice(inner, length: length, index: index, row: row) }
    return true
  }

  /// Halves of the same size, so that the frames of many packets make one train.
  @inline(never)
  private mutating func sealParts(
    _ packet: UnsafeRawPointer, length: Int, index: PeerIndex, row: UnsafeMutablePointer<PeerRow>,
    session: UnsafeMutablePointer<SessionRow>
  ) -> Bool {
    let first = (length &+ 1) / 2
    // INVARIANT: nothing else is sealed under the session between the two, so their counters are neighbours.
    var start = 0
    while start < length {
      let count = start == 0 ? first : length &- first
      let size = SplitFrame.headerSize &+ count
      guard let inner = beginFrame(size, index: index, row: row, session: session) else { return false }
      inner.storeBytes(of: SplitFrame.firstByte &+ (start == 0 ? 0 : 1), as: UInt8.self)
      (inner + SplitFrame.headerSize).copyMemory(from: packet + start, byteCount: count)
      sealFrame(inner, from: inner, length: size, session: session)
      if row.pointee.rested.left > 0 { sendTwice(inner, length: size, index: index, row: row) }
      start &+= count
    }
    counters.count(.splitPackets)
    return true
  }

  /// A part of a packet from a peer. Joined, it is looked at as if it had come whole.
  @inline(never)
  mutating func receivePart(
    _ inner: UnsafeMutableRawPointer, length: Int, counter: UInt64, prefix: UInt32, index: PeerIndex,
    row: UnsafeMutablePointer<PeerRow>, arrival: Arrival
  ) {
    let kind = inner.load(as: UInt8.self) &- SplitFrame.firstByte
    guard kind <= 1 else { return counters.drop(.innerReserved) }
    let count = length &- SplitFrame.headerSize
    guard count > 0, count < SplitFrame.largestPacket else { return counters.drop(.innerMalformed) }
    // Superpackets point into the buffers of joined packets.
    if rejoiner.isFull { flushCoalescer() }
    let verdict = rejoiner.add(
      node: row.pointee.node, prefix: prefix, counter: counter, isRest: kind == 1,
      bytes: inner + SplitFrame.headerSize, count: count, now: now)
    switch verdict {
    case .kept: return
    case .displacing: counters.drop(.partAlone)
    case .tooLarge: counters.drop(.innerMalformed)
    case .joined(let packet, let total):
      counters.count(.joinedPackets)
      switch packet.load(as: UInt8.self) >> 4 {
      case 6: acceptPacket(packet, length: total, row: row, index: index)
      case 1: receivePilot(packet, length: total, row: row, index: index, arrival: arrival)
      default: counters.drop(.innerMalformed)
      }
    }
  }
}
