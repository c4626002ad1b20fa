// Messages of one segment on streams of their own: the trust handshake of port 444 (wire/tunnel §7.1), both ways.

import Streams
import Wire

/// A message of ours on its way.
struct OutgoingMessage {
  var to: PilotAddress
  var port: UInt16
  var bytes: [UInt8]
  var stream: StreamID?
  var isWritten = false
  var isDelivered = false
  var deadline: UInt64
  var done: @Sendable (Bool) -> Void
}

extension GatewayLoop {
  static let messageLimit = 256

  func queueMessage(
    _ bytes: [UInt8], to peer: PilotAddress, port: UInt16, _ done: @escaping @Sendable (Bool) -> Void
  ) {
    guard messages.count < Self.messageLimit, bytes.count <= StreamLimits.segmentSize else { return done(false) }
    nextMessage &+= 1
    messages[nextMessage] = OutgoingMessage(
      to: peer, port: port, bytes: bytes, deadline: now + 15 * Self.second, done: done)
    if peers[peer.node]?.isReady == true {
      startMessage(nextMessage)
    } else {
      tell(.wanted(peer))
    }
  }

  func startMessages(to node: UInt32) {
    for (number, message) in messages where message.to.node == node && message.stream == nil { startMessage(number) }
  }

  func failMessages(to node: UInt32) {
    for (number, message) in messages where message.to.node == node && message.stream == nil {
      messages[number] = nil
      message.done(false)
    }
  }

  private func startMessage(_ number: UInt32) {
    guard let message = messages[number], let own = ownAddress(in: message.to.network),
      let stream = streams.dial(from: own, to: message.to, port: message.port, now: now)
    else {
      messages.removeValue(forKey: number)?.done(false)
      return
    }
    messages[number]?.stream = stream
    owners[stream] = .message(number)
    noteDial(of: message.to.node)
  }

  func messageOpened(_ number: UInt32) {
    guard let message = messages[number], let stream = message.stream else { return }
    _ = streams.write(stream, message.bytes, now: now)
    messages[number]?.isWritten = true
  }

  func messageChanged(_ number: UInt32) {
    guard let message = messages[number], let stream = message.stream else { return }
    streams.look(stream)
    _ = streams.read(stream, .max, now: now)
    guard message.isWritten, !message.isDelivered, streams.isFlushed(stream) else { return }
    // The receiver reads once and answers by a stream of its own; official daemons wait as long before their FIN.
    messages[number]?.isDelivered = true
    messages[number]?.deadline = now + Self.second / 2
    message.done(true)
  }

  func messageClosed(_ number: UInt32, _ end: StreamEnd) {
    guard let message = messages.removeValue(forKey: number), !message.isDelivered else { return }
    // The acknowledgement may have come with the peer's end.
    message.done(message.isWritten && end == .finished)
  }

  func expire(_ message: OutgoingMessage, _ number: UInt32) {
    if message.isDelivered, let stream = message.stream {
      messages[number]?.deadline = .max
      streams.close(stream, now: now)
    } else {
      messages[number] = nil
      message.done(false)
      if let stream = message.stream { streams.abort(stream, now: now) }
    }
  }

  /// The first segment is the message; what comes behind it is not read as one.
  func readInbox(_ id: StreamID) {
    streams.look(id)
    let bytes = streams.read(id, .max, now: now)
    guard !bytes.isEmpty, inboxes[id] != nil, let node = streams.ends(of: id)?.remote.node else { return }
    inboxes[id] = now + 2 * Self.second
    owners[id] = .discard
    tell(.handshakeMessage(bytes, from: node))
  }
}
