// Opened packets into the TUN: joined where they are neighbours of a flow, one by one else. Per packet.

internal import Shim
internal import Wire

extension Worker {
  /// A TCP segment: joins its flow's superpacket when it continues it exactly.
  @inline(__always)
  mutating func joinTCP(_ packet: UnsafeMutableRawPointer, length: Int) {
    guard ports.mayCoalesceTCP, length >= 60 else { return writePacket(packet, length: length) }
    let headerLength = 40 &+ Int(packet.load(fromByteOffset: 52, as: UInt8.self) >> 4) &* 4
    let open = coalescer.find(packet, isTCP: true)
    let payload = length &- headerLength
    // Only plain data: ACK, perhaps PSH.
    guard headerLength >= 60, payload > 0, packet.load(fromByteOffset: 53, as: UInt8.self) & ~0x08 == 0x10,
      isChecksumRight(packet, length: length)
    else {
      if open >= 0 { writeItem(open) }
      return writePacket(packet, length: length)
    }
    join(open, packet, isTCP: true, headerLength: headerLength, payload: payload)
  }

  /// A UDP datagram: joins the one before it when it is of the same flow and not longer.
  @inline(__always)
  mutating func joinUDP(_ packet: UnsafeMutableRawPointer, length: Int) {
    guard ports.mayCoalesceUDP, length >= 48 else { return writePacket(packet, length: length) }
    let open = coalescer.find(packet, isTCP: false)
    let declared = Int(UInt16(bigEndian: packet.loadUnaligned(fromByteOffset: 44, as: UInt16.self)))
    guard length > 48, declared == length &- 40, isChecksumRight(packet, length: length) else {
      if open >= 0 { writeItem(open) }
      return writePacket(packet, length: length)
    }
    join(open, packet, isTCP: false, headerLength: 48, payload: length &- 48)
  }

  @inline(__always)
  private mutating func join(
    _ open: Int, _ packet: UnsafeMutableRawPointer, isTCP: Bool, headerLength: Int, payload: Int
  ) {
    if open >= 0 {
      if coalescer.continues(open, packet, headerLength: headerLength, payload: payload) {
        return coalescer.append(open, packet, headerLength: headerLength, payload: payload)
      }
      writeItem(open)
    }
    let place = coalescer.place()
    if coalescer.items[place].isOpen { writeItem(place) }
    coalescer.begin(place, packet, isTCP: isTCP, headerLength: headerLength, payload: payload)
  }

  /// Verifies before joining: a superpacket gets a new checksum, which must not bless wrong bytes.
  @inline(__always)
  private func isChecksumRight(_ packet: UnsafeMutableRawPointer, length: Int) -> Bool {
    let next = UInt64(packet.load(fromByteOffset: 6, as: UInt8.self))
    // Addresses and transport lie back to back: one pass over both.
    let sum = pt_checksum_add(next &+ UInt64(length &- 40), packet + 8, length &- 8)
    return pt_checksum_fold(sum) == 0xFFFF
  }

  /// One packet as it is. The 10 bytes before it belong to the opened frame's header and are free.
  @inline(__always)
  mutating func writePacket(_ packet: UnsafeMutableRawPointer, length: Int) {
    var start = packet
    var total = length
    if ports.hasVirtioHeader {
      start = packet - VirtioHeader.byteCount
      total = length &+ VirtioHeader.byteCount
      VirtioHeader().store(to: start)
    }
    counters.count(.tunWrites)
    if pt_write(ports.tun, start, total) < 0 {
      counters.drop(.tunWriteFailed)
    } else {
      counters.count(.tunWrittenSegments)
    }
  }

  mutating func flushCoalescer() {
    for index in 0..<Coalescer.itemCount where coalescer.items[index].isOpen { writeItem(index) }
    rejoiner.releaseJoined()
  }

  /// Writes one superpacket (or the single packet that found no neighbour).
  @inline(never)
  mutating func writeItem(_ index: Int) {
    coalescer.items[index].isOpen = false
    let item = coalescer.items[index]
    coalescer.finish(index)
    counters.count(.tunWrites)
    let result = pt_writev(ports.tun, coalescer.slices(index), Int32(item.count &+ 1))
    if result >= 0 { return counters.count(.tunWrittenSegments, item.count) }
    // EIO only means that the interface is down.
    guard item.count > 1, result == -22 else { return counters.drop(.tunWriteFailed, item.count) }
    rewritePlainly(index, item, errno: -result)
  }

  /// The kernel does not take superpackets here: the same segments one by one, and no joining any more.
  @inline(never)
  private mutating func rewritePlainly(_ index: Int, _ item: Coalescer.Item, errno: Int64) {
    if item.isTCP { ports.mayCoalesceTCP = false } else { ports.mayCoalesceUDP = false }
    tell(
      .offloadDisabled(item.isTCP ? "tun-tso" : "tun-uso", reason: "write of a superpacket failed, errno \(errno)"))
    for number in 1...item.count {
      let slice = coalescer.slices(index)[number]
      // Each payload still has its own headers in front.
      let packet = slice.base! - item.headerLength
      writePacket(packet, length: item.headerLength &+ slice.length)
    }
  }
}
