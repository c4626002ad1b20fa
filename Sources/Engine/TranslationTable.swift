// TCP connections that end at the gateway's sockets: which addresses and ports stand for which. Worker only; the gateway
// hands out the numbers.

internal import Shim
package import Wire

/// One TCP connection between a local program and a socket of the gateway, which carries its bytes over a Pilot stream.
///
/// The program sees the peer's address and port, the gateway's socket sees `OverlayMapping.phantom` and the port `id`:
///
///     program   own:ownPort  -> peer:peerPort   becomes   phantom:id -> gateway:gatewayPort
///     gateway   gateway:gatewayPort -> phantom:id   becomes   peer:peerPort -> own:ownPort
package struct TranslatedFlow: Equatable, Sendable {
  /// 1 ... `capacity`.
  package var id: UInt16
  package var own: IPv6Address
  package var ownPort: UInt16
  package var peer: IPv6Address
  package var peerPort: UInt16
  package var gatewayPort: UInt16

  package static let capacity = 16_384

  package init(
    id: UInt16, own: IPv6Address, ownPort: UInt16, peer: IPv6Address, peerPort: UInt16, gatewayPort: UInt16
  ) {
    self.id = id
    self.own = own
    self.ownPort = ownPort
    self.peer = peer
    self.peerPort = peerPort
    self.gatewayPort = gatewayPort
  }
}

/// Rows by number, and chains of those whose program's side falls into one bucket. All-zero memory is an empty table.
struct TranslationTable: ~Copyable {
  struct Row {
    var own: IPv6Address
    var peer: IPv6Address
    var ownPort: UInt16
    var peerPort: UInt16
    var gatewayPort: UInt16
    /// The next row of the bucket, 0: none.
    var next: UInt16
    var isInUse: Bool
    var isEnding: Bool
  }

  private let rows: UnsafeMutablePointer<Row>
  private let heads: UnsafeMutablePointer<UInt16>
  private let seed: UInt64
  private(set) var count = 0

  private static let rowBytes = (TranslatedFlow.capacity + 1) * MemoryLayout<Row>.stride
  private static let headBytes = TranslatedFlow.capacity * MemoryLayout<UInt16>.stride

  init?(seed: UInt64) {
    guard let memory = pt_map(Self.rowBytes + Self.headBytes) else { return nil }
    // SAFETY: zeroed, aligned to a page; the rows' size is a multiple of the heads' alignment.
    rows = memory.bindMemory(to: Row.self, capacity: TranslatedFlow.capacity + 1)
    heads = (memory + Self.rowBytes).bindMemory(to: UInt16.self, capacity: TranslatedFlow.capacity)
    self.seed = seed
  }

  deinit { pt_unmap(rows, Self.rowBytes + Self.headBytes) }

  @inline(__always)
  private func bucket(own: IPv6Address, ownPort: UInt16, peer: IPv6Address, peerPort: UInt16) -> Int {
    var value = peer.low << 32 ^ UInt64(ownPort) << 16 ^ UInt64(peerPort) ^ peer.high ^ own.high << 16 ^ seed
    value = (value ^ value >> 31) &* 0x9E37_79B9_7F4A_7C15
    return Int(value >> 40) & (TranslatedFlow.capacity - 1)
  }

  /// The flow of what a program sends, or 0.
  @inline(__always)
  func find(own: IPv6Address, ownPort: UInt16, peer: IPv6Address, peerPort: UInt16) -> UInt16 {
    var id = heads[bucket(own: own, ownPort: ownPort, peer: peer, peerPort: peerPort)]
    while id != 0 {
      let row = rows + Int(id)
      if row.pointee.peerPort == peerPort, row.pointee.ownPort == ownPort, row.pointee.peer == peer,
        row.pointee.own == own
      {
        return id
      }
      id = row.pointee.next
    }
    return 0
  }

  /// The row of this number, when it is in use.
  @inline(__always)
  func row(_ id: UInt16) -> UnsafeMutablePointer<Row>? {
    guard id >= 1, Int(id) <= TranslatedFlow.capacity, rows[Int(id)].isInUse else { return nil }
    return rows + Int(id)
  }

  mutating func set(_ flow: TranslatedFlow) {
    guard flow.id >= 1, Int(flow.id) <= TranslatedFlow.capacity else { return }
    remove(flow.id)
    let place = bucket(own: flow.own, ownPort: flow.ownPort, peer: flow.peer, peerPort: flow.peerPort)
    rows[Int(flow.id)] = Row(
      own: flow.own, peer: flow.peer, ownPort: flow.ownPort, peerPort: flow.peerPort, gatewayPort: flow.gatewayPort,
      next: heads[place], isInUse: true, isEnding: false)
    heads[place] = flow.id
    count += 1
  }

  func end(_ id: UInt16) { row(id)?.pointee.isEnding = true }

  mutating func remove(_ id: UInt16) {
    guard let row = row(id) else { return }
    let place = bucket(
      own: row.pointee.own, ownPort: row.pointee.ownPort, peer: row.pointee.peer, peerPort: row.pointee.peerPort)
    if heads[place] == id {
      heads[place] = row.pointee.next
    } else {
      var previous = heads[place]
      while previous != 0, rows[Int(previous)].next != id { previous = rows[Int(previous)].next }
      if previous != 0 { rows[Int(previous)].next = row.pointee.next }
    }
    row.pointee.isInUse = false
    row.pointee.next = 0
    count -= 1
  }
}
