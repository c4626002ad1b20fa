// TCP connections of local programs to official agents, and of official agents to local servers: how they begin and end.
// The local kernel ends the TCP connection at a socket of ours; a stream carries the bytes (+Pump).

import Engine
import Shim
import Streams
import Wire

extension GatewayLoop {
  static let connectionLimit = StreamTable.total
  /// How long the kernel may take to complete a connection: a local server that does not accept, a program that is gone.
  private static let completesWithin = 10 * second

  // MARK: A program opens one

  /// Its SYN came (as the TUN gave it, the packet from `offset` on): the peer is asked first.
  func open(_ bytes: [UInt8], packetAt offset: Int) {
    let tuple: Connection.Tuple? = bytes.withUnsafeBytes { bytes in
      guard let base = bytes.baseAddress, bytes.count > offset,
        let packet = IPv6Packet(base + offset, count: bytes.count - offset),
        let header = TCPHeader(base + offset + IPv6Packet.headerSize, count: packet.payloadLength)
      else { return nil }
      return Connection.Tuple(
        own: packet.source, ownPort: header.sourcePort, peer: packet.destination, peerPort: header.destinationPort)
    }
    // A SYN of our own socket, seen before the command that tells its row: now the worker knows it.
    if let tuple, tuple.own == OverlayMapping.gateway {
      if let connection = connections[tuple.peerPort], connection.phase == .connecting,
        connection.socketPort == tuple.ownPort
      {
        output.append(.retry(bytes))
      }
      return
    }
    guard let tuple, let own = OverlayMapping.pilotAddress(from: tuple.own),
      let peer = OverlayMapping.pilotAddress(from: tuple.peer)
    else { return count(.openingMalformed) }
    // The program's kernel asks again while we ask the peer.
    if let known = tuples[tuple], connections[known] != nil { return }
    guard connections.count < Self.connectionLimit, let flow = flows.take() else {
      count(.connectionLimit)
      return output.append(.refuse(bytes, nil))
    }
    guard let stream = streams.dial(from: own, to: peer, port: tuple.peerPort, now: now) else {
      flows.giveBack(flow)
      count(.connectionLimit)
      return output.append(.refuse(bytes, nil))
    }
    let connection = Connection(
      flow: flow, isOutbound: true, own: tuple.own, ownPort: tuple.ownPort, peer: tuple.peer,
      peerPort: tuple.peerPort, phase: .dialing, stream: stream)
    connection.held = bytes
    connections[flow] = connection
    tuples[tuple] = flow
    owners[stream] = .connection(flow)
    noteDial(of: peer.node)
  }

  /// The peer accepted: the SYN goes on to our listener.
  func streamOpened(_ connection: Connection) {
    guard connection.phase == .dialing else { return }
    connection.phase = .accepting
    connection.deadline = now + Self.completesWithin
    output.append(.setFlow(row(of: connection, gatewayPort: listenerPort)))
    output.append(.retry(connection.held))
    connection.held = []
  }

  private func row(of connection: Connection, gatewayPort: UInt16) -> TranslatedFlow {
    TranslatedFlow(
      id: connection.flow, own: connection.own, ownPort: connection.ownPort, peer: connection.peer,
      peerPort: connection.peerPort, gatewayPort: gatewayPort)
  }

  /// The listener is readable.
  func acceptConnections() {
    while true {
      var address: (UInt64, UInt64) = (0, 0)
      var port: UInt16 = 0
      let descriptor = withUnsafeMutableBytes(of: &address) { bytes in
        // SAFETY: 16 bytes.
        pt_tcp_accept(listener, bytes.baseAddress!.assumingMemoryBound(to: UInt8.self), &port)
      }
      guard descriptor >= 0 else { return }
      let from = IPv6Address(high: UInt64(bigEndian: address.0), low: UInt64(bigEndian: address.1))
      // A program that connects to our port by itself, or one whose connection has ended meanwhile.
      guard from == OverlayMapping.phantom, let connection = connections[port], connection.phase == .accepting else {
        count(.connectionUnclaimed)
        pt_tcp_abort(descriptor)
        continue
      }
      take(descriptor, for: connection)
    }
  }

  private func take(_ descriptor: Int32, for connection: Connection) {
    connection.descriptor = descriptor
    connection.phase = .open
    connection.deadline = .max
    guard pt_epoll_add(epoll, descriptor, Self.connectionTag + UInt64(connection.flow)) == 0 else {
      return fail(connection)
    }
    markPending(connection.flow)
  }

  // MARK: A peer opens one

  /// The local server of this port is asked first.
  func connect(_ stream: StreamID, _ ends: StreamTable.Ends) {
    guard connections.count < Self.connectionLimit, let own = ownAddress(in: ends.local.network),
      let flow = flows.take()
    else {
      count(.connectionLimit)
      return streams.refuse(stream, now: now)
    }
    var port: UInt16 = 0
    let descriptor = OverlayMapping.gateway.withBytes { pt_tcp_bind($0, &port) }
    let connection = Connection(
      flow: flow, isOutbound: false, own: OverlayMapping.address(for: own), ownPort: ends.localPort,
      peer: OverlayMapping.address(for: ends.remote), peerPort: ends.remotePort, phase: .connecting, stream: stream)
    guard descriptor >= 0, tuples[connection.tuple] == nil else {
      pt_close(descriptor)
      flows.giveBack(flow)
      count(.connectFailed)
      return streams.refuse(stream, now: now)
    }
    connection.descriptor = descriptor
    connection.socketPort = port
    connection.deadline = now + Self.completesWithin
    connections[flow] = connection
    tuples[connection.tuple] = flow
    owners[stream] = .connection(flow)
    // What was said before of the same number comes first.
    submit()
    // The worker knows the row before it sees the SYN: the command is there when the SYN enters the TUN.
    guard engine.submit(.setFlow(row(of: connection, gatewayPort: port))),
      pt_epoll_add(epoll, descriptor, Self.connectionTag + UInt64(flow)) == 0,
      OverlayMapping.phantom.withBytes({ pt_tcp_connect(descriptor, $0, flow) }) == 0
    else { return fail(connection) }
  }

  /// The local server answered, or is not there.
  private func completeConnect(_ connection: Connection) {
    guard let stream = connection.stream else { return }
    guard pt_socket_error(connection.descriptor) == 0 else {
      owners[stream] = nil
      streams.refuse(stream, now: now)
      connection.stream = nil
      return endConnection(connection, isAborted: true)
    }
    connection.phase = .open
    connection.deadline = .max
    streams.accept(stream, now: now)
    markPending(connection.flow)
  }

  // MARK: Sockets with news

  func noteReady(_ entry: pt_happened) {
    guard let connection = connections[UInt16(truncatingIfNeeded: entry.tag)], connection.descriptor >= 0 else {
      return
    }
    if entry.events & UInt32(PT_READABLE | PT_HUNG_UP) != 0 { connection.canReceive = true }
    if entry.events & UInt32(PT_WRITABLE | PT_HUNG_UP) != 0 { connection.canSend = true }
    switch connection.phase {
    case .connecting: if entry.events & UInt32(PT_WRITABLE | PT_HUNG_UP) != 0 { completeConnect(connection) }
    case .open:
      // Nothing need be read or written for a reset to be noticed.
      if entry.events & UInt32(PT_HUNG_UP) != 0, pt_socket_error(connection.descriptor) != 0 {
        return endConnection(connection, isAborted: true)
      }
      markPending(connection.flow)
    case .dialing, .accepting: break
    }
  }

  // MARK: Ends

  /// The stream is gone.
  func streamClosed(_ connection: Connection, _ end: StreamEnd) {
    connection.stream = nil
    connection.isStreamOver = true
    switch connection.phase {
    case .dialing:
      // Refused there: refused here. No answer: unreachable.
      output.append(.refuse(connection.held, end == .refused ? nil : .addressUnreachable))
      endConnection(connection, isAborted: true)
    case .accepting where end == .finished: break
    case .accepting, .connecting: endConnection(connection, isAborted: true)
    case .open:
      if end == .finished { markPending(connection.flow) } else { endConnection(connection, isAborted: true) }
    }
  }

  /// Something here failed: both sides are told.
  func fail(_ connection: Connection) {
    count(.connectFailed)
    endConnection(connection, isAborted: true)
  }

  /// What was waited for did not come, or a half-closed connection has been quiet long enough.
  func expire(_ connection: Connection) {
    connection.deadline = .max
    switch connection.phase {
    case .dialing: break
    case .accepting: fail(connection)
    case .connecting:
      if let stream = connection.stream {
        owners[stream] = nil
        connection.stream = nil
        streams.refuse(stream, now: now)
      }
      fail(connection)
    case .open: expireOpen(connection)
    }
  }

  /// `isAborted`: the program hears RST, else it has heard FIN. The row stays for the last packets.
  func endConnection(_ connection: Connection, isAborted: Bool) {
    if let stream = connection.stream {
      owners[stream] = .discard
      connection.stream = nil
      if isAborted { streams.abort(stream, now: now) } else { streams.close(stream, now: now) }
    }
    // The worker hears of the end before the port is anybody's again.
    if !engine.submit(.endFlow(connection.flow)) { output.append(.endFlow(connection.flow)) }
    if connection.descriptor >= 0 {
      if isAborted { pt_tcp_abort(connection.descriptor) } else { pt_close(connection.descriptor) }
      connection.descriptor = -1
    }
    connections[connection.flow] = nil
    if tuples[connection.tuple] == connection.flow { tuples[connection.tuple] = nil }
    flows.end(connection.flow, now: now)
  }
}
