// Whose an id is at a beacon without a registry.

import Session
import Testing
import Wire

@testable import Rendezvous

@Suite struct OpenAuthorityTests {
  /// Of another registry: such ids follow from no key.
  private let node: UInt32 = 7
  private let hour = 3_600

  @Test("an id belongs to the key that proved itself first, as long as the node is seen and a day longer")
  func lifetime() {
    let clock = TestClock()
    let authority = OpenAuthority(clock: { clock.milliseconds() })
    let (key, stranger) = (TestNode().identity.publicKey, TestNode().identity.publicKey)
    authority.noteOwner(of: node, key)
    for _ in 0..<72 {
      clock.advance(seconds: hour)
      authority.noteSeen(node, key)
      authority.noteSeen(node, stranger)
      authority.sweep()
      #expect(authority.owns(node, key) && !authority.owns(node, stranger))
    }
    for _ in 0..<25 {
      clock.advance(seconds: hour)
      authority.noteSeen(node, stranger)
      authority.sweep()
    }
    #expect(authority.owns(node, stranger), "away for a day")
  }

  @Test("a million ids of nodes that are away keep nobody out")
  func full() {
    let clock = TestClock()
    let authority = OpenAuthority(capacity: 100, clock: { clock.milliseconds() })
    let (key, stranger) = (TestNode().identity.publicKey, TestNode().identity.publicKey)
    for node in UInt32(1)...100 { authority.noteOwner(of: node, key) }
    #expect(authority.owns(101, stranger), "served all the same")
    clock.advance(seconds: hour)
    authority.noteSeen(5, key)
    authority.noteOwner(of: 101, stranger)
    #expect(!authority.owns(101, key) && !authority.owns(5, stranger))
    #expect(authority.owns(6, stranger), "away: made room")
  }
}
