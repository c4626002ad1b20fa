// How far the frames of a client are carried out, and what follows once there are no more.

extension LocalSocketServer {
  /// False while a Send of this client has no room, or too much of it is unanswered or unread: do not read from it.
  package func wantsInput(_ id: ClientID) -> Bool {
    guard let client = clients[id] else { return false }
    return client.phase == .open && client.blocked == nil && !isBusy(client)
  }

  /// A request is in progress until its answer is among the first frames of the queue.
  private func isBusy(_ client: Client) -> Bool {
    let behind = max(0, client.output.frameCount - limits.queuedFrames)
    return client.unanswered + behind >= limits.requestsPerClient || client.output.byteCount >= limits.repliesBytes
  }

  private func carriesOn(_ id: ClientID) -> Bool {
    guard let client = clients[id] else { return false }
    return client.blocked == nil && !isBusy(client)
  }

  /// Carries out what this client sent, as far as it goes, and what follows from there being nothing more.
  mutating func work(_ id: ClientID, _ now: UInt64) {
    let outer = working
    working = id
    defer { working = outer }
    while carriesOn(id) {
      switch clients[id]?.reader.next() {
      case .frame(let number, let body): carryOut(number, body, id, now)
      case .tooLong:
        count(.frameTooLong)
        clients[id]?.reader.removeAll()
        if clients[id]?.phase == .open { clients[id]?.phase = .finishing }
      case .incomplete, nil:
        settle(id, now)
        noteChange(id)
        return
      }
    }
    noteChange(id)
  }

  private mutating func noteChange(_ id: ClientID) {
    if let phase = clients[id]?.phase, phase != .gone { changed.insert(id) }
  }

  /// Everything that came is carried out: the end of a client that sends nothing more.
  private mutating func settle(_ id: ClientID, _ now: UInt64) {
    guard let phase = clients[id]?.phase, phase != .open else { return }
    release(id, now)
    guard let client = clients[id] else { return }
    if phase == .gone {
      clients[id] = nil
      if client.unanswered > 0 { requests = requests.filter { $0.value.client != id } }
    } else if client.isDeaf || client.unanswered == 0 && client.output.isEmpty {
      disconnect(id, now)
    } else {
      watch(id, now)
    }
  }

  private mutating func release(_ id: ClientID, _ now: UInt64) {
    guard let client = clients[id], !client.isReleased else { return }
    clients[id]?.isReleased = true
    clients[id]?.reader.removeAll()
    for stream in client.streams.sorted(by: { $0.number < $1.number }) {
      if streams[stream]?.phase == .dialing {
        act(.cancelDial(stream))
        answerDial(stream, LocalFrame.error(LocalDialFailure.canceled.text), now)
      } else {
        act(.close(stream))
      }
      forget(stream)
    }
    dropPastDials()
    for port in client.ports.sorted() {
      owners[port] = nil
      act(.unbind(port: port))
    }
    clients[id]?.ports = []
    notices = notices.filter { $0.value.client != id }
  }
}
