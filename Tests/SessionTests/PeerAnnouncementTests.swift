// The extension behind PILA: its layout, what it refuses, and what official daemons and later versions make of it.

import Session
import Simulator
import Testing
import Wire

@Suite("Announcement behind PILA")
struct PeerAnnouncementTests {
  let identity = Identity(seed: VirtualPair.seed(9))
  let x25519 = VirtualPair.seed(10)
  let echo = VirtualPair.seed(11)

  private func frame(receiver: UInt32 = 2) -> KeyExchangeFrame {
    KeyExchangeFrame.signed(
      node: 1, x25519: x25519, by: identity,
      announcing: PeerAnnouncement(
        takesRawIPv6: true, takesSplitPackets: true, wantsAnswer: true, receiver: receiver, echo: echo))
  }

  @Test("it travels behind offset 136 and reads back")
  func roundTrip() {
    let frame = frame()
    let bytes = frame.encoded()
    #expect(bytes.count == 136 + PeerAnnouncement.size)
    #expect(Array(bytes[136..<148]) == Array("PTX1".utf8) + [1, 7, 0, 108, 0, 0, 0, 2])
    #expect(
      KeyExchangeFrame(bytes).map { PeerAnnouncement.read($0, receiver: 2) }
        == .valid(
          PeerAnnouncement(takesRawIPv6: true, takesSplitPackets: true, wantsAnswer: true, receiver: 2, echo: echo)))
  }

  @Test("every flipped bit is refused or read as absent, never as something else")
  func flippedBits() {
    for bit in 0..<(PeerAnnouncement.size * 8) {
      var twin = frame()
      twin.extensionBytes[bit / 8] ^= 1 << (bit % 8)
      let reading = PeerAnnouncement.read(twin, receiver: 2)
      #expect(reading == (bit < 32 ? .absent : .invalid), "bit \(bit)")
    }
  }

  @Test("cut short at any byte it is absent or invalid; bytes behind it are ignored")
  func lengths() {
    for length in 0..<PeerAnnouncement.size {
      var twin = frame()
      twin.extensionBytes = Array(twin.extensionBytes[..<length])
      #expect(PeerAnnouncement.read(twin, receiver: 2) == (length < 4 ? .absent : .invalid))
    }
    var longer = frame()
    longer.extensionBytes += [1, 2, 3]
    guard case .valid = PeerAnnouncement.read(longer, receiver: 2) else {
      Issue.record("bytes behind the announcement must not matter")
      return
    }
  }

  @Test("made for another node it says so; under another X25519 key or node it is invalid")
  func binding() {
    #expect(PeerAnnouncement.read(frame(receiver: 3), receiver: 2) == .otherReceiver(3))
    var other = frame()
    other.x25519 = echo
    #expect(PeerAnnouncement.read(other, receiver: 2) == .invalid)
    other = frame()
    other.node = 5
    #expect(PeerAnnouncement.read(other, receiver: 2) == .invalid)
  }

  @Test("a later version with more fields and unknown flags is read like this one")
  func laterVersion() {
    var fields = Array(frame().extensionBytes[..<44])
    fields[4] = 9
    fields[5] = 0xF1
    fields[7] = UInt8(PeerAnnouncement.size + 6)
    fields += [1, 2, 3, 4, 5, 6]
    var text = Array("pilot-tun announcement 1".utf8)
    text.appendBig(UInt32(1))
    text += x25519.bytes + fields
    var later = frame()
    later.extensionBytes = fields + identity.sign(text).bytes
    #expect(
      PeerAnnouncement.read(later, receiver: 2)
        == .valid(
          PeerAnnouncement(
            takesRawIPv6: true, takesSplitPackets: false, wantsAnswer: false, receiver: 2, echo: echo)))
  }
}
