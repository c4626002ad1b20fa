import Session
import Testing
import Wire

@testable import TunControl

@Suite("Answers before the directory's", .serialized) struct AdvanceAnswerTests {
  private let server = Identity(seed: Bytes32([UInt8](repeating: 1, count: 32))!)
  private let client = Identity(seed: Bytes32([UInt8](repeating: 2, count: 32))!)

  private func frame(to receiver: UInt32, announces: Bool = true) -> KeyExchangeFrame {
    var entropy = SystemRandomNumberGenerator()
    let pair = X25519KeyPair(using: &entropy)
    return KeyExchangeFrame.signed(
      node: 7, x25519: pair.publicKey, by: client,
      announcing: announces
        ? PeerAnnouncement(
          takesRawIPv6: true, takesSplitPackets: true, wantsAnswer: true, receiver: receiver, echo: Bytes32()) : nil)
  }

  private func answer(_ frame: KeyExchangeFrame) -> AdvanceAnswer? {
    var entropy = SystemRandomNumberGenerator()
    return AdvanceAnswer(
      frame, .relayed, identity: server, node: 9, now: 1_000_000_000, using: &entropy)
  }

  @Test("The reply echoes the key, and the session is held until it is adopted or given back")
  func replies() throws {
    let before = AEADContext.inUse
    let question = frame(to: 9)
    let advance = try #require(answer(question))
    let reply = try #require(advance.replies.first.flatMap { KeyExchangeFrame($0) })
    #expect(advance.replies.count == 1)
    #expect(reply.ed25519 == server.publicKey)
    guard case .valid(let announcement) = PeerAnnouncement.read(reply, receiver: 7) else {
      Issue.record("the reply carries no announcement")
      return
    }
    #expect(announcement.echo == question.x25519)
    #expect(AEADContext.inUse == before + 1)
    #expect(advance.held.contains { if case .install = $0 { true } else { false } })
    #expect(!advance.held.contains { if case .send = $0 { true } else { false } })
    advance.discard()
    #expect(AEADContext.inUse == before)
  }

  @Test("Frames that may be recordings, or are forged, get no answer ahead")
  func refuses() {
    let before = AEADContext.inUse
    #expect(answer(frame(to: 9, announces: false)) == nil)
    #expect(answer(frame(to: 10)) == nil)
    var bytes = frame(to: 9).encoded()
    bytes[10] ^= 1
    #expect(KeyExchangeFrame(bytes).map { answer($0) == nil } == true)
    #expect(AEADContext.inUse == before)
  }
}
