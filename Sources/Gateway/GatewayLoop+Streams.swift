// Events of streams, to those whom the streams serve.

import Streams
import Wire

extension GatewayLoop {
  func handle(_ event: StreamTable.Event) {
    switch event {
    case .arrived(let id): arrived(id)
    case .opened(let id):
      switch owners[id] {
      case .connection(let flow): if let connection = connections[flow] { streamOpened(connection) }
      case .message(let number): messageOpened(number)
      case .local(let number): localOpened(number)
      case .echo, .inbox, .exchange, .events, .discard, nil: break
      }
    case .changed(let id):
      switch owners[id] {
      case .echo: Echo.work(&streams, id, now: now, wall: hooks.wall())
      case .connection(let flow): markPending(flow)
      case .message(let number): messageChanged(number)
      case .inbox: readInbox(id)
      case .exchange: workExchange(id)
      case .events: workEvents(id)
      case .local(let number): localChanged(number)
      case .discard:
        streams.look(id)
        _ = streams.read(id, .max, now: now)
      case nil: streams.abort(id, now: now)
      }
    case .closed(let id, let end):
      switch owners.removeValue(forKey: id) {
      case .connection(let flow): if let connection = connections[flow] { streamClosed(connection, end) }
      case .message(let number): messageClosed(number, end)
      case .inbox, .discard: inboxes[id] = nil
      case .exchange, .events: serviceClosed(id)
      case .local(let number): localClosed(number, end)
      case .echo, nil: break
      }
    }
  }

  private func arrived(_ id: StreamID) {
    guard let ends = streams.ends(of: id) else { return }
    switch ends.localPort {
    case PilotPort.echo:
      owners[id] = .echo
      streams.accept(id, now: now)
      streams.closeWhenIdle(id, after: Echo.idleLasts, now: now)
    case PilotPort.handshake:
      owners[id] = .inbox
      inboxes[id] = now + 10 * Self.second
      streams.accept(id, now: now)
    default: if !arriveLocal(id, ends), !arriveAtService(id, ends) { connect(id, ends) }
    }
  }

  func markPending(_ flow: UInt16) {
    guard let connection = connections[flow], !connection.isPending else { return }
    connection.isPending = true
    pending.append(flow)
  }
}
