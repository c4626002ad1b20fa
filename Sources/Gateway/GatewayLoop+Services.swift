// Ports 1001 and 1002, when official clients are served and none of them has bound the port: streams of peers, and what
// the pure machines of Services make of their bytes.

import Services
import Streams
import Wire

extension GatewayLoop {
  /// False: the port is no service's.
  func arriveAtService(_ id: StreamID, _ ends: StreamTable.Ends) -> Bool {
    guard let services else { return false }
    switch ends.localPort {
    case PilotPort.dataExchange:
      services.exchanges[id] = ServiceSide.Exchange(number: services.nextNumber())
      owners[id] = .exchange
      streams.accept(id, now: now)
      streams.closeWhenIdle(id, after: DataExchange.idleLasts, now: now)
    case PilotPort.eventStream:
      services.broker.joined(id, now: now)
      owners[id] = .events
      streams.accept(id, now: now)
    default: return false
    }
    return true
  }

  func serviceClosed(_ id: StreamID) { services?.forget(id) }

  /// Nothing more is read, and what comes is thrown away.
  private func endService(_ id: StreamID, _ reason: GatewayCount) {
    count(reason)
    services?.forget(id)
    owners[id] = .discard
    streams.close(id, now: now)
  }

  // MARK: Data exchange

  func workExchange(_ id: StreamID) {
    guard let services, let peer = streams.ends(of: id)?.remote else { return }
    streams.look(id)
    while services.exchanges[id] != nil, writeAnswer(id, services) {
      let step = services.exchanges[id]?.machine.next(wall: hooks.wall()) ?? .wait
      switch step {
      case .send(let frame): services.exchanges[id]?.output += frame
      case .close: return endService(id, .exchangeMalformed)
      case .keep(let request):
        guard let number = services.exchanges[id]?.number else { return }
        let job = services.nextNumber()
        services.jobs[job] = id
        services.keep(.keep(request, job: job, stream: number, from: peer))
      case .wait:
        guard services.exchanges[id]?.machine.isWaitingForAnswer == false else { return }
        let bytes = streams.read(id, 65_536, now: now)
        guard !bytes.isEmpty else { return }
        services.exchanges[id]?.machine.received(bytes)
        let declared = services.exchanges[id]?.machine.frameBytes ?? 0
        guard services.declares(id, peer.node, declared) else { return endService(id, .exchangeMemory) }
      }
    }
  }

  /// False while an answer waits for room: nothing more is read of who does not read.
  private func writeAnswer(_ id: StreamID, _ services: ServiceSide) -> Bool {
    guard let output = services.exchanges[id]?.output, !output.isEmpty else { return true }
    // Who has ended is not answered any more.
    let written = streams.hasRemoteEnded(id) ? output.count : streams.write(id, output, now: now)
    services.exchanges[id]?.output.removeFirst(written)
    return written == output.count
  }

  /// The inbox has kept something, or not.
  func kept(_ job: UInt64, _ result: ExchangeResult) {
    guard let services, let id = services.jobs.removeValue(forKey: job), services.exchanges[id] != nil,
      let peer = streams.ends(of: id)?.remote.node
    else { return }
    let frame = services.exchanges[id]?.machine.answered(result, wall: hooks.wall()) ?? []
    services.exchanges[id]?.output += frame
    // The frame's room is free again.
    let declared = services.exchanges[id]?.machine.frameBytes ?? 0
    guard services.declares(id, peer, declared) else { return endService(id, .exchangeMemory) }
    workExchange(id)
  }

  // MARK: Events

  func workEvents(_ id: StreamID) {
    guard let services, let peer = streams.ends(of: id)?.remote.node else { return }
    streams.look(id)
    writeEvents(id, services)
    while true {
      let bytes = streams.read(id, 65_536, now: now)
      guard !bytes.isEmpty else { break }
      guard services.broker.received(id, bytes, now: now) else {
        endService(id, .exchangeMalformed)
        break
      }
      guard services.declares(id, peer, services.broker.eventBytes(of: id)) else {
        endService(id, .exchangeMemory)
        break
      }
    }
    for (reason, number) in services.broker.takeCounts() { tally.count(reason.rawValue, number) }
    for id in services.broker.takeTouched() { writeEvents(id, services) }
  }

  private func writeEvents(_ id: StreamID, _ services: ServiceSide) {
    let output = services.broker.pending(of: id)
    guard !output.isEmpty else { return }
    services.broker.wrote(id, streams.write(id, output, now: now))
  }
}
