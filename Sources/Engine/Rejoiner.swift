// Packets that come in two frames (Wire's SplitFrame): keeps one part until the other is there. Worker only.

internal import Shim
internal import Wire

/// A fixed number of places for single parts, and of buffers for joined packets.
///
/// The two parts of a packet have neighbouring counters under one nonce prefix, and a counter comes in once: so which
/// part belongs to which is certain, in whatever order they come, and nothing a peer says can mix up two packets.
///
/// Bounds: 256 places in sets of 8; a peer may take 4 places of its set, then its own oldest part gives way. A part that
/// waited for a second is not joined any more.
struct Rejoiner: ~Copyable {
  private struct Place {
    /// Bytes that wait here, 0: free.
    var length: Int
    var node: UInt32
    var prefix: UInt32
    /// Counter of the frame with the first part.
    var counter: UInt64
    var time: UInt64
    var isRest: Bool
  }

  enum Verdict {
    /// Waits for the other part.
    case kept
    /// The same; a part that waited in vain gave way.
    case displacing
    /// The whole packet, in a buffer that stays until `releaseJoined`.
    case joined(UnsafeMutableRawPointer, count: Int)
    /// Together larger than any packet that is sent in two frames.
    case tooLarge
  }

  static let setCount = 32
  static let placesPerSet = 8
  static let placesPerPeer = 4
  static let lifetime: UInt64 = 1_000_000_000
  static let joinedCount = 64
  /// In front of a joined packet, for the virtio-net header.
  private static let headroom = 16
  private static let joinedSize = headroom + SplitFrame.largestPacket
  private static let byteCount = setCount * placesPerSet * SplitFrame.largestPacket + joinedCount * joinedSize

  private let places: UnsafeMutablePointer<Place>
  private let memory: UnsafeMutableRawPointer
  private let joined: UnsafeMutableRawPointer
  private var usedJoined = 0

  init?() {
    guard let base = pt_map(Self.byteCount) else { return nil }
    memory = base
    joined = base + Self.setCount * Self.placesPerSet * SplitFrame.largestPacket
    places = .allocate(capacity: Self.setCount * Self.placesPerSet)
    places.initialize(
      repeating: Place(length: 0, node: 0, prefix: 0, counter: 0, time: 0, isRest: false),
      count: Self.setCount * Self.placesPerSet)
  }

  deinit {
    pt_unmap(memory, Self.byteCount)
    places.deallocate()
  }

  /// No buffer is left for a joined packet: those that were handed on must be written out first.
  var isFull: Bool { usedJoined == Self.joinedCount }

  /// Joined packets are written out; their buffers are free.
  mutating func releaseJoined() { usedJoined = 0 }

  /// Takes one part of `node`'s packet, of 1 to 1279 bytes. `counter`: its own frame's. Not to be called while `isFull`.
  mutating func add(
    node: UInt32, prefix: UInt32, counter: UInt64, isRest: Bool, bytes: UnsafeRawPointer, count: Int, now: UInt64
  ) -> Verdict {
    let first = isRest ? counter &- 1 : counter
    let set = Int((node &* 0x9E37_79B1) >> 27) &* Self.placesPerSet
    var free = -1
    var oldest = set
    var own = 0
    var oldestOwn = -1
    for index in set..<(set &+ Self.placesPerSet) {
      let place = places + index
      guard place.pointee.length > 0 else {
        free = index
        continue
      }
      if place.pointee.time < places[oldest].time { oldest = index }
      guard place.pointee.node == node else { continue }
      if place.pointee.counter == first, place.pointee.prefix == prefix, place.pointee.isRest != isRest,
        now &- place.pointee.time <= Self.lifetime
      {
        return join(index, with: bytes, count: count)
      }
      own &+= 1
      // Those of one batch have the same time.
      if oldestOwn < 0 || place.pointee.time < places[oldestOwn].time
        || place.pointee.time == places[oldestOwn].time && place.pointee.counter < places[oldestOwn].counter
      {
        oldestOwn = index
      }
    }
    let isDisplacing = own >= Self.placesPerPeer || free < 0
    let chosen = own >= Self.placesPerPeer ? oldestOwn : free >= 0 ? free : oldest
    places[chosen] = Place(length: count, node: node, prefix: prefix, counter: first, time: now, isRest: isRest)
    part(chosen).copyMemory(from: bytes, byteCount: count)
    return isDisplacing ? .displacing : .kept
  }

  private func part(_ index: Int) -> UnsafeMutableRawPointer { memory + index &* SplitFrame.largestPacket }

  /// The part that waits and the one that has come, in their order.
  private mutating func join(_ index: Int, with bytes: UnsafeRawPointer, count: Int) -> Verdict {
    let place = places[index]
    places[index].length = 0
    guard place.length &+ count <= SplitFrame.largestPacket else { return .tooLarge }
    let packet = joined + usedJoined &* Self.joinedSize + Self.headroom
    usedJoined &+= 1
    let waiting = UnsafeRawPointer(part(index))
    let (first, firstCount) = place.isRest ? (bytes, count) : (waiting, place.length)
    let (rest, restCount) = place.isRest ? (waiting, place.length) : (bytes, count)
    packet.copyMemory(from: first, byteCount: firstCount)
    (packet + firstCount).copyMemory(from: rest, byteCount: restCount)
    return .joined(packet, count: place.length &+ count)
  }
}
