// The rate limit under a clock of our own.
import Naming
import Testing
import Wire

@Suite struct QueryLimiterTests {
  let second: UInt64 = 1_000_000_000
  let source = IPv6Address(high: 1, low: 1)

  @Test("a burst passes, then the rate, and silence fills the bucket to the brim only")
  func bucket() {
    var limiter = QueryLimiter(rate: 10, burst: 5, seed: 1)
    func run(_ count: Int, at now: UInt64) -> Int { (0..<count).filter { _ in limiter.admits(source, now: now) }.count }
    #expect(run(20, at: second) == 5)
    #expect(run(20, at: second) == 0)
    #expect(run(20, at: second + second / 10) == 1)
    #expect(run(20, at: second + second / 10 * 3) == 2)
    #expect(run(20, at: 1000 * second) == 5)
    #expect(run(20, at: .max) == 5)
  }

  @Test("a clock that steps back neither traps nor gives tokens")
  func backwards() {
    var limiter = QueryLimiter(rate: 1_000_000, burst: 1, seed: 1)
    let verdicts = [10, 5, 11].map { limiter.admits(source, now: $0 * second) }
    #expect(verdicts == [true, false, true])
  }

  @Test("sources do not pay for each other while there are slots")
  func independent() {
    var limiter = QueryLimiter(rate: 1, burst: 1, slots: 4096, seed: 7)
    let admitted = (0..<32).filter { limiter.admits(IPv6Address(high: 2, low: UInt64($0)), now: second) }.count
    #expect(admitted >= 30)
  }

  @Test("sources that meet in one slot share it, and an idle slot changes hands")
  func sharedSlot() {
    var limiter = QueryLimiter(rate: 1, burst: 1, slots: 1, seed: 7)
    let other = IPv6Address(high: 9, low: 9)
    let verdicts = [(source, 1), (other, 1), (other, 2), (source, 2)].map { limiter.admits($0.0, now: $0.1 * second) }
    #expect(verdicts == [true, false, true, false])
  }
}
