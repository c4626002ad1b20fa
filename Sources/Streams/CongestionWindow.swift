// How much may be in flight: CUBIC (RFC 9438) in bytes, with another idea of what congestion is.
//
// A stream has few segments in flight, 129 (150 KB) on a way with losses, and crosses a tunnel whose losses are often a
// radio's. So a few lost segments alone are no sign of congestion: a round trip in which more than a twelfth of the
// bytes was lost is, and so is a round trip of twice the least one.

import Wire

struct CongestionWindow: Sendable {
  private static let beta = 0.7
  private static let scale = 0.4
  private static let segment = Double(StreamLimits.segmentSize)
  /// wire/tunnel §5.5: what the deployed daemons begin with.
  private static let initial = 40_960.0
  private static let least = 4 * segment
  private static let most = Double(StreamLimits.windowSegments + 1) * segment

  private var size = initial
  private var threshold = Double.infinity
  private var before = 0.0
  private var epoch: UInt64?
  private var plateau = 0.0

  var bytes: Int { Int(size) }
  /// 0 before the first congestion.
  var slowStartThreshold: Int { threshold.isFinite ? Int(threshold) : 0 }

  /// `count` bytes were acknowledged while the window was what held the sender back.
  mutating func grow(_ count: Int, now: UInt64, roundTrip: UInt64) {
    guard size < Self.most else { return }
    if size < threshold {
      size = min(size + Double(count), Self.most)
      return
    }
    if epoch == nil {
      epoch = now
      if before < size { before = size }
      plateau = cbrt((before - size) / Self.segment / Self.scale)
    }
    let elapsed = Double(now - (epoch ?? now) + roundTrip) / 1e9
    let distance = elapsed - plateau
    let target = before + Self.scale * distance * distance * distance * Self.segment
    // At least as fast as the additive increase of Reno with the same factor (RFC 9438 §4.3).
    let reno = 3 * (1 - Self.beta) / (1 + Self.beta) * Self.segment * Double(count) / size
    let step = max((min(target, size * 1.5) - size) * Double(count) / size, reno)
    size = min(size + step, Self.most)
  }

  /// A round trip ended: whether it was one of congestion.
  mutating func endRound(delivered: Int, lost: Int, roundTrip: UInt64, least: UInt64) {
    let isLossy = lost * 12 > delivered + lost && lost > 2 * StreamLimits.segmentSize
    let isQueued = roundTrip > 2 * least + 10 * StreamLimits.millisecond
    if isLossy || isQueued { shrink() }
  }

  private mutating func shrink() {
    before = size
    size = max(size * Self.beta, Self.least)
    threshold = size
    epoch = nil
  }

  /// The retransmission timer ran out.
  mutating func collapse() {
    shrink()
    size = Self.least / 2
  }

  private func cbrt(_ value: Double) -> Double {
    guard value > 0 else { return 0 }
    var root = value > 1 ? value / 3 : 1
    for _ in 0..<40 { root = (2 * root + value / (root * root)) / 3 }
    return root
  }
}
