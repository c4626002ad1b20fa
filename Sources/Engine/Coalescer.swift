// Joins neighbouring TCP segments (or UDP datagrams) of a flow into one superpacket for one TUN write. Worker only.

internal import Shim
internal import Wire

/// Up to 8 open flows, each a list of slices that point into the receive buffers: nothing is copied but the headers
/// of a flow's first packet. Everything is written out before the receive buffers are used again.
///
/// INVARIANT: packets of a flow leave in the order they came: a packet that cannot join flushes its flow first.
struct Coalescer: ~Copyable {
  struct Item {
    var isOpen: Bool
    var isTCP: Bool
    /// Headers of the first packet: IPv6 and TCP (40 + 20…60) or UDP (48).
    var headerLength: Int
    /// Payload bytes of every packet but the last.
    var segmentSize: Int
    var payloadLength: Int
    var count: Int
    var nextSequence: UInt32
    var isPushed: Bool
  }

  static let itemCount = 8
  static let maximumSlices = 64
  private static let headerSpace = 128
  /// IPv6's payload length field is 16 bits wide and counts the transport header.
  private static let maximumPayload = 65_535 - 60

  let items: UnsafeMutablePointer<Item>
  /// For each item: slice 0 is the virtio-net header with the packet headers, then one slice per payload.
  let slices: UnsafeMutablePointer<pt_slice>
  private let headers: UnsafeMutableRawPointer
  private var oldest = 0

  init() {
    items = .allocate(capacity: Self.itemCount)
    items.initialize(
      repeating: Item(
        isOpen: false, isTCP: false, headerLength: 0, segmentSize: 0, payloadLength: 0, count: 0, nextSequence: 0,
        isPushed: false), count: Self.itemCount)
    slices = .allocate(capacity: Self.itemCount * (Self.maximumSlices + 1))
    slices.initialize(repeating: pt_slice(), count: Self.itemCount * (Self.maximumSlices + 1))
    headers = .allocate(byteCount: Self.itemCount * Self.headerSpace, alignment: 16)
  }

  deinit {
    items.deallocate()
    slices.deallocate()
    headers.deallocate()
  }

  /// The virtio-net header of an item, with its packet headers right behind.
  @inline(__always)
  func header(_ item: Int) -> UnsafeMutableRawPointer { headers + item &* Self.headerSpace }

  @inline(__always)
  func slices(_ item: Int) -> UnsafeMutablePointer<pt_slice> { slices + item &* (Self.maximumSlices + 1) }

  /// The open item of this packet's flow, or -1. Compares addresses, ports and protocol only.
  @inline(__always)
  func find(_ packet: UnsafeRawPointer, isTCP: Bool) -> Int {
    for index in 0..<Self.itemCount where items[index].isOpen && items[index].isTCP == isTCP {
      let head = UnsafeRawPointer(header(index) + VirtioHeader.byteCount)
      if head.loadUnaligned(fromByteOffset: 40, as: UInt32.self)
        == packet.loadUnaligned(fromByteOffset: 40, as: UInt32.self),
        Self.sameAddresses(head, packet)
      {
        return index
      }
    }
    return -1
  }

  @inline(__always)
  private static func sameAddresses(_ a: UnsafeRawPointer, _ b: UnsafeRawPointer) -> Bool {
    a.loadUnaligned(fromByteOffset: 8, as: UInt64.self) == b.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
      && a.loadUnaligned(fromByteOffset: 16, as: UInt64.self) == b.loadUnaligned(fromByteOffset: 16, as: UInt64.self)
      && a.loadUnaligned(fromByteOffset: 24, as: UInt64.self) == b.loadUnaligned(fromByteOffset: 24, as: UInt64.self)
      && a.loadUnaligned(fromByteOffset: 32, as: UInt64.self) == b.loadUnaligned(fromByteOffset: 32, as: UInt64.self)
  }

  /// Whether the packet continues the item exactly: same class, hop limit, acknowledgement and options, next bytes.
  @inline(__always)
  func continues(_ index: Int, _ packet: UnsafeRawPointer, headerLength: Int, payload: Int) -> Bool {
    let item = items[index]
    let head = UnsafeRawPointer(header(index) + VirtioHeader.byteCount)
    guard item.headerLength == headerLength, !item.isPushed, item.count < Self.maximumSlices,
      payload <= item.segmentSize, item.payloadLength &+ payload <= Self.maximumPayload,
      item.payloadLength == item.segmentSize &* item.count,
      // Version, traffic class, flow label; next header and hop limit.
      head.loadUnaligned(fromByteOffset: 0, as: UInt32.self)
        == packet.loadUnaligned(fromByteOffset: 0, as: UInt32.self),
      head.loadUnaligned(fromByteOffset: 6, as: UInt16.self) == packet.loadUnaligned(fromByteOffset: 6, as: UInt16.self)
    else { return false }
    guard item.isTCP else { return true }
    guard UInt32(bigEndian: packet.loadUnaligned(fromByteOffset: 44, as: UInt32.self)) == item.nextSequence,
      // Reserved bits, too: one of them is an ECN mark (RFC 9768 §3.1).
      head.load(fromByteOffset: 52, as: UInt8.self) == packet.load(fromByteOffset: 52, as: UInt8.self),
      head.loadUnaligned(fromByteOffset: 48, as: UInt32.self)
        == packet.loadUnaligned(fromByteOffset: 48, as: UInt32.self)
    else { return false }
    var offset = 60
    while offset < headerLength {
      if head.loadUnaligned(fromByteOffset: offset, as: UInt32.self)
        != packet.loadUnaligned(fromByteOffset: offset, as: UInt32.self)
      {
        return false
      }
      offset &+= 4
    }
    return true
  }

  /// Adds the payload to the item. PSH on a TCP packet ends it.
  @inline(__always)
  mutating func append(_ index: Int, _ packet: UnsafeMutableRawPointer, headerLength: Int, payload: Int) {
    let item = items + index
    slices(index)[item.pointee.count &+ 1] = pt_slice(base: packet + headerLength, length: payload)
    item.pointee.count &+= 1
    item.pointee.payloadLength &+= payload
    guard item.pointee.isTCP else { return }
    item.pointee.nextSequence &+= UInt32(truncatingIfNeeded: payload)
    let head = header(index) + VirtioHeader.byteCount
    let flags = packet.load(fromByteOffset: 53, as: UInt8.self)
    if flags & 0x08 != 0 {
      item.pointee.isPushed = true
      head.storeBytes(of: head.load(fromByteOffset: 53, as: UInt8.self) | 0x08, toByteOffset: 53, as: UInt8.self)
    }
    // The newest window is the one that counts.
    head.storeBytes(of: packet.loadUnaligned(fromByteOffset: 54, as: UInt16.self), toByteOffset: 54, as: UInt16.self)
  }

  /// An item to begin with: a free one, else the next in turn, which the caller flushes first (`isOpen` tells).
  @inline(__always)
  mutating func place() -> Int {
    for index in 0..<Self.itemCount where !items[index].isOpen { return index }
    oldest = (oldest &+ 1) & (Self.itemCount - 1)
    return oldest
  }

  /// Opens the item with its first packet.
  @inline(__always)
  mutating func begin(_ index: Int, _ packet: UnsafeMutableRawPointer, isTCP: Bool, headerLength: Int, payload: Int) {
    let head = header(index)
    (head + VirtioHeader.byteCount).copyMemory(from: packet, byteCount: headerLength)
    let flags = isTCP ? packet.load(fromByteOffset: 53, as: UInt8.self) : 0
    items[index] = Item(
      isOpen: true, isTCP: isTCP, headerLength: headerLength, segmentSize: payload, payloadLength: payload, count: 1,
      nextSequence: isTCP
        ? UInt32(bigEndian: packet.loadUnaligned(fromByteOffset: 44, as: UInt32.self))
          &+ UInt32(truncatingIfNeeded: payload) : 0,
      isPushed: flags & 0x08 != 0)
    slices(index)[0] = pt_slice(base: head, length: VirtioHeader.byteCount &+ headerLength)
    slices(index)[1] = pt_slice(base: packet + headerLength, length: payload)
  }

  /// Writes the superpacket's headers: lengths, partial checksum, virtio-net header. Slices are then ready to go.
  @inline(__always)
  func finish(_ index: Int) {
    let item = items[index]
    let head = header(index)
    let packet = head + VirtioHeader.byteCount
    let isSuper = item.count > 1
    let transportLength = item.headerLength &- 40 &+ item.payloadLength
    var vnet = VirtioHeader()
    if isSuper {
      packet.storeBytes(of: UInt16(truncatingIfNeeded: transportLength).bigEndian, toByteOffset: 4, as: UInt16.self)
      // The kernel finishes the checksum from the pseudo-header's partial sum, once, or never if it stays here.
      var sum = pt_checksum_add(0, packet + 8, 32)
      sum &+= UInt64(transportLength) &+ (item.isTCP ? 6 : 17)
      let partial = pt_checksum_fold(sum)
      if item.isTCP {
        packet.storeBytes(of: partial.bigEndian, toByteOffset: 56, as: UInt16.self)
        vnet.segmentation = UInt8(PT_VNET_GSO_TCPV6)
        vnet.checksumOffset = 16
      } else {
        packet.storeBytes(of: UInt16(truncatingIfNeeded: transportLength).bigEndian, toByteOffset: 44, as: UInt16.self)
        packet.storeBytes(of: partial.bigEndian, toByteOffset: 46, as: UInt16.self)
        vnet.segmentation = UInt8(PT_VNET_GSO_UDP_L4)
        vnet.checksumOffset = 6
      }
      vnet.flags = UInt8(PT_VNET_F_NEEDS_CSUM)
      vnet.headerLength = UInt16(truncatingIfNeeded: item.headerLength)
      vnet.segmentSize = UInt16(truncatingIfNeeded: item.segmentSize)
      vnet.checksumStart = 40
    } else {
      vnet.flags = UInt8(PT_VNET_F_DATA_VALID)
    }
    vnet.store(to: head)
  }
}
