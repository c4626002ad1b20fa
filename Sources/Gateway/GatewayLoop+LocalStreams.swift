// Streams and datagrams of official clients on this machine: between the numbers that they know and the stream table.

import Engine
import LocalSocket
import Streams
import Wire

extension GatewayLoop {
  /// What one UDP datagram carries, with all headers.
  static let longestDatagram = 59_900

  func localOpened(_ number: UInt32) {
    guard let local, let id = local.streams[number] else { return }
    local.server.opened(LocalSocket.StreamID(number), now: now)
    local.server.canTake(LocalSocket.StreamID(number), room: streams.writable(id), now: now)
  }

  func localChanged(_ number: UInt32) {
    guard let local, let id = local.streams[number] else { return }
    let stream = LocalSocket.StreamID(number)
    streams.look(id)
    while streams.readable(id) > 0, local.server.wantsData(stream) {
      local.server.data(stream, streams.read(id, 65_536, now: now), now: now)
    }
    local.server.canTake(stream, room: streams.writable(id), now: now)
  }

  func localClosed(_ number: UInt32, _ end: StreamEnd) {
    guard let local, local.streams.removeValue(forKey: number) != nil else { return }
    let stream = LocalSocket.StreamID(number)
    switch end {
    case .refused: local.server.failed(stream, .refused, now: now)
    case .unanswered: local.server.failed(stream, .timedOut, now: now)
    case .finished, .reset, .timedOut: local.server.ended(stream, now: now)
    }
  }

  /// A peer's stream to a port that a client has bound. False: nobody has.
  func arriveLocal(_ id: Streams.StreamID, _ ends: StreamTable.Ends) -> Bool {
    guard let local,
      let stream = local.server.arrived(
        port: ends.localPort, remote: ends.remote, remotePort: ends.remotePort, now: now)
    else { return false }
    local.streams[stream.number] = id
    owners[id] = .local(stream.number)
    streams.accept(id, now: now)
    local.server.canTake(stream, room: streams.writable(id), now: now)
    return true
  }

  func localStatus(_ local: LocalSide) -> LocalStatus {
    var rows: [StreamRow] = []
    for (id, owner) in owners {
      if let number = number(of: id, owner), let row = row(of: id, number: number) { rows.append(row) }
    }
    var ports = local.server.boundPorts.union(LocalSide.reservedPorts)
    if services != nil { ports.formUnion([PilotPort.dataExchange, PilotPort.eventStream]) }
    return LocalStatus(
      streams: rows.sorted { $0.id < $1.id },
      ports: ports.count)
  }

  /// Those that are no client's have numbers above all that clients are given: what they name is never another's.
  private func number(of id: Streams.StreamID, _ owner: StreamOwner) -> UInt32? {
    switch owner {
    case .local(let number): number
    case .connection, .echo, .message, .inbox, .exchange, .events: 1 << 31 | id.slot
    case .discard: nil
    }
  }

  private func row(of id: Streams.StreamID, number: UInt32) -> StreamRow? {
    guard let ends = streams.ends(of: id), let phase = streams.phase(of: id),
      let statistics = streams.statistics(of: id)
    else { return nil }
    let state: StreamRow.State =
      switch phase {
      case .dialing: .synSent
      case .arriving: .synReceived
      case .open: .established
      case .closing: .finWait
      case .lingering: .timeWait
      case .closed: .closed
      }
    return StreamRow(
      id: number, localPort: ends.localPort, remote: ends.remote, remotePort: ends.remotePort, state: state,
      statistics: statistics)
  }

  // MARK: Datagrams

  func send(
    _ bytes: [UInt8], from own: PilotAddress?, to peer: PilotAddress, _ port: UInt16, _ confirm: RequestID?,
    _ local: LocalSide
  ) {
    guard let own else {
      if let confirm { local.server.answered(confirm, .failure(LocalError("this node has no address yet")), now: now) }
      return
    }
    guard bytes.count <= Self.longestDatagram else {
      count(.datagramUndeliverable)
      let text = "sendto: payload too large: \(bytes.count) bytes (max \(Self.longestDatagram))"
      if let confirm { local.server.answered(confirm, .failure(LocalError(text)), now: now) }
      return
    }
    let source = local.nextPort
    local.nextPort = source == .max ? PilotPort.firstEphemeral : source + 1
    let packet = PilotPacket(
      protocolNumber: .datagram, source: own, destination: peer, sourcePort: source, destinationPort: port,
      payload: bytes)
    let datagram = LocalSide.Datagram(
      to: peer, packet: packet, confirm: confirm, deadline: now + LocalSide.sessionWithin)
    if peer.node == ownNode || peers[peer.node]?.isReady == true { return deliver(datagram, local) }
    guard local.datagrams.count < LocalSide.mostWaiting,
      local.waitingBytes + bytes.count <= LocalSide.mostWaitingBytes
    else {
      return undeliverable(datagram, "pending queue full")
    }
    local.datagrams.append(datagram)
    tell(.wanted(peer))
  }

  func deliver(_ datagram: LocalSide.Datagram, _ local: LocalSide) {
    let packet = datagram.packet
    if packet.destination.node == ownNode {
      receiveDatagram(packet)
    } else if let peer = peers[packet.destination.node] {
      output.append(.sendInner(peer.index, packet.encoded(), path: nil))
    }
    if let confirm = datagram.confirm { local.server.answered(confirm, .success([]), now: now) }
  }

  func undeliverable(_ datagram: LocalSide.Datagram, _ reason: String) {
    count(.datagramUndeliverable)
    if let confirm = datagram.confirm {
      local?.server.answered(confirm, .failure(LocalError("sendto: \(reason)")), now: now)
    }
  }

  func receiveDatagram(_ packet: PilotPacket) {
    local?.server.datagram(
      from: packet.source, sourcePort: packet.sourcePort, destinationPort: packet.destinationPort, packet.payload,
      now: now)
  }
}
