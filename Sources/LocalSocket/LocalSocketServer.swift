// The local socket of the official agents as a pure machine: bytes of clients, stream events, answers and time in;
// actions and bytes to clients out (wire/ipc). One thread owns the socket and the streams and drives it.
//
// - A slow request never delays a later one; Send, SendTo, SendToConfirm and Health keep their order, and Close comes
//   after the Sends before it.
// - A client that does not read, or whose Send finds no room, is waited for alone.
// - No number of a client's is trusted; every queue has a bound.

package struct LocalSocketServer: Sendable {
  let limits: LocalSocketLimits
  /// Ports of the node's own services: they cannot be bound.
  let reservedPorts: Set<UInt16>
  var clients: [ClientID: Client] = [:]
  var streams: [StreamID: Stream] = [:]
  var requests: [RequestID: Request] = [:]
  var owners: [UInt16: ClientID] = [:]
  var notices: [StreamID: CloseNotice] = [:]
  /// Dials in the order of their deadlines; those that are over are skipped.
  var dialDeadlines: [(stream: StreamID, due: UInt64)] = []
  /// Clients whose queue is full, or who finish and have something left to read.
  var watched: Set<ClientID> = []
  /// The client whose frames are being carried out: it needs nobody to go on with it.
  var working: ClientID?
  /// Clients with an open connection.
  private(set) var connectedCount = 0
  private var lastClient: UInt64 = 0
  private var lastRequest: UInt64 = 0
  private var lastStream: UInt32 = 0
  private var actions: [Action] = []
  var changed: Set<ClientID> = []
  private var counts: [LocalSocketCount: Int] = [:]

  package init(reservedPorts: Set<UInt16>, limits: LocalSocketLimits = LocalSocketLimits()) {
    self.reservedPorts = reservedPorts
    self.limits = limits
  }

  // MARK: What is to be done

  /// To be carried out in this order, and before room is announced again.
  package mutating func takeActions() -> [Action] {
    for case .send(let stream, _) in actions { streams[stream]?.untaken = 0 }
    defer { actions = [] }
    return actions
  }

  /// Clients whose `pendingOutput` or `wantsInput` may have changed since the last call.
  package mutating func takeChangedClients() -> Set<ClientID> {
    defer { changed = [] }
    return changed
  }

  package mutating func takeCounts() -> [LocalSocketCount: Int] {
    defer { counts = [:] }
    return counts
  }

  /// Ports that clients have bound.
  package var boundPorts: Set<UInt16> { Set(owners.keys) }
  package var clientCount: Int { connectedCount }
  /// The streams of a client, dials under way included: those to look at after `resume`.
  package func streams(of id: ClientID) -> Set<StreamID> { clients[id]?.streams ?? [] }

  // MARK: Connections

  /// A connection was accepted. nil: it is one too many, to be closed at once.
  package mutating func connected() -> ClientID? {
    // Those that are gone and still have something to be carried out count for themselves.
    guard connectedCount < limits.clients, clients.count < 2 * limits.clients else {
      count(.clientLimit)
      return nil
    }
    lastClient += 1
    let id = ClientID(number: lastClient)
    clients[id] = Client()
    connectedCount += 1
    return id
  }

  /// Bytes came. To be called only while `wantsInput`, with not much more than 64 KB at a time: that is the bound of
  /// what is kept besides one frame.
  package mutating func received(_ id: ClientID, _ bytes: some Collection<UInt8>, now: UInt64) {
    guard clients[id]?.phase == .open else { return }
    clients[id]?.reader.append(bytes)
    work(id, now)
  }

  /// End of file, when everything was read: the client sends nothing more, and may still read. What came is carried out
  /// and answered, its streams are closed behind what was sent, its ports are free; then comes `disconnect`.
  package mutating func finishedSending(_ id: ClientID, now: UInt64) {
    guard clients[id]?.phase == .open else { return }
    clients[id]?.phase = .finishing
    work(id, now)
  }

  /// Nothing can be written to the client any more. What it wrote before it went may still be unread: go on reading up
  /// to the end of file.
  package mutating func stoppedReading(_ id: ClientID, now: UInt64) {
    guard let phase = clients[id]?.phase, phase != .gone else { return }
    clients[id]?.isDeaf = true
    clients[id]?.output.removeAll()
    watch(id, now)
    act(.resume(id))
    work(id, now)
  }

  /// Nothing can be read of the client any more, and nothing written: the connection is broken. What came before is
  /// carried out as above, but nothing is answered, and no `disconnect` follows.
  package mutating func hungUp(_ id: ClientID, now: UInt64) {
    guard let phase = clients[id]?.phase, phase != .gone else { return }
    leave(id)
    work(id, now)
  }

  /// From here on the socket is nothing of this client's.
  private mutating func leave(_ id: ClientID) {
    clients[id]?.phase = .gone
    clients[id]?.output.removeAll()
    connectedCount -= 1
    watched.remove(id)
    changed.remove(id)
  }

  /// Closes a connection from this side.
  mutating func disconnect(_ id: ClientID, _ now: UInt64) {
    guard let phase = clients[id]?.phase, phase != .gone else { return }
    leave(id)
    act(.disconnect(id))
    work(id, now)
  }

  // MARK: Numbers and notes

  mutating func act(_ action: Action) {
    if case .send(let stream, let bytes) = action {
      streams[stream]?.room -= bytes.count
      streams[stream]?.untaken += bytes.count
    }
    actions.append(action)
  }

  mutating func count(_ what: LocalSocketCount) { counts[what, default: 0] += 1 }

  mutating func nextRequest() -> RequestID {
    lastRequest += 1
    return RequestID(number: lastRequest)
  }

  /// Numbers come again after 2^32 streams, but not while they are in use.
  mutating func nextStream() -> StreamID {
    repeat {
      lastStream &+= 1
    } while lastStream == 0 || streams[StreamID(lastStream)] != nil
      || notices[StreamID(lastStream)] != nil
    return StreamID(lastStream)
  }

  mutating func forget(_ stream: StreamID) {
    guard let owner = streams.removeValue(forKey: stream)?.client else { return }
    clients[owner]?.streams.remove(stream)
  }
}
