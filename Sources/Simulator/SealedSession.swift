// The real HandshakeMachine of one peer, with a data plane that seals and opens by the real AEAD: what control and the
// engine do with its actions and events, in a hundred lines. VirtualPeer owns one.

import SeededRandom
package import Session
import Wire

package final class SealedSession: VirtualSession {
  private struct Tunnel {
    var context: AEADContext
    var sendPrefix: UInt32
    var sendCounter: UInt64 = 0
    /// Windows per nonce prefix of the peer.
    var windows: [UInt32: ReplayWindow] = [:]
    var isConfirmed = false
  }

  package private(set) var handshake: HandshakeMachine
  package private(set) var counts: [HandshakeCount: Int] = [:]
  package private(set) var alarms: [KeyAlarm] = []
  package private(set) var installations = 0
  package private(set) var promotions = 0
  package private(set) var retirements = 0
  package private(set) var giveUps = 0
  package private(set) var undecryptable = 0

  private unowned let peer: VirtualPeer
  private var tunnels: [HandshakeMachine.SessionID: Tunnel] = [:]
  private var sealing: HandshakeMachine.SessionID?

  init(peer: VirtualPeer, identity: Identity, configuration: HandshakeMachine.Configuration) {
    self.peer = peer
    handshake = HandshakeMachine(
      identity: identity, node: peer.node.id, peer: peer.id, configuration: configuration)
  }

  deinit { end() }

  /// The process ends and begins anew; the counters go on.
  func restart() {
    end()
    handshake = HandshakeMachine(
      identity: handshake.identity, node: handshake.node, peer: handshake.peer,
      configuration: handshake.configuration)
  }

  package func end() {
    for tunnel in tunnels.values { tunnel.context.release() }
    tunnels = [:]
    sealing = nil
  }

  package var isReady: Bool { sealing != nil }
  package var nextDeadline: UInt64? { handshake.nextDeadline }
  package func needed() { handle(.needed) }
  package func failing() { handle(.failing) }
  package func tick() { handle(.tick) }

  package func handle(_ event: HandshakeMachine.Event) {
    apply(handshake.handle(event, now: peer.node.now, lastReceive: peer.lastReceive, using: &peer.node.generator))
    peer.arm()
  }

  package func receive(_ payload: VirtualPayload, from arrival: Arrival) {
    guard case .frame(let bytes) = payload else { return }
    switch FrameKind(bytes) {
    case .pila: if let frame = KeyExchangeFrame(bytes) { handle(.keyExchange(frame, arrival)) }
    case .pilk: if let frame = KeyRequestFrame(bytes) { handle(.keyRequest(frame, arrival)) }
    case .pils: open(bytes, arrival)
    default: break
    }
  }

  private func apply(_ actions: [HandshakeMachine.Action]) {
    for action in actions {
      switch action {
      case .send(let bytes, let route): peer.transmit(.frame(bytes), route)
      case .attempted(let number): peer.tried(number)
      case .heard(.direct(let from)): peer.heard(from)
      case .heard(.relayed): peer.heard(nil)
      case .requestPeerKey: requestKey()
      case .install(let session, let context, let prefix):
        installations += 1
        tunnels[session] = Tunnel(context: context, sendPrefix: prefix)
      case .promote(let session, _):
        peer.node.network.log("\(peer.node.id) promotes \(session)")
        promotions += 1
        sealing = session
        peer.sessionReady()
      case .retire(let session):
        retirements += 1
        if sealing == session { sealing = nil }
        tunnels.removeValue(forKey: session)?.context.release()
      case .confirm: peer.sendControl(InnerKind.confirmBytes)
      case .replayEarly(let frames): for frame in frames { open(frame.bytes, frame.arrival) }
      case .punch: peer.requestPunch()
      case .giveUp: giveUps += 1
      case .count(let reason): counts[reason, default: 0] += 1
      case .alarm(let alarm): alarms.append(alarm)
      }
    }
  }

  private func requestKey() {
    let key = peer.node.directoryKey ?? peer.node.network.directory.record(of: peer.id)?.key
    peer.node.schedule(after: 2_000_000) { [weak self] in
      self?.handle(key.map { .peerKey($0) } ?? .peerKeyUnavailable)
    }
  }

  package func seal(_ inner: [UInt8], padding: Int) -> VirtualPayload? {
    guard let sealing, var tunnel = tunnels[sealing] else { return nil }
    tunnel.sendCounter += 1
    tunnels[sealing] = tunnel
    let body = inner + [UInt8](repeating: 0, count: padding)
    var frame = [UInt8](repeating: 0, count: SealedFrame.headerSize) + body
    frame += [UInt8](repeating: 0, count: SealedFrame.tagSize)
    frame.withUnsafeMutableBytes { bytes in
      guard let base = bytes.baseAddress else { return }
      SealedFrame.writeHeader(to: base, sender: peer.node.id, prefix: tunnel.sendPrefix, counter: tunnel.sendCounter)
      _ = AEADContext.seal(
        tunnel.context.raw, nonce: base + SealedFrame.nonceOffset, associated: base + SealedFrame.senderOffset,
        associatedLength: 4, text: base + SealedFrame.bodyOffset, length: body.count)
    }
    return .frame(frame)
  }

  private func open(_ frame: [UInt8], _ arrival: Arrival) {
    guard let name = FrameName(frame), name.sender == peer.id, frame.count >= SealedFrame.overhead else { return }
    for session in tunnels.keys.sorted() {
      guard var tunnel = tunnels[session], let inner = Self.opened(frame, tunnel.context) else { continue }
      var window = tunnel.windows[name.prefix] ?? ReplayWindow()
      guard window.accepts(name.counter) else { return }
      let isNewest = name.counter > window.highest
      window.record(name.counter)
      tunnel.windows[name.prefix] = window
      let isFirst = !tunnel.isConfirmed
      tunnel.isConfirmed = true
      tunnels[session] = tunnel
      peer.noteReceive()
      if isFirst { handle(.confirmed(session)) }
      peer.opened(inner, arrival, isNewest: isNewest)
      return
    }
    undecryptable += 1
    handle(.undecryptable(frame, arrival))
  }

  private static func opened(_ frame: [UInt8], _ context: AEADContext) -> [UInt8]? {
    var copy = frame
    let length = SealedFrame.innerCount(ofFrame: frame.count)
    let isAuthentic = copy.withUnsafeMutableBytes { bytes in
      guard let base = bytes.baseAddress else { return false }
      return AEADContext.open(
        context.raw, nonce: base + SealedFrame.nonceOffset, associated: base + SealedFrame.senderOffset,
        associatedLength: 4, text: base + SealedFrame.bodyOffset, length: length)
    }
    return isAuthentic ? Array(copy[SealedFrame.bodyOffset..<(SealedFrame.bodyOffset + length)]) : nil
  }
}
