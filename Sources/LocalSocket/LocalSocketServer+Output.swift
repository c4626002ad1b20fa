// What waits for the clients to read, and who of them has to read before long.

extension LocalSocketServer {
  /// What is to be written to this client.
  package func pendingOutput(of id: ClientID) -> ArraySlice<UInt8> { clients[id]?.output.pending ?? [] }

  /// The first `count` bytes of it are written.
  package mutating func wrote(_ id: ClientID, _ count: Int, now: UInt64) {
    guard count > 0, let wasFull = clients[id]?.output.isFull else { return }
    clients[id]?.output.remove(count, limits)
    clients[id]?.lastWritten = now
    watch(id, now)
    if wasFull, clients[id]?.output.isFull == false { act(.resume(id)) }
    work(id, now)
  }

  /// False while the queue of the stream's client is full: do not read from the stream, so that its window closes.
  package func wantsData(_ stream: StreamID) -> Bool {
    guard let owner = streams[stream]?.client, let client = clients[owner] else { return true }
    return !client.output.isFull
  }

  /// Queues a frame; nothing for a client that is gone.
  mutating func queue(_ frame: [UInt8], to id: ClientID, _ now: UInt64) {
    guard let phase = clients[id]?.phase, phase != .gone, clients[id]?.isDeaf == false else { return }
    clients[id]?.output.append(frame, limits)
    watch(id, now)
    changed.insert(id)
  }

  /// Notes whether the client has to take something before long (`stalled`), and from when that counts.
  mutating func watch(_ id: ClientID, _ now: UInt64) {
    let isWatched = clients[id].map { $0.output.isFull || $0.phase == .finishing && !$0.output.isEmpty }
    if isWatched != true {
      watched.remove(id)
    } else if watched.insert(id).inserted {
      clients[id]?.lastWritten = now
    }
  }
}
