// The streams of clients (wire/ipc §8): what they ask for, and what the stream table says.

package import Wire

extension LocalSocketServer {
  // MARK: Requests

  mutating func dial(_ address: PilotAddress?, _ port: UInt16?, _ id: ClientID, _ now: UInt64) {
    guard let address, let port else { return refuse(LocalError("dial: missing address/port"), id, now) }
    let quota = limits.streamsPerClient
    guard (clients[id]?.streams.count ?? 0) < quota else {
      return refuse(LocalError("dial: per-client connection quota (\(quota)) reached"), id, now)
    }
    guard streams.count < limits.streams else {
      return refuse(LocalError("dial: connection limit (\(limits.streams)) reached"), id, now)
    }
    let stream = add(to: id, .dialing)
    clients[id]?.unanswered += 1
    dialDeadlines.append((stream, now &+ limits.dial))
    act(.dial(stream, address, port: port))
  }

  private mutating func add(to id: ClientID, _ phase: Stream.Phase) -> StreamID {
    let stream = nextStream()
    streams[stream] = Stream(client: id, phase: phase)
    clients[id]?.streams.insert(stream)
    return stream
  }

  /// As much as the stream takes now; the rest holds up what comes behind it on this connection.
  mutating func send(_ conn: UInt32?, _ data: ArraySlice<UInt8>, _ id: ClientID) {
    guard let stream = conn.map(StreamID.init), let state = streams[stream], state.client == id,
      case .open = state.phase, !data.isEmpty
    else { return }
    let taken = data.prefix(max(0, state.room))
    if !taken.isEmpty { act(.send(stream, Array(taken))) }
    let rest = data.dropFirst(taken.count)
    // Copied: a slice would keep the whole buffer that it is in.
    if !rest.isEmpty { clients[id]?.blocked = Client.BlockedSend(stream: stream, data: Array(rest)[...]) }
  }

  /// Any client may close any stream.
  mutating func close(_ conn: UInt32?, _ id: ClientID, _ now: UInt64) {
    guard let conn else { return refuse(LocalError("close: missing conn_id"), id, now) }
    let stream = StreamID(conn)
    if notices[stream]?.client == id { notices[stream] = nil }
    if let state = streams[stream], case .open(let since) = state.phase {
      if state.client != id { noticeEnd(of: stream, to: state.client, since: since, now) }
      if clients[state.client]?.blocked?.stream == stream {
        streams[stream]?.phase = .draining
      } else {
        act(.close(stream))
        forget(stream)
      }
    }
    queue(LocalFrame.make(LocalFrame.closeOK, conn), to: id, now)
  }

  mutating func cancelDials(of id: ClientID, _ now: UInt64) {
    let dials = (clients[id]?.streams ?? []).filter { streams[$0]?.phase == .dialing }
    for stream in dials.sorted(by: { $0.number < $1.number }) {
      act(.cancelDial(stream))
      answerDial(stream, LocalFrame.error(LocalDialFailure.canceled.text), now)
      forget(stream)
    }
    dropPastDials()
  }

  /// Answers the client of a dial; what becomes of the stream is the caller's.
  mutating func answerDial(_ stream: StreamID, _ frame: [UInt8], _ now: UInt64) {
    guard let id = streams[stream]?.client else { return }
    clients[id]?.unanswered -= 1
    queue(frame, to: id, now)
  }

  // MARK: What the stream table says

  /// A dial has succeeded. One that nobody waits for any more is closed.
  package mutating func opened(_ stream: StreamID, now: UInt64) {
    guard let state = streams[stream], state.phase == .dialing else {
      if streams[stream] == nil { act(.close(stream)) }
      return
    }
    answerDial(stream, LocalFrame.make(LocalFrame.dialOK, stream.number), now)
    streams[stream]?.phase = .open(since: now)
    dropPastDials()
    resumeWork(state.client, now)
  }

  /// A dial has failed.
  package mutating func failed(_ stream: StreamID, _ failure: LocalDialFailure, now: UInt64) {
    guard let state = streams[stream], state.phase == .dialing else { return }
    answerDial(stream, LocalFrame.error(failure.text), now)
    forget(stream)
    dropPastDials()
    resumeWork(state.client, now)
  }

  /// A peer opened a stream to a port of ours. nil: nobody has bound it, or too many streams are open.
  package mutating func arrived(
    port: UInt16, remote: PilotAddress, remotePort: UInt16, now: UInt64
  ) -> StreamID? {
    guard let id = owners[port], let client = clients[id], client.phase == .open,
      client.streams.count < limits.streamsPerClient, streams.count < limits.streams
    else { return nil }
    let stream = add(to: id, .open(since: now))
    queue(LocalFrame.accept(port: port, stream, remote, remotePort), to: id, now)
    return stream
  }

  /// The stream takes this many bytes, everything counted that was sent by actions that were taken. This replaces what
  /// was announced before; room shrinks by nothing but what is sent.
  package mutating func canTake(_ stream: StreamID, room: Int, now: UInt64) {
    guard let state = streams[stream], state.phase != .dialing else { return }
    let room = max(0, room - state.untaken)
    streams[stream]?.room = room
    let id = state.client
    guard room > 0, var blocked = clients[id]?.blocked, blocked.stream == stream else { return }
    let taken = blocked.data.prefix(room)
    act(.send(stream, Array(taken)))
    blocked.data = blocked.data.dropFirst(taken.count)
    guard blocked.data.isEmpty else {
      clients[id]?.blocked = blocked
      return
    }
    if state.phase == .draining {
      act(.close(stream))
      forget(stream)
    }
    unblock(id, now)
  }

  /// Bytes of a stream, for its client. To be read from the stream only while `wantsData`.
  package mutating func data(_ stream: StreamID, _ bytes: some Collection<UInt8>, now: UInt64) {
    guard let state = streams[stream], case .open = state.phase else { return }
    var rest = Array(bytes)[...]
    while !rest.isEmpty {
      let part = rest.prefix(LocalSocketLimits.replyBody)
      queue(LocalFrame.recv(stream, part), to: state.client, now)
      rest = rest.dropFirst(part.count)
    }
  }

  /// The peer has closed the stream, or it died; all its data was handed over before. It is over in both directions:
  /// what its client sends from now on is swallowed.
  package mutating func ended(_ stream: StreamID, now: UInt64) {
    guard let state = streams[stream] else { return }
    let id = state.client
    switch state.phase {
    case .dialing: return failed(stream, .unreachable("the stream ended before it was open"), now: now)
    case .open(let since):
      forget(stream)
      noticeEnd(of: stream, to: id, since: since, now)
    // Its client was told when it was closed.
    case .draining: forget(stream)
    }
    if clients[id]?.blocked?.stream == stream { unblock(id, now) }
  }

  /// The push that tells a client the end of its stream; never too soon behind the beginning.
  private mutating func noticeEnd(of stream: StreamID, to id: ClientID, since: UInt64, _ now: UInt64) {
    let due = since &+ limits.closeNoticeDelay
    if now >= due {
      queue(LocalFrame.make(LocalFrame.closeOK, stream.number), to: id, now)
    } else if clients[id]?.phase == .open {
      notices[stream] = CloseNotice(client: id, due: due)
    }
  }

  private mutating func unblock(_ id: ClientID, _ now: UInt64) {
    clients[id]?.blocked = nil
    resumeWork(id, now)
  }

  /// Goes on with what a client sent, unless that is where this came from.
  mutating func resumeWork(_ id: ClientID, _ now: UInt64) {
    guard working != id else { return }
    work(id, now)
  }
}
