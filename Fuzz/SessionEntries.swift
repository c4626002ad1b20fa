// One entry point per parser of Session, as Fuzz/WireEntries.swift has them for Wire. SessionTests replays the corpus
// and seeded mutations of it.

import Session
import Wire

typealias RoomEntry = SessionEntry

/// A parser, by the name of its corpus folder.
enum SessionEntry: String, CaseIterable {
  case announcement

  /// Of each seed, in the room's tests.
  static let mutations = 60

  /// Runs the parser. nil: it held what it promises; else the promise that was broken.
  func violation(_ bytes: [UInt8]) -> String? {
    switch self {
    case .announcement: Self.announcement(bytes)
    }
  }

  private static let identity = Identity(seed: Bytes32([UInt8](repeating: 3, count: 32)) ?? Bytes32())
  private static let x25519 = Bytes32([UInt8](repeating: 5, count: 32)) ?? Bytes32()
  private static let node: UInt32 = 1
  private static let receiver: UInt32 = 2

  /// The bytes are what follows offset 136 of a PILA, or the whole PILA.
  private static func announcement(_ bytes: [UInt8]) -> String? {
    if let whole = KeyExchangeFrame(bytes) {
      let isOurs = whole.extensionBytes.starts(with: Array("PTX1".utf8))
      let reading = PeerAnnouncement.read(whole, receiver: receiver)
      guard (reading == .absent) == !isOurs else { return "an announcement is told by other bytes than its magic" }
    }
    var frame = KeyExchangeFrame.signed(node: node, x25519: x25519, by: identity, announcing: nil)
    frame.extensionBytes = bytes
    switch PeerAnnouncement.read(frame, receiver: receiver) {
    case .absent:
      guard !bytes.starts(with: Array("PTX1".utf8)) else { return "an announcement is read as none" }
    case .invalid:
      guard bytes.starts(with: Array("PTX1".utf8)) else { return "bytes of somebody else are read as an announcement" }
    case .valid, .otherReceiver:
      guard bytes.count >= PeerAnnouncement.size else { return "a short announcement is taken" }
    }
    return signed(bytes, frame)
  }

  /// The same bytes with a right magic, length and signature, or no input would come past the signature.
  private static func signed(_ bytes: [UInt8], _ frame: KeyExchangeFrame) -> String? {
    guard bytes.count >= PeerAnnouncement.size else { return nil }
    var fields = Array("PTX1".utf8) + bytes[4..<(bytes.count - 64)]
    fields.replaceSubrange(6..<8, with: [UInt8(bytes.count >> 8 & 255), UInt8(bytes.count & 255)])
    guard bytes.count <= 0xFFFF else { return nil }
    var text = Array("pilot-tun announcement 1".utf8)
    text.appendBig(node)
    var genuine = frame
    genuine.extensionBytes = fields + identity.sign(text + x25519.bytes + fields).bytes
    let named = fields[8..<12].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    let expected = PeerAnnouncement(
      takesRawIPv6: fields[5] & 1 != 0, takesSplitPackets: fields[5] & 4 != 0, wantsAnswer: fields[5] & 2 != 0,
      receiver: named, echo: Bytes32(fields[12..<44]) ?? Bytes32())
    guard PeerAnnouncement.read(genuine, receiver: named) == .valid(expected) else {
      return "a genuine announcement is not read as it stands"
    }
    guard PeerAnnouncement.read(genuine, receiver: named ^ 1) == .otherReceiver(named) else {
      return "an announcement for another node is not told"
    }
    // One bit of it changed, chosen by the input; the magic's bits make it absent.
    let bit = bytes.reduce(0) { ($0 &* 31 &+ Int($1)) & 0xFFFF } % (bytes.count * 8)
    var twin = genuine
    twin.extensionBytes[bit / 8] ^= 1 << (bit % 8)
    guard PeerAnnouncement.read(twin, receiver: named) == (bit < 32 ? .absent : .invalid) else {
      return "a changed announcement is taken"
    }
    return nil
  }
}
