// Frames that this node relays between two of its trusted peers, as a beacon does: `05 source destination frame` comes in,
// `06 source frame` leaves (wire/tunnel §4.9). Per packet: a copy, no cryptography; the frame inside is sealed end to end.
//
// Nobody can make us send to whom we do not speak with: both ends must be admitted peers with a direct path, what comes
// must come from where its sender's own frames come from, one datagram in is one smaller datagram out, and what each
// sender may have relayed is bounded in packets and bytes.

internal import LinkIO
internal import Shim
internal import Wire

extension Worker {
  /// How far ahead of its rate a peer may be.
  private static let relayBurst: UInt64 = second / 4

  /// Place of the endpoint among those that wrapped frames may come from, `.max` for any other.
  @inline(__always)
  func relayPosition(_ from: pt_endpoint) -> Int {
    var index = 0
    while index < relayCount {
      if relays[index].port == from.port, Endpoint.sameAddress(relays[index], from) { return index }
      index &+= 1
    }
    return .max
  }

  mutating func setRelays(_ beacons: [Endpoint], _ nodes: [Endpoint]) {
    relayCount = 0
    for endpoint in (beacons + nodes).prefix(relays.count) {
      relays[relayCount] = pt_endpoint(endpoint)
      relayCount += 1
    }
    beaconCount = min(beacons.count, relayCount)
  }

  mutating func setRelayLimit(_ limit: RelayLimit?) {
    relayPacketCost = limit.map { max(Self.second / max($0.packets, 1), 1) } ?? 0
    relayByteCost = limit.map { max(1024 * Self.second / max($0.bytes, 1), 1) } ?? 0
  }

  @inline(never)
  mutating func relayFrame(_ base: UnsafeMutableRawPointer, length: Int, from: pt_endpoint) {
    guard relayPacketCost != 0 else { return counters.drop(.relayNotAllowed) }
    guard RelayHeader.isRelay(base, count: length) else { return counters.drop(.frameShort) }
    let inner = base + RelayHeader.relaySize
    guard inner.load(as: UInt8.self) >= 0x10 else { return counters.drop(.relayNested) }
    let source = RelayHeader.source(base)
    guard let sender = table.row(of: source), let receiver = table.row(of: RelayHeader.destination(base)),
      sender != receiver, store.rows[Int(sender)].isRelayedFor, store.rows[Int(receiver)].isRelayedFor
    else { return counters.drop(.relayNotAllowed) }
    let row = store.rows + Int(sender)
    guard row.pointee.path == .direct, row.pointee.endpoint.port == from.port,
      Endpoint.sameAddress(row.pointee.endpoint, from)
    else { return counters.drop(.relaySourceElsewhere) }
    guard store.rows[Int(receiver)].path == .direct else { return counters.drop(.relayWithoutPath) }
    let count = length &- RelayHeader.relaySize
    guard takesRelayed(row, bytes: count) else { return counters.drop(.relayOverLimit) }
    let size = RelayHeader.deliverSize &+ count
    let to = store.rows[Int(receiver)].endpoint
    let socket = store.rows[Int(receiver)].socket
    var place = trains.reserve(peer: receiver, to: to, socket: socket, size: size)
    if place == nil {
      flushTrains()
      place = trains.reserve(peer: receiver, to: to, socket: socket, size: size)
    }
    guard let frame = place else { return }
    RelayHeader.writeDeliver(to: frame, source: source)
    (frame + RelayHeader.deliverSize).copyMemory(from: inner, byteCount: count)
    counters.count(.relayedPackets)
    counters.count(.relayedBytes, count)
  }

  /// Two buckets of a quarter of a second each, as times: a frame moves both.
  @inline(__always)
  private func takesRelayed(_ row: UnsafeMutablePointer<PeerRow>, bytes: Int) -> Bool {
    let packetDue = max(row.pointee.relayPacketDue, now)
    let byteDue = max(row.pointee.relayByteDue, now)
    guard packetDue < now &+ Self.relayBurst, byteDue < now &+ Self.relayBurst else { return false }
    row.pointee.relayPacketDue = packetDue &+ relayPacketCost
    row.pointee.relayByteDue = byteDue &+ (UInt64(bytes) &* relayByteCost) >> 10
    return true
  }
}
