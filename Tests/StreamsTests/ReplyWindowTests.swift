// Which SYNs of untrusted peers pass because we dialled them.

import Streams
import Testing

@Suite("Reply window")
struct ReplyWindowTests {
  private let second: UInt64 = 1_000_000_000

  @Test("it opens with a dial, for the ports of answers only, and closes five minutes after the last one")
  func lifetime() {
    var window = ReplyWindow()
    let start = 1000 * second
    #expect(!window.isOpen(7, start))
    window.note(7, start)
    for port: UInt16 in [444, 1001] { #expect(window.admits(7, port: port, start)) }
    for port: UInt16 in [0, 7, 443, 1000, 1002] { #expect(!window.admits(7, port: port, start)) }
    #expect(!window.admits(8, port: 444, start))
    #expect(window.isOpen(7, start + 300 * second - 1))
    #expect(!window.isOpen(7, start + 300 * second))
    window.note(7, start + 200 * second)
    #expect(window.isOpen(7, start + 400 * second))
    window.close(7)
    #expect(!window.isOpen(7, start + 201 * second))
  }

  @Test("a node that dials without end remembers a bounded number, and the newest of them")
  func bounds() {
    var window = ReplyWindow()
    for peer in 0..<UInt32(3 * ReplyWindow.mostPeers) { window.note(peer, UInt64(peer) + second) }
    #expect(window.count == ReplyWindow.mostPeers)
    let last = UInt32(3 * ReplyWindow.mostPeers) - 1
    #expect(window.isOpen(last, second + UInt64(last)))
    #expect(!window.isOpen(0, second + UInt64(last)))
    // Those that are over make room first.
    var later = ReplyWindow()
    for peer in 0..<UInt32(ReplyWindow.mostPeers) { later.note(peer, second) }
    later.note(999_999, 400 * second)
    #expect(later.count == 1)
  }
}
