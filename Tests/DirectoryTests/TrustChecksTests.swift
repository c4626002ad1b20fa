// What a message has to prove: each check of wire/tunnel §7.1 against one that forges or repeats.

import Session
import Testing
import Wire

@testable import Directory

@Suite("Trust checks")
struct TrustChecksTests {
  private let now: Int64 = 1_790_000_000
  private let me: UInt32 = 2
  private let peer = Identity.generate()

  private func sender(_ node: UInt32 = 9, isKeyDoubted: Bool = false) -> TrustSender {
    TrustSender(node: node, key: peer.publicKey, isKeyDoubted: isKeyDoubted)
  }

  private func message(
    _ kind: TrustMessage.Kind = .request, node: UInt32 = 9, to receiver: UInt32 = 2, at time: Int64? = nil,
    change: (inout TrustMessage) -> Void = { _ in }
  ) -> [UInt8] {
    var message = TrustMessage(
      kind: kind, node: node, publicKey: peer.publicKey,
      signature: peer.sign(TrustMessage.signedText(from: node, to: receiver)),
      timestamp: time ?? now)
    change(&message)
    return message.encoded
  }

  /// The refusal of a fresh check; nil when the message is taken.
  private func refusal(_ bytes: [UInt8], from sender: TrustSender, to receiver: UInt32 = 2) -> TrustRefusal? {
    var checks = TrustChecks()
    return refusal(&checks, bytes, from: sender, to: receiver, now: now)
  }

  private func refusal(
    _ checks: inout TrustChecks, _ bytes: [UInt8], from sender: TrustSender, to receiver: UInt32 = 2, now: Int64
  ) -> TrustRefusal? {
    do {
      _ = try checks.admit(bytes, from: sender, to: receiver, now: now)
      return nil
    } catch {
      return error
    }
  }

  @Test("a genuine message of each kind is taken", arguments: TrustMessage.Kind.allCases)
  func genuine(kind: TrustMessage.Kind) throws {
    var checks = TrustChecks()
    let read = try checks.admit(message(kind), from: sender(), to: me, now: now)
    #expect(read.kind == kind && read.node == 9)
  }

  @Test("an official daemon's message is taken by the node that it is for, and by no other")
  func captured() throws {
    let vector = try TrustVector.load(["captured_accept"])
    let read = try TrustMessage(parsing: vector.message)
    let sender = TrustSender(node: read.node, key: read.publicKey)
    var checks = TrustChecks()
    #expect(refusal(&checks, vector.message, from: sender, to: vector.receiver, now: read.timestamp) == nil)
    var others = TrustChecks()
    #expect(
      refusal(&others, vector.message, from: sender, to: vector.receiver + 1, now: read.timestamp) == .badSignature)
  }

  @Test("a message under another node's id than that of the tunnel is refused, however genuine")
  func otherSender() {
    #expect(refusal(message(node: 9), from: sender(10)) == .otherSender)
    #expect(refusal(message(node: 10), from: sender(9)) == .otherSender)
  }

  @Test("a message without a key, or with another than the tunnel's, is refused")
  func keys() {
    let other = Identity.generate()
    #expect(refusal(message { $0.publicKey = nil }, from: sender()) == .keyMissing)
    #expect(refusal(message { $0.publicKey = other.publicKey }, from: sender()) == .otherKey)
    // The other key's owner signs as well as anybody.
    let forged = message {
      $0.publicKey = other.publicKey
      $0.signature = other.sign(TrustMessage.signedText(from: 9, to: 2))
    }
    #expect(refusal(forged, from: sender()) == .otherKey)
    #expect(refusal(message(), from: TrustSender(node: 9, key: nil)) == .keyUnavailable)
  }

  @Test("a peer for which the directory names another key may withdraw trust, and nothing else")
  func doubted() {
    for kind in TrustMessage.Kind.allCases {
      #expect(refusal(message(kind), from: sender(isKeyDoubted: true)) == (kind == .revoke ? nil : .otherKey))
    }
  }

  @Test("a signature that is missing, changed, of another pair of nodes or the other way round is refused")
  func signatures() throws {
    #expect(refusal(message { $0.signature = nil }, from: sender()) == .badSignature)
    #expect(refusal(message(to: 3), from: sender()) == .badSignature)
    #expect(refusal(message { $0.signature = peer.sign(Array("handshake:2:9".utf8)) }, from: sender()) == .badSignature)
    #expect(refusal(message { $0.signature = peer.sign(Array("respond:9:2".utf8)) }, from: sender()) == .badSignature)
    let right = peer.sign(TrustMessage.signedText(from: 9, to: 2)).bytes
    for bit in stride(from: 0, to: 512, by: 31) {
      var bytes = right
      bytes[bit / 8] ^= 1 << (bit % 8)
      let twin = try #require(Bytes64(bytes))
      #expect(refusal(message { $0.signature = twin }, from: sender()) == .badSignature, "bit \(bit)")
    }
  }

  @Test("a message is good for 300 seconds, and 30 before its time")
  func age() {
    #expect(refusal(message(at: now - 300), from: sender()) == nil)
    #expect(refusal(message(at: now - 301), from: sender()) == .expired)
    #expect(refusal(message(at: now + 30), from: sender()) == nil)
    #expect(refusal(message(at: now + 31), from: sender()) == .fromFuture)
    #expect(refusal(message(at: .min), from: sender()) == .expired)
    #expect(refusal(message(at: .max), from: sender()) == .fromFuture)
  }

  @Test("a repetition is refused for as long as it would be young enough, whatever its reason says")
  func repetition() {
    var checks = TrustChecks()
    let first = message(at: now + 30)
    #expect(refusal(&checks, first, from: sender(), now: now) == nil)
    #expect(refusal(&checks, first, from: sender(), now: now) == .repeated)
    let reworded = message(at: now + 30) { $0.justification = "other words" }
    #expect(refusal(&checks, reworded, from: sender(), now: now + 5) == .repeated)
    #expect(refusal(&checks, first, from: sender(), now: now + 330) == .repeated)
    #expect(refusal(&checks, first, from: sender(), now: now + 331) == .expired)
    // Another second, another kind: another message.
    #expect(refusal(&checks, message(at: now + 29), from: sender(), now: now) == nil)
    #expect(refusal(&checks, message(.revoke, at: now + 30), from: sender(), now: now) == nil)
  }

  @Test("what was refused is not remembered: the genuine message that follows is taken")
  func poisoning() {
    var checks = TrustChecks()
    #expect(refusal(&checks, message { $0.signature = Bytes64() }, from: sender(), now: now) == .badSignature)
    #expect(checks.remembered == 0)
    #expect(refusal(&checks, message(), from: sender(), now: now) == nil)
  }

  @Test("the memory is bounded, per peer and in all")
  func memory() throws {
    var checks = TrustChecks()
    for second in 0..<Int64(2 * TrustChecks.mostOfPeer) {
      #expect(refusal(&checks, message(at: now - 200 + second), from: sender(), now: now) == nil)
    }
    #expect(checks.remembered == TrustChecks.mostOfPeer)
    var crowd = TrustChecks(mostPeers: 50)
    for node in 1...70 as ClosedRange<UInt32> {
      let bytes = message(node: node)
      #expect(refusal(&crowd, bytes, from: sender(node), now: now + Int64(node) / 100) == nil)
    }
    #expect(crowd.remembered == 50)
  }

  @Test("garbage and kinds of later versions have names of their own")
  func codec() {
    #expect(refusal([], from: sender()) == .malformed)
    let later = String(decoding: message(), as: UTF8.self).split(separator: "handshake_request").joined(separator: "x")
    #expect(refusal(Array(later.utf8), from: sender()) == .unknownKind)
  }

  @Test("our own messages are taken by such checks, several of a kind within one second, too")
  func writer() throws {
    var writer = TrustWriter()
    var checks = TrustChecks()
    let signer = RegistrySigner(node: 9, identity: peer)
    for _ in 0..<15 {
      let bytes = writer.message(.revoke, to: me, as: signer, reason: "r", now: now).encoded
      #expect(refusal(&checks, bytes, from: sender(), now: now) == nil)
    }
    // A clock that goes on brings the times back to it.
    #expect(writer.message(.accept, to: me, as: signer, now: now + 100).timestamp == now + 100)
    // And one that was set back does not leave them in the future.
    #expect(writer.message(.accept, to: me, as: signer, now: now - 5000).timestamp <= now - 5000 + 30)
  }
}
