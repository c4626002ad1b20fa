// What the gateway keeps of the services that official daemons have for their peers: data exchange and events.

import Services
import Streams
import Wire

final class ServiceSide {
  struct Exchange {
    let number: UInt64
    var machine = DataExchange()
    /// An answer that the stream had no room for.
    var output: [UInt8] = []
  }

  /// Bytes that frames under way may declare, of all streams and of one peer; small frames do not count.
  static let mostDeclared = 192 << 20
  static let mostDeclaredOfPeer = (64 << 20) + DataExchange.freeFrame

  let keep: @Sendable (InboxJob) -> Void
  var exchanges: [StreamID: Exchange] = [:]
  /// Jobs that are not answered yet.
  var jobs: [UInt64: StreamID] = [:]
  var broker = EventBroker<StreamID>()
  /// What streams hold of `mostDeclared`, and for which peer.
  private var declared: [StreamID: (peer: UInt32, bytes: Int)] = [:]
  private var last: UInt64 = 0

  init(keep: @escaping @Sendable (InboxJob) -> Void) { self.keep = keep }

  func nextNumber() -> UInt64 {
    last += 1
    return last
  }

  /// Notes how long the frame under way is. False: there is no room for it.
  func declares(_ id: StreamID, _ peer: UInt32, _ bytes: Int) -> Bool {
    guard bytes > DataExchange.freeFrame else {
      if !declared.isEmpty { declared[id] = nil }
      return true
    }
    guard declared[id]?.bytes != bytes else { return true }
    declared[id] = (peer, bytes)
    var (all, ofPeer) = (0, 0)
    for entry in declared.values {
      all += entry.bytes
      if entry.peer == peer { ofPeer += entry.bytes }
    }
    return all <= Self.mostDeclared && ofPeer <= Self.mostDeclaredOfPeer
  }

  func forget(_ id: StreamID) {
    declared[id] = nil
    if let number = exchanges.removeValue(forKey: id)?.number { keep(.ended(stream: number)) }
    broker.left(id)
  }
}
