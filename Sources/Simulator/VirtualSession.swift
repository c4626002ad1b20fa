// What a VirtualPeer needs of a session, and the cheap kind for large meshes. The real kind is SealedSession.

import Session
import Wire

protocol VirtualSession: AnyObject {
  /// Frames can be sealed.
  var isReady: Bool { get }
  /// When `tick` is due, by the node's clock.
  var nextDeadline: UInt64? { get }
  /// Packets wait.
  func needed()
  /// Nothing comes back: does the peer still hold the session?
  func failing()
  func tick()
  func receive(_ payload: VirtualPayload, from arrival: Arrival)
  func seal(_ inner: [UInt8], padding: Int) -> VirtualPayload?
  /// Wipes keys.
  func end()
}

/// A session without cryptography: an exchange of epochs in place of keys, with the times and routes of
/// HandshakeMachine. It cannot be attacked or rekeyed; who restarts has another epoch, and the peer's frames for the
/// former one do not open.
final class PlainSession: VirtualSession {
  private static let gaps: [UInt64] = [250, 500, 1000, 2000, 4000].map { $0 * 1_000_000 }
  private static let needLasts: UInt64 = 15_000_000_000

  private unowned let peer: VirtualPeer
  private let epoch: UInt32
  private var peerEpoch: UInt32 = 0
  private var sendCounter: UInt64 = 0
  private var window = (highest: UInt64(0), seen: UInt64(0))
  private var neededAt: UInt64 = 0
  private var tries = 0
  private var nextTryAt: UInt64 = 0
  private var lastAskAt: UInt64 = 0

  init(peer: VirtualPeer, epoch: UInt32) {
    self.peer = peer
    self.epoch = epoch
  }

  var isReady: Bool { peerEpoch != 0 }
  var nextDeadline: UInt64? { nextTryAt == 0 ? nil : nextTryAt }

  func needed() {
    neededAt = peer.node.now
    guard !isReady, nextTryAt == 0 else { return }
    tries = 0
    attempt()
  }

  func failing() { complain(.both) }

  func tick() { if nextTryAt != 0, peer.node.now >= nextTryAt { attempt() } }

  func end() {}

  private func attempt() {
    nextTryAt = 0
    let now = peer.node.now
    guard !isReady, now <= neededAt + Self.needLasts else { return }
    let gap = Self.gaps[min(tries, Self.gaps.count - 1)]
    tries += 1
    nextTryAt = now + gap + peer.node.random(below: gap / 8)
    peer.transmit(.plain(frame(.ask)), .both)
    if tries == 1 || tries > 3 { peer.requestPunch() }
    peer.tried(tries)
  }

  /// Shows our epoch and asks for the peer's, at most once a second.
  private func complain(_ route: HandshakeMachine.Route) {
    guard lastAskAt == 0 || peer.node.now >= lastAskAt + 1_000_000_000 else { return }
    lastAskAt = peer.node.now
    peer.transmit(.plain(frame(.ask)), route)
  }

  func receive(_ payload: VirtualPayload, from arrival: Arrival) {
    guard case .plain(let frame) = payload else { return }
    switch frame.kind {
    case .ask, .answer:
      learn(frame.senderEpoch, arrival)
      if frame.kind == .ask { peer.transmit(.plain(self.frame(.answer)), .reply(arrival)) }
    case .sealed:
      guard frame.receiverEpoch == epoch, frame.senderEpoch == peerEpoch else { return complain(.reply(arrival)) }
      guard let isNewest = accept(frame.counter) else { return }
      peer.opened(frame.inner, arrival, isNewest: isNewest)
    }
  }

  private func learn(_ other: UInt32, _ arrival: Arrival) {
    let isNew = other > peerEpoch
    if isNew {
      peerEpoch = other
      window = (0, 0)
      nextTryAt = 0
    }
    if case .direct(let from) = arrival { peer.heard(from) } else { peer.heard(nil) }
    if isNew { peer.sessionReady() }
  }

  private func accept(_ counter: UInt64) -> Bool? {
    if counter > window.highest {
      let step = counter - window.highest
      window = (counter, step >= 64 ? 1 : window.seen << step | 1)
      return true
    }
    let age = window.highest - counter
    guard age < 64, window.seen & (1 << age) == 0 else { return nil }
    window.seen |= 1 << age
    return false
  }

  private func frame(_ kind: PlainFrame.Kind) -> PlainFrame {
    PlainFrame(
      kind: kind, sender: peer.node.id, receiver: peer.id, senderEpoch: epoch, receiverEpoch: peerEpoch)
  }

  func seal(_ inner: [UInt8], padding: Int) -> VirtualPayload? {
    guard isReady else { return nil }
    sendCounter += 1
    var sealed = frame(.sealed)
    sealed.counter = sendCounter
    sealed.inner = inner
    sealed.padding = padding
    return .plain(sealed)
  }
}
