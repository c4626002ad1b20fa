// The trains leave: one sendmmsg for all, and what to do when the kernel refuses. Per batch.

internal import LinkIO
internal import Shim
internal import Wire

extension Worker {
  private static let wouldBlock: Int32 = -11
  private static let ioError: Int32 = -5
  private static let invalid: Int32 = -22
  private static let tooLong: Int32 = -90

  /// Sends every train, in order.
  mutating func flushTrains() {
    let count = trains.count
    guard count > 0 else { return }
    var next = 0
    while next < count {
      // As many whole trains as go with segmentation offload; a peer without it goes alone, plainly.
      if isPlain(next) {
        sendPlainly(next)
        next &+= 1
        continue
      }
      var batch = 0
      let socket = trains.trains[next].socket
      while next &+ batch < count, !isPlain(next &+ batch), trains.trains[next &+ batch].socket == socket {
        let train = trains.trains[next &+ batch]
        trains.messages[batch] = pt_send(
          data: trains.buffer(next &+ batch), length: UInt32(train.length),
          segment: train.count > 1 ? UInt16(train.stride) : 0, reserved: 0, to: train.to)
        batch &+= 1
      }
      var sent = 0
      while sent < batch {
        let result = pt_udp_send(
          descriptor(socket), ports.family, trains.messages + sent, Int32(batch &- sent))
        counters.count(.sendCalls)
        if result > 0 {
          sent &+= Int(result)
        } else {
          // The peer may have lost its offload by this: what is left of the batch is prepared anew.
          handleSendError(result, train: next &+ sent)
          sent &+= 1
          break
        }
      }
      next &+= sent
    }
    counters.count(.sentTrains, count)
    trains.clear()
  }

  /// Of the worker's own socket, or of another by its number.
  @inline(__always)
  func descriptor(_ socket: UInt8) -> Int32 {
    if socket == 0 { return ports.udp }
    let fd = extras.descriptor(Int(socket))
    return fd < 0 ? ports.udp : fd
  }

  @inline(__always)
  private func isPlain(_ train: Int) -> Bool {
    trains.trains[train].count > 1
      && (!ports.hasGSO || store.rows[Int(trains.trains[train].peer)].isWithoutGSO)
  }

  /// The first message of a call failed: resend the same train without the offload, wait, or give it up, counted.
  @inline(never)
  private mutating func handleSendError(_ error: Int32, train: Int) {
    let count = trains.trains[train].count
    switch error {
    case Self.wouldBlock:
      // Back pressure: the TUN's queue and TCP behind it wait with us, but never for long.
      let socket = descriptor(trains.trains[train].socket)
      _ = pt_wait_writable(socket, 20)
      trains.singles[0] = pt_send(
        data: trains.buffer(train), length: UInt32(trains.trains[train].length),
        segment: count > 1 ? UInt16(trains.trains[train].stride) : 0, reserved: 0, to: trains.trains[train].to)
      if pt_udp_send(socket, ports.family, trains.singles, 1) != 1 {
        counters.drop(.sendBufferFull, count)
      }
    case Self.ioError, Self.invalid, Self.tooLong:
      if count > 1 {
        let row = store.rows + Int(trains.trains[train].peer)
        // A frame larger than the path also reads EINVAL: only when all its frames pass singly is it the offload's fault.
        if sendPlainly(train) == count, !row.pointee.isWithoutGSO {
          row.pointee.isWithoutGSO = true
          tell(
            .offloadDisabled(
              "udp-gso to node \(row.pointee.node)", reason: "errno \(-error), its frames go one by one"))
        }
      } else if error == Self.tooLong {
        refuseSize(train, trains.buffer(train), size: trains.trains[train].length)
      } else {
        counters.drop(.sendError)
      }
    default:
      counters.drop(.sendError, count)
    }
  }

  /// Sends a train's frames as datagrams of their own. Number of frames that left.
  @discardableResult
  @inline(never)
  private mutating func sendPlainly(_ index: Int) -> Int {
    let train = trains.trains[index]
    let base = trains.buffer(index)
    let socket = descriptor(train.socket)
    var offset = 0
    var left = 0
    while offset < train.length {
      var batch = 0
      var end = offset
      while end < train.length, batch < SendTrains.maximumFrames {
        let size = min(train.stride, train.length &- end)
        trains.singles[batch] = pt_send(
          data: base + end, length: UInt32(size), segment: 0, reserved: 0, to: train.to)
        end &+= size
        batch &+= 1
      }
      var sent = 0
      var waits = 0
      while sent < batch {
        let result = pt_udp_send(socket, ports.family, trains.singles + sent, Int32(batch &- sent))
        counters.count(.sendCalls)
        if result > 0 {
          sent &+= Int(result)
          left &+= Int(result)
        } else if result == Self.wouldBlock {
          waits &+= 1
          if waits > 3 || pt_wait_writable(socket, 20) <= 0 {
            counters.drop(.sendBufferFull, batch &- sent)
            sent = batch
          }
        } else {
          if result == Self.tooLong {
            refuseSize(index, trains.singles[sent].data, size: Int(trains.singles[sent].length))
          } else {
            counters.drop(.sendError)
          }
          sent &+= 1
        }
      }
      offset = end
    }
    counters.count(.sentPlainly, left)
    return left
  }

  /// The kernel refused a frame of the train for its size. If it was data on the peer's path, the path's limit falls to
  /// what the route takes: no probe is needed to know that.
  @inline(never)
  private func refuseSize(_ number: Int, _ frame: UnsafeRawPointer, size: Int) {
    counters.drop(.pathTooSmall)
    let code = frame.load(as: UInt8.self)
    // Relayed for others: their probes find the size.
    guard code != RelayHeader.deliverCode else { return }
    let train = trains.trains[number]
    let row = store.rows + Int(train.peer)
    guard now &- row.pointee.lastTooBig > Self.second / 20 else { return }
    row.pointee.lastTooBig = now
    let isRelayed = code == RelayHeader.relayCode
    let overhead = SealedFrame.overhead &+ wrapLength(isRelayed ? .relay : .direct)
    let inner = size &- overhead
    var to = train.to
    let routeMTU = Int(pt_udp_route_mtu(&to))
    let isIPv4 = Endpoint(to).address.mappedIPv4 != nil
    var limit: Int?
    if routeMTU > 0 {
      let room = routeMTU &- (isIPv4 ? 28 : 48) &- overhead
      // A route that should take it says nothing.
      if room < inner { limit = room }
    }
    let isPresent =
      row.pointee.path == (isRelayed ? .relay : .direct) && row.pointee.endpoint.port == to.port
      && Endpoint.sameAddress(row.pointee.endpoint, to)
    // Larger ones than that are probes.
    if isPresent, inner <= frameLimit(row) {
      let next = limit ?? (inner > SplitFrame.largestPacket ? SplitFrame.largestPacket : SplitFrame.smallestLimit)
      row.pointee.innerMTU = UInt64(max(next, SplitFrame.smallestLimit))
    }
    let endpoint = Endpoint(to)
    tell(
      .tooBig(train.peer, size: inner, limit: limit, path: isRelayed ? .relay(beacon: endpoint) : .direct(endpoint)))
  }
}
