// UDP sockets beside the worker's own, each for one peer at one endpoint: mappings of a symmetric NAT that were opened for
// it. Worker only; control hands them in (EngineInterface). Rows hold the number of theirs, 0 for the worker's own.

internal import LinkIO
internal import Shim
internal import Wire

struct ExtraSockets: ~Copyable {
  static let limit = 16
  /// What poll looks at besides: TUN, own socket, commands.
  static let firstDescriptor = 3

  private struct Entry {
    var fd: Int32 = -1
    var peer: PeerIndex = 0
    var to = pt_endpoint()
  }

  private var entries = InlineArray<16, Entry>(repeating: Entry())
  /// No entry at this number or above is in use: usually 0, and nothing here costs anything.
  private(set) var end = 0

  deinit { for index in 0..<Self.limit where entries[index].fd >= 0 { pt_close(entries[index].fd) } }

  /// -1: not in use. `number` counts from 1, as rows do.
  @inline(__always)
  func descriptor(_ number: Int) -> Int32 { entries[number &- 1].fd }

  /// Takes the socket; false when there is no room: it is closed.
  mutating func adopt(_ fd: Int32, for peer: PeerIndex, to endpoint: pt_endpoint) -> Bool {
    release(peer)
    guard let free = (0..<Self.limit).first(where: { entries[$0].fd < 0 }) else {
      pt_close(fd)
      return false
    }
    entries[free] = Entry(fd: fd, peer: peer, to: endpoint)
    end = max(end, free + 1)
    return true
  }

  mutating func release(_ peer: PeerIndex) {
    for index in 0..<end where entries[index].fd >= 0 && entries[index].peer == peer {
      pt_close(entries[index].fd)
      entries[index] = Entry()
    }
    while end > 0, entries[end - 1].fd < 0 { end -= 1 }
  }

  /// Number of the socket for frames to this endpoint, 0: the worker's own. Not per packet.
  func number(for endpoint: pt_endpoint) -> UInt8 {
    for index in 0..<end where entries[index].fd >= 0 {
      if entries[index].to.port == endpoint.port, Endpoint.sameAddress(entries[index].to, endpoint) {
        return UInt8(index + 1)
      }
    }
    return 0
  }
}
