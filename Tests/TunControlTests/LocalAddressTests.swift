// Which addresses of this machine are worth telling peers.

import Testing
import Wire

@testable import TunControl

@Suite("Addresses of this machine")
struct LocalAddressTests {
  @Test("deprecated, tentative and duplicate addresses of IPv6 are told apart; other lines count for nothing")
  func states() {
    func line(_ last: Int, _ flags: String) -> String {
      "20010db8000000020000000000000" + "00\(last) 04 40 00 \(flags)     eth0"
    }
    let table = [
      line(1, "80"), line(2, "01"), line(3, "21"), line(4, "40"), line(5, "c8"), line(6, "44"), "", "x y z 0 20 eth0",
      String(repeating: "g", count: 32) + " 04 40 00 20 eth0", "20010db8 04 40 00 20 eth0",
    ].joined(separator: "\n")
    let states = LocalAddresses.states(in: table)
    func state(_ last: UInt64) -> LocalAddresses.State? {
      states[IPv6Address(high: 0x2001_0DB8_0000_0002, low: last)]
    }
    #expect(states.count == 6)
    #expect(state(1) == .preferred && state(2) == .preferred, "permanent, temporary")
    #expect(state(3) == .deprecated)
    #expect(state(4) == .unproven && state(5) == .unproven)
    #expect(state(6) == .preferred, "optimistic (RFC 4429)")
  }
}
