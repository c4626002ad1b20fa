// What pilot-tun says behind offset 136 of its PILA frames. Official daemons ignore these bytes (wire/tunnel §11).
// HandshakeMachine writes and reads it.

package import Wire

/// The announcement of a pilot-tun node; all integers big-endian.
///
///     0        4      5      6        8           12                44              length
///     | "PTX1" | ver  | flag | length | receiver  | echo (32)       | (signature 64) |
///
/// - version 1. A later version only appends fields between `echo` and the signature and gives flags a meaning, so a
///   higher version is read like this one and unknown flags mean nothing.
/// - flags: bit 0, takes raw IPv6 inner frames; bit 1, an answer is wanted: the sender has no proof yet that the
///   receiver holds its key; bit 2, joins packets that come in two frames (Wire's `SplitFrame`).
/// - length: of the whole announcement, signature included: 108 in version 1. Bytes behind it are ignored.
/// - receiver: the node the frame is made for. A PILA itself names no receiver and could be shown to a third node.
/// - echo: the receiver's X25519 key that the sender holds, zeros when it holds none. It stops needless answers, and
///   an echo of a key that was just made proves that the frame is no recording.
/// - signature: Ed25519 over `"pilot-tun announcement 1" || sender node u32 || sender X25519 || bytes before the
///   signature`. The leading text keeps it apart from every other signature of the protocol.
package struct PeerAnnouncement: Equatable, Sendable {
  package var takesRawIPv6: Bool
  package var takesSplitPackets: Bool
  package var wantsAnswer: Bool
  package var receiver: UInt32
  package var echo: Bytes32

  package static let size = 108
  static let magic: UInt32 = 0x5054_5831
  private static let domain = Array("pilot-tun announcement 1".utf8)

  package init(
    takesRawIPv6: Bool, takesSplitPackets: Bool, wantsAnswer: Bool, receiver: UInt32, echo: Bytes32
  ) {
    self.takesRawIPv6 = takesRawIPv6
    self.takesSplitPackets = takesSplitPackets
    self.wantsAnswer = wantsAnswer
    self.receiver = receiver
    self.echo = echo
  }

  /// What reading an extension found.
  package enum Reading: Equatable, Sendable {
    /// No announcement: an official daemon.
    case absent
    /// Ours by its magic, but cut short, of impossible length, or with a wrong signature. Handled as absent, counted.
    case invalid
    /// Genuine, but made for another node: the whole frame is refused.
    case otherReceiver(UInt32)
    case valid(PeerAnnouncement)
  }

  /// The extension bytes for a PILA of this node and key.
  package func encoded(node: UInt32, x25519: Bytes32, by identity: Identity) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(Self.size)
    bytes.appendBig(Self.magic)
    bytes.append(1)
    bytes.append((takesRawIPv6 ? 1 : 0) | (wantsAnswer ? 2 : 0) | (takesSplitPackets ? 4 : 0))
    bytes.appendBig(UInt16(Self.size))
    bytes.appendBig(receiver)
    bytes += echo.bytes
    return bytes + identity.sign(Self.signedText(node: node, x25519: x25519, bytes[...])).bytes
  }

  /// Reads the extension of a PILA whose own signature was already checked.
  package static func read(_ frame: KeyExchangeFrame, receiver: UInt32) -> Reading {
    var reader = ByteReader(frame.extensionBytes)
    guard reader.u32() == magic else { return .absent }
    guard reader.byte() != nil, let flags = reader.byte(), let length = reader.u16().map(Int.init),
      length >= size, length <= frame.extensionBytes.count, let named = reader.u32(), let echo = reader.bytes32(),
      let signature = Bytes64(frame.extensionBytes[(length - 64)..<length])
    else { return .invalid }
    let text = signedText(node: frame.node, x25519: frame.x25519, frame.extensionBytes[..<(length - 64)])
    guard Ed25519.verify(signature, of: text, by: frame.ed25519) else { return .invalid }
    guard named == receiver else { return .otherReceiver(named) }
    return .valid(
      PeerAnnouncement(
        takesRawIPv6: flags & 1 != 0, takesSplitPackets: flags & 4 != 0, wantsAnswer: flags & 2 != 0,
        receiver: named, echo: echo))
  }

  private static func signedText(node: UInt32, x25519: Bytes32, _ fields: ArraySlice<UInt8>) -> [UInt8] {
    var text = domain
    text.appendBig(node)
    text += x25519.bytes
    return text + fields
  }
}

extension KeyExchangeFrame {
  /// Our own PILA, with or without an announcement.
  package static func signed(
    node: UInt32, x25519: Bytes32, by identity: Identity, announcing announcement: PeerAnnouncement?
  ) -> KeyExchangeFrame {
    KeyExchangeFrame(
      node: node, x25519: x25519, ed25519: identity.publicKey,
      signature: identity.sign(signedText(node: node, x25519: x25519)),
      extensionBytes: announcement?.encoded(node: node, x25519: x25519, by: identity) ?? [])
  }

  /// Whether the frame is signed by the key that it names.
  package var hasValidSignature: Bool { Ed25519.verify(signature, of: signedText, by: ed25519) }
}
