// The header that stands before each packet on a TUN opened with IFF_VNET_HDR. Worker only.

/// `struct virtio_net_hdr`, 10 bytes, host order (virtio 1.2 §5.1.6).
///
///     | flags 1 | gso_type 1 | hdr_len 2 | gso_size 2 | csum_start 2 | csum_offset 2 |
struct VirtioHeader {
  static let byteCount = 10

  var flags: UInt8 = 0
  var segmentation: UInt8 = 0
  var headerLength: UInt16 = 0
  var segmentSize: UInt16 = 0
  var checksumStart: UInt16 = 0
  var checksumOffset: UInt16 = 0

  @inline(__always)
  init() {}

  @inline(__always)
  init(_ base: UnsafeRawPointer) {
    flags = base.load(as: UInt8.self)
    segmentation = base.load(fromByteOffset: 1, as: UInt8.self)
    headerLength = base.loadUnaligned(fromByteOffset: 2, as: UInt16.self)
    segmentSize = base.loadUnaligned(fromByteOffset: 4, as: UInt16.self)
    checksumStart = base.loadUnaligned(fromByteOffset: 6, as: UInt16.self)
    checksumOffset = base.loadUnaligned(fromByteOffset: 8, as: UInt16.self)
  }

  @inline(__always)
  func store(to base: UnsafeMutableRawPointer) {
    base.storeBytes(of: flags, as: UInt8.self)
    base.storeBytes(of: segmentation, toByteOffset: 1, as: UInt8.self)
    base.storeBytes(of: headerLength, toByteOffset: 2, as: UInt16.self)
    base.storeBytes(of: segmentSize, toByteOffset: 4, as: UInt16.self)
    base.storeBytes(of: checksumStart, toByteOffset: 6, as: UInt16.self)
    base.storeBytes(of: checksumOffset, toByteOffset: 8, as: UInt16.self)
  }
}
