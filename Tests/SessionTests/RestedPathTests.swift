// Which frames leave twice after a rest.

import Testing

@testable import Session

@Suite("Rested paths")
struct RestedPathTests {
  private let second: UInt64 = 1_000_000_000

  @Test("a fresh one, a path that nothing came by yet, and one that was heard lately: nothing leaves twice")
  func none() {
    var rested = RestedPath()
    #expect(rested.left == 0)
    rested.resume(now: 100 * second, lastOnPath: 0)
    #expect(rested.left == 0)
    rested.resume(now: 100 * second, lastOnPath: 80 * second)
    #expect(rested.left == 0)
  }

  @Test("after a rest 32 frames at most, within 2 s, until the first sign of life")
  func some() {
    var rested = RestedPath()
    rested.resume(now: 100 * second, lastOnPath: 79 * second)
    var taken = 0
    while rested.left > 0, rested.takesFrame(now: 100 * second, lastOnPath: 79 * second) { taken += 1 }
    #expect(taken == 32)

    rested.resume(now: 200 * second, lastOnPath: 79 * second)
    let early = rested.takesFrame(now: 200 * second, lastOnPath: 79 * second)
    let alive = rested.takesFrame(now: 200 * second + 1, lastOnPath: 200 * second)
    #expect(early && !alive && rested.left == 0)

    rested.resume(now: 300 * second, lastOnPath: 200 * second)
    let late = rested.takesFrame(now: 302 * second, lastOnPath: 200 * second)
    #expect(!late && rested.left == 0)
  }
}
