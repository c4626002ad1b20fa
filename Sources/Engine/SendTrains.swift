// Sealed frames on their way out, gathered into trains that one UDP_SEGMENT send carries. Worker only.

internal import LinkIO
internal import Shim
internal import Wire

/// Frames of one peer, back to back in one buffer: all of `stride` bytes, but the last may be shorter.
///
///     | frame 0 | frame 1 | … | last frame (≤ stride) |
///
/// The kernel (or the network card) cuts the buffer every `stride` bytes into datagrams.
struct SendTrain {
  var peer: PeerIndex
  var stride: Int
  var length: Int
  var count: Int
  /// A shorter frame ends a train.
  var isClosed: Bool
  var to: pt_endpoint
  /// Number of the socket it leaves by, 0: the worker's own.
  var socket: UInt8
}

/// The trains of one batch, in the order of their first frame.
struct SendTrains: ~Copyable {
  static let trainCount = 16
  /// Linux's UDP_MAX_SEGMENTS was 64 until 6.x; more brings nothing.
  static let maximumFrames = 64
  /// Below the largest UDP payload over IPv4 (65,507).
  static let maximumLength = 65_000
  private static let bufferSize = 66_560

  private let memory: UnsafeMutableRawPointer
  let trains: UnsafeMutablePointer<SendTrain>
  /// One message for each train of a batch.
  let messages: UnsafeMutablePointer<pt_send>
  /// Messages of a train whose frames go one by one, while the batch it belongs to is still being sent.
  let singles: UnsafeMutablePointer<pt_send>
  private(set) var count = 0

  init?() {
    guard let base = pt_map(Self.bufferSize * Self.trainCount) else { return nil }
    memory = base
    trains = .allocate(capacity: Self.trainCount)
    trains.initialize(
      repeating: SendTrain(peer: 0, stride: 0, length: 0, count: 0, isClosed: true, to: pt_endpoint(), socket: 0),
      count: Self.trainCount)
    messages = .allocate(capacity: Self.trainCount)
    messages.initialize(repeating: pt_send(), count: Self.trainCount)
    singles = .allocate(capacity: Self.maximumFrames)
    singles.initialize(repeating: pt_send(), count: Self.maximumFrames)
  }

  deinit {
    pt_unmap(memory, Self.bufferSize * Self.trainCount)
    trains.deallocate()
    messages.deallocate()
    singles.deallocate()
  }

  @inline(__always)
  func buffer(_ train: Int) -> UnsafeMutableRawPointer { memory + train &* Self.bufferSize }

  /// Room for one frame of `size` bytes to the peer: the train and where the frame begins; nil when the trains
  /// must be flushed first. The space counts as used from now on.
  @inline(__always)
  mutating func reserve(
    peer: PeerIndex, to: pt_endpoint, socket: UInt8, size: Int
  ) -> UnsafeMutableRawPointer? {
    // The youngest train of the peer is the only one that may still grow: frames of a peer keep their order.
    var index = count &- 1
    while index >= 0 {
      if trains[index].peer == peer { break }
      index &-= 1
    }
    if index >= 0 {
      let train = trains + index
      if !train.pointee.isClosed, size <= train.pointee.stride, train.pointee.count < Self.maximumFrames,
        train.pointee.length &+ size <= Self.maximumLength, train.pointee.to.port == to.port,
        Endpoint.sameAddress(train.pointee.to, to)
      {
        let place = buffer(index) + train.pointee.length
        train.pointee.length &+= size
        train.pointee.count &+= 1
        if size < train.pointee.stride { train.pointee.isClosed = true }
        return place
      }
      train.pointee.isClosed = true
    }
    guard count < Self.trainCount else { return nil }
    trains[count] = SendTrain(
      peer: peer, stride: size, length: size, count: 1, isClosed: false, to: to, socket: socket)
    count &+= 1
    return buffer(count &- 1)
  }

  mutating func clear() { count = 0 }
}

extension Endpoint {
  /// Whether two endpoints in network order name the same host.
  @inline(__always)
  static func sameAddress(_ a: pt_endpoint, _ b: pt_endpoint) -> Bool {
    withUnsafeBytes(of: a.address) { a in
      withUnsafeBytes(of: b.address) { b in
        a.loadUnaligned(fromByteOffset: 0, as: UInt64.self) == b.loadUnaligned(fromByteOffset: 0, as: UInt64.self)
          && a.loadUnaligned(fromByteOffset: 8, as: UInt64.self) == b.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
      }
    }
  }
}
