// Official clients on this machine (pilotctl, the SDK): their socket, their requests, their streams (wire/ipc). The
// protocol is LocalSocketServer's; here are the descriptors and the streams.

import Engine
import Glibc
import LinkIO
import LocalSocket
import Shim
import Streams
import Wire

extension GatewayLoop {
  // MARK: The socket

  func openLocal(_ path: String) {
    guard local == nil else { return }
    // A live daemon on the path is somebody's; a dead one's file is not.
    guard !UnixSocket.isAnswering(path) else {
      return failLocal(path, "another daemon serves it", hint: "stop that daemon, or choose another path for --ipc")
    }
    let listener = pt_unix_listen(path, 128)
    guard listener >= 0 else {
      let text = String(cString: strerror(-listener))
      return failLocal(path, text, hint: "the folder must exist and be writable, the path at most 90 bytes long")
    }
    let result = pt_epoll_add(epoll, listener, Self.localListenerTag)
    guard result == 0, let identity = FileIdentity.of(path) else {
      pt_close(listener)
      return failLocal(path, "errno \(-result)", hint: "another path, and the limit of open files (ulimit -n)")
    }
    local = LocalSide(path: path, listener: listener, identity: identity)
    services = hooks.keep.map { ServiceSide(keep: $0) }
    output.append(.tapDatagrams(true))
  }

  private func failLocal(_ path: String, _ reason: String, hint: String?) {
    tell(
      .localSocketFailed(
        GatewayError(
          code: "ipc_unavailable", message: "the local socket \(path) cannot be served: \(reason)", hint: hint)
      ))
  }

  func acceptClients() {
    guard let local else { return }
    while true {
      let descriptor = pt_unix_accept(local.listener)
      guard descriptor >= 0 else { return }
      var (user, group, process): (UInt32, UInt32, UInt32) = (0, 0, 0)
      // Its own user's, as the official daemon: root is refused, too, when the node is not root.
      guard pt_peer_credentials(descriptor, &user, &group, &process) == 0, user == geteuid() else {
        count(.clientForeign)
        pt_close(descriptor)
        continue
      }
      guard let id = local.server.connected() else {
        pt_close(descriptor)
        continue
      }
      let tag = UInt32(truncatingIfNeeded: id.number)
      guard pt_epoll_add(epoll, descriptor, Self.clientTag + UInt64(tag)) == 0 else {
        local.server.hungUp(id, now: now)
        pt_close(descriptor)
        continue
      }
      local.clients[id] = LocalSide.Client(descriptor: descriptor)
      local.clientsByTag[tag] = id
      local.busy.insert(id)
    }
  }

  func noteClient(_ entry: pt_happened) {
    guard let local, let id = local.clientsByTag[UInt32(truncatingIfNeeded: entry.tag)] else { return }
    if entry.events & UInt32(PT_READABLE | PT_HUNG_UP) != 0 { local.clients[id]?.canRead = true }
    if entry.events & UInt32(PT_WRITABLE | PT_HUNG_UP) != 0 { local.clients[id]?.canWrite = true }
    local.busy.insert(id)
  }

  func endLocal() {
    guard let local else { return }
    pt_close(local.listener)
    if let identity = FileIdentity.of(local.path), identity == local.identity { unlink(local.path) }
    for client in local.clients.values { pt_close(client.descriptor) }
    self.local = nil
  }

  // MARK: A turn

  var localDeadline: UInt64? {
    guard let local else { return nil }
    var due = local.server.nextDeadline ?? .max
    for dial in local.dials.values where dial.deadline < due { due = dial.deadline }
    for datagram in local.datagrams where datagram.deadline < due { due = datagram.deadline }
    return due == .max ? nil : due
  }

  func tickLocal() {
    guard let local else { return }
    local.server.tick(now)
    for (number, dial) in local.dials where dial.deadline <= now {
      local.dials[number] = nil
      local.server.failed(LocalSocket.StreamID(number), .timedOut, now: now)
    }
    while let datagram = local.datagrams.first, datagram.deadline <= now {
      local.datagrams.removeFirst()
      undeliverable(datagram, "no reply from the peer")
    }
  }

  /// Reads, writes and carries out. True while there may be more to do.
  func serveLocal() -> Bool {
    guard let local else { return false }
    let hasActed = carryOut(local)
    local.busy.formUnion(local.server.takeChangedClients())
    let turn = local.busy
    local.busy = []
    for id in turn { serve(id, local) }
    for (reason, number) in local.server.takeCounts() { tally.count(reason.rawValue, number) }
    return hasActed || !turn.isEmpty
  }

  private func serve(_ id: ClientID, _ local: LocalSide) {
    while let client = local.clients[id], client.canWrite {
      let output = local.server.pendingOutput(of: id)
      guard !output.isEmpty else { break }
      let result = output.withUnsafeBytes { pt_socket_send(client.descriptor, $0.baseAddress, $0.count) }
      if result == -11 {
        local.clients[id]?.canWrite = false
      } else if result < 0 {
        // What it wrote before it went is still read.
        local.clients[id]?.canWrite = false
        local.server.stoppedReading(id, now: now)
      } else {
        local.server.wrote(id, Int(result), now: now)
      }
    }
    guard let client = local.clients[id], client.canRead, !client.isAtEnd, local.server.wantsInput(id) else { return }
    let result = pt_socket_receive(client.descriptor, buffer, 65_536)
    if result == -11 {
      local.clients[id]?.canRead = false
      return
    }
    if result > 0 {
      local.server.received(id, UnsafeRawBufferPointer(start: buffer, count: Int(result)), now: now)
    } else if result == 0 {
      local.clients[id]?.isAtEnd = true
      local.server.finishedSending(id, now: now)
    } else {
      local.server.hungUp(id, now: now)
      close(id, local)
    }
    local.busy.insert(id)
  }

  private func close(_ id: ClientID, _ local: LocalSide) {
    guard let client = local.clients.removeValue(forKey: id) else { return }
    local.clientsByTag[UInt32(truncatingIfNeeded: id.number)] = nil
    pt_close(client.descriptor)
  }

  // MARK: What clients want

  /// Whether there was anything to carry out.
  private func carryOut(_ local: LocalSide) -> Bool {
    var hasActed = false
    while true {
      let actions = local.server.takeActions()
      guard !actions.isEmpty else { return hasActed }
      hasActed = true
      var touched: Set<UInt32> = []
      for action in actions {
        carryOut(action, local)
        switch action {
        case .send(let stream, _): touched.insert(stream.number)
        case .resume(let client): touched.formUnion(local.server.streams(of: client).map(\.number))
        default: break
        }
      }
      // Only now: room is announced as what is left behind all of them.
      for number in touched { localChanged(number) }
    }
  }

  private func carryOut(_ action: LocalSocketServer.Action, _ local: LocalSide) {
    switch action {
    case .dial(let stream, let peer, let port): dial(stream.number, peer, port, local)
    case .cancelDial(let stream):
      local.dials[stream.number] = nil
      if let id = local.streams.removeValue(forKey: stream.number) {
        owners[id] = .discard
        streams.abort(id, now: now)
      }
    case .send(let stream, let bytes):
      if let id = local.streams[stream.number] {
        _ = streams.write(id, bytes, now: now)
      }
    case .close(let stream):
      if let id = local.streams.removeValue(forKey: stream.number) {
        owners[id] = .discard
        streams.close(id, now: now)
      }
    case .bind, .unbind: break
    case .sendDatagram(let peer, let port, let bytes, let confirm):
      send(bytes, from: ownAddress(in: peer.network), to: peer, port, confirm, local)
    case .ask(let request, let query):
      // Clients wait for ever, so that a question that is lost must be answered here.
      if !tell(.ask(request, query, localStatus(local))) {
        local.server.answered(request, .failure(LocalError("the node is busy: try again")), now: now)
      }
    case .resume: break
    case .disconnect(let client): close(client, local)
    }
  }

  func answerLocal(_ request: RequestID, _ answer: Result<[UInt8], LocalError>) {
    local?.server.answered(request, answer, now: now)
  }

  private func dial(_ number: UInt32, _ peer: PilotAddress, _ port: UInt16, _ local: LocalSide) {
    guard peer.node != 0, peer.node != PilotAddress.broadcastNode, ownNode != nil else {
      let text = "resolve node \(peer.node): no such node"
      return local.server.failed(LocalSocket.StreamID(number), .unreachable(text), now: now)
    }
    local.dials[number] = LocalSide.Dial(to: peer, port: port, deadline: now + LocalSide.sessionWithin)
    if peer.node == ownNode || peers[peer.node]?.isReady == true {
      start(number, local)
    } else {
      tell(.wanted(peer))
    }
  }

  private func start(_ number: UInt32, _ local: LocalSide) {
    guard let dial = local.dials.removeValue(forKey: number) else { return }
    guard let own = ownAddress(in: dial.to.network),
      let id = streams.dial(from: own, to: dial.to, port: dial.port, now: now)
    else {
      return local.server.failed(
        LocalSocket.StreamID(number), .unreachable("dial: too many streams are open"), now: now)
    }
    local.streams[number] = id
    owners[id] = .local(number)
    noteDial(of: dial.to.node)
  }

  /// The peer has a session now.
  func startLocal(to node: UInt32) {
    guard let local else { return }
    for (number, dial) in local.dials where dial.to.node == node { start(number, local) }
    let waiting = local.datagrams
    local.datagrams = waiting.filter { $0.to.node != node }
    for datagram in waiting where datagram.to.node == node { deliver(datagram, local) }
  }

  /// There is no way to the peer.
  func failLocal(to node: UInt32) {
    guard let local else { return }
    let text = "resolve node \(node): unknown, private without mutual trust, or not reachable now"
    for (number, dial) in local.dials where dial.to.node == node {
      local.dials[number] = nil
      local.server.failed(LocalSocket.StreamID(number), .unreachable(text), now: now)
    }
    let waiting = local.datagrams
    local.datagrams = waiting.filter { $0.to.node != node }
    for datagram in waiting where datagram.to.node == node { undeliverable(datagram, text) }
  }
}

/// Which file stands at a path.
enum FileIdentity {
  /// Device and inode.
  static func of(_ path: String) -> (UInt64, UInt64)? {
    var information = stat()
    guard lstat(path, &information) == 0 else { return nil }
    return (UInt64(information.st_dev), UInt64(information.st_ino))
  }
}
