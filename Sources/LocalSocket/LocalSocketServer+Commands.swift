// What each request does (wire/ipc §5).

package import Wire

extension LocalSocketServer {
  /// Carries out one frame.
  mutating func carryOut(_ number: UInt8, _ body: ArraySlice<UInt8>, _ id: ClientID, _ now: UInt64) {
    guard let command = LocalCommand(rawValue: number) else {
      refuse(LocalError("unknown command: \(hexadecimal(number))"), id, now)
      return
    }
    var reader = ByteReader(body)
    switch command {
    case .bind: bind(reader.u16(), id, now)
    case .unbind: unbind(body.count == 2 ? reader.u16() : nil, id, now)
    case .dial: dial(reader.address(), reader.u16(), id, now)
    case .send: send(reader.u32(), reader.rest(), id)
    case .close: close(reader.u32(), id, now)
    case .cancel: cancelDials(of: id, now)
    case .sendTo: sendTo(reader.address(), reader.u16(), reader.rest())
    case .sendToConfirm: sendToConfirm(reader.address(), reader.u16(), reader.rest(), id, now)
    default:
      do {
        if let query = try LocalQuery(command, body) { act(.ask(request(command, id), query)) }
      } catch {
        refuse(error, id, now)
      }
    }
  }

  /// Answers a request that asks nobody.
  mutating func refuse(_ error: LocalError, _ id: ClientID, _ now: UInt64) {
    queue(LocalFrame.error(error.text), to: id, now)
  }

  // MARK: Ports

  private mutating func bind(_ port: UInt16?, _ id: ClientID, _ now: UInt64) {
    guard let port else { return refuse(LocalError("bind: missing port"), id, now) }
    guard owners[port] == nil, !reservedPorts.contains(port) else {
      return refuse(LocalError("port \(port) already bound"), id, now)
    }
    owners[port] = id
    clients[id]?.ports.insert(port)
    act(.bind(port: port))
    queue(LocalFrame.make(LocalCommand.bind.success, port), to: id, now)
  }

  private mutating func unbind(_ port: UInt16?, _ id: ClientID, _ now: UInt64) {
    guard let port else { return refuse(LocalError("unbind: port is required"), id, now) }
    guard owners[port] == id else { return refuse(LocalError("unbind: port is not owned by this client"), id, now) }
    owners[port] = nil
    clients[id]?.ports.remove(port)
    act(.unbind(port: port))
    queue(LocalFrame.make(LocalCommand.unbind.success, port), to: id, now)
  }

  // MARK: Datagrams

  /// Never answered, whatever becomes of it.
  private mutating func sendTo(_ address: PilotAddress?, _ port: UInt16?, _ data: ArraySlice<UInt8>) {
    guard let address, let port, datagramFault(address, data.count) == nil else { return }
    act(.sendDatagram(address, port: port, Array(data), confirm: nil))
  }

  private mutating func sendToConfirm(
    _ address: PilotAddress?, _ port: UInt16?, _ data: ArraySlice<UInt8>, _ id: ClientID, _ now: UInt64
  ) {
    let request = request(.sendToConfirm, id)
    guard let address, let port else {
      return answered(request, .failure(LocalError("sendto: missing header")), now: now)
    }
    if let fault = datagramFault(address, data.count) { return answered(request, .failure(fault), now: now) }
    act(.sendDatagram(address, port: port, Array(data), confirm: request))
  }

  private func datagramFault(_ address: PilotAddress, _ count: Int) -> LocalError? {
    if address.node == PilotAddress.broadcastNode {
      return LocalError("sendto: broadcast address requires admin token: use broadcast")
    }
    let most = LocalSocketLimits.datagramData
    return count > most
      ? LocalError("sendto: marshal: payload too large: \(count) bytes (max \(most))") : nil
  }

  /// A datagram came: every client gets it, and picks by the destination port. One with a full queue does not.
  package mutating func datagram(
    from source: PilotAddress, sourcePort: UInt16, destinationPort: UInt16, _ data: [UInt8], now: UInt64
  ) {
    guard !data.isEmpty, data.count <= LocalSocketLimits.datagramData else { return }
    let frame = LocalFrame.recvFrom(source, sourcePort, destinationPort, data)
    for id in clients.keys where clients[id]?.phase == .open {
      if clients[id]?.output.isAtLimit(limits) == true {
        count(.clientQueueFull)
      } else {
        queue(frame, to: id, now)
      }
    }
  }
}
